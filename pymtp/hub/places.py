"""Where pymtp keeps things of its own. Models lie in the Hub's cache, not here.

PYMTP_HOME      records of pulled models and converted drafters; default $XDG_DATA_HOME/pymtp or ~/.local/share/pymtp
PYMTP_CATALOGUE the user's catalogue; default $XDG_CONFIG_HOME/pymtp/catalogue.json or ~/.config/pymtp/catalogue.json
"""
from __future__ import annotations

import os
import pathlib

from .._text import shown
from ..errors import ArgumentError


NO_HOME = "/nonexistent"  # what Debian calls the home of users that have none: nothing is found there


def base(variable: str, default: str) -> pathlib.Path:
    """pymtp's folder below that of a kind of file, to look into."""
    given = os.path.expanduser(os.environ.get(variable) or default)
    return pathlib.Path(NO_HOME if given.startswith("~") else given) / "pymtp"


def expanded(variable: str, given: str) -> pathlib.Path:
    """The path that a variable gives. "~" is a home, or the error that there is none: never a folder of that name."""
    path = os.path.expanduser(given)
    if path.startswith("~"):
        raise ArgumentError(f"{variable}: expected a path, found {shown(given)}, a home that is not known")
    return pathlib.Path(path)


def home() -> pathlib.Path:
    given = os.environ.get("PYMTP_HOME")
    return expanded("PYMTP_HOME", given or os.path.join(os.environ.get("XDG_DATA_HOME") or "~/.local/share", "pymtp"))


def converted_drafters() -> pathlib.Path:
    return home() / "drafters"


def user_catalogue() -> pathlib.Path:
    given = os.environ.get("PYMTP_CATALOGUE")
    return expanded("PYMTP_CATALOGUE", given) if given else base("XDG_CONFIG_HOME", "~/.config") / "catalogue.json"
