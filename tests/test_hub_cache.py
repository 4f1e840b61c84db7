"""What the Hub's cache and the records of pulls withstand: listings that lie, names of any length, pulls and removals at the same time, and
files that are none."""
import errno
import fcntl
import json
import os
import pathlib
import socket
import sys
import threading

import pytest

from hub_server import noise
from model_files import rewrite
from pymtp import ArgumentError, HubError, convert, hub
from pymtp.hub import cache, download, records, remote
from pymtp.hub.progress import Progress


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


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPROTO, errno.EROFS, errno.EINVAL])
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


# ---- removing while others pull ----


def test_a_removal_planned_before_another_pull(home, server, target, drafter):
    """Between the question and the answer another name came that uses the same files: they stay."""
    server.add("user/x", {"x-F32.gguf": target, "mtp-x.gguf": drafter, "x-F16.gguf": target})
    first = hub.pull("user/x:F32")
    plan = hub.remove("user/x:F32")
    assert plan.kept == []
    second = hub.pull("user/x:F16")
    plan.execute()
    assert names() == [("hf.co/user/x:F16", True)] and hub.resolve("user/x:F16", offline=True) == second
    assert not os.path.lexists(first.target) and pathlib.Path(second.target).read_bytes() == target and pathlib.Path(second.drafter).read_bytes() == drafter


def test_a_removal_planned_before_the_name_is_pulled_again(home, server, target):
    """What was not in the plan is not deleted, nor left without a name."""
    server.add("user/x", {"x-F32.gguf": target})
    old = hub.pull("user/x:F32")
    plan = hub.remove("user/x:F32")
    server.add("user/x", {"x-F32.gguf": target, "README.md": b"new"})
    new = hub.pull("user/x:F32")
    with pytest.raises(HubError, match=r"^hf.co/user/x:F32: pulled again meanwhile: nothing removed$"):
        plan.execute()
    assert os.path.exists(old.target) and hub.resolve("user/x:F32", offline=True) == new


def test_a_removal_twice(home, server, target):
    server.add("user/x", {"x-F32.gguf": target})
    hub.pull("user/x:F32")
    plans = [hub.remove("user/x:F32") for _ in range(2)]
    plans[0].execute()
    got = hub.pull("user/x:F32")
    plans[1].execute()  # of the same files: as good as planned now
    with pytest.raises(HubError, match="^hf.co/user/x:F32: removed meanwhile$"):
        plans[1].execute()
    assert names() == [] and not os.path.lexists(got.target)


def test_a_pull_whose_files_are_removed_before_it_is_recorded(home, server, target, monkeypatch):
    """It says so, and no record names files that are not here."""
    server.add("user/x", {"x-F32.gguf": target})
    got = hub.pull("user/x:F32")
    plan = hub.remove("user/x:F32")
    record = records.record
    monkeypatch.setattr(records, "record", lambda *args: (plan.execute(), record(*args)))
    with pytest.raises(HubError) as error:
        hub.pull("user/x")
    assert str(error.value) == f"{got.target}: removed while hf.co/user/x was pulled: pull it again" and names() == []


def in_time(function, *args):
    """What a call returns or raises, unless it hangs."""
    out = []

    def work():
        try:
            out.append(function(*args))
        except BaseException as error:
            out.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(20)
    assert out, "it hangs"
    if isinstance(out[0], BaseException):
        raise out[0]
    return out[0]


def test_recording_and_removing_wait_for_each_other(home, server, target):
    server.add("user/x", {"x-F32.gguf": target, "x-F16.gguf": target})
    got = hub.pull("user/x:F32")
    plan, done = hub.remove("user/x:F32"), []
    with records.locked():
        threads = [threading.Thread(target=lambda f=f: done.append(f()), daemon=True) for f in (plan.execute, lambda: hub.pull("user/x:F16"))]
        for thread in threads:
            thread.start()
            thread.join(0.5)
        assert not done and names() == [("hf.co/user/x:F32", True)] and os.path.exists(got.target)
    for thread in threads:
        thread.join(20)
    assert len(done) == 2 and names() == [("hf.co/user/x:F16", True)]


