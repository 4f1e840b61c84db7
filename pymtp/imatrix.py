"""Importance matrices: for each weight matrix and column, the mean square of the activations that meet it.

A file is a GGUF with general.type "imatrix" and, for each matrix NAME, NAME.in_sum2 (F32, (matrices, columns): sums of squares) and
NAME.counts (F32, (matrices, 1): rows that met it); experts are matrices of their own. This is the format of llama.cpp.
"""
from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Mapping, Sequence

import numpy as np

from ._arguments import items
from ._lib import Call, empty, ffi, lib, new_struct, text, token_array
from ._text import shown
from .errors import ArgumentError, FormatError, StateError
from .gguf_file import File, Tensor
from .gguf_write import Entry, encode, write

if TYPE_CHECKING:
    from .model import Model

SUMS, COUNTS = ".in_sum2", ".counts"
U32_MAX = 2**32 - 1
MOST_NAMES = 1 << 20   # bytes of the names of data sets
MOST_BYTES = 1 << 30   # of all sums; most has 26B: 30 layers of 128 experts, 2816 + 704 columns, 54 MB


@dataclass(frozen=True)
class Sums:
    """Of one tensor. sums: float32 (matrices, columns); counts: float32 (matrices,)."""

    sums: np.ndarray
    counts: np.ndarray

    def mean(self, matrix: int) -> np.ndarray | None:
        """(columns) mean squares for one matrix, or None when no row met it."""
        count = self.counts[matrix]
        return self.sums[matrix] / count if count > 0 else None


@dataclass(frozen=True)
class Imatrix:
    path: str
    entries: dict[str, Sums]
    datasets: list[str]
    chunks: int


