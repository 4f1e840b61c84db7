"""pymtp config: how to compile and link a C program with the library of this package."""
from __future__ import annotations

import shlex

import click

from .base import command


@command(short_help="Print flags to build C programs.", examples="""
cc prog.c $(pymtp config --cflags --libs) -o prog
""")
@click.option("--cflags", is_flag=True, help="Flags for the compiler.")
@click.option("--libs", is_flag=True, help="Flags for the linker, with the library's place as rpath.")
def config(cflags: bool, libs: bool) -> None:
    """Print flags to build C programs with the library."""
    from .._lib import library_path, package_file
    from ..errors import ReadError

    if not (cflags or libs):
        raise click.UsageError("give --cflags, --libs or both", click.get_current_context())
    flags = []
    if cflags:
        header = package_file("include", "pymtp.h")
        if header is None:
            raise ReadError("include/pymtp.h is not in the package: reinstall it, or run `make dev`")
        flags.append(f"-I{header.parent.resolve()}")
    if libs:
        folder = library_path().resolve().parent
        flags += [f"-L{folder}", f"-Wl,-rpath,{folder}", "-lpymtp"]
    click.echo(shlex.join(flags))
