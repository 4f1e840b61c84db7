"""pymtp show: what a model or a GGUF file is, and what running it needs."""
from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

import click

from .base import Reference, command, echo_json, json_option, printable, size

if TYPE_CHECKING:
    from ..gguf_file import File, Tensor
    from ..hub import Resolved


@command(short_help="Show what a model or a GGUF file is.", examples="""
pymtp show gemma4-26b
pymtp show model.gguf --items 20
pymtp show model.gguf --json
""")
@click.argument("model", type=Reference(), metavar="MODEL")
@click.option("--items", default=6, show_default=True, type=click.IntRange(0), help="Array items to print.")
@json_option
def show(model: str, items: int, as_json: bool) -> None:
    """Print metadata, shapes, formats and memory needed of MODEL: a GGUF file, or what a name stands for.

    Fetches nothing: of a model of the catalogue that is not here it prints what could be pulled.
    """
    from ..errors import HubError

    if os.path.isfile(model):
        show_file(model, None, items, as_json)
        return
    from .. import hub

    try:
        pair = hub.resolve(model, offline=True)
    except HubError:
        if not show_known(model, as_json):
            raise
    else:
        show_file(pair.target, pair, items, as_json)


def show_known(name: str, as_json: bool) -> bool:
    """What the catalogue says of a name, if it is one of its."""
    from .. import hub

    plain = name.lower().partition(":")[0]
    known = next((m for m in hub.catalogue() if plain == m.name or plain in m.aliases), None)
    if known is None:
        return False
    about = {"name": known.name, "title": known.title, "licence": known.licence, "aliases": list(known.aliases), "tags": list(known.tags),
             "default": known.default, "targets": [t.repo for t in known.targets], "drafters": [d.repo for d in known.drafters]}
    if as_json:
        echo_json(about)
    else:
        click.echo(f"{printable(known.name)} is not on this machine: pymtp pull {printable(name)}")
        section("catalogue", [(key, ", ".join(value) if isinstance(value, list) else value) for key, value in about.items()])
    return True


def show_file(file: str, pair: "Resolved | None", items: int, as_json: bool) -> None:
    from .._arguments import INT32
    from ..gguf_file import File

    with File(file) as opened:
        tensors = list(opened.tensors())
        metadata = {key: opened.value_json(key, min(items, INT32)) for key in opened.keys()}
        memory = needed(opened, file, pair.drafter if pair else None, tensors)
    if as_json:
        echo_json({"file": file, "model": vars(pair) if pair else None,
                   "metadata": {k: json.loads(v or "null", strict=False) for k, v in metadata.items()},
                   "tensors": [vars(t) for t in tensors], "memory": memory})
        return
    click.echo(f"{printable(file)}: {len(metadata)} keys, {len(tensors)} tensors, {size(sum(t.bytes for t in tensors))}")
    if pair:
        origin = f"{pair.repo} at {pair.commit}" if pair.repo else "local"
        section("model", [("name", pair.name), ("from", origin), ("quantization", pair.quant), ("drafter", pair.drafter or "none"),
                          ("licence", pair.licence or "unknown"), ("files", size(pair.bytes))])
    section("metadata", [(key, value or "") for key, value in metadata.items()])
    section("tensors (rows x row length)", grouped(tensors))
    section("formats", [(kind, f"{n} tensors, {size(total)}") for kind, n, total in formats(tensors)])
    section("memory", [(name.replace("_", " "), size(value)) for name, value in memory.items()])


def section(title: str, rows: list[tuple[str, str]]) -> None:
    rows = [(printable(name), printable(value)) for name, value in rows]
    if rows:
        width = max(len(name) for name, _ in rows)
        click.echo(f"\n{title}")
        for name, value in rows:
            click.echo(f"  {name.ljust(width)}  {value}")


def formats(tensors: list["Tensor"]) -> list[tuple[str, int, int]]:
    """(type, tensors, bytes), largest first."""
    kinds: dict[str, tuple[int, int]] = {}
    for t in tensors:
        n, total = kinds.get(t.type, (0, 0))
        kinds[t.type] = (n + 1, total + t.bytes)
    return sorted(((k, n, b) for k, (n, b) in kinds.items()), key=lambda row: (-row[2], row[0]))


def grouped(tensors: list["Tensor"]) -> list[tuple[str, str]]:
    """Tensors that differ only in their layer share a line: blk.0-4,6.attn_q.weight."""
    groups: dict[tuple[str, str, str, str], list[int]] = {}
    for t in tensors:
        match = re.fullmatch(r"(.*?\bblk\.)(\d{1,6})(\..*)", t.name)
        head, layer, tail = match.groups() if match else (t.name, "-1", "")
        groups.setdefault((head, tail, t.type, " x ".join(map(str, reversed(t.dims)))), []).append(int(layer))
    return [(head + (ranges(layers) if tail else "") + tail, f"{kind:6} {dims}") for (head, tail, kind, dims), layers in groups.items()]


def ranges(numbers: list[int]) -> str:
    out: list[list[int]] = []
    for n in sorted(numbers):
        if out and n == out[-1][1] + 1:
            out[-1][1] = n
        else:
            out.append([n, n])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in out)


def needed(file: "File", path: str, drafter: str | None, tensors: list["Tensor"]) -> dict[str, int]:
    """Bytes in memory: of a target what it takes with f16 keys and values, of other files their tensors. Nothing of a target that
    would not load."""
    from ..errors import Error
    from ..memory import estimate

    if file.string("general.architecture") != "gemma4":
        return {"weights": sum(t.bytes for t in tensors)}
    try:
        e = estimate(path, drafter)
    except Error:
        return {}
    return {"weights": e.weights, "activations": e.activations, "cache_per_1024_positions": 1024 * e.kv_per_position,
            "cache_of_sliding_layers": e.kv_fixed, "cache_at_full_context": e.context * e.kv_per_position + e.kv_fixed}
