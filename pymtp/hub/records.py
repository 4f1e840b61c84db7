"""Records of what was pulled: one JSON file for each name, under PYMTP_HOME/models. They say which files of the Hub's cache a
name stands for; a record's modification time is when the model was last used."""
from __future__ import annotations

import json
import os
import pathlib
import time
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

from .._text import RAW
from ..errors import HubError
from . import cache
from .places import converted_drafters, home
from .types import Entry, Removal, Resolved


def _folder() -> pathlib.Path:
    return home() / "models"


def _path(name: str) -> pathlib.Path:
    return _folder() / (quote(name, safe="") + ".json")


# ---- records ----


def record(resolved: Resolved, drafter_sources: list[str]) -> None:
    """Remembers a pulled pair. drafter_sources: files of the cache that a converted drafter came from."""
    values = asdict(resolved) | {"pulled": time.time(), "drafter_sources": drafter_sources}
    cache.write_atomically(_path(resolved.name), json.dumps(values, indent=1))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not RAW.search(value)


def _is_text_or_none(value: Any) -> bool:
    return value is None or _is_text(value)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 2**63


FIELDS = {"name": _is_text, "quant": _is_text, "target": _is_text, "drafter": _is_text_or_none, "files": _is_texts,
          "bytes": lambda value: type(value) is int and _is_number(value), "repo": _is_text, "commit": _is_text, "drafter_repo": _is_text_or_none,
          "drafter_commit": _is_text_or_none, "licence": _is_text_or_none, "warnings": _is_texts, "pulled": _is_number, "drafter_sources": _is_texts}


def _load(path: pathlib.Path) -> dict[str, Any] | None:
    """A record, with its last use; None for a damaged one, which counts as absent: pulling writes it again. Every field is checked
    here and nowhere else."""
    try:
        values = json.loads(path.read_text("utf-8"))
        used = path.stat().st_mtime
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or not all(key in values and fits(values[key]) for key, fits in FIELDS.items()):
        return None
    if _path(values["name"]) != path or not {values["target"], values["drafter"] or values["target"]} <= set(values["files"]):
        return None
    return values | {"last_used": used}


def _all() -> list[dict[str, Any]]:
    return [values for path in sorted(_folder().glob("*.json")) if (values := _load(path))]


def find(name: str) -> Resolved | None:
    """The pair of a name when all its files are here. Counts as a use."""
    path = _path(name)
    values = _load(path)
    if not values or not all(os.path.exists(f) for f in values["files"]):
        return None
    try:
        os.utime(path)
    except OSError:
        pass  # a home that is read-only
    return Resolved(**{k: values[k] for k in Resolved.__dataclass_fields__})


def installed() -> list[Entry]:
    out = []
    for values in _all():
        out.append(Entry(values["name"], values["bytes"], values["quant"], values["drafter"], os.path.dirname(values["target"]), values["target"],
                         values["repo"], values["commit"], values["licence"], values["pulled"], values["last_used"],
                         all(os.path.exists(f) for f in values["files"])))
    return sorted(out, key=lambda entry: entry.name)


# ---- removing ----


def plan_removal(name: str) -> Removal:
    """What removing would delete. Blobs go with the last link to them in their repository's snapshots. A record that names a file
    which is neither of the cache nor of pymtp is refused."""
    from .known import load
    from .reference import parse

    records = {values["name"]: values for values in _all()}
    if name not in records:
        canonical = parse(name, load()).name
        if canonical not in records:
            raise HubError(f"{name}: not pulled; `pymtp list` shows what is")
        name = canonical
    own = records.pop(name)
    others = {f for values in records.values() for f in values["files"] + values["drafter_sources"]}
    mine = list(dict.fromkeys(own["files"] + own["drafter_sources"]))
    for file in mine:
        if not _is_ours(file):
            raise HubError(f"{_path(name)}: files: expected paths below {cache.root()} or {converted_drafters()}, found {file}: nothing removed")
    links = [f for f in mine if f not in others and os.path.lexists(f)]
    blobs = [str(blob) for blob in _unshared_blobs(links)]
    size = sum(os.stat(f).st_size for f in [*blobs, *(f for f in links if not os.path.islink(f))])
    return Removal(name, links + blobs, size, [f for f in mine if f in others], str(_path(name)))


def _is_ours(path: str) -> bool:
    """Whether deleting a path deletes something of the cache or of pymtp, wherever ".." and links lead. A link at its end is what goes."""
    folder = pathlib.Path(os.path.realpath(os.path.dirname(path)))
    return any(folder.is_relative_to(os.path.realpath(ours)) for ours in (cache.root(), converted_drafters()))


def _unshared_blobs(links: list[str]) -> list[pathlib.Path]:
    """The blobs that only these links refer to."""
    going, out = set(links), {}
    for link in links:
        snapshots = next((p for p in pathlib.Path(link).parents if p.name == "snapshots"), None)
        blob = pathlib.Path(os.path.realpath(link))
        if not os.path.islink(link) or snapshots is None or blob.parent != pathlib.Path(os.path.realpath(snapshots.parent / "blobs")):
            continue
        users = {str(p) for p in snapshots.rglob("*") if p.is_symlink() and os.path.realpath(p) == str(blob)}
        if blob.exists() and users <= going and _is_ours(str(blob)):
            out[blob] = None
    return list(out)


def execute(plan: Removal) -> None:
    """Deletes: the record first, so that an interruption leaves files without a name and never a name without files."""
    pathlib.Path(plan.record).unlink(missing_ok=True)
    for file in plan.files:
        try:
            os.unlink(file)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise HubError(f"{file}: {error.strerror}") from None
        _prune(pathlib.Path(file).parent)


def _prune(folder: pathlib.Path) -> None:
    """Removes folders that became empty, up to the repository's."""
    while folder.name not in ("blobs", "snapshots") and "snapshots" in {p.name for p in folder.parents}:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent
