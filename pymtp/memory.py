"""How much memory a model needs and there is, before it is loaded. The library estimates (pymtp_memory_estimate); this adds it up for
the positions wanted, and refuses what cannot fit."""
from __future__ import annotations

import os
from dataclasses import dataclass

from ._core import make_options
from ._lib import Call, lib, new_struct, path_bytes
from .errors import OutOfMemoryError

UNKNOWN = 2**64 - 1
USUAL = 4096  # positions counted where the user asks for no context: memory is taken as they fill, and few chats fill the maximum
SNAPSHOTS = 2  # a session keeps at most


@dataclass(frozen=True)
class Estimate:
    """Bytes. positions: those counted, of `context` possible. snapshots: of one session, at most. available: None where unknown."""

    weights: int
    activations: int
    kv_per_position: int
    kv_fixed: int
    snapshots: int
    positions: int
    context: int
    available: int | None

    @property
    def kv(self) -> int:
        """Keys and values of one session of `positions`."""
        return self.positions * self.kv_per_position + self.kv_fixed + self.snapshots

    @property
    def needed(self) -> int:
        return self.weights + self.activations + self.kv

    @property
    def fits(self) -> bool:
        return self.available is None or self.needed <= self.available


def estimate(target: str | os.PathLike[str], drafter: str | os.PathLike[str] | None = None, context: int | None = None,
             kv: str = "f16", threads: int | None = None) -> Estimate:
    """What a model with one session of `context` positions holds; without context, of the first 4096. Reads no weights."""
    raw, call = new_struct("pymtp_memory"), Call()
    options, _keep = make_options(drafter, threads, context, kv, None)
    call.check(lib.pymtp_memory_estimate(path_bytes(target), options, raw, call.err))
    positions = raw.context if context is not None else min(USUAL, raw.context)
    return Estimate(raw.weight_bytes, raw.activation_bytes, raw.kv_bytes_per_position, raw.kv_bytes_fixed, SNAPSHOTS * raw.snapshot_bytes,
                    positions, raw.context, None if raw.available_bytes == UNKNOWN else raw.available_bytes)


def check(target: str, drafter: str | None, context: int | None = None, kv: str = "f16", threads: int | None = None) -> None:
    """Raises an OutOfMemoryError that says what is needed, what there is and what can be done."""
    e = estimate(target, drafter, context, kv, threads)
    if e.fits:
        return
    advice = ["take a smaller quantization"]
    if e.needed - e.kv <= (e.available or 0):
        advice = ["lower --context"] if kv == "q8_0" else ["lower --context", "use --kv q8_0"]
    raise OutOfMemoryError(f"{target}: needs {gib(e.needed)} of memory (weights {gib(e.weights)}, {e.positions} positions {gib(e.kv)}), "
                           f"{gib(e.available or 0)} are available: {', '.join(advice)}, or --force")


def gib(n: int) -> str:
    return f"{n / 2**30:.1f} GiB" if n >= 2**30 // 10 else f"{n / 2**20:.1f} MiB"
