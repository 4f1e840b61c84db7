"""Pulling from a server that speaks the Hub's protocol, with huggingface_hub as it is: what arrives, what is continued, what is
refused, and what is never sent."""
import contextlib
import fcntl
import gzip
import hashlib
import json
import os
import pathlib
import pty
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
import types
import unicodedata

import pytest

import huggingface_hub
from hub_server import PIECE, noise
import pymtp
from pymtp import Error, HubError, Model, ResourceError, hub
from pymtp.hub import cache, converted, download, remote
from pymtp.hub.progress import Progress

CHILD = """
import dataclasses, json, sys
import pymtp.hub
try:
    print(json.dumps(dataclasses.asdict(getattr(pymtp.hub, sys.argv[1])(sys.argv[2]))))
except pymtp.Error as error:
    sys.exit(f"pymtp: {error}")
"""


@pytest.fixture(scope="module")
def pair(data):
    return (data / "trained-py.gguf").read_bytes(), (data / "trained-py-drafter.gguf").read_bytes()


@pytest.fixture
def small(server, data):
    """A repository with a pair, in the structure of E2B."""
    return server.add("user/small-GGUF", {"small-F32.gguf": (data / "tiny-e2b.gguf").read_bytes(), "mtp-small.gguf": (data / "tiny-e2b-drafter.gguf").read_bytes(),
                                          "mmproj-small.gguf": b"GGUF" * 2000, "README.md": b"# small"})


def start(function, reference, **env):
    return subprocess.Popen([sys.executable, "-c", CHILD, function, reference], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=os.environ | env)


def run(function, reference, **env):
    child = start(function, reference, **env)
    out, err = child.communicate(timeout=120)
    return child.returncode, out, err


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def files(server, name, contents, **options):
    """Adds a repository and returns its files as remote.listing does."""
    server.add(name, contents, **options)
    return list(remote.listing(name).files.values())


def blobs():
    """Names and contents under blobs, of all repositories."""
    return {p.name: p.read_bytes() for p in cache.root().glob("models--*/blobs/*")}


def assert_sound():
    """Every blob with a final name has the content that its name says; no snapshot points nowhere."""
    for name, content in blobs().items():
        if not name.endswith(".incomplete"):
            git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            assert name in (hashlib.sha256(content).hexdigest(), git)
    for path in cache.root().glob("models--*/snapshots/**/*"):
        assert path.exists(), path


# ---- what arrives ----


def test_pull(home, server, small):
    got = hub.pull("hf.co/user/small-GGUF:F32")
    root = cache.snapshot("user/small-GGUF", small.commit)
    assert (got.target, got.drafter) == (str(root / "small-F32.gguf"), str(root / "mtp-small.gguf"))
    assert (got.repo, got.commit, got.drafter_commit, got.quant, got.licence, got.warnings) == ("user/small-GGUF", small.commit, small.commit, "F32", "apache-2.0", [])
    assert got.bytes == sum(len(small.files[n]) for n in ("small-F32.gguf", "mtp-small.gguf")) == sum(map(len, blobs().values()))
    assert_sound()
    assert pathlib.Path(got.target).read_bytes() == small.files["small-F32.gguf"]
    # huggingface_hub finds the same files, without asking
    found = huggingface_hub.hf_hub_download("user/small-GGUF", "small-F32.gguf", local_files_only=True, cache_dir=cache.root())
    assert os.path.realpath(found) == os.path.realpath(got.target)
    assert not list(huggingface_hub.scan_cache_dir(cache.root()).warnings)
    before = len(server.requests)
    assert hub.resolve("user/small-GGUF:f32") == got and hub.resolve("hf:user/small-GGUF:F32", offline=True) == got
    assert len(server.requests) == before
    server.sent.clear()
    assert hub.pull("user/small-GGUF:F32") == got and not server.sent


def test_model_by_name(home, server, small):
    with Model("user/small-GGUF", threads=1) as model:
        pulled = hub.resolve("user/small-GGUF", offline=True)
        assert model.drafter_path == pulled.drafter and model.info.drafter_layers
        assert len(model.complete([2, 5], max_tokens=3, temperature=0, ignore_eos=True).tokens) == 3
    with Model("user/small-GGUF", None, threads=1) as model:
        assert model.drafter_path is None


@pytest.mark.parametrize("reference, found", [("gemma4-e2b", True), ("gemma4-e2b:nonsense", True), ("hf.co/a/b", True), ("hf:a/b:Q4_0", True),
                                              ("a/b", True), ("a/b.gguf", False), ("./a", False), ("/a/b", False), ("model.gguf", False)])
def test_names_and_paths(reference, found):
    assert hub.is_name(reference) is found


def test_a_folder_goes_before_a_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("a/b").mkdir(parents=True)
    assert not hub.is_name("a/b")


def test_files_of_another_tool_are_used(home, server, small):
    huggingface_hub.hf_hub_download("user/small-GGUF", "small-F32.gguf", cache_dir=cache.root())
    server.sent.clear()
    hub.pull("user/small-GGUF:F32")
    assert set(server.sent) == {"mtp-small.gguf"}


