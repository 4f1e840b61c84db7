"""Fetches files into the Hub's cache: several at once, each continued where an earlier pull stopped, and verified before it gets
its name.

Whatever interrupts a pull, the cache holds verified blobs and beginnings of others (*.pymtp.incomplete). A beginning that
turns out wrong is dropped and the file fetched once more from its start; one that is wrong then is refused.
"""
from __future__ import annotations

import os
import pathlib
import shutil
import threading
from typing import Iterable

from ..errors import HubError, ResourceError
from . import cache, remote
from .cache import Stopped
from .progress import Progress
from .remote import RemoteFile, Restart, Transient
from .verify import CHUNK, hasher

PARALLEL = 4
RETRIES = 5  # failures in a row without a byte beyond all earlier ones
PATIENCE = 0.5  # seconds before the first retry; doubles


def fetch(files: Iterable[RemoteFile], progress: Progress) -> None:
    """All files, or an error. Ctrl-C ends it at once."""
    files = list({(f.repo, f.commit, f.path): f for f in files}.values())
    try:
        check_space(files)
    except OSError as error:  # a name too long for this machine
        raise HubError(f"{error.filename}: {error.strerror}") from None
    waiting, stop, failures = list(reversed(files)), threading.Event(), []

    def work() -> None:
        try:
            while waiting and not stop.is_set():
                _fetch_one(waiting.pop(), progress, stop)
        except Stopped:
            pass
        except BaseException as error:
            failures.append(error)
            stop.set()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(PARALLEL, len(files)))]
    try:
        for thread in threads:
            try:
                thread.start()
            except RuntimeError as error:
                if thread is threads[0]:  # one alone fetches everything
                    raise ResourceError(f"no thread could be started: {error}") from None
                break
        for thread in threads:
            if thread.ident:
                thread.join()
    finally:
        stop.set()
    if failures:
        raise failures[0]


def check_space(files: list[RemoteFile]) -> None:
    """Refuses what cannot fit before the first byte."""
    missing = {cache.blob(f): f.size - _size(cache.partial(f)) for f in files if not cache.pointer(f).exists() and not cache.present(f)}
    place = cache.root()
    while not place.exists():
        place = place.parent
    need, free = sum(missing.values()), shutil.disk_usage(place).free
    if need > free:
        raise HubError(f"{cache.root()}: expected {gib(need)} of free space, found {gib(free)} (HF_HOME chooses another place)")


def gib(n: int) -> str:
    return f"{n / 2**30:.1f} GiB" if n >= 2**30 else f"{n / 2**20:.1f} MiB"


def _size(path: pathlib.Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


# ---- one file ----


def _fetch_one(file: RemoteFile, progress: Progress, stop: threading.Event) -> None:
    if cache.pointer(file).exists() and _size(cache.pointer(file)) == file.size:
        return
    try:
        with cache.locked(file, stop):
            if not cache.present(file):
                cache.partial(file).parent.mkdir(parents=True, exist_ok=True)
                _complete(file, progress, stop)
            cache.link(file)
    except OSError as error:  # a full disk, a folder that cannot be written
        raise HubError(f"{error.filename or cache.partial(file)}: {error.strerror or error}") from None


def _complete(file: RemoteFile, progress: Progress, stop: threading.Event) -> None:
    """Makes the blob out of what an earlier pull left and what is fetched now."""
    path = cache.partial(file)
    while True:
        with Beginning(file, path, progress, stop) as beginning:
            resumed = beginning.fill()
            found = beginning.state.hexdigest()
        if found == file.checksum:
            break
        path.unlink()
        if not resumed:
            raise HubError(f"{file.label}: expected {'SHA-256' if file.sha256 else 'git SHA-1'} {file.checksum}, found {found}: removed")
        progress.note(f"{file.label}: what an earlier pull left is damaged; starting afresh")
    os.replace(path, cache.blob(file))
    progress.end(file.label)


class Beginning:
    """A file as far as it is here: on disk, and its checksum so far. What reaches the disk is never buffered here."""

    def __init__(self, file: RemoteFile, path: pathlib.Path, progress: Progress, stop: threading.Event):
        self.file, self.progress, self.stop = file, progress, stop
        self.out = open(cache.open_regular(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), "a+b", buffering=0)

    def __enter__(self) -> "Beginning":
        return self

    def __exit__(self, *_: object) -> None:
        self.out.close()

    def fill(self) -> bool:
        """Fetches the rest. Returns whether it holds bytes of an earlier pull."""
        resumed, failures = self._take_up(), 0
        farthest = self.done
        while self.done < self.file.size:
            text = "it ends too early"
            try:
                with remote.content(self.file, self.done) as chunks:
                    for chunk in chunks:
                        self._add(chunk)
            except Restart:
                self._restart()
                resumed = False
            except Transient as error:
                text = str(error)
            failures = 0 if self.done > farthest else failures + 1  # coming as far as before a restart is no progress
            farthest = max(farthest, self.done)
            if failures > RETRIES:
                raise HubError(f"{self.file.label}: the connection fails again and again: {text}")
            if self.done < self.file.size and self.stop.wait(PATIENCE * 2**failures):
                raise Stopped
        os.fsync(self.out.fileno())
        return resumed

    def _take_up(self) -> bool:
        """Reads what is there into the checksum."""
        self.state, self.done = hasher(self.file.sha256, self.file.size), 0
        if os.fstat(self.out.fileno()).st_size > self.file.size:
            self.out.truncate(0)
        self.out.seek(0)
        while chunk := self.out.read(CHUNK):
            if self.stop.is_set():
                raise Stopped
            self.state.update(chunk)
            self.done += len(chunk)
        self.progress.begin(self.file.label, self.file.size, self.done)
        return self.done > 0

    def _restart(self) -> None:
        self.out.truncate(0)
        self.state, self.done = hasher(self.file.sha256, self.file.size), 0
        self.progress.begin(self.file.label, self.file.size)

    def _add(self, chunk: bytes) -> None:
        if self.stop.is_set():
            raise Stopped
        if self.done + len(chunk) > self.file.size:
            raise HubError(f"{self.file.label}: expected {self.file.size} bytes, found more")
        left = memoryview(chunk)
        while left:  # a write may be short where the disk fills up; the next one then says so
            written = self.out.write(left)
            self.state.update(left[:written])
            self.done += written
            left = left[written:]
        self.progress.advance(self.file.label, len(chunk))
