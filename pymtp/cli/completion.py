"""pymtp completion: what a shell needs to complete commands, options and names of models."""
from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from .base import command

PROGRAM, VARIABLE = "pymtp", "_PYMTP_COMPLETE"  # the variable by which the script asks for completions; click's choice


@command(short_help="Print a shell's completion script.", examples="""
pymtp completion bash > ~/.local/share/bash-completion/completions/pymtp
pymtp completion zsh > "${fpath[1]}/_pymtp"
pymtp completion fish > ~/.config/fish/completions/pymtp.fish
""")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a SHELL: bash (4.4 or newer), zsh or fish."""
    kind = get_completion_class(shell)
    assert kind is not None  # click has these three
    click.echo(kind(click.get_current_context().find_root().command, {}, PROGRAM, VARIABLE).source())