def test_new_commit(home, server, small):
    old = hub.pull("user/small-GGUF:F32")
    server.sent.clear()
    new = server.add("user/small-GGUF", small.files | {"README.md": b"# changed"})
    assert hub.resolve("user/small-GGUF:F32") == old
    got = hub.pull("user/small-GGUF:F32")
    assert got.commit == new.commit != old.commit and not server.sent and os.path.realpath(got.target) == os.path.realpath(old.target)


def test_environment_and_offline(home, server, small):
    """As a program: the Hub's variables count, nothing is written where there is no terminal, and afterwards no network is needed."""
    code, out, err = run("resolve", "user/small-GGUF:F32", HF_HUB_OFFLINE="1")
    assert code == 1 and err == "pymtp: user/small-GGUF:F32: not on this machine, and offline\n"
    code, out, err = run("pull", "user/small-GGUF:F32", HF_HUB_OFFLINE="1")
    assert code == 1 and err == "pymtp: user/small-GGUF: offline, as HF_HUB_OFFLINE says\n"
    assert not server.requests
    code, out, err = run("resolve", "user/small-GGUF:F32")
    assert (code, err) == (0, "") and json.loads(out)["target"].startswith(str(home / "hf" / "hub"))
    asked = len(server.requests)
    assert run("resolve", "user/small-GGUF:F32", HF_HUB_OFFLINE="1") == (0, out, "")
    assert run("resolve", "user/small-GGUF:F32", HF_ENDPOINT="http://127.0.0.1:9") == (0, out, "")
    assert len(server.requests) == asked


def test_a_warning_of_the_hub_is_shown_without_control_codes(home, server, small):
    """huggingface_hub writes what a header says."""
    server.headers = {"X-HF-Warning": "topic; old \x1b[2J\x9b2J and more"}
    code, out, err = run("resolve", "user/small-GGUF:F32")
    assert code == 0 and r"old \x1b[2J\x9b2J and more" in err and "\x1b" not in err and "\x9b" not in err


def test_small_files_by_git_checksum(home, server):
    download.fetch(files(server, "user/text", {"config.json": b'{"a": 1}', "deep/er/x.txt": b"", "big.bin": noise(5000)}), Progress())
    assert_sound()
    assert sorted(map(len, blobs())) == [40, 40, 64]


# ---- interrupted ----


def test_cut_connections(home, server):
    content = noise(3_000_000)
    wanted = files(server, "user/data", {"data.bin": content, "note.txt": b"small" * 100})
    server.cut = {"data.bin": [0, 1, 1_000_000, 0, 0, 0, 500_000], "note.txt": [0, 100]}
    server.status = {"data.bin": [503, 403]}
    download.fetch(wanted, Progress())
    assert_sound()
    assert server.sent["data.bin"] == len(content)  # nothing twice
    assert [r["range"] for r in server.asked("content", "data.bin")][-1] is not None


def test_cut_again_and_again(home, server):
    wanted = files(server, "user/data", {"data.bin": noise(100_000)})
    server.cut = {"data.bin": [50_000] + [0] * 20}
    with pytest.raises(HubError, match="user/data/data.bin: the connection fails again and again: "):
        download.fetch(wanted, Progress())
    assert [name.endswith(".pymtp.incomplete") for name in blobs()] == [True]
    server.cut.clear()
    download.fetch(wanted, Progress())
    assert server.sent["data.bin"] == 100_000
    assert_sound()


def test_server_without_ranges(home, server):
    wanted = files(server, "user/data", {"data.bin": noise(200_000)})
    server.cut, server.ignore_range = {"data.bin": [100_000]}, {"data.bin"}
    download.fetch(wanted, Progress())
    assert_sound()


def test_server_without_ranges_that_always_cuts(home, server):
    """Starting afresh and coming as far as before is no progress: the failures are counted on."""
    wanted = files(server, "user/data", {"data.bin": noise(300_000)})
    server.cut, server.ignore_range = {"data.bin": [100_000, 200_000] + [200_000] * 1000}, {"data.bin"}
    with pytest.raises(HubError, match="user/data/data.bin: the connection fails again and again: "):
        download.fetch(wanted, Progress())
    assert len(server.asked("content", "data.bin")) < 4 * download.RETRIES


def test_a_beginning_that_vanishes(home, server):
    """Somebody clears up the cache while a pull runs."""
    (wanted,) = files(server, "user/data", {"data.bin": noise(300_000)})

    class Vandal(Progress):
        def advance(self, name, n):
            cache.partial(wanted).unlink(missing_ok=True)

    with pytest.raises(HubError) as error:
        download.fetch([wanted], Vandal())
    assert str(error.value) == f"{cache.partial(wanted)}: No such file or directory" and not blobs()
    download.fetch([wanted], Progress())
    assert_sound()


ANSWERS = [  # to a pull that asks for the rest from byte 20000 on: status, Content-Range, error or None where it begins afresh
    (416, "bytes */50000", None), (416, None, None), (206, None, None), (206, "bytes 10000-49999/50000", None), (206, "bytes 20001-49999/50000", None), (206, "bytes x-49999/50000", None),
    (206, "bytes 20000-49999/49999", "listed with 50000 bytes, offered with 49999"), (206, "bytes 20000-49999/50001", "listed with 50000 bytes, offered with 50001"),
]