def test_a_record_that_cannot_be_removed(home, server, target):
    server.add("user/x", {"x-F32.gguf": target})
    got = hub.pull("user/x:F32")
    plan = hub.remove("user/x:F32")
    unlink = os.unlink

    def refuse(path, *args, **options):
        if os.fspath(path) == plan.record:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        unlink(path, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        with pytest.raises(HubError) as error:
            plan.execute()
    assert str(error.value) == f"{plan.record}: Permission denied" and hub.resolve("user/x:F32", offline=True) == got


@pytest.mark.parametrize("name", [[], {}, 5, None, b"x"], ids=str)
def test_names_that_are_no_text(home, name):
    with pytest.raises(ArgumentError, match=f"expected a reference, found {type(name).__name__}"):
        hub.remove(name)


# ---- records ----


RECORD = {"name": "hf.co/a/b", "quant": "Q4_0", "target": "x", "drafter": None, "files": ["x"], "bytes": 1, "repo": "a/b", "commit": "0" * 40, "drafter_repo": None,
          "drafter_commit": None, "licence": None, "warnings": [], "pulled": 1.0, "drafter_sources": []}


def write_record(name, files, **values):
    path = records._path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(RECORD | {"name": name, "target": str(files[0]), "files": [str(f) for f in files]} | values))
    return path


def put(repo, count, content=b"x"):
    """Links of a snapshot with their blobs."""
    folder = cache.folder(repo)
    links = []
    for i in range(count):
        blob, link = folder / "blobs" / f"{i:040d}", folder / "snapshots" / ("0" * 40) / f"x-{i:05d}.gguf"
        for path in (blob, link):
            path.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link.symlink_to(os.path.relpath(blob, link.parent))
        links.append(link)
    return links


LONG = ["\u6a21\u578b" * 20 + "-F32.gguf", "q" * 200 + "/" + "q" * 40 + "-F32.gguf"]


@pytest.mark.parametrize("name", LONG, ids=["encoded", "long"])
def test_a_name_longer_than_a_file_may_be(home, server, target, name):
    server.add("user/x", {name: target, name.replace("F32", "F16"): target})
    got, other = (hub.pull(f"hf:user/x:{n}") for n in (name, name.replace("F32", "F16")))
    assert hub.resolve(f"hf:user/x:{name}", offline=True) == got and len(hub.installed()) == 2
    hub.remove(f"hf:user/x:{name}").execute()
    assert names() == [(other.name, True)]


@pytest.mark.parametrize("length", [1, 100, 200, 226, 234, 240, 241, 250, 251, 1000])
def test_where_a_record_lies(home, length):
    """Where it always lay while that was a name; else no name of another record is its own."""
    name = "hf.co/a/b:" + "x" * (length - 16) if length > 16 else "x" * length
    file = records._path(name).name
    assert len(file) <= 255
    if length <= 240:
        assert file == name.replace("/", "%2F").replace(":", "%3A") + ".json"
    else:
        assert file != records._path(name + "x").name and "+" in file
        assert records._path(file.removesuffix(".json")).name != file


@pytest.mark.parametrize("way", ["sparse", "lists", "fifo", "folder", "socket"])
def test_a_record_that_is_no_small_file(home, monkeypatch, way):
    """It counts as absent before it is read; the others are listed."""
    good = write_record("hf.co/good", put("a/b", 1))
    path = records._path("hf.co/a/b")
    if way == "sparse":
        path.touch()
        os.truncate(path, 1 << 42)
    elif way == "lists":
        path.write_text("[" + "[]," * 400_000 + "[]]")
    elif way == "fifo":
        os.mkfifo(path)
    elif way == "folder":
        path.mkdir()
    else:
        monkeypatch.chdir(path.parent)
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
    assert [entry.name for entry in in_time(hub.installed)] == ["hf.co/good"]
    with pytest.raises(HubError, match="not pulled"):
        in_time(hub.remove, "hf.co/a/b")
    with pytest.raises(HubError, match="offline"):
        in_time(hub.resolve, "hf.co/a/b", "auto", True)
    hub.remove("hf.co/good").execute()
    assert not good.exists()


