"""Reads the tensors of a checkpoint folder: model.safetensors, or shards listed in model.safetensors.index.json.

Nothing in a file is trusted: before a byte of data is read, every tensor has a known type, a shape that fits its bytes, and a
place of its own; the tensors of a file fill it without gaps or overlaps. Data is read by positioned reads of whole rows, so
memory is bounded by what the caller asks for, and a file that shrinks is an error.
"""
from __future__ import annotations

import math
import os
import pathlib
from dataclasses import dataclass
from typing import Any, Iterator

import numpy as np

from .._text import as_json, shown
from .._lib import empty
from ..errors import FormatError, ReadError, UnsupportedError
from .files import open_regular, parse_object, read_object

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
MAX_NAME = 255  # bytes; the limit of the usual file systems
MAX_HEADER = 16_000_000  # bytes: a tensor has some 150. Once read, JSON takes up to 50 times its bytes
TYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2"), "I32": np.dtype("<i4"), "I64": np.dtype("<i8")}


@dataclass(frozen=True)
class Tensor:
    """Where a tensor lies: bytes [start, start + bytes) of its file."""

    name: str
    file: pathlib.Path
    type: str
    shape: tuple[int, ...]
    start: int
    bytes: int


class Checkpoint:
    """The open tensors of a folder, by name. Close it, or use it as a context manager."""

    def __init__(self, folder: pathlib.Path):
        self.tensors: dict[str, Tensor] = {}
        self._files: dict[pathlib.Path, int] = {}
        try:
            for path, names in _files_of(folder):
                self._add(path, names)
        except BaseException:
            self.close()
            raise

    def _add(self, path: pathlib.Path, names: set[str] | None) -> None:
        """Opens a file and takes its tensors; `names`: those that the index expects in it."""
        fd = self._files[path] = open_regular(path)
        found = {t.name: t for t in _directory(path, fd)}
        for name in sorted(names ^ found.keys() if names is not None else ()):
            where = "in the index, but not in the file" if name in names else "in the file, but not there in the index"
            raise FormatError(f"{path}: tensor {shown(name)}: {where}")
        self.tensors |= found

    def rows(self, name: str, first: int, count: int) -> np.ndarray:
        """Rows first .. first + count of a tensor, seen as a matrix of rows of its last dimension: float32, or its integers."""
        t = self.tensors[name]
        kind, length = TYPES[t.type], t.shape[-1] if t.shape else 1
        out = empty((count, length), kind)
        _read(t, self._files[t.file], t.start + first * length * kind.itemsize, memoryview(out).cast("B"))
        if t.type == "BF16":
            wide = out.astype(np.uint32)
            wide <<= 16
            return wide.view(np.float32)
        return out.astype(np.float32) if t.type == "F16" else out

    def close(self) -> None:
        for fd in self._files.values():
            os.close(fd)
        self._files.clear()

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _files_of(folder: pathlib.Path) -> Iterator[tuple[pathlib.Path, set[str] | None]]:
    """The files of a checkpoint, each with the names that an index expects in it."""
    if (folder / SINGLE).is_file():
        yield folder / SINGLE, None
        return
    if not (folder / INDEX).is_file():
        raise ReadError(f"{folder}: expected {SINGLE} or {INDEX}, found neither")
    shards: dict[str, set[str]] = {}
    weights = read_object(folder / INDEX).get("weight_map")
    if not isinstance(weights, dict) or not weights:
        raise FormatError(f"{folder / INDEX}: key 'weight_map': expected the files of the tensors, found {as_json(weights, 40)}")
    for name, file in weights.items():
        if not _is_file_name(file):
            raise FormatError(f"{folder / INDEX}: tensor {shown(name)}: expected the name of a file in the folder, found {as_json(file)}")
        shards.setdefault(file, set()).add(name)
    for file, names in shards.items():
        yield folder / file, names


def _is_file_name(value: Any) -> bool:
    """Whether it can name a file in a folder, and nothing but that."""
    if not isinstance(value, str) or not value.isprintable() or "/" in value or value in ("", ".", ".."):
        return False
    try:
        return len(os.fsencode(value)) <= MAX_NAME
    except UnicodeEncodeError:
        return False


def _directory(path: pathlib.Path, fd: int) -> list[Tensor]:
    """The tensors of one file, in the order of their data."""
    size = os.fstat(fd).st_size
    head = _pread(path, fd, 8, 0)
    length = int.from_bytes(head, "little")
    if len(head) < 8 or length > min(MAX_HEADER, size - 8):
        raise FormatError(f"{path}: header: expected at most {max(0, min(MAX_HEADER, size - 8))} bytes, found {length}")
    raw = _pread(path, fd, length, 8)
    if len(raw) < length:
        raise ReadError(f"{path}: header: expected {length} bytes, read {len(raw)}")
    header = parse_object(raw, f"{path}: header")
    header.pop("__metadata__", None)
    start = 8 + length
    tensors = [_entry(path, name, fields, start) for name, fields in header.items()]
    tensors.sort(key=lambda t: (t.start, t.bytes))
    end = start
    for t in tensors:
        if t.start != end:
            raise FormatError(f"{path}: tensor {shown(t.name)}: expected to begin at byte {end - start} of the data, where the one before ends, "
                              f"found {t.start - start}")
        end += t.bytes
    if end != size:
        raise FormatError(f"{path}: data: expected {end - start} bytes, found {size - start}")
    return tensors


def _entry(path: pathlib.Path, name: str, fields: Any, start: int) -> Tensor:
    """One entry of a header, checked by itself. `start`: where the data of the file begins."""
    def fail(key: str, expected: str, error: type[Exception] = FormatError) -> Exception:
        found = as_json(fields.get(key) if isinstance(fields, dict) else fields)
        return error(f"{path}: tensor {shown(name)}: {key}: expected {expected}, found {found}")

    if not isinstance(fields, dict):
        raise fail("header", "an object")
    kind, shape, offsets = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    if not isinstance(kind, str) or kind not in TYPES:
        raise fail("dtype", ", ".join(TYPES), UnsupportedError if isinstance(kind, str) else FormatError)
    if not _is_sizes(shape):
        raise fail("shape", "a list of sizes")
    if not _is_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise fail("data_offsets", "where the data begins and ends")
    if offsets[1] - offsets[0] != math.prod(shape) * TYPES[kind].itemsize:
        raise fail("data_offsets", f"{math.prod(shape) * TYPES[kind].itemsize} bytes of {kind} {shape}")
    return Tensor(name, path, kind, tuple(shape), start + offsets[0], offsets[1] - offsets[0])


def _is_sizes(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= 8 and all(type(n) is int and 0 <= n < 2**48 for n in value)


def _pread(path: pathlib.Path, fd: int, count: int, at: int) -> bytes:
    try:
        return os.pread(fd, count, at)
    except OSError as error:
        raise ReadError(f"{path}: header: {error.strerror}") from None


def _read(t: Tensor, fd: int, at: int, out: memoryview) -> None:
    while out:
        try:
            n = os.preadv(fd, [out], at)
        except OSError as error:
            raise ReadError(f"{t.file}: tensor {shown(t.name)}: {error.strerror}") from None
        if not n:
            raise ReadError(f"{t.file}: tensor {shown(t.name)}: the file ends within it")
        out, at = out[n:], at + n
