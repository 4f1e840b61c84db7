"""Model: opens a target with its drafter and generates. Keeps a few idle sessions, so that prompts which begin alike are
not computed twice."""
from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, AsyncIterator, Literal, Mapping, Sequence, overload

import numpy as np

from . import chat, hub
from ._core import Core, Counters, ModelInfo, open_core
from .errors import StateError
from .generate import Chunk, Completion
from .parse import OutputParser
from .session import Session, prompt_ids
from .streams import ChatChunk, ChatCompletion, ChatStream, Generation, off_thread, pump
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .generate import Options

Prompt = str | Sequence[int] | np.ndarray
Messages = Sequence[Mapping[str, Any]]
IDLE = 4  # sessions kept for reuse; the least recently used one goes first


class Model:
    """An open Gemma 4 model.

    target: path of its GGUF file (any part of a split set), or a name ("gemma4-e2b", "gemma4-26b:q8_0", "user/repo:Q4_0"), which is
    pulled if it is not here (pymtp.hub). drafter: path of an MTP drafter's, None, or "auto": the one that was pulled along, or the file
    beside the target, or in a folder MTP there, that is named like a drafter and fits. threads: default one per core.
    context: positions of each session; default the model's maximum, which reserves address space and commits memory only
    as it fills. kv: how keys and values are stored: f16, f32 or q8_0. chunk: prompt tokens in a pass.
    Of these only kv (and the machine) can change what is generated.

    Safe to use from any thread; calls that compute take turns. Close it (or leave its `with` block) to free the memory at
    once. Every failure is a pymtp.Error.
    """

    def __init__(self, target: str | os.PathLike[str], drafter: str | os.PathLike[str] | None = "auto", threads: int | None = None,
                 context: int | None = None, kv: str = "f16", *, chunk: int | None = None):
        if isinstance(target, str) and hub.is_name(target):
            pair = hub.resolve(target, None if drafter is None else os.fspath(drafter))
            target, drafter = pair.target, pair.drafter
        self._core: Core = open_core(target, drafter, threads=threads, context=context, kv=kv, chunk=chunk)
        self._lock = threading.Lock()
        self._idle: list[Session] = []  # least recently used first
        self._closed = False

    # ---- properties ----

    @property
    def info(self) -> ModelInfo:
        """Shapes and sizes."""
        return self._core.info

    @property
    def counters(self) -> Counters:
        """What its passes have computed so far."""
        return self._core.counters()

    @property
    def drafter_path(self) -> str | None:
        """The drafter in use."""
        return self._core.drafter_path

    @property
    def tokenizer(self) -> Tokenizer:
        """Lives as long as the model is open."""
        return self._core.tokenizer_for(self._core)

    def tokenize(self, text: str | bytes, special: bool = False, bos: bool = False) -> list[int]:
        """The ids of a text; see Tokenizer.tokenize."""
        return self._core.tokenizer.tokenize(text, special, bos)

    def detokenize(self, ids: Sequence[int] | np.ndarray, special: bool = False) -> str:
        """The text of ids; see Tokenizer.detokenize."""
        return self._core.tokenizer.detokenize(ids, special)

    def close(self) -> None:
        """Frees the model and all its sessions and snapshots, which can no longer be used."""
        with self._lock:
            self._closed = True
            self._idle.clear()
        self._core.close()

    def __enter__(self) -> "Model":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- generation ----

    def session(self) -> Session:
        """A new session, for full control. It is the caller's and is never reused by generate()."""
        return Session(self._core)

    def generate(self, prompt: Prompt, **options: "Unpack[Options]") -> Generation:
        """Starts generating; iterate for one Chunk per engine step. A str is tokenized with special tokens parsed and one BOS;
        ids are used as given. Options: see pymtp.Options."""
        return self._generate(prompt_ids(self._core, prompt), dict(options))

    def complete(self, prompt: Prompt, **options: "Unpack[Options]") -> Completion:
        """generate() to its end."""
        return _drain(self.generate(prompt, **options))

    def render(self, messages: Messages, thinking: bool = False, tools: Messages | None = None) -> list[int]:
        """The token ids of a chat, up to the opening of the answer."""
        return chat.render(messages, tools, thinking, self._core.style).encode(self._core.tokenizer)[0]

    @overload
    def chat(self, messages: Messages, thinking: bool = ..., tools: Messages | None = ..., stream: Literal[False] = ...,
             **options: "Unpack[Options]") -> ChatCompletion: ...
    @overload
    def chat(self, messages: Messages, thinking: bool = ..., tools: Messages | None = ..., *, stream: Literal[True],
             **options: "Unpack[Options]") -> ChatStream: ...

    def chat(self, messages: Messages, thinking: bool = False, tools: Messages | None = None, stream: bool = False,
             **options: "Unpack[Options]") -> ChatCompletion | ChatStream:
        """Answers a chat (messages and tools: see chat.render), at once or, with stream=True, as an iterator of ChatChunks.
        The text of messages cannot produce special tokens. Options: see pymtp.Options."""
        rendered = chat.render(messages, tools, thinking, self._core.style)
        ids, snapshot_at = rendered.encode(self._core.tokenizer)
        parser = OutputParser(self._core.tokenizer, rendered.in_thought)
        answer = ChatStream(self._generate(np.array(ids, np.int32), {**options, "_snapshot_at": snapshot_at}), parser)
        return answer if stream else _drain(answer)

    # ---- asynchronous twins: the same in a thread; cancelling the task stops the generation ----

    async def agenerate(self, prompt: Prompt, **options: "Unpack[Options]") -> AsyncIterator[Chunk]:
        """generate() as an asynchronous iterator."""
        async for chunk in pump(await off_thread(lambda: self.generate(prompt, **options))):
            yield chunk

    async def acomplete(self, prompt: Prompt, **options: "Unpack[Options]") -> Completion:
        """complete() without blocking the event loop."""
        return await _adrain(await off_thread(lambda: self.generate(prompt, **options)))

    async def achat(self, messages: Messages, thinking: bool = False, tools: Messages | None = None, stream: bool = False,
                    **options: "Unpack[Options]") -> ChatCompletion | AsyncIterator[ChatChunk]:
        """chat() without blocking the event loop; with stream=True it returns an asynchronous iterator."""
        answer = await off_thread(lambda: self.chat(messages, thinking, tools, stream=True, **options))
        return pump(answer) if stream else await _adrain(answer)

    # ---- idle sessions ----

    def _generate(self, ids: np.ndarray, options: dict[str, Any]) -> Generation:
        cache = options.get("cache") is not False
        return Generation(self._acquire(ids, cache), self._release if cache else _drop, ids, options)

    def _acquire(self, ids: np.ndarray, cache: bool) -> Session:
        """The idle session that shares the longest prefix with ids, more than a BOS; else a new one."""
        with self._lock:
            if self._closed:
                raise StateError("the model is closed")
            shared = [_common(s._token_array(), ids) for s in self._idle] if cache else []
            if shared and max(shared) > 1:
                return self._idle.pop(shared.index(max(shared)))
            if cache and len(self._idle) >= IDLE:
                return self._idle.pop(0)
            return Session(self._core)

    def _release(self, session: Session, sound: bool) -> None:
        if not sound:
            session.close()
            return
        with self._lock:
            if not self._closed:
                self._idle.append(session)
                session = self._idle.pop(0) if len(self._idle) > IDLE else None  # type: ignore[assignment]
        if session:
            session.close()


def _drop(session: Session, sound: bool) -> None:
    session.close()


def _common(a: np.ndarray, b: np.ndarray) -> int:
    n = min(a.size, b.size)
    differ = np.flatnonzero(a[:n] != b[:n])
    return int(differ[0]) if differ.size else n


def _drain(stream: Any) -> Any:
    with stream:
        for _ in stream:
            pass
        return stream.completion


async def _adrain(stream: Any) -> Any:
    async for _ in pump(stream):
        pass
    return stream.completion
