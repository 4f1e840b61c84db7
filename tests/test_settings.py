"""Configuration file and variables: precedence, errors that name file and key, and documents that say what the commands say."""
import importlib.util
import json
import os
import pathlib
import re
import shlex
import tracemalloc

import click
import pytest
from test_cli import pymtp_cli, refused

from pymtp import hub, settings
from pymtp.cli import cli
from pymtp.errors import ArgumentError, FormatError, ReadError
from pymtp.hub import places

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture
def config(tmp_path, monkeypatch):
    """config(text) writes the file that PYMTP_CONFIG names."""
    path = tmp_path / "config.toml"
    monkeypatch.setenv("PYMTP_CONFIG", str(path))

    def write(text):
        path.write_text(text)
        return path
    return write


def test_values(config):
    config('threads = 3\nkv = "q8_0"\ndraft = 4\ntemperature = 1\nmax_tokens = 0\ncontext = 100\n')
    assert settings.load() == {"threads": 3, "kv": "q8_0", "draft": 4, "temperature": 1, "max_tokens": 0, "context": 100}
    assert set(settings.load()) == set(settings.KEYS)


@pytest.mark.parametrize("text, words", [
    ("thread = 1", ["thread: no such setting", "threads"]),
    ("threads = 0", ["threads: expected a number of 1..256, found 0"]),
    ("threads = true", ["threads: expected", "True"]),
    ('threads = "8"', ["threads: expected", "'8'"]),
    ("kv = 8", ["kv: expected", "found 8"]),
    ('draft = "many"', ["draft: expected", "'many'"]),
    ("temperature = nan", ["temperature: expected", "nan"]),
    ("temperature = -0.1", ["temperature: expected", "-0.1"]),
    ("[threads]\nx = 1", ["threads: expected", "{'x': 1}"]),
    ("threads = ", ["Invalid value"]),
    ("threads = " + "[" * 100_000, ["nested too deep"]),
    ("threads = 0x" + "f" * 10_000, ["threads: expected a number of 1..256, found int"]),
    ("temperature = 0x" + "f" * 10_000, ["temperature: expected a number of 0 or more, found int"]),
    ("context = 0x" + "f" * 10_000, ["context: expected a number of 1..2147483647, found int"]),
    ("max_tokens = 2147483648", ["max_tokens: expected a number of 0..2147483647, found 2147483648"]),
    ("context = " + "9" * 10_000, ["4300 digits"]),
    ('kv = "' + "x" * 10_000 + '"', ["kv: expected", "xxx..."]),
    ("threads = 1\nthreads = 2", ["Cannot overwrite a value"]),
    (".".join(["a"] * 8000) + " = 1", ["line 1: expected at most 100 dots, found 7999"]),
    ("# " + "." * 200 + "\nthreads = 1\nkv = {" + "a." * 200 + "a = 1}", ["line 3: expected at most 100 dots, found 200"]),
    ("threads = 1\n\"\u2028\"" + ".a" * 150 + " = 1", ["line 2: expected at most 100 dots, found 150"]),
    ("x" * 200_000, ["expected at most 131072 bytes, found more"]),
    ('kv = "a.b.c.d.e.f.g.h"', ["kv: expected", "'a.b.c.d.e.f.g.h'"]),
])
def test_wrong_values_name_file_and_key(config, text, words):
    path = config(text)
    with pytest.raises(FormatError) as error:
        settings.load()
    assert str(path) in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 400
    for word in words:
        assert word in str(error.value)


