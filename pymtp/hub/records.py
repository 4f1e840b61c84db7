"""Records of what was pulled: one JSON file for each name, under PYMTP_HOME/models. They say which files of the Hub's cache a
name stands for; a record's modification time is when the model was last used."""
from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import threading
import time
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

from .._text import RAW
from ..errors import ArgumentError, HubError
from . import cache
from .places import converted_drafters, home
from .types import Entry, Removal, Resolved


def _folder() -> pathlib.Path:
    return home() / "models"


def _path(name: str) -> pathlib.Path:
    """Encoded, a name may be longer than that of a file: then a hash stands for its end. "+" is in no encoded name."""
    quoted = quote(name, safe="")
    if len(quoted) > 240:
        quoted = f"{quoted[:160]}+{hashlib.sha256(name.encode()).hexdigest()}"
    return _folder() / (quoted + ".json")


def locked() -> contextlib.AbstractContextManager[None]:
    """Held while a record is written, and while records decide what is deleted."""
    return cache.held(home() / ".lock", threading.Event())


# ---- records ----

LIMIT = 1 << 20  # bytes of a record: thousands of files


def record(resolved: Resolved, drafter_sources: list[str]) -> None:
    """Remembers a pulled pair. drafter_sources: files of the cache that a converted drafter came from."""
    text = json.dumps(asdict(resolved) | {"pulled": time.time(), "drafter_sources": drafter_sources}, indent=1)
    if len(text) > LIMIT:
        raise HubError(f"{resolved.name}: expected a record of at most {LIMIT} bytes, found {len(text)}")
    with locked():
        gone = next((f for f in resolved.files if not os.path.exists(f)), None)
        if gone:
            raise HubError(f"{gone}: removed while {resolved.name} was pulled: pull it again")
        cache.write_atomically(_path(resolved.name), text)


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
        text = cache.read_regular(path, LIMIT + 1)
        if len(text) > LIMIT:
            return None
        values = json.loads(text.decode())
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

    if not isinstance(name, str):
        raise ArgumentError(f"name: expected a reference, found {type(name).__name__}")
    records = {values["name"]: values for values in _all()}
    if name not in records:
        canonical = parse(name, load()).name
        if canonical not in records:
            raise HubError(f"{name}: not pulled; `pymtp list` shows what is")
        name = canonical
    own = records.pop(name)
    others = {f for values in records.values() for f in values["files"] + values["drafter_sources"]}
    mine = _named(own)
    for file in mine:
        if not _is_ours(file):
            raise HubError(f"{_path(name)}: files: expected paths below {cache.root()} or {converted_drafters()}, found {file}: nothing removed")
    links = [f for f in mine if f not in others and os.path.lexists(f)]
    try:
        blobs = [str(blob) for blob in _unshared_blobs(links)]
        size = sum(os.stat(f).st_size for f in [*blobs, *(f for f in links if not os.path.islink(f))])
    except OSError as error:
        raise HubError(f"{error.filename}: {error.strerror}") from None
    return Removal(name, links + blobs, size, [f for f in mine if f in others], str(_path(name)))


def _named(values: dict[str, Any]) -> list[str]:
    """The files that a record names."""
    return list(dict.fromkeys(values["files"] + values["drafter_sources"]))


def _is_ours(path: str) -> bool:
    """Whether deleting a path deletes something of the cache or of pymtp, wherever ".." and links lead. A link at its end is what goes."""
    folder = pathlib.Path(os.path.realpath(os.path.dirname(path)))
    return any(folder.is_relative_to(os.path.realpath(ours)) for ours in (cache.root(), converted_drafters()))


def _unshared_blobs(links: list[str]) -> list[pathlib.Path]:
    """The blobs that only these links refer to."""
    going, out = set(links), {}
    users: dict[pathlib.Path, dict[str, set[str]]] = {}  # of each repository, what leads to each of its files
    for link in links:
        snapshots = next((p for p in pathlib.Path(link).parents if p.name == "snapshots"), None)
        blob = pathlib.Path(os.path.realpath(link))
        if not os.path.islink(link) or snapshots is None or blob.parent != pathlib.Path(os.path.realpath(snapshots.parent / "blobs")):
            continue
        if snapshots not in users:
            users[snapshots] = cache.links(snapshots)
        if blob.exists() and users[snapshots].get(str(blob), set()) <= going and _is_ours(str(blob)):
            out[blob] = None
    return list(out)


def execute(plan: Removal) -> None:
    """Deletes what was planned and may go still: others may have pulled since."""
    try:
        with locked():
            _execute(plan)
    except OSError as error:
        raise HubError(f"{error.filename or plan.record}: {error.strerror}") from None


def _execute(plan: Removal) -> None:
    """The record first, so that an interruption leaves files without a name and never a name without files."""
    own = next((values for values in _all() if values["name"] == plan.name), None)
    if own is None:
        raise HubError(f"{plan.name}: removed meanwhile")
    planned = {*plan.files, *plan.kept}
    if any(f not in planned and os.path.lexists(f) for f in _named(own)):
        raise HubError(f"{plan.name}: pulled again meanwhile: nothing removed")
    still = set(plan_removal(plan.name).files)
    os.unlink(_path(plan.name))
    for file in plan.files:
        if file in still:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(file)
                _prune(pathlib.Path(file).parent)


def _prune(folder: pathlib.Path) -> None:
    """Removes folders that became empty, up to the repository's."""
    while folder.name not in ("blobs", "snapshots") and "snapshots" in {p.name for p in folder.parents}:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent
