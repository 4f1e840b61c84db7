"""Progress of a pull: the interface that pulls report to, silent by itself, and bars on a terminal."""
from __future__ import annotations

import sys
from typing import Any


class Progress:
    """Told about files as they move; says nothing. Methods may be called from several threads. Use as a `with` block."""

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def begin(self, name: str, total: int, done: int = 0) -> None:
        """A file of `total` bytes starts with `done` bytes that were there. Called again when it starts afresh."""

    def advance(self, name: str, n: int) -> None:
        """n more bytes of it."""

    def end(self, name: str) -> None:
        """The file is complete and verified."""

    def note(self, text: str) -> None:
        """What happens otherwise, in a line."""


class Bars(Progress):
    """Bars with bytes, speed and time left, on stderr."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
        from rich.progress import Progress as Rich

        columns: list[Any] = [TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(binary_units=True),
                              TransferSpeedColumn(), TimeRemainingColumn()]
        self._rich = Rich(*columns, console=Console(stderr=True))
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> "Bars":
        self._rich.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._rich.__exit__(*error)

    def begin(self, name: str, total: int, done: int = 0) -> None:
        if name in self._tasks:
            self._rich.reset(self._tasks[name], total=total, completed=done)
        else:
            self._tasks[name] = self._rich.add_task(name, total=total, completed=done)

    def advance(self, name: str, n: int) -> None:
        self._rich.advance(self._tasks[name], n)

    def end(self, name: str) -> None:
        task = self._tasks[name]
        self._rich.update(task, completed=next(t.total for t in self._rich.tasks if t.id == task))

    def note(self, text: str) -> None:
        self._rich.console.print(text, markup=False, highlight=False)


def automatic() -> Progress:
    """Bars when stderr is a terminal, else silence."""
    return Bars() if sys.stderr.isatty() else Progress()
