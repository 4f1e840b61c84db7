"""What the hub package hands out: plain records without behaviour."""
from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import HubError


class Unavailable(HubError):
    """A repository does not offer what was looked for: another may."""


@dataclass(frozen=True)
class Resolved:
    """A pair that is on this machine and fits. Paths are what pymtp.Model takes.

    name: canonical, "gemma4-26b:q4_k_m", "hf.co/user/repo:Q4_K_M" or a path. quant: the tag or quantization asked for or found;
    of a local file what most of its bytes are. target: of a split set its first part; files: all files, drafter included.
    repo, commit, drafter_repo, drafter_commit: None for local files. bytes: of all files. warnings: one line each.
    """

    name: str
    quant: str
    target: str
    drafter: str | None
    files: list[str]
    bytes: int
    repo: str | None = None
    commit: str | None = None
    drafter_repo: str | None = None
    drafter_commit: str | None = None
    licence: str | None = None
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Entry:
    """A model that was pulled. name is what resolve, pull and remove take. where: folder of the target. pulled, last_used:
    seconds since 1970. complete: False when files of it were removed behind pymtp's back; pulling brings them back."""

    name: str
    bytes: int
    quant: str
    drafter: str | None
    where: str
    target: str
    repo: str
    commit: str
    licence: str | None
    pulled: float
    last_used: float
    complete: bool


@dataclass(frozen=True)
class Removal:
    """What removing a model would do; execute() does it. files: to be deleted, with blobs that nothing else refers to; bytes:
    freed. kept: files that other names use."""

    name: str
    files: list[str]
    bytes: int
    kept: list[str]
    record: str

    def execute(self) -> None:
        from .records import execute

        execute(self)
