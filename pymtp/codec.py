"""Tensor types: rows of float32 to blocks and back (docs/FORMATS.md). Nothing here needs a model.

    blocks = codec.encode("Q4_K", weights)           # (rows, columns) float32 -> (rows, row bytes) uint8
    values = codec.decode("Q4_K", blocks)            # and back, within the type's precision

A type is given by name, in any case, or by its number in GGUF files.
"""
from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ._arguments import integer
from ._lib import Call, empty, ffi, lib, text
from ._text import shown
from .errors import ArgumentError, UnsupportedError


def types() -> list[str]:
    """The names of all types that can be encoded and decoded: "F32", "F16", ..., "Q4_K", ..."""
    n = lib.pymtp_types(ffi.NULL, 0)
    numbers = ffi.new("int32_t[]", n)
    lib.pymtp_types(numbers, n)
    return [text(lib.pymtp_type_name(number)) for number in numbers]


def type_number(type: str | int) -> int:
    """The number of a type in GGUF files. UnsupportedError when pymtp does not compute with it."""
    if isinstance(type, str):
        number = -1 if "\0" in type else lib.pymtp_type_find(type.upper().encode("utf-8", "replace"))  # C would read up to the NUL
    else:
        try:
            number = operator.index(type)
        except TypeError:
            raise ArgumentError(f"type: expected a name or a number, found {shown(type)}") from None
        if not 0 <= number < 2**31 or not lib.pymtp_type_name(number):
            number = -1
    if number < 0:
        raise UnsupportedError(f"type {shown(type)}: expected one of {', '.join(types())}")
    return number


def type_name(type: str | int) -> str:
    """The name of a type. Errors as type_number."""
    return text(lib.pymtp_type_name(type_number(type)))


def block_values(type: str | int) -> int:
    """Values of a block: the number of columns of an array must be a multiple of it. Errors as type_number."""
    return lib.pymtp_type_block_values(type_number(type))


def row_bytes(type: str | int, columns: int) -> int:
    """Bytes of a row of so many values. ArgumentError when columns is no multiple of block_values(type)."""
    number, columns = type_number(type), integer("columns", columns, 1, 2**62)
    values = lib.pymtp_type_block_values(number)
    if columns % values:
        raise ArgumentError(f"columns: expected a multiple of {values} for {type_name(number)}, found {shown(columns)}")
    return columns // values * lib.pymtp_type_block_bytes(number)


def encode(type: str | int, array: Any, importance: Any = None, threads: int = 0) -> np.ndarray:
    """array (..., columns) of floats to blocks: (..., row bytes) uint8.

    float32 arrays in C order are used where they lie, others are converted. importance: (columns) weights, 0 and up, of the
    squared errors of a column; all alike without it. threads: 0 means one per physical performance core; the bytes are the same for any.
    ArgumentError: columns are no multiple of the type's block, a value is not finite or too large for the type (the text
    names row and column, rows counted over all leading dimensions), or importance does not fit.
    """
    number = type_number(type)
    values = _floats(array, "array")
    if not values.ndim:
        raise ArgumentError("array: expected at least one dimension, found a single number")
    columns = values.shape[-1]
    out = empty((*values.shape[:-1], row_bytes(number, columns)), np.uint8)
    weights = None if importance is None else _floats(importance, "importance")
    if weights is not None and weights.shape != (columns,):
        raise ArgumentError(f"importance: expected shape ({columns},), found {weights.shape}")
    call = Call()
    call.check(lib.pymtp_encode(number, _pointer("float *", values), values.size // columns, columns,
                                ffi.NULL if weights is None else _pointer("float *", weights), _pointer("uint8_t *", out), out.size,
                                _threads(threads), call.err))
    return out


def decode(type: str | int, blocks: Any, threads: int = 0) -> np.ndarray:
    """blocks (..., row bytes) of bytes to their values: (..., columns) float32. Bytes objects count as one row.

    ArgumentError: a row is no whole number of blocks.
    """
    number = type_number(type)
    data = _bytes(blocks)
    if data.dtype != np.uint8 or not data.ndim:
        raise ArgumentError(f"blocks: expected an array of uint8, found shape {data.shape} of {data.dtype}")
    size = lib.pymtp_type_block_bytes(number)
    if not data.shape[-1] or data.shape[-1] % size:
        raise ArgumentError(f"blocks: expected rows of a multiple of {size} bytes for {type_name(number)}, found {data.shape[-1]}")
    columns = data.shape[-1] // size * lib.pymtp_type_block_values(number)
    out = empty((*data.shape[:-1], columns))
    call = Call()
    call.check(lib.pymtp_decode(number, _pointer("uint8_t *", data), data.size, out.size // columns, columns, _pointer("float *", out),
                                _threads(threads), call.err))
    return out


def _floats(array: Any, name: str) -> np.ndarray:
    try:
        values = np.asarray(array)
    except (TypeError, ValueError):
        raise ArgumentError(f"{name}: expected numbers, found {type(array).__name__}") from None
    if values.dtype.kind not in "fiu":
        raise ArgumentError(f"{name}: expected real numbers, found {values.dtype}")
    with np.errstate(over="ignore"):  # what a float32 cannot hold becomes infinite, which the library reports with its place
        return np.asarray(values, np.float32, order="C")


def _bytes(blocks: Any) -> np.ndarray:
    try:
        return np.frombuffer(blocks, np.uint8) if isinstance(blocks, (bytes, bytearray, memoryview)) else np.ascontiguousarray(blocks)
    except (TypeError, ValueError, BufferError):  # a ragged list, a view with gaps
        raise ArgumentError(f"blocks: expected contiguous bytes or an array of uint8, found {type(blocks).__name__}") from None


def _pointer(kind: str, array: np.ndarray) -> Any:
    return ffi.cast(kind, ffi.from_buffer(array, require_writable=False)) if array.size else ffi.NULL


def _threads(threads: int) -> int:
    if isinstance(threads, bool) or not isinstance(threads, int) or not 0 <= threads <= 256:
        raise ArgumentError(f"threads: expected 0..256, found {shown(threads)}")
    return threads
