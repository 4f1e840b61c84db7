"""ENOSPC and EIO at the changes that quantizing and pulling make on the disk: creating, writing, syncing, renaming. Each
ends in one line that names the file and the cause, without anything unfinished under a final name, and another try succeeds.
The C side is tests/c/test_fault.c."""
import json
import os
import pathlib
import subprocess
import sys

import pytest

from hub_server import HubServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD and /proc")
CAUSES = ("No space left on device", "Input/output error")


@pytest.fixture(scope="module")
def fault_write(c_build):
    return c_build / "libfault_write.so"


def results(library, *arguments, **env):
    preload = f"{os.environ.get('LD_PRELOAD', '')} {library}".strip()
    child = pathlib.Path(__file__).parent / "fault_child.py"
    done = subprocess.run([sys.executable, str(child), *map(str, arguments)], capture_output=True, text=True, timeout=300,
                          env=os.environ | env | {"LD_PRELOAD": preload})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_names(error, kind, folder):
    """One line: a path below the folder, then the cause."""
    assert error, "a failure without an error"
    assert error[0] == kind and "\n" not in error[1]
    assert error[1].startswith(f"{folder}{os.sep}") and error[1].endswith(CAUSES), error


def test_quantize(fault_write, data, tmp_path):
    folder = tmp_path / "out"
    found = results(fault_write, "quantize", data / "tiny-e2b-drafter.gguf", folder)
    assert len(found) > 5  # create, writes, sync, rename
    old, new = found[0]["left"], found[0]["again"]
    assert list(old) == list(new) == ["out.gguf"] and old != new
    for result in found:
        assert_names(result["error"], "WriteError", folder)
        assert result["error"][1].startswith(f"{folder / 'out.gguf'}: "), result["n"]
        assert result["left"] == old and result["again"] == new, result["n"]


def ours(files):
    """Blobs and links to them, of all files."""
    return {name: checksum for name, checksum in files.items() if "/models--" in name and "/.locks/" not in name and "/refs/" not in name}


def test_pull(fault_write, data, tmp_path):
    folder = tmp_path / "home"
    with HubServer() as server:
        server.add("user/small-GGUF", {"small-F32.gguf": (data / "tiny-31b.gguf").read_bytes(), "README.md": b"# small",
                                       "mtp-small.gguf": (data / "tiny-31b-drafter.gguf").read_bytes()})
        found = results(fault_write, "pull", "hf.co/user/small-GGUF:F32", folder, **server.environment(folder))
    assert len(found) > 30
    whole = ours(found[-1]["again"])
    assert len(whole) == 4 and any(name.startswith("pymtp/models/") for name in found[-1]["again"])  # two blobs, two links
    for result in found:
        if result["error"]:
            assert_names(result["error"], "HubError", folder)
        else:  # a blob moves into its snapshot where links cannot be made
            assert ours(result["left"]).items() <= whole.items() and set(ours(result["left"]).values()) == set(whole.values()), result["n"]
        for name, checksum in result["left"].items():
            assert "incomplete" not in name or name.endswith(".pymtp.incomplete"), (result["n"], name)
            assert "/blobs/" not in name or name.endswith((".pymtp.incomplete", checksum)), (result["n"], name)
        assert set(ours(result["again"]).values()) == set(whole.values()), result["n"]
        assert not [name for name in result["again"] if "incomplete" in name], result["n"]
    assert sum(not result["error"] for result in found) <= 4  # a link that could not be made, and fewer changes than counted
