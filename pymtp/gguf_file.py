"""Looks into any GGUF file: metadata, tensor directory and the bytes of tensors, without loading a model."""
from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any, Iterator

from ._arguments import integer
from ._lib import Call, Handle, ffi, lib, new_struct, path_bytes, text, text_bytes
from ._text import shown
from .errors import ArgumentError, FormatError


@dataclass(frozen=True)
class Tensor:
    """One entry of the tensor directory. dims[0] is the row length; a matrix (out, in) has dims [in, out]."""

    name: str
    type: str
    dims: list[int]
    bytes: int


class File:
    """An open GGUF file; of a split set, any part opens the whole. Raises pymtp.Error for a malformed one."""

    def __init__(self, path: str | os.PathLike[str]):
        call = Call()
        self._handle = Handle("file", self, call.handle(lib.pymtp_file_open(path_bytes(path), call.err)), lib.pymtp_file_close)

    def close(self) -> None:
        self._handle.close()

    def __enter__(self) -> "File":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def keys(self) -> list[str]:
        """The metadata keys, in file order."""
        with self._handle as ptr:
            return [text(lib.pymtp_file_key(ptr, i)) for i in range(lib.pymtp_file_n_keys(ptr))]

    def value_json(self, key: str, max_items: int = 8) -> str | None:
        """A value as JSON text, of arrays at most max_items items and "..."; None when there is no such key."""
        raw, cap, max_items = text_bytes(key, "key"), 256, integer("max_items", max_items, 0, 2**63)
        while True:
            out = ffi.new("char[]", cap)
            with self._handle as ptr:
                n = lib.pymtp_file_value_json(ptr, raw, max_items, out, cap)
            if n < 0:
                return None
            if n < cap:
                return ffi.buffer(out, n)[:].decode("utf-8", "replace")
            cap = n + 1

    def value(self, key: str, default: Any = None) -> Any:
        """A value as a Python object, arrays whole, which can take 50 times their bytes in the file; default when there is no such key."""
        shown = self.value_json(key, 2**31)
        return default if shown is None else json.loads(shown, strict=False)

    def scalar(self, key: str, default: Any = None) -> Any:
        """A value that is no array as a Python object; default when there is no such key and for arrays, however long."""
        shown = self.value_json(key, 0)
        return default if shown is None or shown.startswith("[") else json.loads(shown, strict=False)

    def value_bytes(self, key: str) -> bytes | None:
        """A value as it stands behind its key in a file, for gguf_write; None when there is no such key."""
        raw = text_bytes(key, "key")
        with self._handle as ptr:
            n = lib.pymtp_file_value_bytes(ptr, raw, ffi.NULL, 0)
            if n < 0:
                return None
            out = bytearray(n)
            lib.pymtp_file_value_bytes(ptr, raw, ffi.from_buffer(out), n)
        return bytes(out)

    def string(self, key: str) -> str | None:
        """The text of a string value; None when there is no such key or it is no string."""
        size = ffi.new("size_t *")
        with self._handle as ptr:
            raw = lib.pymtp_file_string(ptr, text_bytes(key, "key"), size)
            return ffi.buffer(raw, size[0])[:].decode("utf-8", "replace") if raw else None

    def tensors(self) -> Iterator[Tensor]:
        """The tensor directory, in file order."""
        info = new_struct("pymtp_tensor_info")
        with self._handle as ptr:
            n = lib.pymtp_file_n_tensors(ptr)
        for i in range(n):
            with self._handle as ptr:
                Call().check(lib.pymtp_file_tensor(ptr, i, info))
                tensor = Tensor(text(info.name), text(info.type), list(info.dims[0:info.n_dims]), info.bytes)
            yield tensor

    def read(self, index: int, offset: int, out: Any) -> None:
        """Fills `out`, a writable buffer, with the bytes of tensor `index` (its place in tensors()) from `offset` on."""
        call, at = Call(), [integer(name, n, 0, 2**64 - 1) for name, n in (("index", index), ("offset", offset))]
        try:
            buffer = ffi.from_buffer(out, require_writable=True)
        except (TypeError, ValueError, BufferError) as error:
            raise ArgumentError(f"out: expected a writable contiguous buffer: {error}") from None
        with buffer as dst, self._handle as ptr:
            call.check(lib.pymtp_file_read(ptr, *at, dst, len(dst), call.err))


def values_by_key(file: File, source: object) -> dict[str, bytes]:
    """All values, as value_bytes gives them, in file order. FormatError, which names the source, where a key is no UTF-8."""
    out: dict[str, bytes] = {}
    for key in file.keys():
        value = file.value_bytes(key)
        if value is None or key in out:  # keys of a file differ: one seen before had bytes replaced to look the same
            raise FormatError(f"{source}: key {shown(key)}: is no UTF-8")
        out[key] = value
    return out
