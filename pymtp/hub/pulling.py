"""From a reference to a pair on this machine: what is recorded or local is used, the rest is looked up, fetched, verified,
paired and recorded."""
from __future__ import annotations

import contextlib
import os
import pathlib
from dataclasses import dataclass, replace
from typing import Iterator

from huggingface_hub import constants

from ..errors import ArgumentError, FormatError, HubError, MismatchError, ReadError, UnsupportedError
from . import cache, converted, pairs, records, remote
from .known import DrafterSource, KnownModel, load
from .download import fetch
from .places import home
from .progress import Progress, automatic
from .reference import Known, Local, Reference, Repository, parse
from .remote import Listing, RemoteFile
from .select import choose, is_sidecar, quant_of, sets
from .types import Resolved, Unavailable


@contextlib.contextmanager
def _of_the_hub(what: str) -> Iterator[None]:
    """Failures of the system as HubError: a file that may not be read, a disk that is full."""
    try:
        yield
    except OSError as error:
        raise HubError(f"{error.filename or what}: {error.strerror or error}") from None


def resolve(reference: str, drafter: str | None, offline: bool | None, progress: Progress | None) -> Resolved:
    with _of_the_hub(reference):
        models = load()
        ref = parse(reference, models)
        if isinstance(ref, Local):
            return _with_drafter(_local(ref.path, drafter == "auto"), drafter, models, offline, progress)
        found = records.find(ref.name)
        if found:
            return _with_drafter(found, drafter, models, offline, progress)
        if constants.HF_HUB_OFFLINE if offline is None else offline:
            raise HubError(f"{reference}: not on this machine, and offline")
        return _pull(ref, drafter, models, progress)


def pull(reference: str, drafter: str | None, progress: Progress | None) -> Resolved:
    with _of_the_hub(reference):
        models = load()
        ref = parse(reference, models)
        if isinstance(ref, Local):
            return _with_drafter(_local(ref.path, drafter == "auto"), drafter, models, None, progress)
        return _pull(ref, drafter, models, progress)


def _pull(ref: Reference, drafter: str | None, models: list[KnownModel], progress: Progress | None) -> Resolved:
    home(), cache.root()  # errors before the first byte where there is no place to record it
    with progress or automatic() as shown:
        found = Pull(ref, models, shown).run()
    return _with_drafter(found, drafter, models, None, progress)


def _with_drafter(found: Resolved, drafter: str | None, models: list[KnownModel], offline: bool | None, progress: Progress | None) -> Resolved:
    """The pair with the drafter that was asked for in the place of its own."""
    if drafter == "auto":
        return found
    own = pairs.parts(found.drafter) if found.drafter else []
    found = replace(found, drafter=None, drafter_repo=None, drafter_commit=None, files=[f for f in found.files if f not in own])
    found = replace(found, bytes=_sizes(found.files))
    if drafter is None:
        return found
    ref = parse(drafter, models)
    listing = None
    if isinstance(ref, Local):
        path = ref.path
    elif isinstance(ref, Known):
        raise ArgumentError(f"drafter: expected a path or a repository, found the catalogue's name '{drafter}'")
    else:
        path, listing = _fetched_drafter(ref, offline, progress)
    pairs.check(found.target, path)
    return replace(found, drafter=path, files=[*found.files, *pairs.parts(path)], bytes=found.bytes + _sizes(pairs.parts(path)),
                   drafter_repo=listing.repo if listing else None, drafter_commit=listing.commit if listing else None,
                   warnings=pairs.warnings(found.target, path))


def _fetched_drafter(ref: Repository, offline: bool | None, progress: Progress | None) -> tuple[str, Listing]:
    if offline or (offline is None and constants.HF_HUB_OFFLINE):
        raise HubError(f"{ref.name}: offline: name the drafter's file")
    listing = remote.listing(ref.repo)
    names = choose(listing.files, ref.quant, ref.name, drafter=True)
    with progress or automatic() as shown:
        fetch([listing.files[name] for name in names], shown)
    return str(cache.pointer(listing.files[names[0]])), listing


def _sizes(paths: list[str]) -> int:
    return sum(os.path.getsize(path) for path in paths)


def _local(path: str, with_drafter: bool) -> Resolved:
    """A file or folder. What is called a target must be one."""
    target = pairs.target_in(pathlib.Path(path)) if os.path.isdir(path) else path
    pairs.check(target)
    drafter, warnings = pairs.drafter_beside(target) if with_drafter else (None, [])
    if drafter:
        warnings = pairs.warnings(target, drafter)
    files = pairs.parts(target) + (pairs.parts(drafter) if drafter else [])
    return Resolved(path, pairs.main_type(target), target, drafter, files, _sizes(files), warnings=warnings)


# ---- pulling ----


@dataclass(frozen=True)
class Choice:
    """Files of a repository that were chosen as target or drafter. convert: the type to convert a checkpoint to."""

    listing: Listing
    files: list[RemoteFile]
    qat: bool | None
    convert: str | None = None


