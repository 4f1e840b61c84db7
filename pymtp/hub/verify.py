"""Checksums by which the Hub names files: SHA-256 of large ones (Git LFS), git's SHA-1 of a blob for small ones."""
from __future__ import annotations

import hashlib
import pathlib
from typing import Any

CHUNK = 1 << 20


def hasher(sha256: str | None, size: int) -> Any:
    """A hash object for a file's content, fed from its beginning."""
    if sha256:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


def digest(path: pathlib.Path, sha256: str | None, size: int) -> str:
    """The checksum of a file, of the kind that is expected of it."""
    state = hasher(sha256, size)
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            state.update(chunk)
    return state.hexdigest()
