"""One progress bar on stderr for long commands: nothing where stderr is no terminal, no colours with NO_COLOR."""
from __future__ import annotations

import contextlib
from typing import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .base import printable


@contextlib.contextmanager
def bar(title: str, total: int, of_bytes: bool = True) -> Iterator[Callable[..., None]]:
    """Inside, advance(n, note="") moves the bar by n of `total` (bytes or steps) and shows what is being worked on."""
    console = Console(stderr=True)
    count = DownloadColumn(binary_units=True) if of_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), count, TimeRemainingColumn(), TextColumn("{task.fields[note]}", markup=False))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=total, note="")
        yield lambda n, note="": progress.update(task, advance=n, note=printable(note))
