"""What the commands share: the class they are made of (examples, configuration file), references to models, output, Ctrl-C.

Results go to stdout, everything else to stderr. With --json stdout holds one JSON value and nothing else.
"""
from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from concurrent.futures import Future
from typing import Any, Callable, Iterator, TypeVar

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from .. import settings
from .._text import printable
from ..errors import ResourceError

T = TypeVar("T")
INTERRUPTED = 130
MOST_TOKENS = 2**20  # more than any context


class Command(click.Command):
    """A command with examples at the end of its help, whose options take the configuration file's values where neither flag nor
    variable says otherwise."""

    def __init__(self, *args: Any, examples: str = "", **options: Any):
        super().__init__(*args, **options)
        self.examples = [line.strip() for line in examples.strip().splitlines()]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.examples:
            with formatter.section("Examples"):
                formatter.write("".join(f"{'':{formatter.current_indent}}{line}\n" for line in self.examples))

    def invoke(self, ctx: click.Context) -> Any:
        open_to = [name for name in ctx.params if name in settings.KEYS and ctx.get_parameter_source(name) is ParameterSource.DEFAULT]
        if open_to:
            values = settings.load()
            ctx.params.update({name: values[name] for name in open_to if name in values})
        return super().invoke(ctx)


def command(examples: str, **options: Any) -> Any:
    """Decorator: click.command for one of pymtp's. examples: one a line."""
    return click.command(cls=Command, examples=examples, **options)


def with_options(options: list[Any]) -> Any:
    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function
    return decorate


def setting(*names: str, **options: Any) -> Any:
    """An option that is also a variable and a key of the configuration file."""
    key = next(name for name in names if name.startswith("--"))[2:].replace("-", "_")
    return click.option(*names, envvar=settings.variable(key), show_envvar=True, **options)


json_option = click.option("--json", "as_json", is_flag=True, help="One JSON value on stdout instead of text.")
offline_option = click.option("--offline", is_flag=True, help="Use only what is on this machine; so does HF_HUB_OFFLINE=1.")


def beginning(path: str, tokens: int) -> str:
    """As much of a UTF-8 file as so many tokens take, and more: a token is rarely longer than 16 characters of 4 bytes."""
    with open(path, "rb") as f:
        return f.read(64 * tokens).decode("utf-8", "replace")


# ---- names of models ----------------------------------------------------------------------------------------------------


class Reference(click.ParamType):
    """A catalogue name, a repository, a file or a folder. Shells complete names and paths."""

    name = "model"

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
        items = [CompletionItem(name) for name in known_names(catalogue=True) if name.startswith(incomplete)]
        return items or [CompletionItem(incomplete, type="file")]


class Installed(click.ParamType):
    """The name of a pulled model."""

    name = "model"

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in known_names(catalogue=False) if name.startswith(incomplete)]


def known_names(catalogue: bool) -> list[str]:
    """Names of pulled models and, if asked, of the catalogue; none where they cannot be read: a completion prints no errors."""
    from .. import hub
    from ..errors import Error

    try:
        names = {hub.DEMO, *(entry.name for entry in hub.installed())} if catalogue else {entry.name for entry in hub.installed()}
        if catalogue:
            names |= {model.name for model in hub.catalogue()}
        return sorted(names)
    except (Error, OSError):
        return []


# ---- output -------------------------------------------------------------------------------------------------------------


def echo_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


def one_line(text: str) -> str:
    """An error or warning."""
    return printable(" ".join(text.split()), 1000)


def coloured(stream: Any) -> bool:
    """Whether to send colours to a stream: a terminal, and the user does not object (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def bold(text: str) -> str:
    """For stdout."""
    return click.style(text, bold=True) if coloured(sys.stdout) else text


def size(n: int) -> str:
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if n >= scale:
            return f"{n / scale:.1f} {unit}"
    return f"{n} B"


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """Lines with columns as wide as they need to be."""
    rows = [tuple(map(printable, row)) for row in rows]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in [head, *rows]]
    return [bold(lines[0]), *lines[1:]]


def warn(text: str) -> None:
    click.echo("pymtp: warning: " + one_line(text), err=True)


class Status:
    """One line on stderr that says what runs; nothing unless stderr is a terminal."""

    def __init__(self) -> None:
        self.shown = sys.stderr.isatty()

    def __call__(self, what: str) -> None:
        if self.shown:
            click.echo(f"\r\x1b[K{printable(what)}", nl=False, err=True)

    def clear(self) -> None:
        if self.shown:
            click.echo("\r\x1b[K", nl=False, err=True)


@contextlib.contextmanager
def status(what: str = "") -> Iterator[Status]:
    """A status line that is gone afterwards."""
    line = Status()
    if what:
        line(what)
    try:
        yield line
    finally:
        line.clear()


# ---- Ctrl-C -------------------------------------------------------------------------------------------------------------

# Python runs signal handlers between bytecodes of the main thread: inside of a long call of the library it would hear Ctrl-C
# only when that returns. So such calls run in another thread, while the main thread waits for them, which Ctrl-C interrupts.


def in_thread(function: Callable[[], T]) -> "Future[T]":
    """Starts a call in a thread of its own, which does not keep the process alive."""
    future: Future[T] = Future()

    def call() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    try:
        threading.Thread(target=call, daemon=True).start()
    except RuntimeError as error:
        raise ResourceError(f"no thread could be started: {error}") from None
    return future


def or_leave(function: Callable[[], T]) -> T:
    """The result of a call that cannot be cancelled and leaves nothing half done: Ctrl-C ends the process at once."""
    future = in_thread(function)
    try:
        return future.result()
    except KeyboardInterrupt:
        if sys.stderr.isatty():
            click.echo("\r\x1b[K", err=True)
        sys.stdout.flush()
        os._exit(INTERRUPTED)


def chunks(stream: Any) -> Iterator[Any]:
    """The chunks of a Generation or ChatStream. Ctrl-C cancels the step that runs."""
    while True:
        future = None
        try:
            future = in_thread(lambda: next(stream, None))
            chunk = future.result()
        except KeyboardInterrupt:
            stream.cancel()
            if future:
                future.exception()  # until the step has ended
            raise
        if chunk is None:
            return
        yield chunk
