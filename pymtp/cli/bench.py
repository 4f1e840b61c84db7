"""pymtp bench: how fast a model runs here, as a share of what the machine can do."""
from __future__ import annotations

from typing import Any

import click

from .base import bold, command, echo_json, json_option, offline_option, or_leave, printable, setting, size, status
from .models import DRAFTER, FORCE, KV, REFERENCE, THREADS, find, opened
from .run import DraftType

KINDS = ("passes", "prompt", "pairs")


class Contexts(click.ParamType):
    name = "N,N,..."

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, tuple):
            return value
        if not all(part.strip().isdecimal() and len(part) < 20 for part in value.split(",")):
            self.fail(f"expected numbers of tokens separated by commas, found {value!r}", param, ctx)
        return tuple(dict.fromkeys(int(part) for part in value.split(",")))


@command(short_help="Measure the machine and a model.", examples="""
pymtp bench gemma4-26b --quick
pymtp bench target.gguf --context 0,4096,32768 --only passes
pymtp bench gemma4-e2b --only pairs --json
""")
@REFERENCE
@DRAFTER
@click.option("--context", "contexts", type=Contexts(), default="0,4096", show_default=True, help="Tokens in the cache while passes are timed.")
@click.option("--reps", type=click.IntRange(1), default=5, show_default=True, help="Rounds of each measurement; medians are shown.")
@click.option("--tokens", type=click.IntRange(2), default=64, show_default=True, help="Tokens of each generation with and without drafts.")
@setting("--draft", type=DraftType(), default="auto", show_default=True, help="Drafts in a round of these.")
@click.option("--only", multiple=True, type=click.Choice(KINDS), help="Measure only this. May be given several times.")
@click.option("--quick", is_flag=True, help="An orientation: context 0, few rounds, short generations.")
@THREADS
@KV
@FORCE
@offline_option
@json_option
def bench(target: str, drafter: str, contexts: tuple[int, ...], reps: int, tokens: int, draft: Any, only: tuple[str, ...], quick: bool,
          threads: int | None, kv: str, force: bool, offline: bool, as_json: bool) -> None:
    """Measure the machine and MODEL: decoding, passes of several rows, prompt, drafts against none.

    "of limit" compares the time with the least that reading the weights and cached keys and values, or their multiply-adds, could take
    on this machine at its bandwidth and arithmetic peak. Other work on the machine falsifies all of it.
    """
    from ..bench import Settings, report

    settings = Settings(contexts=contexts, reps=reps, tokens=tokens, draft=draft, only=only or KINDS)
    with opened(find(target, drafter, offline), threads=threads, kv=kv, force=force) as model, status() as line:
        done = or_leave(lambda: report(model, settings.quick() if quick else settings, line))
    if as_json:
        echo_json(done)
    else:
        click.echo("\n".join(tables(done)))
    if done["pairs"] and not done["pairs"]["same_output"]:
        raise click.ClickException("drafts changed the output, which must never happen: please report it with the file and this command")


# ---- tables -------------------------------------------------------------------------------------------------------------


def tables(done: dict[str, Any]) -> list[str]:
    """The lines of the report."""
    machine, model = done["machine"], done["model"]
    lines = [f"machine  {machine['cpu']}, {machine['threads']} threads: reads {machine['read_bytes_per_second'] / 1e9:.1f} GB/s (best "
             f"{machine['read_bytes_per_second_best'] / 1e9:.1f}), {machine['int8_multiply_adds_per_second'] / 1e9:.0f} G int8 and "
             f"{machine['f32_multiply_adds_per_second'] / 1e9:.0f} G f32 multiply-adds/s",
             f"model    {printable(model['name']) or 'unnamed'}: {size(model['weight_bytes'])} in memory, {model['kv']} keys and values; drafter: "
             + (printable(model["drafter_name"]) or "unnamed" if model["drafter_layers"] else "none")]
    for context in done["contexts"]:
        lines += ["", *context_table(context)]
    if done["prompt"]:
        lines += ["", *prompt_table(done["prompt"])]
    if done["pairs"]:
        lines += ["", *pairs_table(done["pairs"])]
    return lines


def row(name: str, *cells: str) -> str:
    return f"  {name:24}" + "".join(f"{cell:>12}" for cell in cells)


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def context_table(context: dict[str, Any]) -> list[str]:
    if context["skipped"]:
        return [bold(f"context {context['context']}"), f"  skipped: {context['skipped']}"]
    fill, decode = context["fill"], context["decode"]
    lines = [bold(row(f"context {context['context']}", "ms", "tokens/s", "of 1 row", "GB/s", "of limit")[2:])]
    if context["context"]:
        lines.append(row(f"fill, {fill['tokens']} tokens", f"{fill['seconds'] * 1e3:.0f}", f"{fill['tokens'] / fill['seconds']:.1f}"))
    lines.append(row("decode", f"{decode['ms']:.2f}", f"{decode['tokens_per_second']:.1f}", "", *against_limit(decode)))
    for p in context["passes"]:
        name = f"{p['rows']} row{'s' if p['rows'] > 1 else ''}, all logits"
        lines.append(row(name, f"{p['ms']:.2f}", "", f"{p['relative']:.2f}", *against_limit(p)))
    if context["draft"]:
        lines.append(row("draft step", f"{context['draft']['ms']:.2f}", "", "", *against_limit(context["draft"])))
    return lines


def against_limit(result: dict[str, Any]) -> tuple[str, str]:
    return f"{result['gb_per_second']:.1f}", percent(result["share"])


def prompt_table(prompt: dict[str, Any]) -> list[str]:
    return [bold(row("prompt", "ms", "tokens/s", "", "GB/s", "of limit", "of peak")[2:]),
            row(f"{prompt['tokens']} tokens", f"{prompt['ms']:.0f}", f"{prompt['tokens_per_second']:.1f}", "", *against_limit(prompt),
                percent(prompt["arithmetic_share"]))]


def pairs_table(pairs: dict[str, Any]) -> list[str]:
    """Acceptance by position: of the drafts proposed there."""
    lines = [bold(row(f"{pairs['tokens']} new tokens", "plain", "drafts", "speed-up")[2:]) + "   accepted by position"]
    for run in pairs["runs"]:
        accepted = [percent(a / d) for a, d in zip(run["accepted_by_position"], run["drafted_by_position"]) if d]
        lines.append(row(f"{run['workload']}, {run['sampling']}", f"{run['plain_tokens_per_second']:.1f}", f"{run['draft_tokens_per_second']:.1f}",
                         f"{run['speedup']:.2f}") + "   " + (" ".join(accepted) or "no drafts"))
    lines.append(row("median", "", "", f"{pairs['speedup']:.2f}") + ("   same output" if pairs["same_output"] else "   OUTPUT DIFFERS"))
    return lines
