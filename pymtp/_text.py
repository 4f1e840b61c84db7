"""Text and values that others wrote, on their way into messages and to terminals: short, on one line, without what a terminal obeys."""
from __future__ import annotations

import json
import re
from typing import Mapping, Sequence

# C0, DEL, C1; what ends a line or turns the direction of text; halves of surrogate pairs, which are no text
RAW = re.compile("[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, limit: int = 200) -> str:
    """A text with what is raw spelled out, cut if it is long."""
    escaped = RAW.sub(lambda found: ascii(found[0])[1:-1], text[:limit + 1])
    return escaped if len(escaped) <= limit else escaped[:limit] + "..."


def as_json(value: object, limit: int = 80) -> str:
    """A value out of a JSON file, as JSON, for an error."""
    try:
        return json.dumps(value)[:limit]
    except RecursionError:  # nested so deep that it could just be read
        return type(value).__name__


def several(names: Sequence[str], most: int = 8) -> str:
    """Names for an error: the first few, and how many more there are."""
    return ", ".join(printable(name, 100) for name in names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def fits(value: object, most: int) -> bool:
    """Whether a value would not be long as text: 16 characters for each part and what strings have. A part that several places
    share counts in each, as it would be written there: so much may lie in little memory."""
    waiting = [value]
    while waiting and most >= 0:
        part = waiting.pop()
        most -= 16 + (len(part) if isinstance(part, (str, bytes, Mapping, list, tuple, set, frozenset)) else 0)
        if most >= 0 and isinstance(part, Mapping):
            waiting += [*part.keys(), *part.values()]
        elif most >= 0 and isinstance(part, (list, tuple, set, frozenset)):
            waiting += part
    return most >= 0


def shown(value: object, limit: int = 80) -> str:
    """A value that is wrong, as Python writes it, for an error. Arrays are written over several lines: here it is one."""
    if not isinstance(value, str) and not fits(value, 2**20):
        return type(value).__name__
    try:
        text = printable(repr(value[:limit] if isinstance(value, str) else value), 10 * limit)
    except (ValueError, RecursionError):  # too many digits, nested too deep
        return type(value).__name__
    cut = isinstance(value, str) and len(value) > limit
    return text if len(text) <= limit and not cut else text[:limit - 3] + "..."
