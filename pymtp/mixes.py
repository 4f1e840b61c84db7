"""Which tensor gets which type: the mixes of `pymtp quantize`, as rules on tensor names. docs/QUANTIZE.md has them as a table.

A rule's result is always a type the tensor can have: where a row is no multiple of the type's block, a type of nearly the same size
with a smaller block takes its place (FALLBACK).
"""
from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass, field
from typing import Any, Sequence

from gguf import LlamaFileType

from . import codec
from ._arguments import items
from ._text import shown
from .errors import ArgumentError, Error
from .gguf_file import Tensor

FLOATS = ("F32", "F16", "BF16")
DECODABLE = tuple(codec.types())  # what pymtp.codec reads and writes
FALLBACK = {"Q2_K": "IQ4_NL", "Q3_K": "IQ4_NL", "IQ4_XS": "IQ4_NL", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}

KEPT = ("v.", "a.", "mm.")  # encoders: not loaded, copied as they are
ROUTER = "ffn_gate_inp.weight"
# Small, and what they decide or feed is not repaired later: at least 16 bits.
SENSITIVE = ("per_layer_model_proj.weight", "centroids.weight")


@dataclass(frozen=True)
class Mix:
    """Types by role. `some` counts for the layers that more() picks, the others take `main`."""

    main: str
    head: str = "Q6_K"              # token_embd (Gemma 4's is the head as well) and output
    table: str | None = None        # per_layer_token_embd: read row by row, so it costs disk and not speed
    values: str | None = None       # attn_v, and attn_k of layers where it makes the values too
    attn_output: str | None = None
    down: str | None = None         # ffn_down and ffn_down_exps
    some: dict[str, tuple[str, str]] = field(default_factory=dict)  # role: (type, which layers)


MIXES = {
    "F32": Mix("F32", head="F32"), "F16": Mix("F16", head="F16"), "BF16": Mix("BF16", head="BF16"),
    "Q8_0": Mix("Q8_0", head="Q8_0"),
    "Q6_K": Mix("Q6_K"),
    "Q5_K_M": Mix("Q5_K", some={"values": ("Q6_K", "more"), "down": ("Q6_K", "more")}),
    "Q5_K_S": Mix("Q5_K"),
    "Q5_1": Mix("Q5_1"),
    "Q5_0": Mix("Q5_0"),
    "Q4_K_M": Mix("Q4_K", table="Q5_K", some={"values": ("Q6_K", "more"), "down": ("Q6_K", "more")}),
    "Q4_K_S": Mix("Q4_K", some={"values": ("Q5_K", "eighth"), "down": ("Q5_K", "eighth")}),
    "Q4_1": Mix("Q4_1"),
    "Q4_0": Mix("Q4_0"),
    "IQ4_NL": Mix("IQ4_NL", values="Q5_K", some={"down": ("Q5_K", "eighth")}),
    "IQ4_XS": Mix("IQ4_XS", table="IQ4_NL", values="Q5_K", some={"down": ("Q5_K", "eighth")}),
    "Q3_K_M": Mix("Q3_K", table="Q4_K", values="Q4_K", attn_output="Q4_K", down="Q4_K",
                  some={"values": ("Q5_K", "eighth"), "down": ("Q5_K", "sixteenth")}),
    "Q2_K": Mix("Q2_K", table="Q4_K", values="Q4_K", attn_output="Q3_K", down="Q3_K"),
}


def file_type(name: str) -> int:
    """general.file_type of a mix."""
    return int(LlamaFileType["ALL_F32" if name == "F32" else f"MOSTLY_{name}"])


def fitting(kind: str, cols: int) -> str:
    """The type itself where rows of `cols` values can have it, else its fallback."""
    while cols % codec.block_values(kind):
        kind = FALLBACK.get(kind, "F16")
    return kind


