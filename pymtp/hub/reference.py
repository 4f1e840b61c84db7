"""References: what a user may call a model. Only reads text and looks whether a path exists."""
from __future__ import annotations

import os
import pathlib
import re
from dataclasses import dataclass

from .._text import RAW, printable
from ..errors import ArgumentError, HubError
from . import DEMO
from .known import REPO, KnownModel, find, unknown

DEMO_FILE = pathlib.Path(__file__).parent.parent / "demo" / "demo.gguf"
PREFIX = re.compile(r"(?:https?://)?(?:hf\.co|huggingface\.co)/|hf:(?://)?", re.I)


@dataclass(frozen=True)
class Known:
    """A name of the catalogue with its tag."""

    model: KnownModel
    tag: str

    @property
    def name(self) -> str:
        return f"{self.model.name}:{self.tag}"


@dataclass(frozen=True)
class Repository:
    """A repository of the Hub; quant: a quantization, a file's name or None."""

    repo: str
    quant: str | None

    @property
    def name(self) -> str:
        return f"hf.co/{self.repo}" + (f":{self.quant}" if self.quant else "")


@dataclass(frozen=True)
class Local:
    """A file or folder."""

    path: str

    @property
    def name(self) -> str:
        return self.path


Reference = Known | Repository | Local


def parse(text: str, models: list[KnownModel]) -> Reference:
    """Prefix of the Hub, name of the catalogue, demo, path, user/repo: the first that fits. A folder called like a name of the
    catalogue is reached as ./name."""
    if not isinstance(text, str) or not text.strip() or not _is_a_name(text):
        raise ArgumentError(f"model: expected a reference, found {repr(text[:200]) if isinstance(text, str) else type(text).__name__}")
    prefix = PREFIX.match(text)
    if prefix:
        return _repository(text[prefix.end():].rstrip("/"), text)
    name, _, tag = text.partition(":")
    model = find(name, models)
    if model:
        return _known(model, tag.lower(), text)
    if text == DEMO:
        return Local(str(DEMO_FILE))
    path = os.path.expanduser(text)
    if os.path.exists(path):
        return Local(path)
    if text.startswith(("/", "./", "../", "~")) or (text.lower().endswith(".gguf") and ":" not in text):
        raise HubError(f"{text}: no such file or folder")
    if REPO.fullmatch(name):
        return _repository(text, text)
    raise unknown(name, models)


def _is_a_name(text: str) -> bool:
    """Whether the system could have a file of this name. It may be bytes that are no UTF-8 (os.fsdecode)."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def is_name(text: str, models: list[KnownModel]) -> bool:
    """Whether text is no path: a name of the catalogue, or a repository while no file or folder is called so."""
    if not isinstance(text, str):
        return False
    if text == DEMO or PREFIX.match(text) or find(text.partition(":")[0], models):
        return True
    is_repo = bool(REPO.fullmatch(text.partition(":")[0])) and not text.startswith(".") and not text.lower().endswith(".gguf")
    return is_repo and not os.path.exists(text)


def _known(model: KnownModel, tag: str, text: str) -> Known:
    if tag and tag not in model.tags:
        raise HubError(f"{text}: expected a tag of {model.name}: {', '.join(model.tags)}; found '{tag}'")
    return Known(model, tag or model.default)


def _repository(rest: str, text: str) -> Repository:
    repo, colon, quant = rest.partition(":")
    if not REPO.fullmatch(repo) or (colon and not quant) or RAW.search(quant):
        raise HubError(f"{printable(text)}: expected user/repo or user/repo:quantization")
    if quant and not quant.lower().endswith(".gguf"):
        quant = quant.upper()
    return Repository(repo, quant or None)
