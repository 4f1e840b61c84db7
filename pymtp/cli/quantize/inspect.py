"""pymtp quantize inspect: every tensor of a file with its type, its size and what decoding a token reads of it."""
from __future__ import annotations

import math
from typing import Any

import click

from .. import base


@base.command(examples="""
pymtp quantize inspect model-Q4_K_M.gguf
pymtp quantize inspect model-Q4_K_M.gguf --by-type
""")
@click.argument("file", type=click.Path())
@click.option("--by-type", is_flag=True, help="Sums by type only.")
@base.json_option
def command(file: str, by_type: bool, as_json: bool) -> None:
    """List the tensors of FILE (target or drafter) and what they cost.

    A token reads every matrix once, of experts only those it uses, of tables one row, of a drafter's head the chosen clusters.
    """
    from ... import costs
    from ...gguf_file import File
    from ..base import size

    with File(file) as opened:
        tensors = costs.table(opened)
    total = {"bytes": sum(t["bytes"] for t in tensors), "per_token": sum(t["per_token"] for t in tensors),
             "weights": sum(math.prod(t["dims"]) for t in tensors)}
    types = by_types(tensors, total)
    if as_json:
        base.echo_json({"file": file, **total, "types": types, "tensors": tensors})
        return
    if not by_type:
        show([(base.printable(t["name"]), " x ".join(map(str, reversed(t["dims"]))), t) for t in tensors])
        click.echo()
    show([(t["type"], f"{t['tensors']} tensors", {**t, "type": ""}) for t in types])
    bits = 8 * total["bytes"] / max(total["weights"], 1)
    click.echo(f"\n{base.printable(file)}: {size(total['bytes'])}, {bits:.2f} bits a weight; a token reads {size(total['per_token'])}")


def by_types(tensors: list[dict[str, Any]], total: dict[str, int]) -> list[dict[str, Any]]:
    out: dict[str, dict[str, Any]] = {}
    for t in tensors:
        row = out.setdefault(t["type"], {"type": t["type"], "tensors": 0, "bytes": 0, "per_token": 0})
        row["tensors"] += 1
        row["bytes"] += t["bytes"]
        row["per_token"] += t["per_token"]
    for row in out.values():
        row["share"] = row["bytes"] / max(total["bytes"], 1)
    return sorted(out.values(), key=lambda row: (-row["bytes"], row["type"]))


def show(rows: list[tuple[str, str, dict[str, Any]]]) -> None:
    from ..base import size

    widths = [max((len(row[i]) for row in rows), default=0) for i in (0, 1)]
    for name, what, t in rows:
        click.echo(f"{name.ljust(widths[0])}  {what.rjust(widths[1])}  {t['type']:7} {size(t['bytes']):>10} {100 * t['share']:6.2f} %"
                   f"  {size(t['per_token']):>10} a token")