@pytest.mark.parametrize("status, span, text", ANSWERS, ids=[f"{s}-{r}" for s, r, _ in ANSWERS])
def test_another_range_than_was_asked_for(home, server, status, span, text):
    """Bytes of another place are not taken for the rest."""
    content = noise(50_000)
    (wanted,) = files(server, "user/data", {"data.bin": content})
    cache.partial(wanted).parent.mkdir(parents=True)
    cache.partial(wanted).write_bytes(content[:20_000])
    server.status = {"data.bin": [(status, content[20_000:], {"Content_Range": span} if span else {})]}
    if text:
        with pytest.raises(HubError, match=text):
            download.fetch([wanted], Progress())
        assert wanted.checksum not in blobs()
        return
    download.fetch([wanted], Progress())
    assert_sound()
    assert [r["range"] for r in server.asked("content")] == ["bytes=20000-", None] and server.sent == {"data.bin": 50_000}


@pytest.mark.parametrize("left", ["nothing", "a part", "all", "too much", "rubbish"])
def test_what_a_dead_pull_left(home, server, left):
    content = noise(100_000)
    wanted = files(server, "user/data", {"data.bin": content})
    begun = {"nothing": b"", "a part": content[:60_000], "all": content, "too much": content + b"x", "rubbish": noise(50_000, 1)}[left]
    cache.partial(wanted[0]).parent.mkdir(parents=True)
    cache.partial(wanted[0]).write_bytes(begun)
    download.fetch(wanted, Progress())
    assert set(blobs()) == {wanted[0].checksum}
    assert_sound()
    assert server.sent.get("data.bin", 0) == {"nothing": 100_000, "a part": 40_000, "all": 0, "too much": 100_000, "rubbish": 150_000}[left]


def test_blob_without_link_and_blob_that_was_cut(home, server):
    content = noise(100_000)
    (wanted,) = files(server, "user/data", {"data.bin": content})
    cache.blob(wanted).parent.mkdir(parents=True)
    cache.blob(wanted).write_bytes(content)
    download.fetch([wanted], Progress())
    assert not server.sent and cache.pointer(wanted).read_bytes() == content
    os.truncate(cache.blob(wanted), 70_000)
    download.fetch([wanted], Progress())
    assert cache.pointer(wanted).read_bytes() == content


def beginnings():
    """Bytes on disk of each unfinished file, by its checksum."""
    return {p.name.partition(".")[0]: p.stat().st_size for p in cache.root().rglob("*.pymtp.incomplete")}


def first_ranges(requests):
    """Where the first request for the content of each file begins, by its checksum."""
    out = {}
    for r in requests:
        if r["host"] == "content" and r["method"] == "GET":
            out.setdefault(re.search("signature=([0-9a-f]+)", r["path"])[1], int((r["range"] or "bytes=0-")[len("bytes="):-1]))
    return out


