"""The command `pymtp`. One module per command; what only a command needs is imported there.

Exit codes: 0; 1 for a file, model or request that failed; 2 for wrong usage; 130 after Ctrl-C. Errors are one line on stderr.
"""
from __future__ import annotations

import os
import sys

import click

from .. import __version__
from ..errors import Error
from .bench import bench
from .config import config
from .quantize import quantize
from .run import run
from .show import show


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, "--version", message="pymtp %(version)s")
def cli() -> None:
    """Run Gemma 4 GGUF models with their Multi-Token-Prediction drafters."""


for command in (run, show, bench, quantize, config):
    cli.add_command(command)


def fail(text: str, code: int) -> None:
    click.echo("pymtp: " + " ".join(text.split()), err=True)
    sys.exit(code)


def main(args: list[str] | None = None) -> None:
    """Entry point of the console script."""
    run_command(cli, "pymtp", args)


def run_command(command: click.Command, name: str, args: list[str] | None = None) -> None:
    """Runs a command and ends the process with its exit code."""
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
        sys.exit(130)
    except BrokenPipeError:  # the reader left; Python would complain when it closes stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        fail(str(error), 1)
