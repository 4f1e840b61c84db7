"""The catalogue: models known by name, and in which repositories of the Hub their files are looked for.

A JSON list of objects. The user's file (places.user_catalogue) has the same form: its entries come in the place of the package's
of the same name, or in addition.

  name, aliases   lower case, without slash or colon
  title, licence  for people
  default         the tag where a reference gives none
  targets         repositories, best first: "repo", "tags" {tag: which file}, "qat": true where trained for quantization
  drafters        likewise: "repo", and "files", which file; or "convert", the type to which a checkpoint in safetensors is
                  converted on this machine; "qat"

"Which file" is a quantization ("Q4_K_M") or a pattern ("mtp-*.gguf") for the repository's list of files (select.py). A tag that
several targets have is taken from the first that has such a file.
"""
from __future__ import annotations

import difflib
import json
import os
import pathlib
import re
from dataclasses import dataclass, field
from typing import Any

from .._text import RAW, as_json, printable, several
from ..errors import FormatError, HubError, ReadError
from .places import user_catalogue

NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class TargetSource:
    repo: str
    tags: dict[str, str]
    qat: bool = False


@dataclass(frozen=True)
class DrafterSource:
    """Of files and convert exactly one is given."""

    repo: str
    files: str | None = None
    convert: str | None = None
    qat: bool = False


@dataclass(frozen=True)
class KnownModel:
    """An entry of the catalogue."""

    name: str
    aliases: list[str]
    title: str
    licence: str
    default: str
    targets: list[TargetSource] = field(repr=False)
    drafters: list[DrafterSource] = field(repr=False)

    @property
    def tags(self) -> list[str]:
        """The default first, each once."""
        return list(dict.fromkeys([self.default, *(tag for source in self.targets for tag in source.tags)]))


def load() -> list[KnownModel]:
    """All entries, the package's first."""
    models = {model.name: model for model in _read(pathlib.Path(__file__).with_name("catalogue.json"))}
    own = user_catalogue()
    if os.path.exists(own):  # false too where the folder is another user's
        models |= {model.name: model for model in _read(own)}
    return list(models.values())


def find(name: str, models: list[KnownModel]) -> KnownModel | None:
    """The model of a name or alias, whatever its case. Names go before aliases."""
    name = name.lower()
    return next((m for m in models if m.name == name), None) or next((m for m in models if name in m.aliases), None)


def unknown(name: str, models: list[KnownModel]) -> HubError:
    names = [n for m in models for n in (m.name, *m.aliases)]
    close = difflib.get_close_matches(name[:100].lower(), names, 3)
    hint = f"did you mean {' or '.join(close)}?" if close else "known are " + several([m.name for m in models], 20)
    return HubError(f"'{printable(name)}': expected a name of the catalogue, user/repo or an existing file or folder; {hint}")


# ---- reading ----


def _read(path: pathlib.Path) -> list[KnownModel]:
    try:
        values = json.loads(path.read_text("utf-8"))
        if not isinstance(values, list):
            raise FormatError(f"{path}: expected a list of models, found {type(values).__name__}")
        return [_model(_Fields(path, f"model {i}", value)) for i, value in enumerate(values)]
    except OSError as error:
        raise ReadError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # nested too deep to be read, or to be shown
        raise FormatError(f"{path}: expected JSON, found {error}") from None


class _Fields:
    """A JSON object whose values are checked as they are taken; what is left over is an error."""

    def __init__(self, path: pathlib.Path, where: str, value: Any):
        self.path, self.where = path, where
        if not isinstance(value, dict):
            raise self.error("an object", value)
        self.left = dict(value)

    def error(self, expected: str, found: Any, key: str = "") -> FormatError:
        return FormatError(f"{self.path}: {self.where}{key and f', {key}'}: expected {expected}, found {as_json(found)}")

    def take(self, key: str, expected: str, fits: Any, default: Any = None) -> Any:
        value = self.left.pop(key, default)
        if not fits(value):
            raise self.error(expected, value, key)
        return value

    def text(self, key: str, pattern: str = ".+", default: Any = None) -> Any:
        return self.take(key, "text" if pattern == ".+" else f"text like {pattern}",
                         lambda v: v is default or _is_like(pattern, v), default)

    def required(self, key: str, pattern: str = ".+") -> str:
        return self.take(key, "text" if pattern == ".+" else f"text like {pattern}", lambda v: _is_like(pattern, v))

    def objects(self, key: str) -> list["_Fields"]:
        values = self.take(key, "a list of objects", lambda v: isinstance(v, list), [])
        return [_Fields(self.path, f"{self.where}, {key} {i}", value) for i, value in enumerate(values)]

    def done(self) -> None:
        for key, value in self.left.items():
            raise self.error("no such key", value, printable(key))


def _is_like(pattern: str, value: Any) -> bool:
    """Text of a form, which can be shown."""
    return isinstance(value, str) and re.fullmatch(pattern, value) is not None and not RAW.search(value)


def _model(f: _Fields) -> KnownModel:
    name = f.required("name", NAME.pattern)
    f.where = f"model '{name}'"
    aliases = f.take("aliases", "a list of names", lambda v: isinstance(v, list) and all(isinstance(a, str) and NAME.fullmatch(a) for a in v), [])
    targets, drafters = [_target(t) for t in f.objects("targets")], [_drafter(d) for d in f.objects("drafters")]
    out = KnownModel(name, aliases, f.text("title", default=name), f.text("licence", default=""), f.required("default"), targets, drafters)
    f.done()
    if not any(out.default in t.tags for t in targets):
        raise f.error(f"a target with the default tag '{out.default}'", sorted({tag for t in targets for tag in t.tags}), "targets")
    return out


def _target(f: _Fields) -> TargetSource:
    tags = f.take("tags", "an object of tags in lower case and files",
                  lambda v: isinstance(v, dict) and v and all(NAME.fullmatch(k) and _is_like(".+", x) for k, x in v.items()))
    out = TargetSource(f.required("repo", REPO.pattern), tags, f.take("qat", "true or false", lambda v: isinstance(v, bool), False))
    f.done()
    return out


def _drafter(f: _Fields) -> DrafterSource:
    out = DrafterSource(f.required("repo", REPO.pattern), f.text("files"), f.text("convert"),
                        f.take("qat", "true or false", lambda v: isinstance(v, bool), False))
    f.done()
    if (out.files is None) == (out.convert is None):
        raise f.error("either 'files' or 'convert'", [key for key in ("files", "convert") if getattr(out, key)])
    return out
