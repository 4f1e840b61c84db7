"""The group `pymtp quantize`: every module of this folder that has a `command` is a subcommand, named like the module with - for _.

Modules are imported when their command runs or help is shown, so that the other commands of pymtp do not pay for them.
"""
from __future__ import annotations

import importlib
import pkgutil

import click


class Modules(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        names = [m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")]
        return sorted(name.replace("_", "-") for name in names)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(ctx):
            return None
        return importlib.import_module(f".{name.replace('-', '_')}", __name__).command


@click.command(cls=Modules)
def quantize() -> None:
    """Make GGUF files: requantize, collect importance matrices, look at what a file costs."""
