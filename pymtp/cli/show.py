"""pymtp show: what is in a GGUF file, and what running it needs."""
from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..gguf_file import File, Tensor

NOT_IN_MEMORY = ("per_layer_token_embd.", "v.", "a.", "mm.")  # rows read on demand; encoders that are not loaded
RING_ROWS = 128  # rows of one pass, which a ring holds beyond its window


@click.command()
@click.argument("file", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Everything as JSON, tensors one by one.")
@click.option("--items", default=6, show_default=True, type=click.IntRange(0), help="Array items to print.")
def show(file: str, as_json: bool, items: int) -> None:
    """Print metadata, shapes, formats and memory needed of a GGUF FILE."""
    from ..gguf_file import File

    with File(file) as opened:
        tensors = list(opened.tensors())
        metadata = {key: opened.value_json(key, items) for key in opened.keys()}
        memory = estimate(opened, tensors)
    if as_json:
        click.echo(json.dumps({"file": file, "metadata": {k: json.loads(v or "null", strict=False) for k, v in metadata.items()},
                               "tensors": [vars(t) for t in tensors], "memory": memory}, indent=2))
        return
    click.echo(f"{file}: {len(metadata)} keys, {len(tensors)} tensors, {size(sum(t.bytes for t in tensors))}")
    section("metadata", [(key, shorten(value or "")) for key, value in metadata.items()])
    section("tensors (rows x row length)", grouped(tensors))
    section("formats", [(kind, f"{n} tensors, {size(total)}") for kind, n, total in formats(tensors)])
    section("memory", [(name.replace("_", " "), size(value)) for name, value in memory.items()])


def section(title: str, rows: list[tuple[str, str]]) -> None:
    if rows:
        width = max(len(name) for name, _ in rows)
        click.echo(f"\n{title}")
        for name, value in rows:
            click.echo(f"  {name.ljust(width)}  {value}")


def shorten(value: str, limit: int = 160) -> str:
    return value if len(value) <= limit else value[:limit] + "..."


def size(n: int) -> str:
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if n >= scale:
            return f"{n / scale:.1f} {unit}"
    return f"{n} B"


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


def estimate(file: "File", tensors: list["Tensor"]) -> dict[str, int]:
    """Bytes: weights held in memory, and, of a target with f16 keys and values, what a session's cache needs."""
    untied = any(t.name == "output.weight" for t in tensors)
    out = {"weights": sum(t.bytes for t in tensors
                          if not t.name.startswith(NOT_IN_MEMORY) and not (untied and t.name == "token_embd.weight"))}
    if file.value("general.architecture") != "gemma4":
        return out

    def number(key: str, default: int = 0) -> int:
        value = file.value("gemma4." + key, default)
        return value if isinstance(value, int) and 0 <= value < 2**31 else default

    def per_layer(key: str, layers: int, default: Any) -> list[Any]:
        value = file.value("gemma4." + key, default)
        value = value if isinstance(value, list) else [value] * layers
        return value if len(value) >= layers and all(isinstance(v, int) for v in value) else [default] * layers

    layers = min(number("block_count"), 4096)
    owned = max(0, layers - number("attention.shared_kv_layers"))
    heads = per_layer("attention.head_count_kv", layers, number("attention.head_count"))
    sliding = per_layer("attention.sliding_window_pattern", layers, False)
    full_head, ring_head = number("attention.key_length"), number("attention.key_length_swa")
    context, window = number("context_length"), number("attention.sliding_window")
    per_position = sum(4 * heads[i] * full_head for i in range(owned) if not sliding[i])
    rings = sum(4 * heads[i] * ring_head for i in range(owned) if sliding[i]) * min(window + RING_ROWS, context)
    out |= {"cache_per_1024_positions": 1024 * per_position, "cache_of_sliding_layers": rings,
            "cache_at_full_context": per_position * context + rings}
    return out
