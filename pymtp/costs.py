"""What decoding a token reads of a file: the bytes of each tensor that one pass over one row multiplies or looks up.

Every matrix counts whole, but of experts only those a token uses, of tables the row of its id, and of a drafter's head only the
chosen clusters. Tensors that a pass does not touch (encoders, an embedding beside a head of its own but for a row, keys and
values of layers that share those of others) count for nothing.
"""
from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Sequence

from .gguf_file import File, Tensor

PRE = re.compile(r"(nextn\.|mtp\.|mtp_|assistant\.|^)pre_proj(ection)?(\.weight)?$")
CENTROIDS = re.compile(r"(^|[._])centroids(\.weight)?$")
ENCODERS = ("v.", "a.", "mm.")
TABLE = "per_layer_token_embd.weight"
DEFAULT_TOP = 32  # clusters a drafter searches where its file does not say


@dataclass(frozen=True)
class Shape:
    """What of a file's configuration decides how much of its tensors a token needs."""

    drafter: bool
    untied: bool
    first_shared: int         # layers from here on own no keys and values
    used: int                 # of `experts`
    experts: int
    clusters: int             # 0: a dense head
    top: int


def shape_of(file: File, tensors: Sequence[Tensor]) -> Shape:
    arch = file.string("general.architecture") or ""

    def number(*keys: str, default: int = 0) -> int:
        for key in keys:
            value = file.scalar(f"{arch}.{key}")
            if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
                return value
        return default

    drafter = any(PRE.search(t.name) for t in tensors)
    centroids = next((t for t in tensors if CENTROIDS.search(t.name)), None)
    clusters = centroids.dims[1] if drafter and centroids and len(centroids.dims) > 1 else 0
    return Shape(drafter, any(t.name == "output.weight" for t in tensors),
                 number("block_count", default=1 << 31) - (0 if drafter else number("attention.shared_kv_layers")),
                 number("expert_used_count"), number("expert_count"), clusters,
                 min(clusters, number("centroid_top_k", "masked_embedding.top_k", default=DEFAULT_TOP)))


def per_token(t: Tensor, shape: Shape) -> int:
    """Bytes of a tensor that decoding one token reads."""
    layer = re.match(r"blk\.(\d{1,6})\.(.*)", t.name)
    rows = t.dims[1] if len(t.dims) > 1 else 1
    if t.name.startswith(ENCODERS) or t.name.endswith("_ordering") or t.name.endswith("token_ordering.weight"):
        return 0
    if t.name == TABLE or (t.name == "token_embd.weight" and shape.untied and not shape.drafter):
        return t.bytes // rows
    if t.name == "token_embd.weight" and not shape.drafter:
        return t.bytes + t.bytes // rows  # the head, and the row of the token
    if t.name == "token_embd.weight" and shape.clusters:
        return t.bytes * shape.top // shape.clusters
    if layer and int(layer[1]) >= shape.first_shared and re.match(r"attn_[kv](_norm)?\.", layer[2]):
        return 0
    if "_exps." in t.name and len(t.dims) > 2 and shape.experts:
        return t.bytes * shape.used // shape.experts
    return t.bytes


def table(file: File) -> list[dict[str, Any]]:
    """One row for each tensor: name, type, dims, bytes, share of the file's tensors, bytes a token reads."""
    tensors = list(file.tensors())
    shape, total = shape_of(file, tensors), sum(t.bytes for t in tensors) or 1
    return [{"name": t.name, "type": t.type, "dims": t.dims, "bytes": t.bytes, "share": t.bytes / total, "per_token": per_token(t, shape)}
            for t in tensors]