def test_killed_at_many_points(home, server, pair):
    """kill -9 while content flows, again and again; each pull asks for what is not on the disk, from the very byte."""
    server.add("user/pair-GGUF", {"pair-Q8_0.gguf": pair[0], "mtp-pair.gguf": pair[1]})
    total, left, continued = len(pair[0]) + len(pair[1]), {}, 0
    for share in (0.001, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        begun = len(server.requests)
        server.hold = share * total
        child = start("pull", "user/pair-GGUF:Q8_0")
        wait_for(lambda: sum(server.sent.values()) >= server.hold and first_ranges(server.requests[begun:]))
        assert child.poll() is None
        child.kill()
        child.communicate()
        for checksum, at in first_ranges(server.requests[begun:]).items():
            assert at == left.get(checksum, 0)
            continued += at > 0
        left = beginnings()
        assert_sound()
        assert not hub.installed()
        with pytest.raises(HubError, match="not on this machine"):
            hub.resolve("user/pair-GGUF:Q8_0", offline=True)
    assert continued >= 3
    server.hold, begun = None, len(server.requests)
    code, out, err = run("pull", "user/pair-GGUF:Q8_0")
    assert (code, err) == (0, "") and pathlib.Path(json.loads(out)["target"]).read_bytes() == pair[0]
    assert all(at == left.get(checksum, 0) for checksum, at in first_ranges(server.requests[begun:]).items())
    assert_sound()


def test_two_pulls_at_once(home, server, pair):
    server.add("user/pair-GGUF", {"pair-Q8_0.gguf": pair[0], "mtp-pair.gguf": pair[1]})
    server.rate = 20_000_000
    children = [start("pull", "user/pair-GGUF:Q8_0") for _ in range(2)]
    outputs = [child.communicate(timeout=120) for child in children]
    assert [c.returncode for c in children] == [0, 0] and outputs[0] == outputs[1]
    assert server.sent == {"pair-Q8_0.gguf": len(pair[0]), "mtp-pair.gguf": len(pair[1])}
    assert_sound()


def test_ctrl_c(home, server, pair):
    """Ends at once, with what was fetched kept."""
    server.add("user/pair-GGUF", {"pair-Q8_0.gguf": pair[0], "mtp-pair.gguf": pair[1]})
    server.hold = 3_000_000
    child = start("pull", "user/pair-GGUF:Q8_0")
    wait_for(lambda: sum(map(len, blobs().values())) >= server.hold)
    before = time.monotonic()
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode != 0 and "KeyboardInterrupt" in err and time.monotonic() - before < 5  # a silent server is given 10 seconds
    assert all(name.endswith(".incomplete") for name in blobs()) and sum(map(len, blobs().values())) >= server.hold
    server.hold = None
    assert run("pull", "user/pair-GGUF:Q8_0")[0] == 0
    assert sum(server.sent.values()) <= len(pair[0]) + len(pair[1]) + 4 * PIECE


def test_bars_on_a_terminal(home, server, small):
    main, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
    child = subprocess.Popen([sys.executable, "-c", CHILD, "pull", "user/small-GGUF:F32"], stdout=subprocess.PIPE, stderr=other, env=os.environ | {"TERM": "xterm"})
    os.close(other)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while piece := os.read(main, 1 << 16):
            shown += piece
    out, _ = child.communicate(timeout=60)
    os.close(main)
    assert child.returncode == 0 and json.loads(out)["repo"] == "user/small-GGUF"
    words = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    for part in ("user/small-GGUF/small-F32.gguf", "user/small-GGUF/mtp-small.gguf", "MiB", "/s", "0:00:00"):
        assert part in words


def test_killed_while_another_waits(home, server):
    """The lock of a dead pull is free at once; who waited for it goes on with what it left."""
    (wanted,) = files(server, "user/data", {"data.bin": noise(400_000)})
    stop, entered = threading.Event(), threading.Event()
    with cache.locked(wanted, stop):
        thread = threading.Thread(target=lambda: (download.fetch([wanted], Progress()), entered.set()), daemon=True)
        thread.start()
        assert not entered.wait(0.3) and not server.sent
    assert entered.wait(30)
    assert_sound()


def test_an_error_stops_the_others(home, server):
    wanted = files(server, "user/data", {"bad.bin": noise(50_000), "slow.bin": noise(4_000_000, 2)})
    server.rate, server.corrupt = 200_000, {"bad.bin"}
    before = time.monotonic()
    with pytest.raises(HubError, match="bad.bin: expected SHA-256"):
        download.fetch(wanted, Progress())
    assert time.monotonic() - before < 10  # slow.bin takes 20 seconds


# ---- refused ----


def test_corrupted_content(home, server):
    """CVE-2024-37032: what arrives is hashed, and without its hash it gets no name."""
    content = {"data.bin": noise(50_000), "note.txt": b"a note"}
    for path, kind in (("data.bin", "SHA-256"), ("note.txt", "git SHA-1")):
        (wanted,) = files(server, f"user/{path}", {path: content[path]})
        server.corrupt = {path}
        with pytest.raises(HubError, match=f"{path}: expected {kind} {wanted.checksum}, found [0-9a-f]+: removed"):
            download.fetch([wanted], Progress())
        assert not blobs() and not list(cache.root().rglob("snapshots/*/*"))
        server.corrupt = set()
        download.fetch([wanted], Progress())
        assert_sound()
        shutil.rmtree(cache.root())


def test_corrupted_pull_leaves_no_name(home, server, small):
    server.corrupt = {"small-F32.gguf"}
    with pytest.raises(HubError, match="expected SHA-256"):
        hub.pull("user/small-GGUF:F32")
    assert not hub.installed()


@pytest.mark.parametrize("offer, text", [(("0" * 64, None), "listed with checksum [0-9a-f]{64}, offered with 0{64}"),
                                         ((None, 49_999), "listed with 50000 bytes, offered with 49999"),
                                         ((None, 1 << 40), "listed with 50000 bytes, offered with 1099511627776"),
                                         (("\x9b2J" * 100, None), r"offered with (\\x9b2J){33}\\x\.\.\.$")])
def test_contradicting_mirror(home, server, offer, text):
    (wanted,) = files(server, "user/data", {"data.bin": noise(50_000)})
    server.offer = {"data.bin": (offer[0] or wanted.checksum, offer[1] or wanted.size)}
    with pytest.raises(HubError, match=text):
        download.fetch([wanted], Progress())
    assert not [b for b in blobs() if not b.endswith(".incomplete")]


@pytest.mark.parametrize("size", [40_000, 60_000])
def test_mirror_that_lies_about_the_size(home, server, size):
    """In listing and resolve alike; the content tells."""
    def lie(out):
        for sibling in out["siblings"]:
            sibling["size"] = sibling["lfs"]["size"] = size
        return out

    server.add("user/data", {"data.bin": noise(50_000)})
    server.listing = lie
    wanted = list(remote.listing("user/data").files.values())
    server.offer = {"data.bin": (wanted[0].checksum, size)}
    with pytest.raises(HubError, match=f"listed with {size} bytes, offered with 50000"):
        download.fetch(wanted, Progress())


@pytest.mark.parametrize("allowed", [0, 1])
def test_threads_that_are_refused(home, server, monkeypatch, allowed):
    """One alone fetches everything; none is an error."""
    wanted = files(server, "user/x", {f"{i}.bin": noise(1000 + i) for i in range(5)})
    starts = []

    class Thread(threading.Thread):
        def start(self):
            starts.append(self)
            if len(starts) > allowed:
                raise RuntimeError("can't start new thread")
            super().start()

    monkeypatch.setattr(download, "threading", types.SimpleNamespace(Thread=Thread, Event=threading.Event))  # the server has its own
    if not allowed:
        with pytest.raises(ResourceError, match="no thread could be started: can't start new thread"):
            download.fetch(wanted, Progress())
        return
    download.fetch(wanted, Progress())
    assert len(starts) == 2 and {f.checksum for f in wanted} <= set(blobs())
    assert_sound()


@pytest.mark.parametrize("encoding", ["gzip", "gzip, gzip, gzip", "br"])
def test_content_is_never_decompressed(home, server, encoding):
    """GO-2025-3548 and its kin: a body that would unfold into a thousand times its size, layer by layer, is refused by its header, in a small file
    of the Hub and in a large one of the other host."""
    bomb = gzip.compress(gzip.compress(bytes(1 << 26)))
    for path, content in {"data.bin": bomb + noise(50_000), "note.txt": bomb}.items():
        (wanted,) = files(server, f"user/{path}", {path: content})
        server.encoding = {path: encoding}
        with pytest.raises(HubError, match=f"{path}: expected content without encoding, found Content-Encoding '{encoding}' from 127.0.0.1"):
            download.fetch([wanted], Progress())
        assert wanted.checksum not in blobs()
        server.encoding = {path: "identity"}
        download.fetch([wanted], Progress())
        assert_sound()


def test_more_than_listed(home, server):
    """A body without a length that does not end: refused at the first byte too many."""
    (wanted,) = files(server, "user/data", {"data.bin": noise(50_000)})
    server.status = {"data.bin": [(200, b"10000\r\n" + bytes(1 << 16) + b"\r\n0\r\n\r\n", {"Transfer_Encoding": "chunked"})]}
    with pytest.raises(HubError, match="user/data/data.bin: expected 50000 bytes, found more"):
        download.fetch([wanted], Progress())
    assert wanted.checksum not in blobs() and all(len(b) <= 50_000 for b in blobs().values())


BAD_LISTINGS = [
    ({"sha": "main"}, "commit 'main'"), ({"sha": None}, "commit None"),
    ({"siblings": [{"rfilename": "../../x", "size": 1, "blobId": "0" * 40}]}, "file name '../../x'"),
    ({"siblings": [{"rfilename": "/etc/x", "size": 1, "blobId": "0" * 40}]}, "file name '/etc/x'"),
    ({"siblings": [{"rfilename": "..\\..\\x", "size": 1, "blobId": "0" * 40}]}, "file name '..\\\\..\\\\x'"), ({"siblings": [{"rfilename": "a\\b", "size": 1, "blobId": "0" * 40}]}, "file name 'a\\\\b'"),
    ({"siblings": [{"rfilename": "a", "size": -1, "blobId": "0" * 40}]}, "size -1"),
    ({"siblings": [{"rfilename": "a", "size": 1, "blobId": "../../../x"}]}, "checksum '../../../x'"),
    ({"siblings": [{"rfilename": "a"}]}, "size None"), ({"siblings": [{"size": 3}]}, "KeyError"),
    ({"sha": 123}, "commit 123"), ({"sha": []}, "commit []"), ({"sha": "\x1b[31m"}, r"commit '\x1b[31m'"),
    ({"siblings": [{"rfilename": "a", "size": 1, "blobId": 5}]}, "a with size 1 and checksum 5"),
    ({"siblings": [{"rfilename": "a", "size": 1, "lfs": {"sha256": 5, "size": 1, "pointerSize": 1}}]}, "checksum 5"),
    ({"siblings": [{"rfilename": "a", "size": 1, "lfs": {"sha256": [], "size": 1, "pointerSize": 1}}]}, "checksum []"),
    ({"siblings": [{"rfilename": "a", "size": 10**400, "blobId": "0" * 40}]}, "a with size 1000000"),
    ({"siblings": [{"rfilename": "a", "size": 2**63, "blobId": "0" * 40}]}, "size 9223372036854775808"), ({"siblings": [{"rfilename": "a", "size": True, "blobId": "0" * 40}]}, "size True"),
    ({"siblings": [{"rfilename": [], "size": 1, "blobId": "0" * 40}]}, "file name []"), ({"siblings": [5]}, "TypeError"), ({"siblings": "x"}, "TypeError"),
    ({"siblings": [{"rfilename": "\x1b[2J\x9b\x7f", "size": 1, "blobId": "0" * 40}]}, r"file name '\x1b[2J\x9b\x7f'"),
    ({"siblings": [{"rfilename": "a\n", "size": 1, "blobId": "0" * 40}]}, r"file name 'a\n'"), ({"siblings": [{"rfilename": "a\ud800", "size": 1, "blobId": "0" * 40}]}, r"file name 'a\ud800'"),
    ({"siblings": [{"rfilename": "a" * 256, "size": 1, "blobId": "0" * 40}]}, "file name 'aaa"), ({"siblings": [{"rfilename": "\xe4" * 128, "size": 1, "blobId": "0" * 40}]}, "file name '\xe4"),
    ({"siblings": [{"rfilename": "a/" * 2048 + "b", "size": 1, "blobId": "0" * 40}]}, "file name 'a/a"),
    ({"siblings": [{"rfilename": "a/" * 64 + "b", "size": 1, "blobId": "0" * 40}]}, "file name 'a/a"), ({"siblings": [{"rfilename": "a/" * 1500 + "b", "size": 1, "blobId": "0" * 40}]}, "file name 'a/a"),
    ({"siblings": [{"rfilename": "a\u2028b", "size": 1, "blobId": "0" * 40}]}, r"file name 'a\u2028b'"), ({"siblings": [{"rfilename": "a\u202efugg", "size": 1, "blobId": "0" * 40}]}, r"file name 'a\u202efugg'"),
    ({"siblings": [{"rfilename": "_Q4" * 300_000 + "_.gguf", "size": 1, "blobId": "0" * 40}]}, "file name '_Q4_Q4"),
    ({"cardData": [1]}, "card [1]"), ({"cardData": "x"}, "card 'x'"), ({"cardData": True}, "card True"), ({"cardData": {"license": "x"}, "card_data": "\x9b"}, r"card '\x9b'"),
    ({"inferenceProviderMapping": "\x9b\x1b[2J"}, r"Got \x9b\x1b[2J"), ({"createdAt": [5]}, "Error: "),
]


@pytest.mark.parametrize("change, text", BAD_LISTINGS, ids=[f"{i} {ascii(t)}" for i, (_, t) in enumerate(BAD_LISTINGS)])
def test_bad_listings(home, server, change, text):
    """CVE-2024-37032: names and checksums from a server that would lead out of the cache, among others that are malformed."""
    server.add("user/data", {"a": b"x"})
    server.listing = lambda out: out | change
    with pytest.raises(HubError) as error:
        remote.listing("user/data")
    words = str(error.value)
    assert "user/data: 127.0.0.1" in words and " does not answer as the Hub does: found " in words and text in words
    assert len(words) < 400 and not any(unicodedata.category(c) in ("Cc", "Cs") for c in words)


def test_names_as_long_as_files_may_be(home, server):
    """255 bytes in a part, 64 parts and 4096 in all are listed; one that does not fit below the cache is an error of the pull."""
    longest, deepest = "/".join(["a" * 255] * 16), "a/" * 63 + "b"
    server.add("user/data", {"\xe4" * 127 + "a": b"x", longest: b"x", deepest: b"x"})
    listed = remote.listing("user/data").files
    assert len(listed) == 3 and len(longest) == 4095
    download.fetch([listed[deepest]], Progress())
    with pytest.raises(HubError, match="File name too long"):
        download.fetch([listed[longest]], Progress())


@pytest.mark.parametrize("licence, kept", [("apache-2.0", "apache-2.0"), ("Lizenz \xe4", "Lizenz \xe4"), ("a" * 100, "a" * 100), ("a" * 101, None), ("\x1b[31mred", None), ("\x9b2J", None),
                                           ("a\nb", None), ("\u202e", None), ("\ud800", None), ("", None), (["mit"], None), ({}, None)], ids=ascii)
def test_licence_of_a_card(home, server, licence, kept):
    """It goes to the terminal later."""
    server.add("user/data", {"a": b"x"}, licence=licence)
    assert remote.listing("user/data").licence == kept


def test_a_card_is_only_asked_for_its_licence(home, server):
    """What else it has may be nested, or be called like a method."""
    deep = []
    for _ in range(400):
        deep = [deep]
    server.add("user/data", {"a": b"x"})
    server.listing = lambda out: out | {"cardData": {"license": "mit", "to_dict": 5, "x": deep}}
    assert remote.listing("user/data").licence == "mit"


@pytest.mark.parametrize("location", ["http://[", "http://host:99999/x", "http://host:x/"])
def test_an_address_that_is_none(home, server, location):
    (wanted,) = files(server, "user/data", {"data.bin": noise(5000)})
    server.content_url = location
    with pytest.raises(HubError, match="user/data/data.bin: ") as error:
        download.fetch([wanted], Progress())
    assert "\n" not in str(error.value)


def test_no_space(home, server, monkeypatch):
    wanted = files(server, "user/data", {"data.bin": noise(50_000)})
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, 40_000))
    with pytest.raises(HubError, match="expected 0.0 MiB of free space, found 0.0 MiB"):
        download.fetch(wanted, Progress())
    assert not server.sent and not cache.root().exists()
    cache.partial(wanted[0]).parent.mkdir(parents=True)
    cache.partial(wanted[0]).write_bytes(noise(50_000)[:20_000])
    download.fetch(wanted, Progress())
    assert_sound()


