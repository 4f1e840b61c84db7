"""Importance matrices: for each weight matrix and column, the mean square of the activations that meet it.

A file is a GGUF with general.type "imatrix" and, for each matrix NAME, NAME.in_sum2 (F32, (matrices, columns): sums of squares) and
NAME.counts (F32, (matrices, 1): rows that met it); experts are matrices of their own. This is the format of llama.cpp.
"""
from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Callable, Mapping, Sequence

import numpy as np

from .errors import FormatError
from .gguf_file import File, Tensor
from .gguf_write import Entry, encode, write

SUMS, COUNTS = ".in_sum2", ".counts"


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
    out = np.empty(tensor.bytes // 4, np.float32)
    file.read(index, 0, out)
    return out


def read(path: str | os.PathLike[str]) -> Imatrix:
    """Reads and checks a file."""
    with File(path) as file:
        if file.value("general.type") != "imatrix":
            raise FormatError(f"{path}: key 'general.type': expected \"imatrix\", found {file.value('general.type')!r}")
        tensors = {t.name: (i, t) for i, t in enumerate(file.tensors())}
        entries = {name.removesuffix(SUMS): _read_entry(path, file, tensors, name) for name in tensors if name.endswith(SUMS)}
        if not entries:
            raise FormatError(f"{path}: expected tensors named *{SUMS}, found none")
        datasets, chunks = file.value("imatrix.datasets", []), file.value("imatrix.chunk_count", 0)
    return Imatrix(os.fspath(path), entries, datasets if isinstance(datasets, list) else [], chunks if isinstance(chunks, int) else 0)


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
    return Sums(sums.reshape(counts.size, columns), counts)


def save(path: str | os.PathLike[str], entries: Mapping[str, Sums], datasets: Sequence[str], chunks: int, chunk_size: int,
         overwrite: bool = False) -> int:
    """Writes a file; returns its size. chunks pieces of text of chunk_size tokens each went in."""
    keys = {"general.type": encode("str", "imatrix"), "imatrix.datasets": encode("[str]", list(datasets)),
            "imatrix.chunk_count": encode("u32", chunks), "imatrix.chunk_size": encode("u32", chunk_size)}
    tensors = []
    for name, s in sorted(entries.items()):
        tensors.append(Entry(name + SUMS, "F32", [s.sums.shape[1], s.sums.shape[0]], _whole(s.sums)))
        tensors.append(Entry(name + COUNTS, "F32", [1, s.counts.size], _whole(s.counts)))
    return write(path, keys, tensors, overwrite)


def _whole(array: np.ndarray) -> Callable[[], list[bytes]]:
    return lambda: [np.ascontiguousarray(array, np.float32).tobytes()]
