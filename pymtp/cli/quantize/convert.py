"""pymtp quantize convert: a checkpoint as it is published, as a GGUF file."""
from __future__ import annotations

import math
import time
from typing import Any

import click

from .. import base


@base.command(examples="""
pymtp quantize convert gemma-4-E2B-it/ gemma-4-E2B-it-BF16.gguf
pymtp quantize convert gemma-4-E2B-it-assistant/ mtp-gemma-4-E2B-it.gguf --type Q8_0
pymtp quantize convert gemma-4-12B-it/ out.gguf --type Q4_K_M --dry-run
""")
@click.argument("folder", metavar="CHECKPOINT_DIR", type=click.Path())
@click.argument("target", metavar="OUT.gguf", type=click.Path())
@click.option("--type", "mix", metavar="TYPE", default="bf16", show_default=True, help="F32, F16, BF16, or a mix of `pymtp quantize requantize`.")
@click.option("--tensor", "overrides", multiple=True, metavar="PATTERN=TYPE",
              help="Another type for tensors of that GGUF name (*, ? and [] as in file names). May be given several times; the last that matches counts.")
@click.option("--no-centroids", is_flag=True, help="Leave out a drafter's clusters of tokens; its head is then computed whole.")
@click.option("--threads", type=click.IntRange(1), help="Default: one per core.")
@click.option("--dry-run", is_flag=True, help="Check everything but the values and show what would be written; write nothing.")
@click.option("--force", is_flag=True, help="Replace OUT.gguf.")
@base.json_option
def command(folder: str, target: str, mix: str, overrides: tuple[str, ...], no_centroids: bool, threads: int | None, dry_run: bool, force: bool,
            as_json: bool) -> None:
    """Write a Hugging Face checkpoint of Gemma 4 or of a drafter (config.json, *.safetensors, tokenizer.json) as OUT.gguf."""
    from ... import convert, mixes
    from ..progress import bar
    from ..base import printable, size

    name = mix.upper()
    if name not in mixes.MIXES:
        raise click.BadParameter(f"expected one of {', '.join(mixes.MIXES)}, found {mix}", click.get_current_context(), param_hint="--type")
    rules = mixes.parse_overrides(overrides)
    started = time.monotonic()
    with convert.plan(folder, name, not no_centroids, rules, threads or 0) as plan:
        entries, notes = plan.entries, plan.source.notes
        tensors: list[dict[str, Any]] = [
            {"name": e.name, "dims": list(e.dims), "source": t.source, "from": plan.type_of(t), "to": e.type, "bytes_to": e.bytes}
            for t, e in zip(plan.source.tensors, entries)]
        total = plan.bytes
        if not dry_run:
            with bar("convert", sum(e.bytes for e in entries)) as advance:
                plan.write(target, force, lambda e, n: advance(n, e.name))
    seconds = time.monotonic() - started
    if as_json:
        base.echo_json({"source": folder, "target": target, "type": name, "tensors": tensors, "notes": notes, "bytes_to": total,
                        "written": not dry_run, "seconds": seconds})
        return
    if dry_run:
        width = max(len(printable(t["name"])) for t in tensors)
        for t in tensors:
            dims = " x ".join(map(str, reversed(t["dims"])))
            change = t["to"] if t["from"] == t["to"] else f"{t['from']} -> {t['to']}"
            click.echo(f"{printable(t['name']).ljust(width)}  {dims:>20}  {change:16}  {size(t['bytes_to']):>10}  {printable(t['source'] or 'new')}")
    for note in notes:
        click.echo(printable(note, 1000))
    weights = sum(math.prod(t["dims"]) for t in tensors)
    click.echo(f"{printable(target)} {'would be' if dry_run else 'is'} {size(total)} in {len(tensors)} tensors, "
               f"{8 * sum(t['bytes_to'] for t in tensors) / weights:.2f} bits a weight" + ("" if dry_run else f"; {seconds:.1f} s"))
