"""Reads what a model answers in the Gemma 4 chat format: content, thoughts and tool calls, as they stream in.

Markers are told from text by token id: the parser runs its own decoder over the tokens to learn where in the text each
marker lies, and walks the text (which stop strings may have shortened) with that map. Models err: repeated openers, stray
closers, calls cut short, unquoted strings. Nothing of that raises; what cannot be read as a call's arguments is text.
"""
from __future__ import annotations

import math
import re
from collections import deque
from typing import Any, Sequence

from .tokenizer import Tokenizer

QUOTE = '<|"|>'
MARKERS = ("<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", QUOTE)
Q = "\udfff"  # stands for a <|"|> token inside a call; a lone surrogate cannot come out of decoded UTF-8
MAX_DEPTH = 64


class OutputParser:
    """push() the tokens and text of each chunk, then finish(). Sums up in `.content`, `.thinking` and `.tool_calls`;
    both calls return what they added: (content, thinking, tool_calls)."""

    def __init__(self, tokenizer: Tokenizer, in_thought: bool = False):
        self._content: list[str] = []
        self._thinking: list[str] = []
        self.tool_calls: list[dict[str, Any]] = []
        self._decoder = tokenizer.decoder()
        self._ids = {found: piece for piece in MARKERS if (found := tokenizer.find(piece)) is not None}
        self._marks: deque[tuple[int, str]] = deque()  # (character offset, marker), ahead of the text
        self._decoded = 0  # characters the decoder gave
        self._read = 0  # characters of text walked over
        self._skip = 0  # characters of a marker still to come
        self._state, self._header, self._held = "content", "", 0  # held: line breaks at the end of a thought so far
        self._call: list[str] = []
        if in_thought:
            self._state = "thought"
        self._new: tuple[list[str], list[str], list[dict[str, Any]]] = ([], [], [])

    @property
    def content(self) -> str:
        return "".join(self._content)

    @property
    def thinking(self) -> str:
        return "".join(self._thinking)

    def push(self, tokens: Sequence[int], text: str) -> tuple[str, str, list[dict[str, Any]]]:
        for token in tokens:
            shown = self._decoder.push(token)
            self._decoded += len(shown)
            if (piece := self._ids.get(token)) and shown.endswith(piece):
                self._marks.append((self._decoded - len(piece), piece))
        self._walk(text)
        return self._take()

    def finish(self) -> tuple[str, str, list[dict[str, Any]]]:
        """The generation ended: a call cut short is read as far as it goes."""
        if self._state == "call":
            self._end_call()
        return self._take()

    def _walk(self, text: str) -> None:
        """Gives text and markers, in order, to the state machine."""
        at = 0
        while at < len(text):
            if self._skip:
                n = min(self._skip, len(text) - at)
                self._skip -= n
            else:
                mark = self._marks[0] if self._marks else None
                n = len(text) - at if mark is None else min(mark[0] - self._read, len(text) - at)
                if n:
                    self._text(text[at:at + n])
                elif mark:
                    self._marks.popleft()
                    if mark[1] == QUOTE and self._state != "call":
                        continue  # its characters are text there
                    self._mark(mark[1])
                    self._skip = len(mark[1])
            at += n
            self._read += n

    def _take(self) -> tuple[str, str, list[dict[str, Any]]]:
        content, thinking, calls = "".join(self._new[0]), "".join(self._new[1]), self._new[2]
        self._content += self._new[0]
        self._thinking += self._new[1]
        self.tool_calls += calls
        self._new = ([], [], [])
        return content, thinking, calls

    # ---- states: content, header (the channel's name), thought, call ----

    def _mark(self, piece: str) -> None:
        if self._state == "call":
            if piece == QUOTE:
                self._call.append(Q)
                return
            self._end_call()
        if piece == "<|channel>":
            self._state, self._header, self._held = "header", "", 0
        elif piece == "<|tool_call>":
            self._state = "call"
        else:  # every closer, stray or not, leads back to content
            self._state, self._held = "content", 0

    def _text(self, text: str) -> None:
        if self._state == "content":
            self._new[0].append(text)
        elif self._state == "call":
            self._call.append(text)
        elif self._state == "thought":
            self._thought(text)
        else:
            self._header += text
            if "\n" in self._header or not "thought".startswith(self._header):
                self._state = "thought"
                self._thought(re.sub(r"\A(thought)?\n", "", self._header))

    def _thought(self, text: str) -> None:
        """Thoughts, without the line breaks before their end."""
        kept = text.rstrip("\n")
        held, self._held = self._held, len(text) - len(kept)
        if not kept:
            self._held += held
        elif self._thinking or self._new[1]:
            self._new[1].append("\n" * held + kept)
        else:
            self._new[1].append(kept.lstrip("\n"))

    def _end_call(self) -> None:
        self._state = "content"
        call = parse_call("".join(self._call))
        self._call = []
        if call:
            number = len(self.tool_calls) + len(self._new[2])
            self._new[2].append({"id": f"call_{number}", "type": "function", "function": call})


