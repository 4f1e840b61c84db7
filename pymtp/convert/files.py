"""JSON files of a checkpoint, and checked access to what is in them. Every failure names the file and the key."""
from __future__ import annotations

import json
import os
import pathlib
import stat
from typing import Any

from .._text import as_json, shown
from ..errors import FormatError, ReadError

FLOAT32_MAX = 3.4028234663852886e38
MAX_BYTES = 8 << 20  # of a file of JSON or text: once read, JSON takes up to 50 times its bytes
MAX_TOKENIZER = 64 << 20  # of tokenizer.json; that of Gemma 4 has 32 MB


def is_text(value: str) -> bool:
    """JSON can spell halves of surrogate pairs, which are no text."""
    return not any("\ud800" <= c <= "\udfff" for c in value)


def read_text(path: pathlib.Path) -> str:
    """The text of a file in UTF-8."""
    return _decode(read_bytes(path), str(path))


def read_bytes(path: pathlib.Path, most: int = MAX_BYTES) -> bytes:
    with open(open_regular(path), "rb") as f:
        size = os.fstat(f.fileno()).st_size
        if size > most:
            raise FormatError(f"{path}: expected at most {most} bytes, found {size}")
        try:
            return f.read(size)
        except OSError as error:
            raise ReadError(f"{path}: {error.strerror}") from None


def open_regular(path: pathlib.Path) -> int:
    """A descriptor to read a file. Pipes and devices, which can wait for ever or never end, are refused and not read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # without it opening a pipe waits
    except OSError as error:
        raise ReadError(f"{path}: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ReadError(f"{path}: not a regular file")
    return fd


def read_object(path: pathlib.Path, most: int = MAX_BYTES) -> dict[str, Any]:
    """The JSON object in a file of at most so many bytes."""
    return parse_object(read_bytes(path, most), str(path))


def parse_object(raw: bytes, where: str) -> dict[str, Any]:
    """A JSON object without repeated keys."""
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            seen: set[str] = set()
            twice = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
            raise FormatError(f"{where}: key {shown(twice)}: found twice")
        return made

    try:
        value = json.loads(_decode(raw, where), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where}: expected JSON, found {error}") from None
    if not isinstance(value, dict):
        raise FormatError(f"{where}: expected a JSON object, found {type(value).__name__}")
    return value


def _decode(raw: bytes, where: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{where}: expected UTF-8, found byte {raw[error.start]:#04x} at {error.start}") from None


class Fields:
    """A JSON object whose values are checked as they are asked for. A key that is null counts as absent."""

    REQUIRED: Any = object()

    def __init__(self, values: dict[str, Any], where: str, prefix: str = ""):
        self.values, self.where, self.prefix = values, where, prefix

    def error(self, key: str, expected: str, kind: type[Exception] = FormatError) -> Exception:
        found = as_json(self.values[key]) if key in self.values else "none"
        return kind(f"{self.where}: key '{self.prefix}{key}': expected {expected}, found {found}")

    def get(self, key: str, default: Any, expected: str, fits: Any) -> Any:
        value = self.values.get(key)
        if value is None:
            if default is Fields.REQUIRED:
                raise self.error(key, expected)
            return default
        if not fits(value):
            raise self.error(key, expected)
        return value

    def size(self, key: str, default: Any = REQUIRED, least: int = 1, most: int = 2**31 - 1) -> Any:
        return self.get(key, default, f"an integer in {least}..{most}", lambda v: type(v) is int and least <= v <= most)

    def number(self, key: str, default: Any = REQUIRED) -> Any:
        value = self.get(key, default, "a number of 32 bits", lambda v: type(v) in (int, float) and abs(v) <= FLOAT32_MAX)
        return value if value is None else float(value)

    def flag(self, key: str, default: Any = REQUIRED) -> Any:
        return self.get(key, default, "true or false", lambda v: isinstance(v, bool))

    def text(self, key: str, default: Any = REQUIRED) -> Any:
        return self.get(key, default, "text", lambda v: isinstance(v, str) and is_text(v))

    def object(self, key: str) -> "Fields":
        """The object under a key, empty when there is none."""
        return Fields(self.get(key, {}, "an object", lambda v: isinstance(v, dict)), self.where, f"{self.prefix}{key}.")

    def sizes(self, key: str, default: Any) -> Any:
        """Non-negative integers; one alone counts as a list."""
        value = self.get(key, default, "an integer or a list of them",
                         lambda v: all(type(n) is int and 0 <= n < 2**31 for n in (v if isinstance(v, list) else [v])))
        return [value] if type(value) is int else value
