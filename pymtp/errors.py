"""Exceptions: pymtp.Error and one subclass for each status code of pymtp.h. Nothing else is raised for a failure."""
from __future__ import annotations

from ._text import printable


class Error(Exception):
    """Any failure of pymtp. The text is one line and names the file, key, tensor or argument. `.code`: PYMTP_E_*."""

    code: int = 0

    def __init__(self, text: str, code: int | None = None):
        super().__init__(text)
        if code is not None:
            self.code = code


class ArgumentError(Error, ValueError):
    """An argument is of the wrong type, out of range or inconsistent with another."""

    code = -1


class ReadError(Error):
    """A file could not be opened or read, or was shorter than it says."""

    code = -2


class FormatError(Error):
    """The file is malformed or inconsistent."""

    code = -3


class UnsupportedError(Error):
    """Well-formed, but not of the Gemma 4 family, or with a tensor type pymtp does not know."""

    code = -4


class MismatchError(Error):
    """Target and drafter, or sessions of two models, do not belong together."""

    code = -5


class OutOfMemoryError(Error, MemoryError):
    """Memory could not be reserved or committed."""

    code = -6


class ContextError(Error):
    """The tokens do not fit in the context."""

    code = -7


class CancelledError(Error):
    """The call was cancelled; the session is as before it."""

    code = -8


class NonFiniteError(Error):
    """The network produced a NaN or an infinity; the text names the position."""

    code = -9


class StateError(Error):
    """The call is not valid in this state (closed object, no drafter, hidden row lost)."""

    code = -10


class ResourceError(Error):
    """The system refused a thread or a lock."""

    code = -11


class HubError(Error):
    """A model is not known, not on this machine, or could not be fetched or verified. The text may hold what a server,
    a path or a user said: it is made printable here."""

    def __init__(self, text: str, code: int | None = None):
        super().__init__(printable(text, 5000), code)  # a path has up to 4096 bytes


class WriteError(Error):
    """A file could not be written; nothing is left under its name."""

    code = ReadError.code


class LibraryError(Error, ImportError):
    """libpymtp is missing or was built from another pymtp.h."""


_CLASSES = {c.code: c for c in (ArgumentError, ReadError, FormatError, UnsupportedError, MismatchError, OutOfMemoryError,
                                ContextError, CancelledError, NonFiniteError, StateError, ResourceError)}


def from_code(code: int, text: str) -> Error:
    """The exception for a status code of pymtp.h."""
    return _CLASSES.get(code, Error)(text, code)
