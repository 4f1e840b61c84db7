"""Requantizes: reads a GGUF file (or split set), gives its tensors other types and writes one file.

`plan` decides and checks everything, `Plan.write` does it: a tensor is read, decoded, encoded and written in slices of rows, so
that memory holds one slice, however large the tensor. Tensors that keep their type are copied byte by byte, and so are keys.
"""
from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Callable, Iterator, Sequence

import numpy as np
from gguf import GGML_QUANT_VERSION

from . import codec, imatrix, mixes
from ._lib import empty
from .errors import ArgumentError, Error, FormatError, UnsupportedError
from .gguf_file import File, Tensor, values_by_key
from .gguf_write import LONGEST_ROW, SLICE_BYTES, SLICE_VALUES, Entry, alignment_of, encode, file_bytes, row_bytes, write
from .hub.pairs import parts

@dataclass(frozen=True)
class Change:
    """What happens to one tensor. importance: sums of its activations, where the importance matrix has them."""

    index: int
    tensor: Tensor
    type: str
    importance: imatrix.Sums | None = None

    @property
    def matrices(self) -> int:
        """Matrices in it: the experts of an expert tensor, else 1. Rows of one follow each other."""
        return int(np.prod(self.tensor.dims[2:], dtype=np.int64))

    @property
    def bytes(self) -> int:
        t = self.tensor
        return t.bytes if self.type == t.type else self.matrices * (t.dims[1] if len(t.dims) > 1 else 1) * row_bytes(self.type, t.dims[0])

    def as_object(self) -> dict[str, Any]:
        t = self.tensor
        return {"name": t.name, "dims": t.dims, "from": t.type, "to": self.type, "bytes_from": t.bytes, "bytes_to": self.bytes,
                "importance": self.importance is not None}


class Plan:
    """An open source file and what becomes of it. Close it, or leave its `with` block."""

    def __init__(self, file: File, sources: list[str], keys: dict[str, bytes], changes: list[Change], threads: int = 0):
        self.file, self.sources, self.keys, self.changes, self.threads = file, sources, keys, changes, threads

    def close(self) -> None:
        self.file.close()

    def __enter__(self) -> "Plan":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def entries(self) -> list[Entry]:
        return [Entry(c.tensor.name, c.type, c.tensor.dims, lambda c=c: slices(self.file, c, self.threads)) for c in self.changes]

    @property
    def bytes(self) -> int:
        """Size of the file to come."""
        return file_bytes(self.keys, self.entries)

    def write(self, path: str | os.PathLike[str], overwrite: bool = False, progress: Callable[[Entry, int], None] | None = None) -> int:
        """Writes the file and returns its size."""
        return write(path, self.keys, self.entries, overwrite, progress, self.sources)


def plan(source: str | os.PathLike[str], mix: str, overrides: Sequence[tuple[str, str]] = (), importance: imatrix.Imatrix | None = None,
         threads: int = 0) -> Plan:
    """Decides what requantizing `source` to a mix (a name of mixes.MIXES) does. Reads no tensor data."""
    mixes.check(mix)
    file = File(source)
    try:
        tensors = list(file.tensors())
        types = mixes.types_of(mix, tensors, overrides)
        changes = [Change(i, t, kind, _importance_of(importance, t)) for i, (t, kind) in enumerate(zip(tensors, types))]
        for c in changes:
            _check(source, c)
        if importance and not any(c.importance for c in changes):
            raise ArgumentError(f"{importance.path}: has none of the tensors of {os.fspath(source)}")
        sources = parts(os.fsdecode(source)) + ([os.fsdecode(importance.path)] if importance else [])
        return Plan(file, sources, new_keys(file, source, mix, importance), changes, threads)
    except BaseException:
        file.close()
        raise


def _check(source: object, c: Change) -> None:
    if not c.tensor.bytes:
        raise UnsupportedError(f"{source}: tensor '{c.tensor.name}': type {c.tensor.type} has no known size, so it cannot be copied")
    if c.type != c.tensor.type and c.tensor.dims[0] > LONGEST_ROW:
        raise UnsupportedError(f"{source}: tensor '{c.tensor.name}': expected rows of at most {LONGEST_ROW} values, found {c.tensor.dims[0]}")
    if "\ufffd" in c.tensor.name:
        raise FormatError(f"{source}: tensor '{c.tensor.name}': its name is no UTF-8")


def _importance_of(importance: imatrix.Imatrix | None, t: Tensor) -> imatrix.Sums | None:
    """Checked against the tensor's shape."""
    sums = importance.entries.get(t.name) if importance else None
    if sums is None:
        return None
    assert importance
    expected = (int(np.prod(t.dims[2:], dtype=np.int64)), t.dims[0])
    if sums.sums.shape != expected:
        raise ArgumentError(f"{importance.path}: tensor '{t.name}': expected {expected[0]} x {expected[1]} sums, found "
                            f"{sums.sums.shape[0]} x {sums.sums.shape[1]}: of another model")
    return sums


def copied_keys(file: File, source: object) -> dict[str, bytes]:
    """The keys of a file that a single file made from it can have: not those of a split set."""
    keys = {key: value for key, value in values_by_key(file, source).items() if not key.startswith("split.")}
    try:
        alignment_of(keys)
    except ArgumentError as error:
        raise UnsupportedError(f"{source}: {error}") from None
    return keys


def new_keys(file: File, source: object, mix: str, importance: imatrix.Imatrix | None) -> dict[str, bytes]:
    """The source's keys, with those that say how the file is quantized."""
    keys = {k: v for k, v in copied_keys(file, source).items() if not k.startswith("quantize.imatrix.")}
    keys["general.quantization_version"] = encode("u32", GGML_QUANT_VERSION)
    keys["general.file_type"] = encode("u32", mixes.file_type(mix))
    if importance:
        keys["quantize.imatrix.file"] = encode("str", os.path.basename(importance.path))
        keys["quantize.imatrix.dataset"] = encode("str", ", ".join(map(str, importance.datasets)))
        keys["quantize.imatrix.entries_count"] = encode("u32", len(importance.entries))
        keys["quantize.imatrix.chunks_count"] = encode("u32", importance.chunks)
    return keys


# ---- data ----

def slices(file: File, c: Change, threads: int) -> Iterator[Any]:
    """The new bytes of a tensor, slice by slice."""
    if c.type == c.tensor.type:
        yield from copied(file, c)
        return
    cols, rows = c.tensor.dims[0], c.tensor.dims[1] if len(c.tensor.dims) > 1 else 1
    each = row_bytes(c.tensor.type, cols)
    step = max(1, SLICE_VALUES // cols)
    for matrix in range(c.matrices):
        weights = c.importance.mean(matrix) if c.importance else None
        for first in range(0, rows, step):
            n = min(step, rows - first)
            raw = empty((n, each), np.uint8)
            file.read(c.index, (matrix * rows + first) * each, raw)
            try:
                yield codec.encode(c.type, codec.decode(c.tensor.type, raw, threads), weights, threads)
            except Error as error:
                raise type(error)(f"tensor '{c.tensor.name}', rows from {matrix * rows + first} on: {error}") from None


def copied(file: File, c: Change) -> Iterator[bytearray]:
    for offset in range(0, c.tensor.bytes, SLICE_BYTES):
        piece = bytearray(min(SLICE_BYTES, c.tensor.bytes - offset))
        file.read(c.index, offset, piece)
        yield piece
