"""Sessions: one timeline of tokens each, with its K/V cache. Full control: forward, draft, rewind, snapshots, stepping."""
from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any, Literal, Sequence

import numpy as np

from ._arguments import INT32, integer, items
from ._core import Core
from ._lib import Call, Handle, empty, ffi, lib, new_struct, pointer, token_array
from ._text import shown
from .errors import ArgumentError, StateError
from .generate import Chunk, Completion, Request, Stats, make_params, read_chunk

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .generate import Options

WANT = {"none": lib.PYMTP_LOGITS_NONE, "last": lib.PYMTP_LOGITS_LAST, "all": lib.PYMTP_LOGITS_ALL}


class Snapshot:
    """A place on a timeline to come back to, in this or another session of the same model. Freed with the object."""

    def __init__(self, core: Core, ptr: Any, length: int):
        self._core, self.length = core, length
        self._handle = Handle("snapshot", self, ptr, lib.pymtp_snapshot_free, keep=core)
        core.guests.add(self)

    def close(self) -> None:
        self._handle.close()


class Session:
    """Made by Model.session(). Tokens, their K/V in the cache, and the hidden row of the last one.

    Calls on one session from several threads take turns; cancel() does not wait. Methods raise a pymtp.Error and leave
    the session as it was.
    """

    def __init__(self, core: Core):
        call = Call()
        self._core = core
        self._lock = threading.RLock()
        self._hidden: np.ndarray | None = None
        self._request: Request | None = None
        with core.handle as model:
            self._handle = Handle("session", self, call.handle(lib.pymtp_session_new(model, call.err)), lib.pymtp_session_free, keep=core)
            core.guests.add(self)

    @property
    def _p(self) -> Any:
        if self._handle.ptr is None:
            raise StateError("the session is closed")
        return self._handle.ptr

    def close(self) -> None:
        """Frees the session; waits for a call of another thread."""
        with self._lock:
            self._handle.close()

    def _moved(self, hidden: np.ndarray | None = None) -> None:
        """The timeline changed by other means than a step: a request that ran on it is over."""
        self._hidden = hidden
        if self._request and self._request.finish is None:
            self._request.finish = "cancelled"

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- the network ----

    @property
    def length(self) -> int:
        """Tokens in the cache; the next one gets this position."""
        with self._lock:
            return lib.pymtp_session_length(self._p)

    @property
    def tokens(self) -> list[int]:
        """The tokens in the cache."""
        return self._token_array().tolist()

    def _token_array(self) -> np.ndarray:
        with self._lock:
            out = empty((self.length,), np.int32)
            lib.pymtp_session_tokens(self._p, pointer(out), out.size)
            return out

    def forward(self, ids: Sequence[int] | np.ndarray, logits: Literal["all", "last", "none"] = "all",
                hidden: bool = True) -> np.ndarray:
        """Appends ids (n) and returns the logits after softcapping: float32 (n, vocab), (1, vocab) or (0, vocab).

        `.hidden` then holds the rows after the output norm: (n, D), or with hidden=False, which saves work, the last (1, D).
        """
        if not isinstance(logits, str) or logits not in WANT:
            raise ArgumentError(f"logits: expected all, last or none, found {shown(logits)}")
        array, call, info = token_array(ids), Call(), self._core.info
        if not array.size:
            raise ArgumentError("ids: expected at least one token, found none")
        rows = {"all": array.size, "last": 1, "none": 0}[logits]
        out = empty((rows, info.vocab))
        kept = empty((array.size, info.width)) if hidden else None
        with self._lock:
            call.check(lib.pymtp_session_forward(self._p, pointer(array), array.size, WANT[logits], pointer(out) if rows else ffi.NULL,
                                                 ffi.NULL if kept is None else pointer(kept), call.err))
            self._moved(kept)
        return out

    @property
    def hidden(self) -> np.ndarray:
        """Rows of the last forward after the output norm: float32 (rows, D). After anything else that left a hidden row,
        such as a generation: the one of position length - 1, (1, D). StateError where there is none."""
        with self._lock:
            if self._hidden is None:
                out, call = empty((1, self._core.info.width)), Call()
                call.check(lib.pymtp_session_hidden(self._p, pointer(out), call.err))
                return out
            return self._hidden

    def draft(self, n: int, pending: int) -> list[int]:
        """n chained greedy drafts, at most ModelInfo.context, after the token `pending`, which is chosen but not in the cache.
        Changes nothing.

        Needs a drafter and the hidden row of position length - 1, else StateError.
        """
        return self._draft(n, pending)

    def draft_logits(self, n: int, pending: int) -> np.ndarray:
        """The drafter's logits of the same chain: float32 (n, vocab). With a centroid head, ids outside the chosen clusters
        have min(chosen) - 1."""
        n = self._drafts(n)
        out = empty((n, self._core.info.vocab))
        self._draft(n, pending, logits=out)
        return out

    def draft_hidden(self, n: int, pending: int) -> np.ndarray:
        """The rows that the drafter's head multiplies in the same chain: float32 (n, drafter width)."""
        n = self._drafts(n)
        out = empty((n, self._core.info.drafter_width))
        self._draft(n, pending, hidden=out)
        return out

    def _drafts(self, n: int) -> int:
        """The length of a chain, before there are arrays of it."""
        return integer("n", n, 0, self._core.info.context)

    def _draft(self, n: int, pending: int, logits: np.ndarray | None = None, hidden: np.ndarray | None = None) -> list[int]:
        n, pending = self._drafts(n), integer("pending", pending, 0, INT32)
        ids, call = empty((n,), np.int32), Call()
        with self._lock:
            call.check(lib.pymtp_session_draft(self._p, n, pending, pointer(ids), ffi.NULL if logits is None else pointer(logits),
                                               ffi.NULL if hidden is None else pointer(hidden), call.err))
        return ids.tolist()

    # ---- moving on the timeline ----

    def rewind(self, length: int) -> None:
        """Back to an earlier length. Where the rings of the sliding layers no longer reach, the session replays its own
        tokens from the nearest snapshot (stats.replayed)."""
        call = Call()
        with self._lock:
            call.check(lib.pymtp_session_rewind(self._p, integer("length", length, 0, 2**62), call.err))
            self._moved()

    def sync(self, ids: Sequence[int] | np.ndarray) -> int:
        """Keeps the longest common prefix of the session's tokens and ids; returns its length."""
        array, call, kept = token_array(ids), Call(), ffi.new("int64_t *")
        with self._lock:
            call.check(lib.pymtp_session_sync(self._p, pointer(array), array.size, kept, call.err))
            self._moved()
        return kept[0]

    def snapshot(self) -> Snapshot:
        """Keeps this place. Costs ModelInfo.snapshot_bytes while the object lives."""
        call = Call()
        with self._lock, self._core.handle:
            return Snapshot(self._core, call.handle(lib.pymtp_session_snapshot(self._p, call.err)), self.length)

    def restore(self, snapshot: Snapshot) -> None:
        """Back to a snapshot's tokens, recomputing what this session's cache does not hold (stats.replayed)."""
        if not isinstance(snapshot, Snapshot):
            raise ArgumentError(f"snapshot: expected what Session.snapshot() gave, found {type(snapshot).__name__}")
        call = Call()
        with self._lock, snapshot._handle as place:
            call.check(lib.pymtp_session_restore(self._p, place, call.err))
            self._moved()

    # ---- generation ----

    def start(self, prompt: str | Sequence[int] | np.ndarray, **options: "Unpack[Options]") -> None:
        """Starts a request, to be driven by pymtp.step([sessions]). A str is tokenized with special tokens and one BOS;
        ids are used as given. Keeps the prefix that the session has in common with the prompt. Options: generate.Options."""
        array = prompt_ids(self._core, prompt)
        params, call = make_params(self._core.defaults, options), Call()
        with self._lock:
            call.check(lib.pymtp_generate(self._p, pointer(array), array.size, params.raw, call.err))
            self._request, self._hidden = Request(params), None

    def cancel(self) -> None:
        """From any thread: the running or next step of this session ends its request with finish_reason "cancelled"."""
        with contextlib.suppress(StateError), self._handle as ptr:  # not the lock: it must not wait for a step
            lib.pymtp_cancel(ptr)

    @property
    def finish_reason(self) -> str | None:
        """Why the last request ended; None while it runs or when there was none."""
        return self._request.finish if self._request else None

    @property
    def stats(self) -> Stats:
        """Counters of the current or last request."""
        raw = new_struct("pymtp_stats")
        with self._lock:
            Call().check(lib.pymtp_session_stats(self._p, raw))
        return Stats._of(raw)

    @property
    def completion(self) -> Completion:
        """What the current or last request has given so far."""
        if self._request is None:
            raise StateError("no request was started on this session")
        return self._request.completion(self.stats)

    def _output(self) -> Chunk:
        raw, request = new_struct("pymtp_output"), self._request
        Call().check(lib.pymtp_session_output(self._p, raw))
        chunk = read_chunk(raw, request.params.top if request else -1)
        if request:
            request.add(chunk)
        return chunk


def prompt_ids(core: Core, prompt: str | Sequence[int] | np.ndarray) -> np.ndarray:
    """(n) int32 of a prompt: a text with special tokens parsed and one BOS, or ids as given."""
    if isinstance(prompt, (str, bytes)):
        return np.array(core.tokenizer.tokenize(prompt, special=True, bos=True), np.int32)
    return token_array(prompt, "prompt")


def step(sessions: Sequence[Session]) -> list[Chunk]:
    """One engine step for several sessions of one model, which share the passes over its weights; returns their chunks.

    Each session must have a running request (Session.start). A failure of one session is in its chunk (`error`,
    finish_reason "error"); a failure of all is raised. What a session gives does not depend on its company.
    """
    sessions = items("sessions", sessions)
    if not all(isinstance(s, Session) for s in sessions):
        raise ArgumentError("sessions: expected Session objects")
    call = Call()
    with contextlib.ExitStack() as held:
        for session in sorted({id(s): s for s in sessions}.values(), key=id):  # one order for all threads: no deadlock
            held.enter_context(session._lock)
        handles = ffi.new("pymtp_session *[]", [s._p for s in sessions])
        call.check(lib.pymtp_step(handles, len(sessions), call.err))
        return [s._output() for s in sessions]
