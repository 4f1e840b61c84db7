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

from ..errors import HubError
from . import cache
from .places import home
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


def _load(path: pathlib.Path) -> dict[str, Any] | None:
    """A record; None for a damaged one, which counts as absent: pulling writes it again."""
    try:
        values = json.loads(path.read_text("utf-8"))
        Resolved(**{k: values[k] for k in Resolved.__dataclass_fields__})
        return values if all(isinstance(f, str) for f in values["files"] + values["drafter_sources"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


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
                         values["repo"], values["commit"], values["licence"], values["pulled"], _path(values["name"]).stat().st_mtime,
                         all(os.path.exists(f) for f in values["files"])))
    return sorted(out, key=lambda entry: entry.name)


# ---- removing ----


def plan_removal(name: str) -> Removal:
    """What removing would delete. Blobs go with the last link to them in their repository's snapshots."""
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
    links = [f for f in mine if f not in others and os.path.lexists(f)]
    blobs = [str(blob) for blob in _unshared_blobs(links)]
    size = sum(os.stat(f).st_size for f in [*blobs, *(f for f in links if not os.path.islink(f))])
    return Removal(name, links + blobs, size, [f for f in mine if f in others], str(_path(name)))


def _unshared_blobs(links: list[str]) -> list[pathlib.Path]:
    """The blobs that only these links refer to."""
    going, out = set(links), {}
    for link in links:
        snapshots = next((p for p in pathlib.Path(link).parents if p.name == "snapshots"), None)
        blob = pathlib.Path(os.path.realpath(link))
        if not os.path.islink(link) or snapshots is None or blob.parent != pathlib.Path(os.path.realpath(snapshots.parent / "blobs")):
            continue
        users = {str(p) for p in snapshots.rglob("*") if p.is_symlink() and os.path.realpath(p) == str(blob)}
        if blob.exists() and users <= going:
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
