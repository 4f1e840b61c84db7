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


# ---- links ----


def no_links(monkeypatch, number):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number), "a link")

    monkeypatch.setattr(pathlib.Path, "symlink_to", refuse)


def test_a_name_as_long_as_names_may_be(home, server, target):
    """What is written on the way to a name is shorter than it: the blob of another commit's link stays where it is."""
    server.add("user/x", {"x-F32.gguf": target})
    got = hub.pull("user/x:F32")
    server.add("user/x", {"x-F32.gguf": target, "y" * 246 + "-F16.gguf": target})
    long = hub.pull("user/x:F16")
    assert len(os.path.basename(long.target)) == 255 and os.path.islink(long.target)
    assert names() == [("hf.co/user/x:F16", True), ("hf.co/user/x:F32", True)] and os.path.samefile(got.target, long.target)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_system_without_links(home, server, monkeypatch, number):
    """Content lies in the snapshot itself, is found there, and goes with its name."""
    no_links(monkeypatch, number)
    content = noise(50_000)
    server.add("user/data", {"data.bin": content})
    (wanted,) = remote.listing("user/data").files.values()
    for _ in range(2):
        download.fetch([wanted], Progress())
    assert server.sent == {"data.bin": len(content)} and not os.path.islink(cache.pointer(wanted))
    assert cache.pointer(wanted).read_bytes() == content and not cache.blob(wanted).exists()
    assert [p.name for p in cache.pointer(wanted).parent.iterdir()] == ["data.bin"]


def test_a_system_that_lost_its_links(home, server, target, monkeypatch):
    """A blob to which another snapshot links is copied, not moved."""
    server.add("user/x", {"x-F32.gguf": target})
    old = hub.pull("user/x:F32")
    server.add("user/x", {"x-F32.gguf": target, "README.md": b"new"})
    no_links(monkeypatch, errno.EPERM)
    new = hub.pull("user/x:F32")
    assert new.target != old.target and not os.path.islink(new.target) and os.path.islink(old.target)
    assert pathlib.Path(old.target).read_bytes() == pathlib.Path(new.target).read_bytes() == target
    assert [p.name for p in pathlib.Path(new.target).parent.iterdir()] == ["x-F32.gguf"]


@pytest.mark.parametrize("number", [errno.ENAMETOOLONG, errno.ENOSPC, errno.EACCES, errno.EIO])
def test_a_link_that_fails_is_an_error(home, server, monkeypatch, number):
    no_links(monkeypatch, number)
    server.add("user/data", {"data.bin": noise(50_000)})
    (wanted,) = remote.listing("user/data").files.values()
    with pytest.raises(HubError, match=f"{cache.pointer(wanted)}: {os.strerror(number)}"):
        download.fetch([wanted], Progress())
    assert cache.blob(wanted).exists() and not cache.pointer(wanted).exists()


def test_threads_that_write_the_same_file(home):
    """Each text is whole, and each writer's own."""
    path, texts, wrong = home / "a" / "x.json", [c * 300_000 for c in "ab"], []
    cache.write_atomically(path, texts[0])
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def write(text):
        try:
            for _ in range(100):
                cache.write_atomically(path, text)
                if path.read_text() not in texts:
                    wrong.append("torn")
        except OSError as error:
            wrong.append(error)

    try:
        threads = [threading.Thread(target=write, args=[text]) for text in texts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong and [p.name for p in path.parent.iterdir()] == ["x.json"]


def test_a_file_of_the_longest_name_is_written(home):
    path = home / ("x" * 255)
    cache.write_atomically(path, "text")
    assert path.read_text() == "text"
