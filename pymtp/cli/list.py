"""pymtp list: the pulled models, or the catalogue."""
from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from .base import command, echo_json, json_option, size, table

if TYPE_CHECKING:
    from ..hub import Entry


@command(name="list", short_help="List the models that are here, or the catalogue.", examples="""
pymtp list
pymtp list --catalogue
pymtp list --json
""")
@click.option("--catalogue", is_flag=True, help="The models that have a name, instead of those that are here.")
@json_option
def list_(catalogue: bool, as_json: bool) -> None:
    """List the models that were pulled: name, size, quantization, drafter, when last used, folder."""
    from .. import hub

    if catalogue:
        models = hub.catalogue()
        if as_json:
            demo = {"name": hub.DEMO, "aliases": [], "default": "", "tags": [], "licence": "apache-2.0"}
            echo_json([demo] + [{"name": m.name, "aliases": list(m.aliases), "default": m.default, "tags": list(m.tags), "licence": m.licence}
                       for m in models])
        else:
            rows = [(hub.DEMO, "", "apache-2.0", "small, in the package")]
            rows += [(m.name, ", ".join(m.tags), m.licence, ", ".join(m.aliases)) for m in models]
            click.echo("\n".join(table(("NAME", "TAGS (FIRST: DEFAULT)", "LICENCE", "ALSO"), rows)))
        return
    entries = hub.installed()
    if as_json:
        echo_json([vars(entry) for entry in entries])
    elif entries:
        click.echo("\n".join(table(("NAME", "SIZE", "QUANT", "DRAFTER", "USED", "WHERE"), [line(entry) for entry in entries])))
    else:
        click.echo("no models yet: pymtp list --catalogue shows what pymtp pull can fetch", err=True)


def line(entry: "Entry") -> tuple[str, ...]:
    state = "yes" if entry.drafter else "none"
    return (entry.name, size(entry.bytes), entry.quant, state if entry.complete else "files missing", ago(time.time() - entry.last_used), entry.where)


def ago(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds / length)} {unit} ago"
    return "just now"