def test_places(tmp_path, monkeypatch):
    monkeypatch.delenv("PYMTP_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert settings.path() == tmp_path / "pymtp" / "config.toml" and settings.load() == {}
    settings.path().mkdir(parents=True)
    with pytest.raises(ReadError, match="config.toml"):
        settings.load()  # a folder
    monkeypatch.setenv("PYMTP_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(ReadError, match="none.toml: no such file"):
        settings.load()


def test_no_home(tmp_path, monkeypatch):
    """A user that the system does not know: nothing is found, least of all in a folder called ~."""
    for name in ("PYMTP_CONFIG", "XDG_CONFIG_HOME", "PYMTP_HOME", "XDG_DATA_HOME", "PYMTP_CATALOGUE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~" / ".config" / "pymtp").mkdir(parents=True)
    (tmp_path / "~" / ".config" / "pymtp" / "config.toml").write_text("threads = 7")
    assert settings.load() == {}
    assert settings.path().is_absolute() and places.user_catalogue().is_absolute()
    with pytest.raises(ArgumentError, match="^PYMTP_HOME: expected a path, found '~/.local/share/pymtp', a home that is not known$"):
        places.home()


def test_dots_in_comments(config):
    config("# " + "." * 500 + "\nthreads = 3  # e.g. on a machine of 4 ... see docs/SPEED.md\ntemperature = 0.5\n")
    assert settings.load() == {"threads": 3, "temperature": 0.5}


def test_a_file_that_is_a_pipe(monkeypatch):
    """As a shell's <(...) is."""
    read, write = os.pipe()
    with open(read), open(write, "w") as out:
        out.write("threads = 5")
        out.close()
        monkeypatch.setenv("PYMTP_CONFIG", f"/dev/fd/{read}")
        assert settings.load() == {"threads": 5}


def test_dotted_keys_take_little_memory(config):
    """Each prefix of a dotted key is kept while the file is read: many parts would take a quarter of a gigabyte."""
    config((".".join(["a"] * 8000) + " = 1\n") * 4)
    tracemalloc.start()
    with pytest.raises(FormatError):
        settings.load()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 << 20


@pytest.mark.parametrize("name, ask", [("PYMTP_CONFIG", settings.load), ("PYMTP_HOME", hub.installed), ("PYMTP_CATALOGUE", hub.catalogue)])
def test_a_home_of_nobody(monkeypatch, name, ask):
    monkeypatch.setenv(name, "~no.such.user/x")
    with pytest.raises(ArgumentError) as error:
        ask()
    assert str(error.value) == f"{name}: expected a path, found '~no.such.user/x', a home that is not known"
    monkeypatch.setenv(name, "~\x1b[2J/x")
    with pytest.raises(ArgumentError, match=r"found '~\\x1b\[2J/x'"):
        ask()


@pytest.mark.parametrize("name, place", [("PYMTP_CONFIG", settings.path), ("PYMTP_HOME", places.home), ("PYMTP_CATALOGUE", places.user_catalogue)])
def test_a_home_of_mine(monkeypatch, tmp_path, name, place):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(name, "~/x/~y")
    assert place() == tmp_path / "x" / "~y"


def test_malformed_utf8(config):
    path = config("")
    path.write_bytes(b"kv = \"\xff\"")
    with pytest.raises(FormatError, match="config.toml"):
        settings.load()


def test_precedence(data, config):
    """Flag over variable over file over default, seen in what is generated: max_tokens."""
    target = data / "tiny-e2b.gguf"

    def tokens(*flags, **env):
        done = pymtp_cli("run", target, "x", "--raw", "--json", "--ignore-eos", "--temperature", 0, *flags, **env)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["stats"]["tokens"]

    config("max_tokens = 3\nthreads = 1\ncontext = 200\n")
    assert tokens() == 3
    assert tokens(PYMTP_MAX_TOKENS="4") == 4
    assert tokens("--max-tokens", 5, PYMTP_MAX_TOKENS="4") == 5


def test_errors_on_the_command_line(data, config):
    path = config("threads = 1000\n")
    target = data / "tiny-e2b.gguf"
    refused(pymtp_cli("run", target, "x"), 1, str(path), "threads", "1000")
    refused(pymtp_cli("run", target, "x", PYMTP_CONFIG=str(path.parent / "none")), 1, "none")
    refused(pymtp_cli("run", target, "x", PYMTP_THREADS="x"), 2, "PYMTP_THREADS", "'x'")
    assert pymtp_cli("run", "--help").returncode == 0 and pymtp_cli("--version").returncode == 0
    refused(pymtp_cli("run", target, "x", "--max-tokens", 1, PYMTP_THREADS="1", PYMTP_CONFIG=str(config('kv = "f17"'))), 1, "kv", "f17")


# ---- documents ----------------------------------------------------------------------------------------------------------


def commands(command, path=("pymtp",)):
    """(words, command) of all commands that do something."""
    if isinstance(command, click.Group):
        for name in command.list_commands(None):
            yield from commands(command.get_command(None, name), (*path, name))
    else:
        yield path, command


def test_the_document_shows_the_real_help():
    """docs/CLI.md, word by word: another version of click may break lines elsewhere."""
    spec = importlib.util.spec_from_file_location("make_cli_docs", ROOT / "tools" / "make_cli_docs.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    text = tool.PATH.read_text()
    assert tool.document(text).split() == text.split(), "run tools/make_cli_docs.py"


def test_every_command_has_examples_that_it_accepts():
    for path, command in commands(cli):
        assert getattr(command, "examples", None), path
        for line in command.examples:
            check_line(line)


def check_line(line):
    """The pymtp commands of a shell line exist and have the options used."""
    line = line.partition(" #")[0]
    for part in re.split(r"\||\$\(|\)", line):
        words = shlex.split(part.partition(">")[0]) if part.strip().startswith("pymtp") else []
        command = cli
        words = words[1:]
        while words and isinstance(command, click.Group) and not words[0].startswith("-"):
            command, words = command.get_command(None, words[0]), words[1:]
            assert command, line
        known = {option for param in command.params for option in (*param.opts, *param.secondary_opts)} | {"--help"}
        for word in words:
            if word.startswith("-") and word != "-":
                assert word.partition("=")[0] in known, (line, word)


@pytest.mark.parametrize("name", ["README.md", "docs/CLI.md"])
def test_commands_in_documents_exist(name):
    lines = [line.strip() for line in re.findall(r"^    (.*\bpymtp .*)$", (ROOT / name).read_text(), re.M)]
    assert lines
    for line in lines:
        check_line(line)


def test_variables_are_documented():
    """Every PYMTP_* name that the package reads is in docs/CLI.md, and the table there has all settings."""
    text = (ROOT / "docs" / "CLI.md").read_text()
    read = {name for p in (ROOT / "pymtp").rglob("*.py") if p.name != "_ffi.py"
            for name in re.findall(r"environ(?:\.get\(|\[)\"(PYMTP_[A-Z_]+)\"", p.read_text())}
    assert read
    for name in read | {settings.variable(key) for key in settings.KEYS}:
        assert f"`{name}`" in text, name
    for key in settings.KEYS:
        assert f"| `{key}` | `{settings.variable(key)}` |" in text, key
