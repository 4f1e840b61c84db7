"""Text and values that others wrote, on their way into messages and to terminals: short, on one line, without what a terminal obeys."""
from __future__ import annotations

import json
import re

RAW = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff]")  # C0, DEL, C1; halves of surrogate pairs, which are no text


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


def shown(value: object, limit: int = 80) -> str:
    """A value that is wrong, as Python writes it, for an error. Arrays are written over several lines: here it is one."""
    try:
        text = printable(repr(value[:limit] if isinstance(value, str) else value), 10 * limit)
    except (ValueError, RecursionError):  # too many digits, nested too deep
        return type(value).__name__
    cut = isinstance(value, str) and len(value) > limit
    return text if len(text) <= limit and not cut else text[:limit - 3] + "..."
