"""The Gemma 4 tokenizer, alone (Tokenizer) or as part of a model."""
from __future__ import annotations

import contextlib
import os
from typing import Any, Iterator, Sequence

import numpy as np

from ._lib import Call, Handle, ffi, lib, path_bytes, pointer, text_bytes, token_array
from ._text import shown
from .errors import ArgumentError, StateError


class Tokenizer:
    """Text to ids and back, of any Gemma 4 GGUF, also one without tensors. Immutable: any thread may use it.

    Raises a pymtp.Error when the file cannot be read or holds no Gemma 4 tokenizer.
    """

    def __init__(self, path: str | os.PathLike[str]):
        call = Call()
        ptr = call.handle(lib.pymtp_tokenizer_open(path_bytes(path), call.err))
        self._set(ptr, Handle("tokenizer", self, ptr, lib.pymtp_tokenizer_close), None, owns=True)

    @classmethod
    def _of(cls, ptr: Any, handle: Handle, keeper: Any) -> "Tokenizer":
        """The tokenizer of an open model with that handle; keeps `keeper` alive."""
        self = cls.__new__(cls)
        self._set(ptr, handle, keeper, owns=False)
        return self

    def _set(self, ptr: Any, handle: Handle, keeper: Any, owns: bool) -> None:
        """owns: the handle is the tokenizer's own, not the model's."""
        self._ptr, self._handle, self._keeper, self._owns = ptr, handle, keeper, owns

    @contextlib.contextmanager
    def _open(self) -> Iterator[Any]:
        """The C object, which nobody frees meanwhile."""
        ptr = self._ptr
        if ptr is None:
            raise StateError("the tokenizer is closed")
        with self._handle:
            yield ptr

    def close(self) -> None:
        """Frees the tokenizer; of a model's it only ends this object."""
        self._ptr = None
        if self._owns:
            self._handle.close()

    def __enter__(self) -> "Tokenizer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Tokens in the vocabulary."""
        with self._open() as ptr:
            return lib.pymtp_tokenizer_size(ptr)

    @property
    def bos(self) -> int:
        """The id that begins every text."""
        with self._open() as ptr:
            return lib.pymtp_tokenizer_bos(ptr)

    def is_eog(self, id: int) -> bool:
        """Whether the id ends a generation."""
        with self._open() as ptr:
            return bool(lib.pymtp_tokenizer_is_eog(ptr, _id(id)))

    def find(self, piece: str) -> int | None:
        """The id whose stored piece is exactly `piece` (U+2581 for a space), or None."""
        raw = text_bytes(piece, "piece")
        with self._open() as ptr:
            found = lib.pymtp_tokenizer_find(ptr, raw, len(raw))
        return found if found >= 0 else None

    def piece(self, id: int) -> str:
        """The stored piece of an id."""
        size = ffi.new("size_t *")
        with self._open() as ptr:
            raw = lib.pymtp_tokenizer_piece(ptr, _id(id), size)
            if not raw:
                raise ArgumentError(f"id: {id} is not in the vocabulary of {len(self)} tokens")
            return ffi.buffer(raw, size[0])[:].decode("utf-8", "replace")

    def tokenize(self, text: str | bytes, special: bool = False, bos: bool = False, markers: bool = False) -> list[int]:
        """The ids of a text.

        special: control tokens (<|turn>, ...) and markers in the text become their ids; off for text that is not trusted.
        markers: only user-defined markers (<|channel>, <|tool_call>, ...) do. bos: one BOS in front, unless the text
        already starts with one.
        """
        flags = (special and lib.PYMTP_TOK_SPECIAL) | (bos and lib.PYMTP_TOK_BOS) | (markers and lib.PYMTP_TOK_MARKERS)
        raw, call = text_bytes(text), Call()
        ids = np.empty(len(raw) + 1, np.int32)  # no token is shorter than a byte
        with self._open() as ptr:
            n = call.check(lib.pymtp_tokenize(ptr, raw, len(raw), flags, pointer(ids), ids.size, call.err))
        return ids[:n].tolist()

    def detokenize(self, ids: Sequence[int] | np.ndarray, special: bool = False) -> str:
        """The text of ids; control tokens only with special=True. Bytes that form no character become U+FFFD."""
        array, call, cap = token_array(ids), Call(), 64
        cap += 16 * array.size
        while True:
            out = ffi.new("char[]", cap)
            with self._open() as ptr:
                n = call.check(lib.pymtp_detokenize(ptr, pointer(array), array.size, special and lib.PYMTP_TOK_SPECIAL, out, cap, call.err))
            if n <= cap:
                return ffi.buffer(out, n)[:].decode("utf-8", "replace")
            cap = n

    def decoder(self, special: bool = False) -> "Decoder":
        """A streaming detokenizer that never splits a character."""
        return Decoder(self, special)


class Decoder:
    """Ids one by one to text: push(id) gives the characters that are complete, flush() what is left. Not thread-safe."""

    def __init__(self, tokenizer: Tokenizer, special: bool = False):
        call = Call()
        self._tokenizer = tokenizer  # outlives the decoder
        with tokenizer._open() as ptr:
            raw = call.handle(lib.pymtp_decoder_new(ptr, special and lib.PYMTP_TOK_SPECIAL, call.err))
        self._ptr = ffi.gc(raw, lib.pymtp_decoder_free)
        self._size = ffi.new("size_t *")

    def _take(self, raw: Any) -> str:
        return ffi.buffer(raw, self._size[0])[:].decode("utf-8", "replace") if self._size[0] else ""

    def push(self, id: int) -> str:
        with self._tokenizer._open():
            raw = lib.pymtp_decoder_push(self._ptr, _id(id), self._size)
            if not raw:
                raise ArgumentError(f"id: {id} is not in the vocabulary of {len(self._tokenizer)} tokens")
            return self._take(raw)

    def flush(self) -> str:
        with self._tokenizer._open():
            return self._take(lib.pymtp_decoder_flush(self._ptr, self._size))


def _id(value: int) -> int:
    try:
        value = int(value.__index__())
    except (AttributeError, TypeError):
        raise ArgumentError(f"id: expected an integer, found {type(value).__name__}") from None
    if not -2**31 <= value < 2**31:
        raise ArgumentError(f"id: expected one of 32 bits, found {shown(value)}")
    return value
