"""The command `pymtp`. One module per command; what only a command needs is imported there.

Exit codes: 0; 1 for a file, model or request that failed; 2 for wrong usage; 130 after Ctrl-C. Errors are one line on stderr.
"""
from __future__ import annotations

import io
import os
import sys

import click

from .. import __version__
from ..errors import Error
from .base import INTERRUPTED, one_line
from .bench import bench
from .completion import PROGRAM, completion
from .config import config
from .list import list_
from .pull import pull
from .quantize import quantize
from .rm import rm
from .run import run
from .show import show
from .verify import verify
from .version import print_version


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=print_version, help="Show the version, build and CPU and exit.")
def cli() -> None:
    """Run Gemma 4 GGUF models with their Multi-Token-Prediction drafters, which make them faster and never change what they say.

    Begin with `pymtp run gemma4-e2b`. Exit codes: 0; 1 for a file, model or request that failed; 2 for wrong usage; 130 after Ctrl-C.
    Results go to stdout, the rest to stderr; errors are one line. NO_COLOR turns colours off.
    """


for each in (run, pull, list_, show, rm, verify, bench, quantize, completion, config):
    cli.add_command(each)


def fail(text: str, code: int) -> None:
    click.echo("pymtp: " + one_line(text), err=True)
    sys.exit(code)


def main(args: list[str] | None = None) -> None:
    """Entry point of the console script."""
    run_command(cli, PROGRAM, args)


def prepare_streams() -> None:
    """What was closed leads nowhere; what an encoding cannot say is escaped, what it cannot read is kept."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "backslashreplace"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):  # tests may have put another
            stream.reconfigure(errors=errors)


def run_command(command: click.Command, name: str, args: list[str] | None = None) -> None:
    """Runs a command and ends the process with its exit code."""
    prepare_streams()
    try:
        code = command.main(args, prog_name=name, standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "", err=True)
        sys.exit(2)
    except click.UsageError as error:
        hint = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        fail(error.format_message() + hint, 2)
    except click.ClickException as error:
        fail(error.format_message(), 1)
    except Error as error:
        fail(str(error), 1)
    except (KeyboardInterrupt, click.Abort):
        if sys.stderr.isatty():
            click.echo(err=True)  # what comes next starts on a line of its own
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # the reader left; Python would complain when it closes stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        fail(str(error), 1)
    except MemoryError:  # Python's own
        fail("out of memory", 1)
