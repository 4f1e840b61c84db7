"""What the kinds share: the document type, the questions that training must never see, and small helpers."""
import json
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

QUESTIONS = Path(__file__).parent.parent / "questions.json"


@dataclass
class Document:
    """Turns [(user, model), ...], or raw text, or lines of raw text [(given, what follows), ...]. facts: (kind, operands) of what
    it states, for those kinds that hold operands out."""

    turns: list[tuple[str, str]] = field(default_factory=list)
    raw: str = ""
    lines: list[tuple[str, str]] = field(default_factory=list)
    facts: list[tuple] = field(default_factory=list)


def ask(question: str, answer: str, *facts: tuple) -> Document:
    return Document(turns=[(question, answer)], facts=list(facts))


def key(kind: str, operands) -> tuple:
    return kind, tuple(tuple(x) if isinstance(x, list) else x for x in operands)


@cache
def held_out() -> frozenset:
    """The (kind, operands) of the questions, except the capitals, whose facts are taught and whose phrasings are not."""
    if not QUESTIONS.exists():
        return frozenset()
    return frozenset(key(q["kind"], q["operands"]) for q in json.loads(QUESTIONS.read_text()) if q["kind"] != "capitals")


def normalised(text: str) -> str:
    """Lower case, single spaces, no full stop or question mark at the end."""
    return re.sub(r"\s+", " ", text).strip().rstrip(".?! ").lower()


def loosely(rng, question: str) -> str:
    """The question as people type it: now and then without capitals or without its mark."""
    r = rng.random()
    if r < 0.08:
        question = question.lower()
    if r < 0.04 or 0.08 <= r < 0.12:
        question = question.rstrip("?.")
    return question


def a(word: str) -> str:
    return ("an " if word[0] in "aeiou" else "a ") + word