def parse_call(text: str) -> dict[str, Any] | None:
    """{"name", "arguments"} of `call:NAME{...}`, where Q stands for the string marker; None when there is no name."""
    head, brace, body = text.partition("{")
    name = head.replace(Q, "").strip().removeprefix("call:").strip()
    if not name:
        return None
    value = _Reader("{" + body).value(0) if brace else {}
    return {"name": name, "arguments": value if isinstance(value, dict) else {}}


class _Reader:
    """Recursive descent over a call's arguments. Whatever is missing at the end is taken as there."""

    def __init__(self, text: str):
        self.text, self.at = text, 0

    def peek(self) -> str:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        return self.text[self.at] if self.at < len(self.text) else ""

    def value(self, depth: int) -> Any:
        first = self.peek()
        if first in (Q, '"', "'"):
            return self.quoted()
        if first == "{" and depth < MAX_DEPTH:
            return self.object(depth)
        if first == "[" and depth < MAX_DEPTH:
            return self.array(depth)
        return _bare(self.until(",}]"))

    def until(self, stops: str) -> str:
        start = self.at
        while self.at < len(self.text) and self.text[self.at] not in stops:
            self.at += 1
        return self.text[start:self.at].replace(Q, "").strip()

    def quoted(self) -> str:
        """Between two Q as it is; between " or ' with backslash escapes and without any Q. Unclosed: to the end, less closing braces."""
        quote = self.text[self.at]
        self.at += 1
        out: list[str] = []
        while self.at < len(self.text):
            c = self.text[self.at]
            self.at += 1
            if c == quote:
                return "".join(out).replace(Q, "")
            if c == "\\" and quote != Q and self.at < len(self.text):
                c = {"n": "\n", "t": "\t", "r": "\r"}.get(self.text[self.at], self.text[self.at])
                self.at += 1
            out.append(c)
        return "".join(out).replace(Q, "").rstrip("}] \n")

    def object(self, depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        self.at += 1
        while (c := self.peek()) and c != "}":
            if c in ",]":
                self.at += 1
                continue
            key = self.quoted() if c in (Q, '"', "'") else self.until(":,}")
            if self.peek() == ":":
                self.at += 1
                out[key] = self.value(depth + 1)
            elif key:
                out[key] = None
        self.at += 1
        return out

    def array(self, depth: int) -> list[Any]:
        out: list[Any] = []
        self.at += 1
        while (c := self.peek()) and c != "]":
            if c == "}":
                return out  # a missing bracket: the brace belongs to the object around
            if c == ",":
                self.at += 1
                continue
            out.append(self.value(depth + 1))
        self.at += 1
        return out


def _bare(word: str) -> Any:
    """true, false, null, a number, or the word itself."""
    words = {"true": True, "false": False, "null": None, "none": None, "": None}
    if word.lower() in words:
        return words[word.lower()]
    if re.fullmatch(r"-?\d{1,18}", word):
        return int(word)
    if re.fullmatch(r"-?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?", word) and math.isfinite(number := float(word)):
        return number
    return word
