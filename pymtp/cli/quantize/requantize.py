"""pymtp quantize requantize: the same model with other tensor types."""
from __future__ import annotations

import math
import time
from typing import Any

import click

from .. import base


@base.command(examples="""
pymtp quantize requantize model-BF16.gguf model-Q4_K_M.gguf Q4_K_M --imatrix model.imatrix.gguf
pymtp quantize requantize model-BF16.gguf model-Q4_0.gguf Q4_0 --tensor "token_embd.weight=Q6_K" --dry-run
""")
@click.argument("source", metavar="IN.gguf", type=click.Path())
@click.argument("target", metavar="OUT.gguf", type=click.Path())
@click.argument("mix", metavar="TYPE")
@click.option("--tensor", "overrides", multiple=True, metavar="PATTERN=TYPE",
              help="Another type for tensors of that name (*, ? and [] as in file names). May be given several times; the last that matches counts.")
@click.option("--imatrix", "importance", type=click.Path(), help="Importance matrix: weighs columns by the activations that meet them.")
@click.option("--threads", type=click.IntRange(1), help="Default: one per core.")
@click.option("--dry-run", is_flag=True, help="Show what would be done; write nothing.")
@click.option("--force", is_flag=True, help="Replace OUT.gguf.")
@base.json_option
def command(source: str, target: str, mix: str, overrides: tuple[str, ...], importance: str | None, threads: int | None, dry_run: bool,
            force: bool, as_json: bool) -> None:
    """Write IN.gguf (of a split set: any part) as OUT.gguf with tensors of TYPE.

    TYPE: F32, F16, BF16, Q8_0, Q6_K, Q5_K_M, Q5_K_S, Q5_1, Q5_0, Q4_K_M, Q4_K_S, Q4_1, Q4_0, IQ4_NL, IQ4_XS, Q3_K_M, Q2_K.
    """
    from ... import imatrix, mixes, quantize
    from ..progress import bar
    from ..base import printable, size

    name = mix.upper()
    if name not in mixes.MIXES:
        raise click.BadParameter(f"expected one of {', '.join(mixes.MIXES)}, found {mix}", click.get_current_context(), param_hint="TYPE")
    rules = mixes.parse_overrides(overrides)
    matrix = imatrix.read(importance) if importance else None
    started = time.monotonic()
    with quantize.plan(source, name, rules, matrix, threads or 0) as plan:
        result: dict[str, Any] = {"source": source, "target": target, "type": name, "tensors": [c.as_object() for c in plan.changes],
                                  "bytes_from": sum(c.tensor.bytes for c in plan.changes), "bytes_to": plan.bytes, "written": not dry_run}
        if not dry_run:
            with bar("requantize", sum(c.bytes for c in plan.changes)) as advance:
                plan.write(target, force, lambda t, n: advance(n, t.name))
    result["seconds"] = time.monotonic() - started
    if as_json:
        base.echo_json(result)
        return
    if dry_run:
        show_plan(result["tensors"], matrix is not None)
    weights = sum(math.prod(t["dims"]) for t in result["tensors"])
    verb = "would be" if dry_run else "is"
    click.echo(f"{printable(target)} {verb} {size(plan.bytes)}, {8 * sum(t['bytes_to'] for t in result['tensors']) / max(weights, 1):.2f} bits a weight; {printable(source)} has {size(result['bytes_from'])} "
               f"in {len(plan.changes)} tensors" + ("" if dry_run else f"; {result['seconds']:.1f} s"))


def show_plan(tensors: list[dict[str, Any]], with_importance: bool) -> None:
    from ..base import printable, size

    width = max((len(printable(t["name"])) for t in tensors), default=0)
    for t in tensors:
        dims = " x ".join(map(str, reversed(t["dims"])))
        change = t["from"] if t["from"] == t["to"] else f"{t['from']} -> {t['to']}"
        mark = " *" if t["importance"] else ""
        click.echo(f"{printable(t['name']).ljust(width)}  {dims:>20}  {change:16}  {size(t['bytes_to']):>10}{mark}")
    if with_importance:
        click.echo("* weighed by the importance matrix")