def test_full_disk(home, server, monkeypatch):
    """A disk that fills up while content arrives; with more space the pull continues."""
    place = home / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip("mounting a tmpfs takes root") if os.geteuid() else pytest.fail(mounted.stderr)
    try:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(place / "hub"))
        wanted = files(server, "user/data", {"data.bin": noise(3_000_000)})
        with pytest.raises(HubError, match="expected 2.9 MiB of free space, found"):
            download.fetch(wanted, Progress())
        assert not server.sent
        with monkeypatch.context() as patch:
            patch.setattr(download, "check_space", lambda files: None)
            with pytest.raises(HubError, match="No space left on device"):
                download.fetch(wanted, Progress())
        assert [name.endswith(".incomplete") for name in blobs()] == [True]
        subprocess.run(["mount", "-o", "remount,size=8m", place], check=True)
        server.sent.clear()
        download.fetch(wanted, Progress())
        assert_sound()
        assert server.sent["data.bin"] < 2_500_000
    finally:
        subprocess.run(["umount", place], check=True)


def test_errors_name_few_of_many_names(home, server, small):
    """A repository with tens of thousands of files, and what is said of it, also as a warning about a drafter that is passed over."""
    server.add("user/data", {"a": b"x"})
    for suffix in (".gguf", ".txt", "-00001-of-00001.gguf", "-mtp.gguf"):
        server.listing = lambda out: out | {"siblings": [{"rfilename": f"{i:06d}" + "n" * 200 + suffix, "size": 1, "blobId": "0" * 40} for i in range(20_000)]}
        for ask in (lambda: hub.pull("user/data:Q8_0"), lambda: converted.files_of(remote.listing("user/data"))):
            with pytest.raises(HubError) as error:
                ask()
            assert len(str(error.value)) < 2100 and (suffix == ".txt" or "more" in str(error.value) or "only drafters" in str(error.value)), str(error.value)[-100:]


