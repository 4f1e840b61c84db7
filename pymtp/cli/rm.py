"""pymtp rm: delete pulled models, but for files that another name uses."""
from __future__ import annotations

import sys

import click

from .base import Installed, command, echo_json, json_option, printable, size


@command(short_help="Remove pulled models.", examples="""
pymtp rm gemma4-e2b:q8_0
pymtp rm gemma4-26b gemma4-31b --yes
""")
@click.argument("names", type=Installed(), metavar="NAME...", nargs=-1, required=True)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@json_option
def rm(names: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Remove the pulled models NAME (see pymtp list). Files that another name uses stay."""
    from .. import hub

    removed = []
    for name in names:
        plan = hub.remove(name)
        if not yes:
            ask(f"remove {printable(plan.name)}: {len(plan.files)} files, {size(plan.bytes)}{f' ({len(plan.kept)} in use stay)' if plan.kept else ''}?")
        plan.execute()
        removed.append({"name": plan.name, "bytes": plan.bytes, "files": plan.files, "kept": plan.kept})
        if not as_json:
            click.echo(f"removed {printable(plan.name)}: {size(plan.bytes)}")
    if as_json:
        echo_json(removed)


def ask(question: str) -> None:
    """Returns if the user agrees."""
    if not sys.stdin.isatty():
        raise click.UsageError("rm asks before it removes, and standard input is no terminal: give --yes", click.get_current_context())
    if not click.confirm(question, err=True):
        raise click.ClickException("nothing removed")
