"""From a name on the command line to an open model: resolved (and pulled where it is not here), checked against the memory, loaded.

Every command that takes a model goes through here, so that a name means the same everywhere.
"""
from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Iterator

import click

from .base import Reference, or_leave, setting, status, warn

if TYPE_CHECKING:
    from ..hub import Resolved
    from ..model import Model

REFERENCE = click.argument("target", type=Reference(), metavar="MODEL")
DRAFTER = click.option("--drafter", default="auto", show_default=True,
                       help="Path or name of the drafter, none, or auto: the one that belongs to the model.")
THREADS = setting("--threads", type=click.IntRange(1, 256), help="Default: one per core.")
KV = setting("--kv", type=click.Choice(["f16", "f32", "q8_0"]), default="f16", show_default=True, help="How keys and values are stored.")
FORCE = click.option("--force", is_flag=True, help="Load even if the memory does not seem to suffice.")
LOADING = [setting("--context", type=click.IntRange(1), help="Positions. Default: the model's maximum."), THREADS, KV, FORCE]


def find(reference: str, drafter: str = "auto", offline: bool = False) -> "Resolved":
    """The pair that a reference names, pulled if it has to be. Warnings go to stderr."""
    from .. import hub

    pair = hub.resolve(reference, None if drafter == "none" else drafter, True if offline else None)
    for text in pair.warnings:
        warn(text)
    return pair


@contextlib.contextmanager
def opened(pair: "Resolved", context: int | None = None, threads: int | None = None, kv: str = "f16", force: bool = False) -> Iterator["Model"]:
    """The open model of a pair, closed afterwards. Refused with an OutOfMemoryError where it cannot fit, unless forced."""
    from ..memory import check
    from ..model import Model

    options: dict[str, Any] = {"threads": threads, "context": context, "kv": kv}
    with status(f"loading {pair.name}"):
        if not force:
            check(pair.target, pair.drafter, context, kv, threads)
        model = or_leave(lambda: Model(pair.target, pair.drafter, **options))
    with model:
        yield model
