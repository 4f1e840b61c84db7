"""Disks that fill up and devices that fail while files are written, files that shrink while they are read, machines without memory:
each n-th call fails in a process under tests/c/interpose.c, and fault_tasks.py asserts there what must hold."""
import json
import os
import pathlib
import subprocess
import sys

import pytest

import checkpoint
from hub_server import HubServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs LD_PRELOAD and /proc")


@pytest.fixture(scope="module")
def start(c_build):
    """start(TASK, ARGUMENTS...) -> the finished process."""
    library = next(c_build.glob("libinterpose.so"))
    loaded = " ".join(filter(None, (os.environ.get("LD_PRELOAD"), str(library))))

    def call(*args):
        return subprocess.run([sys.executable, pathlib.Path(__file__).with_name("fault_tasks.py"), *map(str, args)], capture_output=True, text=True,
                              timeout=300, env={**os.environ, "LD_PRELOAD": loaded, "INTERPOSE": str(library)})

    return call


@pytest.fixture(scope="module")
def run(start):
    """run(TASK, ARGUMENTS...) -> what the task prints."""
    def call(*args):
        done = start(*args)
        assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr
        return json.loads(done.stdout)

    return call


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "out"
    made.mkdir()
    return made


# ---- written: no room, a device that fails ----


@pytest.mark.parametrize("task, source", [("requantize", "tiny-31b-drafter.gguf"), ("convert", "ckpt-31b/drafter"), ("imatrix", "tiny-e2b.gguf"),
                                          ("centroids", "tiny-31b-drafter.gguf")])
def test_writes(run, data, folder, task, source):
    """ENOSPC and EIO at every write, sync and rename: an error that names the file, the old file in its place, nothing beside it."""
    source = checkpoint.copy(data / source, folder.parent / "checkpoint") if task == "convert" else data / source
    assert min(run(task, folder, source).values()) > 0


COMMANDS = {"requantize": ["requantize", "{data}/tiny-31b-drafter.gguf", "{out}", "Q8_0"], "convert": ["convert", "{data}/ckpt-31b/drafter", "{out}"],
            "imatrix": ["imatrix", "{data}/tiny-e2b.gguf", "{text}", "-o", "{out}"],
            "add-centroids": ["add-centroids", "{data}/tiny-31b-drafter.gguf", "{out}", "--clusters", "32"]}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands(start, data, folder, name):
    """The command says so in one line and exits with 1."""
    text, out = folder.parent / "text", folder / "out.gguf"
    text.write_text("def f(x):\n    return x\n")
    done = start("command", folder, 1, "quantize", *(part.format(data=data, out=out, text=text) for part in COMMANDS[name]))
    assert (done.returncode, done.stderr) == (1, f"pymtp: {out}: No space left on device\n"), done
    assert os.listdir(folder) == []


def test_pulls(run, data, folder, monkeypatch):
    """The same for pulls: blobs, links, the commit's name and the record of the pair."""
    with HubServer() as server:
        server.use(folder, monkeypatch)
        server.add("user/small-GGUF", {"small-F32.gguf": (data / "tiny-31b.gguf").read_bytes(), "mtp-small.gguf": (data / "tiny-31b-drafter.gguf").read_bytes()})
        assert min(run("pull", folder, "user/small-GGUF:F32").values()) > 0


# ---- read: a file that shrinks or fails while it is opened ----


def test_openings(run, data, folder):
    """At every read of an opening: an error that names the file."""
    target, drafter = data / "tiny-26b.gguf", data / "tiny-26b-drafter.gguf"
    for args in ((target,), (target, drafter)):
        assert min(run("open", folder, *args).values()) > 5


# ---- memory ----


def test_memory(run, data, folder):
    """Weights that cannot fit are refused before they are read; a session that cannot grow stays as it was and grows when it can again."""
    refusals = run("memory", folder, data / "tiny-31b.gguf")["refusals"]
    assert refusals[0] == 0 and len(refusals) > 1
