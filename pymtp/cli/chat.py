"""The interactive side of `pymtp run`: lines in, answers out."""
from __future__ import annotations

import os
import pathlib

import click

from ..errors import Error
from .base import one_line, printable
from .run import Answerer

HELP = '''/help      this list
/clear     forget the chat
/exit      leave; so does Ctrl-D
"""        begins and ends a prompt of several lines
Ctrl-C stops the answer, or drops what you are typing; twice in a row at the prompt it leaves.'''


def interact(answerer: Answerer) -> None:
    """Reads prompts until the end of input. Errors of one answer do not end the chat."""
    save = _history()
    click.echo(f"{printable(answerer.model.info.name) or 'model'}, {_drafts(answerer)}. /help for help.", err=True)
    try:
        while (prompt := _read()) is not None:
            word = prompt.strip()
            if word in ("/exit", "/quit", "/bye"):
                break
            if word == "/clear":
                answerer.clear()
            elif word == "/help" or word.startswith("/") and " " not in word and "\n" not in word and word[1:].isalpha():
                click.echo(HELP if word == "/help" else f"no command {word}\n{HELP}", err=True)
            elif word:
                _answer(answerer, prompt)
    finally:
        save()


def _drafts(answerer: Answerer) -> str:
    path = answerer.model.drafter_path
    return f"drafts by {printable(os.path.basename(path))}" if path else "no drafter"


def _answer(answerer: Answerer, prompt: str) -> None:
    try:
        answerer.answer(prompt)
    except KeyboardInterrupt:
        pass
    except Error as error:
        click.echo("pymtp: " + one_line(str(error)), err=True)


def _read() -> str | None:
    """The next prompt; None at the end of input. KeyboardInterrupt when the user insists."""
    dropped = False
    while True:
        try:
            line = _text(input(">>> "))
            if not line.startswith('"""'):
                return line
            lines = [line[3:]]
            while not lines[-1].rstrip().endswith('"""'):
                lines.append(_text(input("... ")))
            lines[-1] = lines[-1].rstrip()[:-3]
            return "\n".join(lines).strip("\n")
        except EOFError:
            click.echo()
            return None
        except KeyboardInterrupt:
            if dropped:
                raise
            click.echo()
            dropped = True


def _text(line: str) -> str:
    """What was typed, which may be bytes in another encoding than the terminal's; what is no UTF-8 is replaced."""
    return line.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _history():
    """Turns on line editing with a history kept between runs; returns what saves it. Without readline, nothing."""
    try:
        import readline
    except ImportError:
        return lambda: None
    try:
        state = pathlib.Path(os.environ.get("XDG_STATE_HOME") or pathlib.Path.home() / ".local" / "state")
        path = state / "pymtp" / "history"
        readline.read_history_file(path)
    except RuntimeError:  # neither HOME nor an entry for the user
        return lambda: None
    except OSError:
        pass
    readline.set_history_length(1000)

    def save() -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(path)
        except OSError:
            pass  # a history is a convenience
    return save
