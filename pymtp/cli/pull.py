"""pymtp pull: fetch a model and its drafter."""
from __future__ import annotations

import click

from .base import command, echo_json, json_option, printable, size, warn
from .models import DRAFTER, REFERENCE


@command(short_help="Fetch a model and its drafter.", examples="""
pymtp pull gemma4-26b
pymtp pull gemma4-e4b:q8_0
pymtp pull hf.co/user/repo:Q4_K_M --drafter none
""")
@REFERENCE
@DRAFTER
@json_option
def pull(target: str, drafter: str, as_json: bool) -> None:
    """Fetch MODEL and its drafter in their newest version, verify and pair them.

    MODEL is a catalogue name (pymtp list --catalogue), or a repository of the Hub as hf.co/USER/REPO or USER/REPO:QUANT. Files go to
    the Hub's own cache, which other tools share. What is here is not fetched again; what was interrupted goes on.
    """
    from .. import hub

    pair = hub.pull(target, None if drafter == "none" else drafter)
    for text in pair.warnings:
        warn(text)
    if as_json:
        echo_json(vars(pair))
    else:
        click.echo(f"{printable(pair.name)}: {size(pair.bytes)}, {'drafter ' + printable(pair.drafter) if pair.drafter else 'no drafter'}")
