"""Statements of facts in a row, which practise sums, conversions and calls with a third of the tokens that a chat takes.
What is given of a line is not learned, only what follows from it."""
from . import arithmetic, builtins, units
from .common import Document, held_out, key


def _sum(rng):
    found = arithmetic.allowed(rng, arithmetic.operands)
    return arithmetic.answer(*found), " is ", arithmetic.facts(*found)


def _conversion(rng):
    found = units.operands(rng)
    return units.answer(*found), " are " if found[2] != 1 else " is ", [key("units", found)]


def _call(rng):
    found = builtins.operands(rng)
    return builtins.answer(*found), " returns ", [key("builtins", found)]


def sample(rng) -> Document:
    document, draw = Document(), rng.choices((_sum, _conversion, _call), (6, 2, 3))[0]
    while len(document.lines) < 14:
        text, at, facts = draw(rng)
        if held_out().isdisjoint(facts):
            given, follows = text.split(at)
            document.lines.append((given + at.rstrip(), " " + follows + "\n"))
            document.facts += facts
    return document
