"""What the Hub's cache and the records of pulls withstand: listings that lie, names of any length, pulls and removals at the same time, and
files that are none."""
import contextlib
import errno
import fcntl
import json
import os
import pathlib
import sys
import threading

import pytest

from hub_server import HubServer, noise
from model_files import rewrite
from pymtp import ArgumentError, Error, HubError, convert, hub
from pymtp.hub import cache, converted, download, records, remote
from pymtp.hub.progress import Progress


@pytest.fixture
def server():
    with HubServer() as running:
        yield running


@pytest.fixture
def home(tmp_path, monkeypatch, server):
    """An empty machine whose Hub is the server."""
    server.use(tmp_path, monkeypatch)
    monkeypatch.setattr(download, "PATIENCE", 0.01)
    return tmp_path


@pytest.fixture(scope="session")
def target(data):
    return (data / "tiny-e2b.gguf").read_bytes()


@pytest.fixture(scope="session")
def drafter(data):
    return (data / "tiny-e2b-drafter.gguf").read_bytes()


def names():
    """(name, complete) of what is installed."""
    return [(entry.name, entry.complete) for entry in hub.installed()]


# ---- listings ----


@pytest.mark.parametrize("size", ["huge", "smaller", "larger"])
def test_a_listing_of_another_size_deletes_nothing(home, server, target, size):
    """A later listing gives the checksum of a verified blob with another size: the pull is refused, and the model is as it was."""
    server.add("user/x", {"x-F32.gguf": target})
    got = hub.pull("user/x:F32")
    server.add("user/x", {"x-F32.gguf": target, "README.md": b"new"})
    lied = {"huge": 2**60, "smaller": len(target) - 1, "larger": len(target) + 1}[size]

    def lie(out):
        for sibling in out["siblings"]:
            if sibling["rfilename"] == "x-F32.gguf":
                sibling["size"] = sibling["lfs"]["size"] = lied
        return out

    server.listing = lie
    with pytest.raises(HubError, match="free space" if size == "huge" else f"listed with {lied} bytes, offered with {len(target)}"):
        hub.pull("user/x:F32")
    server.offer = {"x-F32.gguf": (server.repos["user/x"].checksum("x-F32.gguf"), lied)}  # and in the next answer too
    with pytest.raises(HubError):
        hub.pull("user/x:F32")
    assert pathlib.Path(got.target).read_bytes() == target and names() == [("hf.co/user/x:F32", True)]
    assert hub.resolve("user/x:F32", offline=True) == got
