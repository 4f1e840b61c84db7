"""What a user sets once for the command line: a TOML file. Flag > PYMTP_* variable > this file > default.

    # ~/.config/pymtp/config.toml
    threads = 8
    context = 16384
    kv = "q8_0"
    draft = "auto"
    temperature = 0.7
    max_tokens = 2000

The file is PYMTP_CONFIG where that is set, else pymtp/config.toml in $XDG_CONFIG_HOME or ~/.config; it need not exist there. Each
key is also a variable: PYMTP_THREADS and so on. The Python interface reads none of this: its arguments say all.
"""
from __future__ import annotations

import os
import pathlib
import sys
from typing import Any, Callable

from ._arguments import INT32
from ._text import shown
from .errors import FormatError, ReadError
from .hub.places import base, expanded

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def _integer(low: int, high: int = INT32) -> tuple[str, Callable[[Any], bool]]:
    return f"a number of {low}..{high}", lambda v: type(v) is int and low <= v <= high


# name -> (what is expected, whether a value is that)
KEYS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "threads": _integer(1, 256),
    "context": _integer(1),
    "kv": ('"f16", "f32" or "q8_0"', lambda v: v in ("f16", "f32", "q8_0")),
    "draft": ('"auto" or a number of 0..16', lambda v: v == "auto" or type(v) is int and 0 <= v <= 16),
    "temperature": ("a number of 0 or more", lambda v: type(v) in (int, float) and 0 <= v <= sys.float_info.max),
    "max_tokens": _integer(0),
}


LIMIT = 1 << 17  # bytes of the file
DOTS = 100  # on a line


def variable(key: str) -> str:
    """The environment variable of a key."""
    return "PYMTP_" + key.upper()


def path() -> pathlib.Path:
    """The configuration file, whether or not there is one."""
    if given := os.environ.get("PYMTP_CONFIG"):
        return expanded("PYMTP_CONFIG", given)
    return base("XDG_CONFIG_HOME", "~/.config") / "config.toml"


def _text(file: pathlib.Path) -> str:
    """The file, which may be a pipe. What tomllib would need much memory for is refused: it keeps every prefix of a dotted key."""
    with open(file, "rb") as opened:
        raw = opened.read(LIMIT + 1)
    if len(raw) > LIMIT:
        raise FormatError(f"{file}: expected at most {LIMIT} bytes, found more")
    text = raw.decode()
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > DOTS and not line.lstrip().startswith("#"):
            raise FormatError(f"{file}: line {number}: expected at most {DOTS} dots, found {line.count('.')}")
    return text


def load() -> dict[str, Any]:
    """The values in the file. Raises ReadError or FormatError, which name file and key."""
    file = path()
    try:
        values = tomllib.loads(_text(file))
    except FileNotFoundError:
        if os.environ.get("PYMTP_CONFIG"):
            raise ReadError(f"{file}: no such file (PYMTP_CONFIG)") from None
        return {}
    except OSError as error:
        raise ReadError(f"{file}: {error.strerror}") from None
    except ValueError as error:  # malformed TOML or UTF-8
        raise FormatError(f"{file}: {error}") from None
    except RecursionError:
        raise FormatError(f"{file}: values are nested too deep") from None
    for key, value in values.items():
        if key not in KEYS:
            raise FormatError(f"{file}: {key}: no such setting; there are {', '.join(KEYS)}")
        expected, fits = KEYS[key]
        if not fits(value):
            raise FormatError(f"{file}: {key}: expected {expected}, found {shown(value)}")
    return values