def test_a_record_of_a_mebibyte(home):
    """As much as is read, and no more is written."""
    write_record("hf.co/a/b", put("a/b", 1), warnings=["x" * 1_000_000])
    assert names() == [("hf.co/a/b", True)]
    resolved = hub.resolve("hf.co/a/b", offline=True)
    resolved.warnings.append("x" * 100_000)
    with pytest.raises(HubError, match="expected a record of at most 1048576 bytes"):
        records.record(resolved, [])
    assert names() == [("hf.co/a/b", True)]


@pytest.mark.parametrize("kind", ["fifo", "device"])
@pytest.mark.parametrize("what", ["beginning", "lock", "ref", "home lock"])
def test_a_fifo_or_device_in_the_cache(home, server, target, what, kind):
    """A pull does not wait for somebody to write into it, nor read it without end."""
    server.add("user/x", {"x-F32.gguf": target})
    (wanted,) = remote.listing("user/x").files.values()
    path = {"beginning": cache.partial(wanted), "lock": cache.root() / ".locks" / cache.folder("user/x").name / f"{wanted.checksum}.lock", "ref": cache.folder("user/x") / "refs" / "main",
            "home lock": home / "pymtp" / ".lock"}[what]
    path.parent.mkdir(parents=True)
    os.mkfifo(path) if kind == "fifo" else path.symlink_to("/dev/zero")
    with pytest.raises(HubError) as error:
        in_time(hub.pull, "user/x:F32")
    assert str(error.value) == f"{path}: not a regular file"
    path.unlink()
    assert hub.pull("user/x:F32")


def test_an_empty_file_whose_blob_is_a_fifo(home, server):
    """Of the right size, and no file: the blob comes in its place."""
    server.add("user/data", {"empty": b""})
    (wanted,) = remote.listing("user/data").files.values()
    cache.blob(wanted).parent.mkdir(parents=True)
    os.mkfifo(cache.blob(wanted))
    in_time(download.fetch, [wanted], Progress())
    assert cache.blob(wanted).is_file() and cache.pointer(wanted).read_bytes() == b""


def test_planning_reads_each_folder_once(home, monkeypatch):
    """However many files a name has."""
    links = put("a/b", 60)
    write_record("hf.co/a/b", links)
    read, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path=".": (read.append(os.fspath(path)), scandir(path))[1])
    plan = hub.remove("hf.co/a/b")
    assert len(plan.files) == 120 and plan.bytes == 60
    assert sum("snapshots" in path for path in read) <= 4, read
    plan.execute()
    assert not list(cache.root().rglob("x-*")) and not list(cache.root().rglob("blobs/*"))