# ---- access ----


@pytest.mark.parametrize("other", ["port", "host"])
def test_token_stays_with_the_hub(home, server, small, monkeypatch, other):
    """GO-2025-3824: a token that follows a redirect to another host, or to another port of the same."""
    if other == "host":
        if sys.platform != "linux":
            pytest.skip("only Linux answers at all of 127/8")
        server.move_content()
    server.tokens = {"hf_secret": {"user/private"}}
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.add("user/private", {"data.bin": noise(50_000), "note.txt": b"a note"}, private=True)
    server.cut, server.bounce = {"data.bin": [10_000]}, {"note.txt"}
    download.fetch(list(remote.listing("user/private").files.values()), Progress())
    assert_sound()
    assert {r["authorization"] for r in server.asked("hub", "user/private")} == {"Bearer hf_secret"}
    assert len(server.asked("content", "data.bin")) == 2 and len(server.asked("content", "note.txt")) == 1
    assert {r["authorization"] for r in server.asked("content")} == {None}


@pytest.mark.parametrize("address", ["http://x:99999/a", "http://x:abc/a", "http://[x/a", "http://\x7f/a"])
def test_addresses_that_are_none(home, server, address):
    """Where a mirror says that content lies."""
    (wanted,) = files(server, "user/data", {"data.bin": noise(50_000)})
    server.content_url = address
    with pytest.raises(HubError) as error:
        download.fetch([wanted], Progress())
    assert "user/data" in str(error.value) and "\n" not in str(error.value)


