"""The Hub's cache as huggingface_hub lays it out (its guide "Understand caching"), so that other tools find what is pulled here
and the other way round:

    models--user--repo/blobs/CHECKSUM                content, under its SHA-256 or git blob SHA-1
    models--user--repo/snapshots/COMMIT/path/in/repo link to the blob
    models--user--repo/refs/main                     the commit that was main last
    .locks/models--user--repo/CHECKSUM.lock          held while a blob is fetched

A name under blobs holds verified content or nothing: pulls write to CHECKSUM.pymtp.incomplete, which the next pull continues.
"""
from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pathlib
import secrets
import shutil
import stat
import threading
from typing import TYPE_CHECKING, Iterator

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

from ..errors import HubError

if TYPE_CHECKING:
    from .remote import RemoteFile


# What file systems say that have no symbolic links (those of virtual machines say many things), and those that have no locks.
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EPROTO, errno.EROFS, errno.EINVAL)
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)


class Stopped(Exception):
    """Another part of the pull failed or was interrupted."""


def root() -> pathlib.Path:
    if constants.HF_HUB_CACHE.startswith("~"):
        raise HubError(f"HF_HOME: expected a path, found {constants.HF_HUB_CACHE}: the user has no home")
    return pathlib.Path(constants.HF_HUB_CACHE)


def folder(repo: str) -> pathlib.Path:
    return root() / repo_folder_name(repo_id=repo, repo_type="model")


def blob(file: "RemoteFile") -> pathlib.Path:
    return folder(file.repo) / "blobs" / file.checksum


def partial(file: "RemoteFile") -> pathlib.Path:
    return blob(file).with_name(file.checksum + ".pymtp.incomplete")


def snapshot(repo: str, commit: str) -> pathlib.Path:
    return folder(repo) / "snapshots" / commit


def pointer(file: "RemoteFile") -> pathlib.Path:
    return snapshot(file.repo, file.commit) / file.path


def present(file: "RemoteFile") -> bool:
    """Whether the blob is here in full. One of another size was cut by something else, or the listing lies: it stays until verified
    content comes in its place."""
    try:
        found = os.stat(blob(file))
    except FileNotFoundError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == file.size


@contextlib.contextmanager
def leaves_nothing(temporary: pathlib.Path) -> Iterator[None]:
    """A block that fails leaves no file under this name; its error names it, which that of a failed write does not."""
    try:
        yield
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = os.fspath(temporary)
        raise


def _temporary(folder: pathlib.Path) -> pathlib.Path:
    """A name for a file that is not finished, of no other process or thread, and short: that of the file may be as long as names may be."""
    return folder / f".{secrets.token_hex(8)}.incomplete"


def write_atomically(path: pathlib.Path, text: str) -> None:
    """The whole text under its name, or the file as it was. Makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path.parent)
    with leaves_nothing(temporary):
        temporary.write_text(text, "utf-8")
        os.replace(temporary, path)


def link(file: "RemoteFile") -> pathlib.Path:
    """Makes the blob appear in its snapshot. Without symbolic links it moves there, or is copied where a link from other days needs it."""
    path, target = pointer(file), blob(file)
    if path.exists() and (not target.exists() or path.resolve() == target.resolve()):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path.parent)
    with leaves_nothing(temporary):
        try:
            temporary.symlink_to(os.path.relpath(target, path.parent))
        except OSError as error:
            if error.errno not in NO_LINKS:
                error.filename = os.fspath(path)
                raise
            if os.path.realpath(target) not in links(folder(file.repo) / "snapshots"):
                os.replace(target, path)
                return path
            shutil.copyfile(target, temporary)
        os.replace(temporary, path)
    return path


def links(snapshots: pathlib.Path) -> dict[str, set[str]]:
    """The symbolic links below a repository's snapshots, by where each leads. A folder that cannot be read is an error: it may have some."""
    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # removed meanwhile, with its links
            raise error

    out: dict[str, set[str]] = {}
    for place, folders, names in os.walk(snapshots, onerror=fail):
        for path in (os.path.join(place, name) for name in folders + names):
            if os.path.islink(path):
                out.setdefault(os.path.realpath(path), set()).add(path)
    return out


def write_ref(repo: str, commit: str) -> None:
    """Remembers the commit as that of main, for other tools that work offline."""
    path = folder(repo) / "refs" / "main"
    with contextlib.suppress(FileNotFoundError):
        if read_regular(path, len(commit) + 1) == commit.encode():
            return
    write_atomically(path, commit)


def open_regular(path: pathlib.Path, flags: int) -> int:
    """os.open of what must be a file. Anything may lie in a folder; opening a FIFO would wait for its other end."""
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    return descriptor


def read_regular(path: pathlib.Path, limit: int) -> bytes:
    """A file's first bytes, at most `limit` of them."""
    with open(open_regular(path, os.O_RDONLY), "rb") as file:
        return file.read(limit)


def locked(file: "RemoteFile", stop: threading.Event) -> contextlib.AbstractContextManager[None]:
    """Held by one process at a time while it fetches a blob."""
    return held(root() / ".locks" / folder(file.repo).name / f"{file.checksum}.lock", stop)


@contextlib.contextmanager
def held(path: pathlib.Path, stop: threading.Event) -> Iterator[None]:
    """A lock, given back by the system when its holder dies; without one where the file system has none. The file may be removed by its
    last holder (other tools do), so what was locked must still be what lies there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            opened = open_regular(path, os.O_RDWR | os.O_CREAT)
        except PermissionError:  # another user's: to lock it, reading is enough (NFS wants writing)
            opened = open_regular(path, os.O_RDONLY)
        with open(opened, "rb") as lock:
            if _take(lock.fileno(), path):
                yield
                return
        if stop.wait(0.1):
            raise Stopped


def _take(lock: int, path: pathlib.Path) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(lock), os.stat(path))
    except (BlockingIOError, FileNotFoundError):
        return False
    except OSError as error:
        if error.errno in NO_LOCKS:
            return True
        error.filename = os.fspath(path)
        raise
