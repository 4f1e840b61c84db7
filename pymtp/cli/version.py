"""pymtp --version: the version, how the library was built, and what it makes of this machine."""
from __future__ import annotations

import platform
import sys
from typing import Any

import click


def print_version(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    """Callback of --version."""
    if not wanted or ctx.resilient_parsing:
        return
    click.echo("\n".join(f"{name:8} {value}" for name, value in details()))
    ctx.exit()


def details() -> list[tuple[str, Any]]:
    from .. import __version__
    from .._lib import lib, library_path, text

    best, *others = text(lib.pymtp_cpu_names()).split(",")
    return [("pymtp", __version__),
            ("library", f"{library_path()}, ABI {lib.pymtp_abi_version()}, built by {text(lib.pymtp_build())}"),
            ("kernels", f"{best}{' (also ' + ', '.join(others) + ')' if others else ''}, {lib.pymtp_cpu_threads()} threads"),
            ("cpu", f"{cpu_name()}, {platform.machine()}"),
            ("python", f"{platform.python_version()} on {sys.platform}")]


def cpu_name() -> str:
    """The processor's name where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown processor"