class Pull:
    """One pull of a name of the catalogue or a repository."""

    def __init__(self, ref: Reference, models: list[KnownModel], progress: Progress):
        self.ref, self.models, self.progress = ref, models, progress
        self.listings: dict[str, Listing | Unavailable] = {}
        self.warnings: list[str] = []

    def run(self) -> Resolved:
        target = self._target()
        candidates = self._drafters(target)
        first = self._next(candidates)
        fetch([*target.files, *(first.files if first and not first.convert else [])], self.progress)
        path = cache.pointer(target.files[0])
        pairs.check(path)
        while first:
            drafter = self._fitting(path, first)
            if drafter:
                break
            first = self._next(candidates)
        for choice in [target, *([first] if first else [])]:
            cache.write_ref(choice.listing.repo, choice.listing.commit)
        out = self._resolved(target, first, drafter if first else None)
        records.record(out, [str(cache.pointer(f)) for f in first.files] if first and first.convert else [])
        return out

    def _resolved(self, target: Choice, choice: Choice | None, drafter: str | None) -> Resolved:
        files = [str(cache.pointer(f)) for f in target.files] + (pairs.parts(drafter) if drafter else [])
        quant = self.ref.tag if isinstance(self.ref, Known) else quant_of(target.files[0].path) or pairs.main_type(files[0])
        licence = self.ref.model.licence if isinstance(self.ref, Known) else target.listing.licence
        if not choice:
            self.warnings.append("no drafter: it will run without drafts")
        elif drafter:
            self.warnings += pairs.warnings(files[0], drafter, (target.qat, choice.qat))
        return Resolved(self.ref.name, quant, files[0], drafter, files, _sizes(files), target.listing.repo, target.listing.commit,
                        choice.listing.repo if choice else None, choice.listing.commit if choice else None, licence, self.warnings)

    # ---- what to fetch ----

    def _listing(self, repo: str) -> Listing:
        """Asks for each repository once."""
        if repo not in self.listings:
            try:
                self.listings[repo] = remote.listing(repo)
            except Unavailable as error:
                self.listings[repo] = error
        found = self.listings[repo]
        if isinstance(found, Unavailable):
            raise found
        return found

    def _target(self) -> Choice:
        if isinstance(self.ref, Repository):
            listing = self._listing(self.ref.repo)
            return self._choice(listing, choose(listing.files, self.ref.quant, self.ref.name), self._qat(self.ref.repo))
        assert isinstance(self.ref, Known)
        reasons = []
        for source in self.ref.model.targets:
            if self.ref.tag not in source.tags:
                continue
            try:
                listing = self._listing(source.repo)
                return self._choice(listing, choose(listing.files, source.tags[self.ref.tag], source.repo), source.qat)
            except Unavailable as error:
                reasons.append(str(error))
        raise Unavailable(f"{self.ref.name}: {'; '.join(reasons)}")

    def _choice(self, listing: Listing, names: list[str], qat: bool | None, convert: str | None = None) -> Choice:
        files = [listing.files[name] for name in names]
        if not cache.pointer(files[0]).exists():
            remote.check_access(files[0])
        return Choice(listing, files, qat, convert)

    def _qat(self, repo: str) -> bool | None:
        """What the catalogue says of a repository."""
        return next((source.qat for model in self.models for source in model.targets if source.repo == repo), None)

    def _drafters(self, target: Choice) -> list[DrafterSource]:
        """Where to look for a drafter, best first. A repository that the catalogue does not know is searched itself."""
        if isinstance(self.ref, Known):
            sources = self.ref.model.drafters
        else:
            repo = target.listing.repo
            sources = next((m.drafters for m in self.models if any(s.repo == repo for s in m.targets)), [])
            if not sources and any(is_sidecar(group[0]) for group in sets(target.listing.files)):
                sources = [DrafterSource(repo, "*.gguf")]
        return sorted(sources, key=lambda source: source.qat != bool(target.qat))  # stable: made for this kind of training first

    def _next(self, candidates: list[DrafterSource]) -> Choice | None:
        """The next candidate whose repository has what is expected. Takes it off the list."""
        while candidates:
            source = candidates.pop(0)
            try:
                listing = self._listing(source.repo)
                names = converted.files_of(listing) if source.convert else choose(listing.files, source.files, source.repo, drafter=True)
                return self._choice(listing, names, source.qat, source.convert)
            except Unavailable as error:
                self.warnings.append(f"drafter passed over: {error}")
        return None

    def _fitting(self, target: pathlib.Path, choice: Choice) -> str | None:
        """The drafter's file when it fits the target."""
        try:
            if choice.convert:
                path = converted.converted(choice.listing, choice.convert, self.progress)
            else:
                fetch(choice.files, self.progress)
                path = cache.pointer(choice.files[0])
            pairs.check(target, path)
            return str(path)
        except (MismatchError, FormatError, UnsupportedError, ReadError, Unavailable) as error:
            self.warnings.append(f"drafter passed over: {error}")
            return None
