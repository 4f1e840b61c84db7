"""Writes GGUF files, version 3: keys, tensor directory, then the data of the tensors, chunk by chunk.

    keys = {"general.architecture": encode("str", "gemma4"), "gemma4.block_count": encode("u32", 30)}
    tensors = [Entry("token_embd.weight", "Q8_0", [2816, 262144], chunks)]
    write(path, keys, tensors)

The file appears under its name when it is complete and on the disk, or not at all: it grows under a hidden name in the same folder,
which is removed when anything fails, and on Ctrl-C, SIGTERM and SIGHUP. What a killed process left there, the next write of
the same name (its first characters) removes. Memory holds one chunk of one tensor. Keys and their order are the caller's.
"""
from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import pathlib
import secrets
import signal
import stat
import struct
import threading
from dataclasses import dataclass
from typing import Any, BinaryIO, Callable, Iterable, Iterator, Mapping, Sequence

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from ._arguments import integer
from ._lib import path_bytes
from ._text import shown
from .errors import ArgumentError, WriteError

SLICE_BYTES = 64 << 20  # most bytes of a chunk, by agreement: what producers of tensor data cut their work into
ALIGNMENT = 32          # unless general.alignment says otherwise
SLICE_VALUES = SLICE_BYTES // 8  # decoded and encoded at once: as read, as float32 and as written about SLICE_BYTES
LONGEST_ROW = SLICE_VALUES       # a slice has at least one row; those of Gemma 4 have up to 262144 values
PART_NAME = 32          # characters of a file's name in its hidden one, whose length has a limit as well
MAX_ALIGNMENT = 1 << 20  # every tensor may be padded by so much
NUMBERS = {"u8": (0, "B"), "i8": (1, "b"), "u16": (2, "H"), "i16": (3, "h"), "u32": (4, "I"), "i32": (5, "i"), "f32": (6, "f"),
           "bool": (7, "?"), "u64": (10, "Q"), "i64": (11, "q"), "f64": (12, "d")}
STRING, ARRAY = 8, 9

# ---- values and tensors ----

def _type_number(kind: str) -> int:
    if kind.startswith("["):
        return ARRAY
    if kind == "str":
        return STRING
    if kind not in NUMBERS:
        raise ArgumentError(f"kind: expected str, one of {', '.join(NUMBERS)} or one of these in brackets, found {kind!r}")
    return NUMBERS[kind][0]


def _payload(kind: str, value: Any) -> bytes:
    if kind == "str":
        raw = value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
        return struct.pack("<Q", len(raw)) + raw
    if not kind.startswith("["):
        return struct.pack("<" + NUMBERS[kind][1], value)
    inner = kind[1:-1]
    head = struct.pack("<IQ", _type_number(inner), len(value))
    if inner in NUMBERS:
        return head + struct.pack(f"<{len(value)}{NUMBERS[inner][1]}", *value)
    return head + b"".join(_payload(inner, v) for v in value)


def encode(kind: str, value: Any) -> bytes:
    """A value as the bytes behind its key (as File.value_bytes). kind: "str", "u32", "f32", "bool", ..., or "[kind]" for an array."""
    if not isinstance(kind, str):
        raise ArgumentError(f"kind: expected a str, found {shown(kind)}")
    number = _type_number(kind)
    try:
        return struct.pack("<I", number) + _payload(kind, value)
    except (struct.error, AttributeError, TypeError, OverflowError) as error:
        raise ArgumentError(f"a value of kind {kind}: {error}") from None


def row_bytes(type: str, cols: int) -> int:
    """Bytes of a row of `cols` values of a type ("Q4_K", ...)."""
    if not isinstance(type, str) or type not in GGMLQuantizationType.__members__:
        raise ArgumentError(f"type: expected a type of GGUF tensors, found {shown(type)}")
    cols = integer("cols", cols, 0, 2**63 - 1)
    values, size = GGML_QUANT_SIZES[GGMLQuantizationType[type]]
    if cols % values:
        raise ArgumentError(f"{type}: rows hold a multiple of {values} values, found {cols}")
    return cols // values * size


@dataclass(frozen=True)
class Entry:
    """A tensor to write. dims[0] is the row length. chunks() gives its bytes in order, as bytes-like pieces of at most SLICE_BYTES."""

    name: str
    type: str
    dims: Sequence[int]
    chunks: Callable[[], Iterable[Any]]

    @property
    def bytes(self) -> int:
        rows = 1
        for n in self.dims[1:]:
            rows *= n
        return rows * row_bytes(self.type, self.dims[0])


def padded(n: int, alignment: int) -> int:
    return -(-n // alignment) * alignment


def alignment_of(keys: Mapping[str, bytes]) -> int:
    raw = keys.get("general.alignment")
    if raw is None:
        return ALIGNMENT
    if len(raw) != 8 or raw[:4] != struct.pack("<I", NUMBERS["u32"][0]):
        raise ArgumentError("general.alignment: expected a u32, found another type")
    value = struct.unpack("<I", raw[4:])[0]
    if value > MAX_ALIGNMENT:
        raise ArgumentError(f"general.alignment: expected at most {MAX_ALIGNMENT}, found {value}")
    if value < 8 or value & (value - 1):
        raise ArgumentError(f"general.alignment: expected a power of two from 8, found {value}")
    return value


def header(keys: Mapping[str, bytes], tensors: Sequence[Entry]) -> bytes:
    """Everything before the data, but for the padding to where it begins."""
    alignment, offset = alignment_of(keys), 0
    parts = [struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(keys))]
    for key, value in keys.items():
        parts += [_payload("str", key), value]
    for t in tensors:
        parts += [_payload("str", t.name), struct.pack(f"<I{len(t.dims)}QIQ", len(t.dims), *t.dims, GGMLQuantizationType[t.type], offset)]
        offset += padded(t.bytes, alignment)
    return b"".join(parts)


