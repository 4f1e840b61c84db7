"""Writes the help texts of all commands into docs/CLI.md, below its line "<!-- help -->". Run it when a command changes; a test
compares.

    python tools/make_cli_docs.py
"""
import pathlib

import click

MARK = "<!-- help -->\n"
PATH = pathlib.Path(__file__).resolve().parent.parent / "docs" / "CLI.md"


def sections(command, name, parent=None):
    """Heading and help of a command and of those below it. Of a fixed width, whatever the terminal."""
    ctx = click.Context(command, info_name=name, parent=parent, terminal_width=110, max_content_width=110)
    out = [f"## {ctx.command_path}\n\n```text\n{command.get_help(ctx).rstrip()}\n```\n"]
    if isinstance(command, click.Group):
        for each in command.list_commands(ctx):
            out += sections(command.get_command(ctx, each), each, ctx)
    return out


def document(text):
    """The document with its help texts as the commands give them now."""
    from pymtp.cli import cli

    return text[:text.index(MARK)] + MARK + "\n" + "\n".join(sections(cli, "pymtp"))


if __name__ == "__main__":
    PATH.write_text(document(PATH.read_text(encoding="utf-8")), encoding="utf-8")
