"""Models by name: what is in the catalogue, what is on this machine, and fetching the rest from the Hugging Face Hub.

    pair = pymtp.hub.resolve("gemma4-e2b")           # pulls what is missing
    with pymtp.Model(pair.target, pair.drafter) as model: ...

A reference is a catalogue name with an optional tag ("gemma4-26b", "gemma4-26b:q8_0"), "demo", a repository of the Hub ("hf.co/user/repo",
"hf:user/repo:Q4_K_M", "user/repo:Q4_K_M"), a GGUF file or a folder. Files lie in the Hub's own cache, shared with other tools;
HF_HOME, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE mean what they mean there. Every failure is a pymtp.Error of one line.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

from .types import Entry, Removal, Resolved

DEMO = "demo"  # the small pair inside the package

if TYPE_CHECKING:
    from .known import Model
    from .progress import Progress


def resolve(reference: str, drafter: str | None = "auto", offline: bool | None = None, progress: "Progress | None" = None) -> Resolved:
    """The pair a reference names. What is on this machine is used as it is, without asking the network; what is not is pulled,
    unless offline (default: HF_HUB_OFFLINE). Counts as a use in installed().

    drafter: "auto", None for none, or a path or reference of one. One that does not fit is refused with a MismatchError when it
    was named; with "auto" it is passed over and a warning says why. progress: None shows bars when stderr is a terminal."""
    from .pulling import resolve

    return resolve(reference, drafter, offline, progress)


def is_name(reference: str) -> bool:
    """Whether a reference names a model of the catalogue or the Hub, and not a path."""
    from .known import load
    from .reference import is_name

    return is_name(reference, load())


def pull(reference: str, drafter: str | None = "auto", progress: "Progress | None" = None) -> Resolved:
    """Fetches what a reference names in its newest version, verifies files and pair, and records it. Continues what was
    interrupted; fetches nothing that is here. A local path is only checked."""
    from .pulling import pull

    return pull(reference, drafter, progress)


def installed() -> list[Entry]:
    """The pulled models, by name. Never touches the network."""
    from .records import installed

    return installed()


def remove(name: str) -> Removal:
    """What removing a pulled model would delete: only files that no other name uses. Nothing is deleted before its execute()."""
    from .records import plan_removal

    return plan_removal(name)


def catalogue() -> "list[Model]":
    """The models known by name: the package's catalogue.json, with entries of the user's file added or in their place."""
    from .known import load

    return load()


__all__ = ["DEMO", "Entry", "Removal", "Resolved", "catalogue", "installed", "is_name", "pull", "remove", "resolve"]