def test_a_folder_of_links_that_cannot_be_read(home, monkeypatch):
    """It may have a link to the blob: nothing is planned. One that is gone has none."""
    (link,) = put("a/b", 1)
    write_record("hf.co/a/b", [link])
    other, scandir, number = link.parent.parent / ("1" * 40), os.scandir, [errno.EACCES]
    other.mkdir()

    def refuse(path="."):
        if os.fspath(path) == str(other):
            raise OSError(number[0], os.strerror(number[0]), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(HubError) as error:
        hub.remove("hf.co/a/b")
    assert str(error.value) == f"{other}: Permission denied"
    number[0] = errno.ENOENT
    assert len(hub.remove("hf.co/a/b").files) == 2


def test_a_link_into_another_repository(home):
    """The blob there is that repository's: it stays."""
    (theirs,) = put("c/d", 1)
    mine = cache.snapshot("a/b", "0" * 40) / "x.gguf"
    mine.parent.mkdir(parents=True)
    (cache.folder("a/b") / "blobs").mkdir()
    mine.symlink_to(os.path.realpath(theirs))
    write_record("hf.co/a/b", [mine])
    plan = hub.remove("hf.co/a/b")
    assert plan.files == [str(mine)]
    plan.execute()
    assert theirs.read_bytes() == b"x" and not os.path.lexists(mine)


# ---- locks ----


@pytest.fixture
def wanted(home, server):
    server.add("user/data", {"data.bin": noise(50_000)})
    (file,) = remote.listing("user/data").files.values()
    return file


def test_a_lock_that_is_replaced_while_waiting(wanted, monkeypatch):
    """Its last holder removes the file between opening and locking: who has the old one has nothing."""
    path = cache.root() / ".locks" / cache.folder(wanted.repo).name / f"{wanted.checksum}.lock"
    flock, calls = fcntl.flock, []

    def late(file, how):
        calls.append(how)
        if len(calls) == 1:
            path.unlink()
            path.touch()
        return flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with cache.locked(wanted, threading.Event()), open(path) as other:
        with pytest.raises(BlockingIOError):
            flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert len(calls) == 2


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_system_without_locks(home, server, target, monkeypatch, number):
    """A pull goes on without, as a conversion does."""
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    server.add("user/x", {"x-F32.gguf": target})
    assert pathlib.Path(hub.pull("user/x:F32").target).read_bytes() == target
    hub.remove("user/x:F32").execute()
    assert names() == []


def test_a_lock_of_another_user(wanted, monkeypatch):
    """It may be read and not written: one holder at a time all the same."""
    path, plain = cache.root() / ".locks" / cache.folder(wanted.repo).name / f"{wanted.checksum}.lock", os.open
    path.parent.mkdir(parents=True)
    path.touch()

    def refuse(name, flags, *rest, **options):
        if os.fspath(name) == os.fspath(path) and flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "Permission denied", name)
        return plain(name, flags, *rest, **options)

    monkeypatch.setattr(os, "open", refuse)
    with cache.locked(wanted, threading.Event()), open(path, "rb") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_stopped_while_waiting_for_a_lock(wanted):
    stop = threading.Event()

    def wait():
        with cache.locked(wanted, stop):
            raise AssertionError("two have it")

    with cache.locked(wanted, threading.Event()):
        threading.Timer(0.3, stop.set).start()
        with pytest.raises(cache.Stopped):
            in_time(wait)


# ---- converted drafters ----


@pytest.fixture
def models(home, server, data):
    """Two tags of a known model, with a drafter that is converted here."""
    with convert.plan(data / "ckpt-e2b" / "target", "F32") as plan:
        plan.write(home / "a.gguf")
    other = rewrite(home / "a.gguf", home / "b.gguf", keys={"general.name": "other"})
    server.add("ggml-org/gemma-4-E2B-it-GGUF", {"gemma-4-E2B-it-Q4_K_M.gguf": (home / "a.gguf").read_bytes(), "gemma-4-E2B-it-Q8_0.gguf": other.read_bytes()})
    server.add("google/gemma-4-E2B-it-assistant", {p.name: p.read_bytes() for p in (data / "ckpt-e2b" / "drafter").iterdir()})


@pytest.mark.parametrize("damage", ["cut", "empty", "rubbish"])
def test_a_damaged_converted_drafter_is_converted_again(models, damage):
    got = hub.pull("gemma4-e2b")
    path = pathlib.Path(got.drafter)
    good = path.read_bytes()
    assert got.warnings == []
    path.write_bytes({"cut": good[:len(good) // 2], "empty": b"", "rubbish": b"x" * len(good)}[damage])
    assert hub.pull("gemma4-e2b") == got and path.read_bytes() == good


def test_a_converted_drafter_of_two_names(models):
    """It and the checkpoint it came from stay until the second goes."""
    first, second = hub.pull("gemma4-e2b:q4_k_m"), hub.pull("gemma4-e2b:q8_0")
    assert first.drafter == second.drafter and first.target != second.target
    plan = hub.remove("gemma4-e2b:q4_k_m")
    assert plan.files[0] == first.target and len(plan.files) == 2 and first.drafter in plan.kept and any(f.endswith(".safetensors") for f in plan.kept)
    plan.execute()
    assert names() == [("gemma4-e2b:q8_0", True)] and list(cache.root().rglob("*.safetensors")) and hub.pull("gemma4-e2b:q8_0") == second
    hub.remove("gemma4-e2b:q8_0").execute()
    assert not os.path.exists(second.drafter) and not list(cache.root().rglob("blobs/*"))
