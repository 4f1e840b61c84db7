"""Running generations as iterators: Generation gives engine chunks, ChatStream the parts of a chat answer. And their
asynchronous form."""
from __future__ import annotations

import asyncio
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, AsyncIterator, Callable, Iterator, Sequence, TypeVar

import numpy as np

from .errors import Error, StateError
from .generate import Chunk, Completion
from .parse import OutputParser
from .session import Session, step

if TYPE_CHECKING:
    from .generate import FinishReason

T = TypeVar("T")


class Generation:
    """Iterator over the chunks of a request. Ending it early (close, break, an exception) leaves its session usable.

    `.completion` sums up what came so far; after the last chunk it is the whole. `.seed` is the seed in use.
    """

    def __init__(self, session: Session, release: Callable[[Session, bool], None], prompt: np.ndarray, options: dict[str, Any]):
        self._session: Session | None = session
        self._release = release
        self._lock = threading.RLock()
        self._final: Completion | None = None
        self._running = False
        try:
            session.start(prompt, **options)
            self._running = True
        except BaseException:
            self._end(True)
            raise

    @property
    def seed(self) -> int:
        return self.completion.seed

    @property
    def completion(self) -> Completion:
        session = self._session
        if self._final is None and session is None:
            raise StateError("the model was closed")
        return self._final or session.completion  # type: ignore[union-attr]

    def cancel(self) -> None:
        """From any thread: ends the generation within one step, with finish_reason "cancelled"."""
        with self._lock:  # once released, the session is another request's
            if self._session:
                self._session.cancel()

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        session = self._session
        if session is None or not self._running:
            raise StopIteration
        try:
            chunk = step([session])[0]
            if chunk.error:
                raise chunk.error
        except Error:
            self._running = False
            self._end(False)
            raise
        except BaseException:  # Ctrl-C between two steps
            self.close()
            raise
        if chunk.finish_reason:
            self._running = False
            self._end(True)
        return chunk

    def close(self) -> None:
        """Ends the generation now; its session goes back to the model."""
        session, sound = self._session, True
        try:
            while session and self._running and session.finish_reason is None:
                session.cancel()
                step([session])
        except Error:
            sound = False
        self._running = False
        self._end(sound)

    def _end(self, sound: bool) -> None:
        with self._lock:
            session, self._session = self._session, None
        if session:
            try:
                self._final = session.completion
            except Error:  # the model was closed meanwhile, or nothing was started
                pass
            self._release(session, sound)

    def __enter__(self) -> "Generation":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_session", None) and not sys.is_finalizing():
            self.close()


@dataclass(frozen=True)
class ChatChunk:
    """What one engine step added to a chat answer. tool_calls: those that became complete. drafted: as in Chunk."""

    content: str
    thinking: str
    tool_calls: list[dict[str, Any]]
    tokens: list[int]
    finish_reason: "FinishReason | None" = None
    drafted: int = 0


@dataclass(frozen=True)
class ChatCompletion(Completion):
    """A chat answer. tool_calls: {"id", "type": "function", "function": {"name", "arguments": dict}}; a message made of
    content and tool_calls goes back into `messages` as it is. `text` is the answer as the model wrote it."""

    content: str = ""
    thinking: str = ""
    tool_calls: Sequence[dict[str, Any]] = ()

    @property
    def message(self) -> dict[str, Any]:
        """The answer as a message for the next call."""
        out: dict[str, Any] = {"role": "assistant", "content": self.content}
        if self.thinking:
            out["reasoning"] = self.thinking
        if self.tool_calls:
            out["tool_calls"] = list(self.tool_calls)
        return out


class ChatStream:
    """Iterator over the ChatChunks of an answer; as Generation otherwise."""

    def __init__(self, generation: Generation, parser: OutputParser):
        self._generation, self._parser = generation, parser

    @property
    def seed(self) -> int:
        return self._generation.seed

    @property
    def completion(self) -> ChatCompletion:
        plain, parser = self._generation.completion, self._parser
        values = {name: getattr(plain, name) for name in Completion.__dataclass_fields__}
        values["finish_reason"] = self._reason(plain.finish_reason)
        return ChatCompletion(**values, content=parser.content, thinking=parser.thinking, tool_calls=list(parser.tool_calls))

    def _reason(self, reason: "FinishReason | None") -> "FinishReason | None":
        return "tool_calls" if reason == "stop" and self._parser.tool_calls else reason

    def cancel(self) -> None:
        """From any thread: ends the answer within one step."""
        self._generation.cancel()

    def __iter__(self) -> Iterator[ChatChunk]:
        return self

    def __next__(self) -> ChatChunk:
        chunk = next(self._generation)
        content, thinking, calls = self._parser.push(chunk.tokens, chunk.text)
        if chunk.finish_reason:
            more = self._parser.finish()
            content, thinking, calls = content + more[0], thinking + more[1], calls + more[2]
        return ChatChunk(content, thinking, calls, chunk.tokens, self._reason(chunk.finish_reason), chunk.drafted)

    def close(self) -> None:
        """Ends the answer now."""
        self._generation.close()

    def __enter__(self) -> "ChatStream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def off_thread(function: Callable[[], T], cancel: Callable[[], None] = lambda: None) -> T:
    """Runs a blocking call in a thread. When the task is cancelled, `cancel` is called and the thread awaited: nothing goes
    on computing behind the caller's back."""
    future = asyncio.ensure_future(asyncio.to_thread(function))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        cancel()
        while not future.done():
            try:
                await asyncio.wait({future})
            except asyncio.CancelledError:
                pass
        if not future.cancelled():
            future.exception()  # seen; the cancellation is what the caller hears of
        raise


async def pump(stream: Any) -> AsyncIterator[Any]:
    """The chunks of a Generation or ChatStream, each awaited in a thread."""
    try:
        while (chunk := await off_thread(lambda: next(stream, None), stream.cancel)) is not None:
            yield chunk
    finally:
        await off_thread(stream.close)
