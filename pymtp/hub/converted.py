"""Drafters that are published as checkpoints: fetched once, converted once, and kept under PYMTP_HOME/drafters by repository,
commit and type."""
from __future__ import annotations

import fnmatch
import pathlib

from .._text import several
from ..errors import FormatError, ReadError
from . import cache, pairs
from .download import fetch
from .places import converted_drafters
from .progress import Progress
from .remote import Listing
from .types import Unavailable

PATTERNS = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "tokenizer.json", "tokenizer.model",
            "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.*")


def files_of(listing: Listing) -> list[str]:
    """What conversion reads, at the repository's root."""
    found = [name for name in listing.files if any(fnmatch.fnmatchcase(name, p) for p in PATTERNS) and "/" not in name]
    if not any(name.endswith(".safetensors") for name in found) or "config.json" not in listing.files:
        names = several(list(listing.files)) or "no files"
        raise Unavailable(f"{listing.repo}: expected a checkpoint (config.json and *.safetensors), found {names}")
    return found


def converted(listing: Listing, mix: str, progress: Progress) -> pathlib.Path:
    """The GGUF file of a drafter's checkpoint."""
    path = converted_drafters() / f"{listing.repo.replace('/', '--')}-{listing.commit[:12]}-{mix}.gguf"
    fetch([listing.files[name] for name in files_of(listing)], progress)
    if not path.exists() or _is_damaged(path):
        from ..convert import plan

        path.parent.mkdir(parents=True, exist_ok=True)
        with plan(cache.snapshot(listing.repo, listing.commit), mix) as conversion:
            progress.begin(path.name, conversion.bytes)
            conversion.write(path, overwrite=True, progress=lambda entry, n: progress.advance(path.name, n))
            progress.end(path.name)
    return path


def _is_damaged(path: pathlib.Path) -> bool:
    """What converting again may repair."""
    try:
        pairs.is_target(path)
    except (FormatError, ReadError):
        return True
    return False