def file_bytes(keys: Mapping[str, bytes], tensors: Sequence[Entry]) -> int:
    """Size of the file that write() makes."""
    alignment = alignment_of(keys)
    return padded(len(header(keys, tensors)), alignment) + sum(padded(t.bytes, alignment) for t in tensors)


# ---- the file under its hidden name ----

class _Terminated(BaseException):
    """A signal that ends the process, as an exception, so that what must be removed is removed first."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def _signals_unwind() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP unwind the stack before they end the process, as SIGINT does. Handlers of the program stay."""
    def raise_it(number: int, frame: Any) -> None:
        raise _Terminated(number)

    changed = []
    if threading.current_thread() is threading.main_thread():
        changed = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) == signal.SIG_DFL]
    try:
        for number in changed:
            signal.signal(number, raise_it)
        yield
    except _Terminated as error:
        signal.signal(error.number, signal.SIG_DFL)
        os.kill(os.getpid(), error.number)
        raise
    finally:
        for number in changed:
            signal.signal(number, signal.SIG_DFL)


def _remove_abandoned(folder: pathlib.Path, prefix: str) -> None:
    """Removes partial files whose writer is gone: it would hold their lock."""
    for path in folder.glob(glob.escape(prefix) + "*"):
        with contextlib.suppress(OSError):
            if path.is_file():  # to open a pipe could take for ever
                with open(path, "rb") as f:
                    fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()


def _check_target(path: pathlib.Path, overwrite: bool, sources: Sequence[str]) -> None:
    check_sources(path, sources)
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:  # a name too long, a folder that is none
        raise WriteError(f"{path}: {error.strerror}") from None
    if not overwrite:
        raise WriteError(f"{path}: exists already")
    if not stat.S_ISREG(mode):
        raise WriteError(f"{path}: expected a regular file to replace, found something else")


def check_sources(path: str | os.PathLike[str], sources: Sequence[str]) -> None:
    """Raises an ArgumentError when writing `path` would replace one of the files that it is made from, under whatever name."""
    with contextlib.suppress(OSError):
        target = os.stat(path_bytes(path))
        for source in sources:
            with contextlib.suppress(OSError):  # one that is gone cannot be replaced
                if os.path.samestat(target, os.stat(source)):
                    raise ArgumentError(f"{os.fsdecode(path)}: is the source itself")


@contextlib.contextmanager
def new_file(path: str | os.PathLike[str], size: int, overwrite: bool = False, sources: Sequence[str] = ()) -> Iterator[BinaryIO]:
    """A file to write `size` bytes into; at the end of the block it is on the disk under its name. Without overwrite, an existing
    file is refused, and one of `sources`, the files it is made from, in any case. Failures of the system are raised as WriteError."""
    final = pathlib.Path(os.fsdecode(path_bytes(path)))
    _check_target(final, overwrite, sources)
    prefix = f".{final.name[:PART_NAME]}.part-"
    part = final.with_name(prefix + f"{os.getpid()}-{secrets.token_hex(4)}")
    _remove_abandoned(final.parent, prefix)
    with _signals_unwind():
        try:
            disk = os.statvfs(final.parent)
            left = disk.f_bavail * disk.f_frsize
            if disk.f_blocks and left < size:
                raise WriteError(f"{final}: needs {size} bytes, {left} are left on its disk")
            with open(part, "xb") as f:
                with contextlib.suppress(OSError):  # not every file system has locks
                    fcntl.flock(f, fcntl.LOCK_EX)
                yield f
                f.flush()
                os.fsync(f.fileno())
                _check_target(final, overwrite, sources)
                os.replace(part, final)
            _sync_folder(final.parent)
        except OSError as error:
            name = final if error.filename in (None, str(part)) else error.filename
            raise WriteError(f"{name}: {error.strerror or error}") from error
        finally:
            with contextlib.suppress(OSError):  # it is gone, or its folder: an error tells more than this would
                part.unlink()


def _sync_folder(folder: pathlib.Path) -> None:
    """Some folders cannot be read, and some file systems do not let one; the file is complete under its name all the same."""
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def write(path: str | os.PathLike[str], keys: Mapping[str, bytes], tensors: Sequence[Entry], overwrite: bool = False,
          progress: Callable[[Entry, int], None] | None = None, sources: Sequence[str] = ()) -> int:
    """Writes the file and returns its size. progress(tensor, bytes written of it just now) is called after every chunk. sources: files
    that it is made from, which it must not replace."""
    head, alignment, size = header(keys, tensors), alignment_of(keys), file_bytes(keys, tensors)
    with new_file(path, size, overwrite, sources) as f:
        f.write(head)
        f.write(bytes(padded(len(head), alignment) - len(head)))
        for t in tensors:
            left = t.bytes
            for chunk in t.chunks():
                view = memoryview(chunk).cast("B")
                left -= len(view)
                if left < 0:
                    raise ArgumentError(f"tensor {t.name}: more than {t.bytes} bytes of data")
                f.write(view)
                if progress:
                    progress(t, len(view))
            if left:
                raise ArgumentError(f"tensor {t.name}: expected {t.bytes} bytes of data, found {t.bytes - left}")
            f.write(bytes(padded(t.bytes, alignment) - t.bytes))
    return size