def test_an_identity_that_is_not_there(home, server, small, monkeypatch):
    monkeypatch.setenv("HF_OIDC_RESOURCE", "x")
    with pytest.raises(HubError, match="^user/small-GGUF: no request can be made: "):
        hub.pull("user/small-GGUF:F32")


@pytest.mark.parametrize("variable", ["PYMTP_HOME", "HF_HOME"])
def test_no_home_to_put_a_model_in(home, server, small, monkeypatch, variable):
    """Said before anything is fetched."""
    if variable == "PYMTP_HOME":
        for name in ("PYMTP_HOME", "XDG_DATA_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    else:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", "~/.cache/huggingface/hub")
    with pytest.raises(pymtp.Error, match=f"^{variable}: expected a path, found '?~"):
        hub.pull("user/small-GGUF:F32")
    assert not server.requests


def test_origins():
    """Scheme, host and port, as the address says them or as the scheme implies."""
    assert remote._origin("https://Host/a") == remote._origin("https://host:443/b?c") and remote._origin("http://host") == remote._origin("http://host:80/x")
    assert len({remote._origin(u) for u in ("https://host", "http://host", "http://host:443", "https://host:80", "https://other", "https://host.other")}) == 6


TOKENS = [(b"hf_\xc3\xa4", None), (b"hf_a b", None), (None, b"hf_a\0b"), (None, b"hf_\xff"), (None, b"hf_\xc3\xa4"), (None, b"hf_a\tb\n"), (None, b"hf_a\x1bb")]  # HF_TOKEN, the file


@pytest.mark.parametrize("variable, file", TOKENS)
def test_a_token_that_is_none(home, server, small, monkeypatch, variable, file):
    """It is refused before it is sent, by where it came from: its value is in no message."""
    if variable:
        monkeypatch.setenv("HF_TOKEN", os.fsdecode(variable))
    else:
        pathlib.Path(huggingface_hub.constants.HF_TOKEN_PATH).parent.mkdir()
        pathlib.Path(huggingface_hub.constants.HF_TOKEN_PATH).write_bytes(file)
    with pytest.raises(HubError) as error:
        hub.pull("user/small-GGUF:F32")
    place = "HF_TOKEN" if variable else huggingface_hub.constants.HF_TOKEN_PATH
    assert str(error.value) == f"{place}: expected a token of printable ASCII characters without spaces" and not server.requests
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    server.tokens = {"hf_good": set()}
    assert hub.pull("user/small-GGUF:F32").repo == "user/small-GGUF"


