"""Loads libpymtp and checks that it fits the generated declarations; small helpers to call it.

`lib` and `ffi` are what the other modules use. cffi releases the GIL during every call. PYMTP_LIB names another
library file than the one installed beside this package.
"""
from __future__ import annotations

import os
import pathlib
import sys
import threading
import weakref
from typing import Any, Sequence

import numpy as np

from .errors import ArgumentError, LibraryError, OutOfMemoryError, StateError, from_code

try:
    from ._ffi import ffi as _ffi
except ImportError as error:
    raise LibraryError("pymtp is not built: run `pip install .` in its source tree, or `make dev`") from error

ffi: Any = _ffi
NAMES = ("libpymtp.dylib", "libpymtp.so") if sys.platform == "darwin" else ("libpymtp.so", "libpymtp.dylib")
STRUCTS = ("pymtp_error", "pymtp_tensor_info", "pymtp_model_options", "pymtp_model_info", "pymtp_params", "pymtp_logprob",
           "pymtp_output", "pymtp_stats", "pymtp_counters", "pymtp_machine", "pymtp_tap_sums", "pymtp_memory")


def package_file(*parts: str) -> pathlib.Path | None:
    """A file installed with the package (lib/..., include/...), or None. An editable install has two folders."""
    from . import __path__ as folders

    for folder in folders:
        path = pathlib.Path(folder, *parts)
        if path.exists():
            return path
    return None


def library_path() -> pathlib.Path:
    """The library this process uses."""
    if forced := os.environ.get("PYMTP_LIB"):
        return pathlib.Path(forced)
    for name in NAMES:
        if path := package_file("lib", name):
            return path
    raise LibraryError(f"{NAMES[0]} is not in the lib folder beside the package pymtp: reinstall it, or set PYMTP_LIB")


def _load() -> Any:
    """The library, once it has shown that it was built from the header these bindings were generated from."""
    path = library_path()
    try:
        library = ffi.dlopen(str(path))
        version = library.pymtp_abi_version()
    except (OSError, AttributeError) as error:
        raise LibraryError(f"cannot load {path}: {error}") from error
    if version != library.PYMTP_ABI_VERSION:
        raise LibraryError(f"{path}: expected ABI version {library.PYMTP_ABI_VERSION}, found {version}")
    for name in STRUCTS:
        expected, found = ffi.sizeof(name), library.pymtp_struct_size(name.encode())
        if found != expected:
            raise LibraryError(f"{path}: struct {name}: expected {expected} bytes, found {found}: built from another pymtp.h")
    return library


lib: Any = _load()


def new_struct(name: str) -> Any:
    """A zeroed struct with its `size` member set, if it has one."""
    out = ffi.new(name + " *")
    if hasattr(out, "size"):
        out.size = ffi.sizeof(name)
    return out


class Call:
    """The error argument of one call: `call.err` goes in, `call.check(status)` or `call.handle(pointer)` raises on failure."""

    __slots__ = ("err",)

    def __init__(self) -> None:
        self.err = ffi.new("pymtp_error *")

    def error(self) -> Exception:
        return from_code(self.err.code, text(self.err.text))

    def check(self, status: int) -> int:
        if status < 0:
            raise self.error()
        return status

    def handle(self, pointer: Any) -> Any:
        if not pointer:
            raise self.error()
        return pointer


class Handle:
    """A C object, freed by free(ptr) once: with close(), or when its Python owner goes. `ptr` is None from then on.

    `with handle as ptr:` uses it while another thread may close it: close() lets nobody in any more, and the last to leave frees it.
    Finalizers (__del__) of objects in one reference cycle with the owner run after the C object was freed: they see None. Not freed
    at exit: threads may still compute then, and the system frees all. `keep` lives as long as the C object.
    """

    def __init__(self, what: str, owner: Any, ptr: Any, free: Any, keep: Any = None):
        self.ptr = self._raw = ptr
        self._what, self._inside = what, 0
        self._lock = threading.RLock()  # not Lock: the garbage collector may run a finalizer inside it
        self._finalizer = weakref.finalize(owner, self._free, free, keep)
        self._finalizer.atexit = False

    def _free(self, free: Any, keep: Any) -> None:
        self.ptr = None
        free(self._raw)

    def __enter__(self) -> Any:
        with self._lock:
            if self.ptr is None:
                raise StateError(f"the {self._what} is closed")
            self._inside += 1
            return self.ptr

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            last = self.ptr is None and not self._inside
        if last:
            self._finalizer()

    def close(self) -> None:
        with self._lock:
            self.ptr = None
            in_use = self._inside > 0
        if not in_use:
            self._finalizer()


def text(pointer: Any) -> str:
    """A terminated C string; bytes that are no UTF-8 become U+FFFD."""
    return ffi.string(pointer).decode("utf-8", "replace") if pointer else ""


def path_bytes(path: Any) -> bytes:
    try:
        raw = os.fsencode(path)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"path: {error}") from None
    if b"\0" in raw:
        raise ArgumentError("path: contains a NUL byte")
    return raw


def text_bytes(value: str | bytes, name: str = "text") -> bytes:
    """UTF-8 of a text. Lone surrogates become malformed bytes, which the tokenizer defines, never an exception."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    raise ArgumentError(f"{name}: expected str, found {type(value).__name__}")


def token_array(ids: Sequence[int] | np.ndarray, name: str = "ids") -> np.ndarray:
    """(n) int32, C-contiguous, of any sequence of integers. Whether they are tokens is for the library to say."""
    try:
        array = np.asarray(list(ids) if not isinstance(ids, np.ndarray) else ids)
    except (TypeError, ValueError, OverflowError):
        raise ArgumentError(f"{name}: expected a sequence of token ids, found {type(ids).__name__}") from None
    if array.size == 0 and array.ndim == 1:
        return np.empty(0, np.int32)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ArgumentError(f"{name}: expected a flat sequence of token ids, found shape {array.shape} of {array.dtype}")
    if array.min() < -2**31 or array.max() >= 2**31:
        raise ArgumentError(f"{name}: a token id does not fit in 32 bits")
    return np.ascontiguousarray(array, np.int32)


def pointer(array: np.ndarray) -> Any:
    """The data of a contiguous int32 or float32 array as a C pointer; the caller keeps the array."""
    return ffi.cast("float *" if array.dtype == np.float32 else "int32_t *", ffi.from_buffer(array, require_writable=False))


def empty(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    try:
        return np.empty(shape, dtype)
    except (MemoryError, ValueError):
        raise OutOfMemoryError(f"no memory for an array of shape {shape}") from None
