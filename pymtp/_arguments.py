"""Arguments of any type from Python: checked, or refused with an ArgumentError that names the argument, what was expected and found."""
from __future__ import annotations

from typing import Any

from ._text import shown
from .errors import ArgumentError

INT32 = 2**31 - 1


def integer(name: str, value: Any, low: int, high: int) -> int:
    try:
        found = value.__index__()
    except (AttributeError, TypeError):
        raise ArgumentError(f"{name}: expected an integer, found {shown(value)}") from None
    if not low <= found <= high:
        raise ArgumentError(f"{name}: expected {low}..{high}, found {shown(found)}")
    return found


def number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise ArgumentError(f"{name}: expected a number, found {shown(value)}") from None


def flag(name: str, value: Any) -> bool:
    try:
        return bool(value)
    except (TypeError, ValueError):  # arrays are neither true nor false
        raise ArgumentError(f"{name}: expected True or False, found {shown(value)}") from None


def items(name: str, values: Any, least: int = 0) -> list[Any]:
    """The items of a sequence, at least so many."""
    try:
        out = list(values)
    except TypeError:
        raise ArgumentError(f"{name}: expected a sequence, found {shown(values)}") from None
    if len(out) < least:
        raise ArgumentError(f"{name}: expected at least {least}, found {len(out)}")
    return out
