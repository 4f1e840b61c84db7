"""Where pymtp keeps things of its own. Models lie in the Hub's cache, not here.

PYMTP_HOME      records of pulled models and converted drafters; default $XDG_DATA_HOME/pymtp or ~/.local/share/pymtp
PYMTP_CATALOGUE the user's catalogue; default $XDG_CONFIG_HOME/pymtp/catalogue.json or ~/.config/pymtp/catalogue.json
"""
from __future__ import annotations

import os
import pathlib


def _base(variable: str, default: str) -> pathlib.Path:
    return pathlib.Path(os.environ.get(variable) or os.path.expanduser(default)) / "pymtp"


def home() -> pathlib.Path:
    given = os.environ.get("PYMTP_HOME")
    return pathlib.Path(given).expanduser() if given else _base("XDG_DATA_HOME", "~/.local/share")


def converted_drafters() -> pathlib.Path:
    return home() / "drafters"


def user_catalogue() -> pathlib.Path:
    given = os.environ.get("PYMTP_CATALOGUE")
    return pathlib.Path(given).expanduser() if given else _base("XDG_CONFIG_HOME", "~/.config") / "catalogue.json"
