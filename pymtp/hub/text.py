"""Text that others wrote (servers, records, references) on its way to names and messages."""
from __future__ import annotations

import re

RAW = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # what a terminal obeys, and halves of surrogate pairs, which are no text


def shown(text: str) -> str:
    """For a message: cut, and with what is raw spelled out."""
    return RAW.sub(lambda found: ascii(found[0])[1:-1], text[:200])