def layers_picked(which: str, layer: int, layers: int) -> bool:
    """more: the first and last eighth and every third between; eighth, sixteenth: the first ones, rounded down but one at least."""
    if which == "more":
        return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
    return layer < max(1, layers // {"eighth": 8, "sixteenth": 16}[which])


def layer_of(name: str) -> int | None:
    match = re.match(r"blk\.(\d{1,6})\.", name)
    return int(match[1]) if match else None


def role_of(tensor: Tensor, names: set[str]) -> str:
    """main, head, table, values, attn_output, down."""
    suffix = re.sub(r"^blk\.\d+\.", "", tensor.name)
    if suffix in ("token_embd.weight", "output.weight"):
        return "head"
    if suffix == "per_layer_token_embd.weight":
        return "table"
    if suffix == "attn_v.weight" or (suffix == "attn_k.weight" and tensor.name.replace("attn_k", "attn_v") not in names):
        return "values"
    if suffix == "attn_output.weight":
        return "attn_output"
    return "down" if suffix in ("ffn_down.weight", "ffn_down_exps.weight") else "main"


def choose(mix: Mix, tensor: Tensor, names: set[str], layers: int) -> str:
    """The type of a tensor under a mix; what is no matrix of the network keeps its own."""
    if tensor.type not in DECODABLE or tensor.name.startswith(KEPT):
        return tensor.type
    if len(tensor.dims) < 2 or tensor.name.endswith(ROUTER):
        return "F32"
    if not tensor.name.endswith(".weight"):
        return tensor.type
    if tensor.name.endswith(SENSITIVE):
        return mix.main if mix.main in FLOATS else "F16" if tensor.type == "F32" else tensor.type
    role, layer = role_of(tensor, names), layer_of(tensor.name)
    kind = getattr(mix, role) or mix.main
    if role in mix.some and layer is not None:
        better, which = mix.some[role]
        kind = better if layers_picked(which, layer, layers) else kind
    return fitting(kind, tensor.dims[0])


def parse_overrides(texts: Sequence[str]) -> list[tuple[str, str]]:
    """(pattern, type) of each PATTERN=TYPE."""
    out = []
    for text in texts:
        pattern, equals, kind = text.rpartition("=")
        if not equals or not pattern:
            raise ArgumentError(f"--tensor {text}: expected PATTERN=TYPE")
        if kind.upper() not in DECODABLE:
            raise ArgumentError(f"--tensor {text}: type: expected one of {', '.join(DECODABLE)}, found {kind}")
        out.append((pattern, kind.upper()))
    return out


def check(name: Any) -> None:
    """Raises an ArgumentError for what is no name of a mix."""
    if not isinstance(name, str) or name not in MIXES:
        raise ArgumentError(f"type: expected one of {', '.join(MIXES)}, found {shown(name)}")


def _pair(override: Any) -> tuple[str, str]:
    """(pattern, name of the type) of an override, whose type is what codec takes."""
    if not isinstance(override, (tuple, list)) or len(override) != 2 or not isinstance(override[0], str):
        raise ArgumentError(f"overrides: expected pairs of a pattern and a type, found {shown(override)}")
    try:
        return override[0], codec.type_name(override[1])
    except Error as error:
        raise type(error)(f"override {shown(override[0])}: {error}") from None


def types_of(name: str, tensors: Sequence[Tensor], overrides: Sequence[tuple[str, str | int]] = ()) -> list[str]:
    """The type of each tensor under the mix called `name`. Of overrides that match a tensor, the last counts."""
    names = {t.name for t in tensors}
    layers = 1 + max((layer_of(t.name) or 0 for t in tensors), default=0)
    out = [choose(MIXES[name], t, names, layers) for t in tensors]
    for pattern, kind in map(_pair, items("overrides", overrides)):
        matching = [i for i, t in enumerate(tensors) if fnmatch.fnmatchcase(t.name, pattern)]
        if not matching:
            raise ArgumentError(f"--tensor {pattern}={kind}: no tensor has such a name")
        for i in matching:
            t = tensors[i]
            if t.type not in DECODABLE or (len(t.dims) < 2 and kind != "F32"):
                raise ArgumentError(f"--tensor {pattern}={kind}: {t.name} ({t.type}, {len(t.dims)} dimensions) cannot be {kind}")
            out[i] = fitting(kind, t.dims[0])
    return out