def test_a_token_that_cannot_be_read(home, server, small):
    """Whether a model or a drafter is asked for."""
    hub.pull("user/small-GGUF:F32")
    path = pathlib.Path(huggingface_hub.constants.HF_TOKEN_PATH)
    path.mkdir(parents=True)
    for ask in (lambda: hub.pull("user/small-GGUF:F32"), lambda: hub.resolve("user/small-GGUF:F32", drafter="user/other")):
        with pytest.raises(HubError) as error:
            ask()
        assert str(error.value) == f"{path}: Is a directory"


def test_a_password_in_the_address_is_never_shown(home, server, small, monkeypatch):
    """HF_ENDPOINT with user:password@ for a mirror that wants them: they are sent, and are in no message."""
    server.tokens = {"Basic dXNlcjpTRUNSRVQ=": set()}
    server.add("user/gated", small.files, gated=True)
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: None)

    def fails(endpoint, repo="user/x", reference=":F32"):
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
        with pytest.raises(HubError) as error:
            hub.pull(repo + reference)
        assert repo in str(error.value) and "SEC" not in str(error.value) and "RET" not in str(error.value) and "user:" not in str(error.value)
        return str(error.value)

    address = server.url.replace("//", "//user:SECRET@")
    place = server.url.removeprefix("http://")
    assert f"no such repository at {place}, or" in fails(address)
    assert f"accept its terms at {server.url}/user/gated" in fails(address, "user/gated")
    for bad in ("http://user:SECRET@127.0.0.1:x", "http://user:SECRET@[", "http://user:SEC/RET@127.0.0.1", "http://user:SEC@RET@no.such.host.invalid", "http://user:SECRET@no.such.host.invalid",
                "http://user:SEC?RET@127.0.0.1:1", "SECRET@", "http://127.0.0.1:x\x1b" ):
        assert "\x1b" not in fails(bad)
    server.listing = lambda out: b"x"
    assert f"user/small-GGUF: {place} does not answer as the Hub does" in fails(address, "user/small-GGUF")
    server.listing = None
    server.offer = {"small-F32.gguf": ("0" * 64, 5)}
    assert f"{place} contradicts itself" in fails(address, "user/small-GGUF")


def test_no_cookies(home, server, small):
    """One that cannot be sent back would spoil all further requests; others would tell that two requests are of one process."""
    server.headers = {"Set-Cookie": "a=\x9b"}
    hub.pull("user/small-GGUF:F32")
    server.headers = {"Set-Cookie": "a=b; Path=/"}
    hub.pull("user/small-GGUF:F32")
    assert {r["cookie"] for r in server.requests} == {None}


ACCESS = [  # token, repository, text
    (None, "user/missing", "user/missing: no such repository at HOST, or private: then set HF_TOKEN or run `hf auth login`"),
    ("hf_good", "user/missing", "user/missing: no such repository at HOST, or your token has no access"),
    (None, "user/private", "user/private: no such repository at HOST, or private: then set HF_TOKEN or run `hf auth login`"),
    ("hf_wrong", "user/small-GGUF", "user/small-GGUF: HOST refuses the token (HF_TOKEN, or that of `hf auth login`)"),
    (None, "user/gated", "user/gated: gated: accept its terms at http://HOST/user/gated, then set HF_TOKEN or run `hf auth login`"),
    ("hf_other", "user/gated", "user/gated: gated: accept its terms at http://HOST/user/gated with the account of your token"),
]


@pytest.mark.parametrize("token, repo, text", ACCESS, ids=[f"{t}-{r}" for t, r, _ in ACCESS])
def test_access(home, server, small, monkeypatch, token, repo, text):
    server.tokens = {"hf_good": {"user/private", "user/gated"}, "hf_other": set()}
    server.add("user/private", small.files, private=True)
    server.add("user/gated", small.files, gated=True)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(HubError) as error:
        hub.pull(f"{repo}:F32")
    assert str(error.value) == text.replace("HOST", server.url.removeprefix("http://"))
    if repo != "user/missing":
        monkeypatch.setenv("HF_TOKEN", "hf_good")
        assert hub.pull(f"{repo}:F32").repo == repo


def test_no_network(home, server, monkeypatch):
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: None)
    for endpoint, text in ((f"http://127.0.0.1:{port}", f"user/x: 127.0.0.1:{port}: Connection refused"),
                           ("http://no.such.host.invalid", "user/x: no.such.host.invalid: unknown host or no network")):
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
        with pytest.raises(HubError) as error:
            hub.pull("user/x:Q8_0")
        assert str(error.value) == text


@pytest.mark.parametrize("answer", [b"<html>", b"", [], {}, 7, b"[" * 200_000, b'{"id": ' + b"9" * 5000 + b"}", b"\xff"], ids=lambda answer: repr(answer)[:20])
def test_server_that_is_no_hub(home, server, answer):
    server.add("user/x", {"a": b"x"})
    server.listing = lambda out: answer
    with pytest.raises(HubError, match="user/x: 127.0.0.1:[0-9]+ does not answer as the Hub does: found "):
        remote.listing("user/x")


@pytest.mark.parametrize("repo", ["a/" + "b" * 100, "a/b--c", "a/b.git"])
def test_impossible_repositories(home, server, repo):
    with pytest.raises(Error) as error:
        hub.pull(f"hf.co/{repo}:Q8_0")
    assert "\n" not in str(error.value) and not server.asked("content")
