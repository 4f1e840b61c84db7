"""pymtp verify: proof on this machine that drafts change nothing, and what they gain."""
from __future__ import annotations

from typing import Any

import click

from .base import bold, command, echo_json, json_option, offline_option, or_leave, printable, status, with_options
from .models import DRAFTER, LOADING, REFERENCE, find, opened
from .run import DraftType


@command(short_help="Prove that drafts change nothing.", examples="""
pymtp verify gemma4-e2b
pymtp verify target.gguf --drafter mtp-drafter.gguf --depth 2 --depth 16
""")
@REFERENCE
@DRAFTER
@click.option("--tokens", type=click.IntRange(2), default=48, show_default=True, help="Tokens of each generation.")
@click.option("--depth", "depths", multiple=True, type=DraftType(), help="Drafts in a round. May be given several times. Default: 1 3 8 auto.")
@with_options(LOADING)
@offline_option
@json_option
def verify(target: str, drafter: str, tokens: int, depths: tuple[Any, ...], offline: bool, as_json: bool, **loading: Any) -> None:
    """Prove that the drafts for MODEL change nothing: prompts of four kinds, greedy and sampled, without drafts and at several depths.

    Token ids are compared; exit code 1 when any differs. The speed-up is that of the last depth.
    """
    from ..verify import DEPTHS, verify as compare

    with opened(find(target, drafter, offline), **loading) as model, status() as line:
        done = or_leave(lambda: compare(model, tokens, depths or DEPTHS, progress=line))
    if as_json:
        echo_json(done)
    else:
        click.echo("\n".join(lines(done)))
    if not done["same_output"]:
        raise click.ClickException("drafts changed the output, which must never happen: please report it with the file and this command")


def lines(done: dict[str, Any]) -> list[str]:
    """A line for each prompt and way of sampling, then the verdict."""
    depths = [d["depth"] for d in done["runs"][0]["depths"]]
    out = [f"{printable(done['model']) or 'unnamed'}, drafts by {printable(done['drafter']) or 'unnamed'}; {done['cpu']}, {done['threads']} threads",
           bold(f"{'tokens/s':18}" + "".join(f"{name:>14}" for name in ["no drafts", *(f"depth {d}" for d in depths)]))]
    for run in done["runs"]:
        cells = [f"{run['tokens_per_second']:.1f}", *(cell(d) for d in run["depths"])]
        out.append(f"{run['workload'] + ', ' + run['sampling']:18}" + "".join(f"{c:>14}" for c in cells))
    compared = sum(run["tokens"] for run in done["runs"]) * len(depths)
    if done["same_output"]:
        return [*out, bold(f"same output: {compared} tokens compared; speed-up {done['speedup']:.2f} at depth {depths[-1]}")]
    return [*out, bold("OUTPUT DIFFERS")]


def cell(depth: dict[str, Any]) -> str:
    if depth["same_output"]:
        return f"{depth['tokens_per_second']:.1f} same"
    return f"token {depth['first_difference']} DIFFERS"
