"""The view of `pymtp run --show-drafts`: text in two colours, by who chose its tokens.

An answer's text may leave out some of what its tokens say (thoughts, marks of the chat format) and come later than they do (a stop
string could begin). So characters of tokens wait in a queue until the same characters appear.
"""
from __future__ import annotations

from collections import deque
from itertools import groupby
from typing import TYPE_CHECKING, Any, Iterable

import click

if TYPE_CHECKING:
    from ..generate import Stats
    from ..tokenizer import Tokenizer

DRAFTED = "green"
WAITING = 4096  # characters: text is behind its tokens by a stop string at most, and what is never shown must not pile up


class DraftView:
    """Colours the texts of one answer."""

    def __init__(self, tokenizer: "Tokenizer"):
        self.decoder = tokenizer.decoder()
        self.waiting: deque[tuple[str, bool]] = deque(maxlen=WAITING)  # (character, whether its token was a draft)

    def push(self, tokens: Iterable[int], drafted: int) -> None:
        """The tokens of a step, of which the first `drafted` were drafts."""
        for i, token in enumerate(tokens):
            self.waiting += [(character, i < drafted) for character in self.decoder.push(token)]

    def skip(self, text: str) -> None:
        """Text that is shown elsewhere."""
        self._owners(text)

    def colour(self, text: str) -> str:
        """The text with the drafts' part coloured."""
        parts = groupby(zip(text, self._owners(text)), lambda pair: pair[1])
        return "".join(styled("".join(character for character, _ in part), drafted) for drafted, part in parts)

    def _owners(self, text: str) -> list[bool]:
        """Takes text off the queue, with all before it: as it stands there, or else character by character."""
        if not text:
            return []
        at = max(0, "".join(character for character, _ in self.waiting).find(text))
        for _ in range(at):
            self.waiting.popleft()
        return [self._owner(character) for character in text]

    def _owner(self, character: str) -> bool:
        while self.waiting:
            found, drafted = self.waiting.popleft()
            if found == character:
                return drafted
        return False


def styled(text: str, drafted: bool) -> str:
    return click.style(text, fg=DRAFTED) if drafted else text


def legend(stats: "Stats", colour: bool) -> str:
    """One line on colours, one on acceptance by position."""
    def percent(part: int, whole: int) -> str:
        return f"{100 * part / whole:.0f} %" if whole else "-"

    drafts = f"{stats.accepted} of {stats.tokens} tokens were drafts"
    lines = [f"{styled(drafts, colour)}, the others the target's own; {stats.tokens / max(1, stats.passes + 1):.1f} tokens a pass"]
    if stats.drafted:
        by_position: list[Any] = [percent(a, d) for a, d in zip(stats.accepted_by_position, stats.drafted_by_position) if d]
        lines.append(f"accepted by position: {' '.join(by_position)}")
    return "\n".join(lines)