def read_floats(file: File, index: int, tensor: Tensor) -> np.ndarray:
    out = empty((tensor.bytes // 4,))
    file.read(index, 0, out)
    return out


def read(path: str | os.PathLike[str]) -> Imatrix:
    """Reads and checks a file."""
    with File(path) as file:
        if file.string("general.type") != "imatrix":
            raise FormatError(f"{path}: key 'general.type': expected \"imatrix\", found {shown(file.scalar('general.type'))}")
        tensors = {t.name: (i, t) for i, t in enumerate(file.tensors())}
        size = sum(t.bytes for _, t in tensors.values())
        if size > MOST_BYTES:
            raise FormatError(f"{path}: expected tensors of at most {MOST_BYTES} bytes, found {size}")
        entries = {name.removesuffix(SUMS): _read_entry(path, file, tensors, name) for name in tensors if name.endswith(SUMS)}
        if not entries:
            raise FormatError(f"{path}: expected tensors named *{SUMS}, found none")
        names = len(file.value_bytes("imatrix.datasets") or b"")
        if names > MOST_NAMES:
            raise FormatError(f"{path}: key 'imatrix.datasets': expected at most {MOST_NAMES} bytes, found {names}")
        datasets, chunks = file.value("imatrix.datasets", []), file.scalar("imatrix.chunk_count", 0)
    return Imatrix(os.fspath(path), entries, datasets if isinstance(datasets, list) else [],
                   chunks if type(chunks) is int and 0 <= chunks <= U32_MAX else 0)


def _read_entry(path: object, file: File, tensors: Mapping[str, tuple[int, Tensor]], name: str) -> Sums:
    other = name.removesuffix(SUMS) + COUNTS
    if other not in tensors:
        raise FormatError(f"{path}: tensor '{other}': missing, it belongs to '{name}'")
    for each in (name, other):
        if tensors[each][1].type != "F32":
            raise FormatError(f"{path}: tensor '{each}': expected type F32, found {tensors[each][1].type}")
    columns = tensors[name][1].dims[0]
    sums, counts = (read_floats(file, *tensors[each]) for each in (name, other))
    if sums.size != columns * counts.size:
        raise FormatError(f"{path}: tensor '{other}': expected {sums.size // columns} counts, one for each row of '{name}', found {counts.size}")
    if not (np.isfinite(sums).all() and (sums >= 0).all() and np.isfinite(counts).all() and (counts >= 0).all()):
        raise FormatError(f"{path}: tensor '{name}': expected sums and counts from 0, found others")
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        if np.isinf(sums.reshape(counts.size, columns) / counts[:, None]).any(where=counts[:, None] > 0):
            raise FormatError(f"{path}: tensor '{name}': expected sums that their counts divide to floats, found others")
    return Sums(sums.reshape(counts.size, columns), counts)


def save(path: str | os.PathLike[str], entries: Mapping[str, Sums], datasets: Sequence[str], chunks: int, chunk_size: int,
         overwrite: bool = False, sources: Sequence[str] = ()) -> int:
    """Writes a file; returns its size. chunks pieces of text of chunk_size tokens each went in. sources: files that it must not replace."""
    keys = {"general.type": encode("str", "imatrix"), "imatrix.datasets": encode("[str]", list(datasets)),
            "imatrix.chunk_count": encode("u32", chunks), "imatrix.chunk_size": encode("u32", min(chunk_size, U32_MAX))}
    tensors = []
    for name, s in sorted(entries.items()):
        tensors.append(Entry(name + SUMS, "F32", [s.sums.shape[1], s.sums.shape[0]], _whole(s.sums)))
        tensors.append(Entry(name + COUNTS, "F32", [1, s.counts.size], _whole(s.counts)))
    return write(path, keys, tensors, overwrite, sources=sources)


def _whole(array: np.ndarray) -> Callable[[], list[bytes]]:
    return lambda: [np.ascontiguousarray(array, np.float32).tobytes()]


# ---- collecting ----

ROWS = 64  # of logits computed at once


def pieces(model: "Model", texts: Sequence[str], tokens: int) -> list[list[int]]:
    """Texts as prompts of at most `tokens` tokens, each of which begins with BOS; those of fewer than 2 are left out."""
    if tokens < 2:
        raise ArgumentError(f"tokens: expected at least 2, found {tokens}")
    bos = model.tokenize("", bos=True)
    step, out = tokens - len(bos), []
    for each in items("texts", texts):
        ids = model.tokenize(each)
        out += [bos + ids[i:i + step] for i in range(0, len(ids), step)]
    return [ids for ids in out if len(ids) > 1]


def collect(model: "Model", prompts: Sequence[Sequence[int]], progress: Callable[[int], None] | None = None) -> tuple[dict[str, Sums], float]:
    """Sums over all rows of the prompts, each from an empty cache, and the mean negative log-likelihood of their tokens. The model
    must have been opened without a drafter. progress(tokens) is called now and then."""
    call = Call()
    with model._core.handle as ptr:
        call.check(lib.pymtp_tap_start(ptr, call.err))
    try:
        nll, n = 0.0, 0
        with model.session() as session:
            for ids in map(token_array, items("prompts", prompts)):
                session.rewind(0)
                for first in range(0, len(ids), ROWS):
                    part = ids[first:first + ROWS]
                    logits = session.forward(part, logits="all", hidden=False)
                    known = ids[first + 1:first + 1 + len(part)]
                    nll += surprise(logits[:len(known)], known)
                    n += len(known)
                    if progress:
                        progress(len(part))
        return _sums(model), nll / max(n, 1)
    finally:
        with contextlib.suppress(StateError), model._core.handle as ptr:  # a closed model taps no more
            lib.pymtp_tap_stop(ptr)


def surprise(logits: np.ndarray, ids: Sequence[int]) -> float:
    """Sum over rows of -log softmax(logits (n, vocab))[ids (n)]."""
    most = logits.max(1)
    total = np.log(np.exp(logits - most[:, None]).sum(1, dtype=np.float64)) + most
    return float((total - logits[np.arange(len(ids)), list(ids)]).sum())


def _sums(model: "Model") -> dict[str, Sums]:
    call, info, out = Call(), new_struct("pymtp_tap_sums"), {}
    with model._core.handle as ptr:
        for i in range(call.check(lib.pymtp_tap_count(ptr, call.err))):
            Call().check(lib.pymtp_tap_get(ptr, i, info))
            shape = (info.matrices, info.cols)
            sums = np.frombuffer(ffi.buffer(info.sums, 8 * info.matrices * info.cols), np.float64).reshape(shape)
            rows = np.frombuffer(ffi.buffer(info.rows, 8 * info.matrices), np.uint64)
            out[text(info.name)] = Sums(sums.astype(np.float32), rows.astype(np.float32))
    return out
