"""What the tests of failing files and disks run in a process of their own, under the library of tests/c/interpose.c:

    LD_PRELOAD=libinterpose.so INTERPOSE=libinterpose.so python fault_tasks.py TASK ARGUMENTS...

A task makes the n-th call of a kind fail for n = 1, 2, ... until so many calls do not happen any more, asserts after each what must
hold, and prints as JSON how many calls failed.
"""
import ctypes
import errno
import json
import os
import pathlib
import shutil
import sys

import numpy as np

import pymtp
from pymtp import centroids, convert, hub, imatrix, quantize
from pymtp.errors import HubError, OutOfMemoryError, ReadError, WriteError

READ, WRITE, SYNC, RENAME = range(4)
OLD = b"the old file"
LIBRARY = ctypes.CDLL(os.environ["INTERPOSE"])
LIBRARY.interpose_arm.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_int, ctypes.c_long]
LIBRARY.interpose_seen.restype = ctypes.c_long


def arm(prefix, call, nth, error=0, shrink_to=0):
    LIBRARY.interpose_arm(str(prefix).encode(), call, nth, error, shrink_to)


def disarm():
    """Returns how many calls there were since arm()."""
    seen = LIBRARY.interpose_seen()
    arm("", READ, 0)
    return seen


def each_call(prefix, call, error=0, shrink_to=0):
    """Yields 1, 2, ... with the call of that number armed, the last time one that does not come."""
    n = 1
    while True:
        arm(prefix, call, n, error, shrink_to)
        yield n
        if disarm() < n:
            return
        n += 1


FAILURES = [(f"{name} {errno.errorcode[error]}", call, error) for name, call in (("write", WRITE), ("sync", SYNC), ("rename", RENAME))
            for error in (errno.ENOSPC, errno.EIO)]


# ---- files that are written ----


def sweep_writes(folder, write):
    """write(path) overwrites a file of the folder: after every failure the old file stands, alone and whole. Returns the failures by kind."""
    out, old, count = folder / "out.gguf", folder.parent / "old", {}
    write(out)
    whole = out.read_bytes()
    old.write_bytes(OLD)
    for name, call, error in FAILURES:
        count[name] = 0
        for n in each_call(folder, call, error):
            shutil.copyfile(old, out)  # neither written nor renamed
            try:
                write(out)
            except WriteError as caught:
                assert str(caught) == f"{out}: {os.strerror(error)}", caught
                assert out.read_bytes() == OLD
                count[name] += 1
            else:
                assert out.read_bytes() == whole
            assert os.listdir(folder) == ["out.gguf"], os.listdir(folder)
        # a folder's own sync, after the file has its name, may fail: some file systems have none
        assert count[name] == (1 if call == SYNC else n - 1) > 0, (name, count, n)
    return count


def task_requantize(folder, source):
    with quantize.plan(source, "Q8_0") as plan:
        return sweep_writes(folder, lambda out: plan.write(out, True))


def task_convert(folder, checkpoint):
    with convert.plan(checkpoint, "Q8_0") as plan:
        return sweep_writes(folder, lambda out: plan.write(out, True))


def task_imatrix(folder, source):
    with pymtp.Model(source, None, threads=1) as model:
        sums, _ = imatrix.collect(model, [[2, 5, 6, 7]])
    return sweep_writes(folder, lambda out: imatrix.save(out, sums, ["text"], 1, 4, True))


def task_centroids(folder, drafter):
    with centroids.Drafter(drafter) as opened:
        head = centroids.add(opened, 32, threads=1).head
        return sweep_writes(folder, lambda out: opened.write(out, head, 8, True))


def task_command(folder, call, *args):
    """The command line itself: the first call of the kind fails for want of space."""
    from pymtp.cli import main

    arm(folder, int(call), 1, errno.ENOSPC)
    main(list(args))


# ---- pulls ----


PULL_PLACES = [("anywhere", "", WRITE, errno.ENOSPC), ("record", "pymtp", WRITE, errno.ENOSPC), ("ref", "hf/hub/models--user--small-GGUF/refs", WRITE, errno.EIO),
               ("sync", "", SYNC, errno.EIO), ("rename", "", RENAME, errno.EIO)]


def task_pull(home, reference):
    """Whatever fails in a pull is an error of one line; the next pull goes on from there and ends with all files whole. Of the many
    writes of content every one that is a power of 4 fails."""
    count = {}
    for name, place, call, error in PULL_PLACES:
        n, count[name] = 1, 0
        while True:
            for child in home.iterdir():
                shutil.rmtree(child)
            failed = False
            arm(home / place, call, n, error)
            try:
                hub.pull(reference)
            except (HubError, WriteError) as caught:
                assert str(caught).endswith(os.strerror(error)) and "\n" not in str(caught), caught
                failed = True
            reached = disarm() >= n
            assert failed == reached, (name, n, failed)
            assert all(".pymtp.incomplete" in p.name for p in home.rglob("*.incomplete"))  # beginnings of blobs only
            if not reached:
                break
            count[name] += 1
            n = 4 * n if name == "anywhere" else n + 1
            pulled = hub.pull(reference)
            assert not list(home.rglob("*.incomplete")), list(home.rglob("*.incomplete"))
            with pymtp.Model(pulled.target, pulled.drafter, threads=1) as model:
                assert model.info.drafter_layers
    return count


# ---- files that are read ----


def task_open(folder, source, drafter=None):
    """The file (the drafter, where one is given) shrinks, or a read fails, at the n-th read of an opening, for all n."""
    count, place = {}, folder / "model.gguf"
    content = pathlib.Path(drafter or source).read_bytes()
    for name, error in (("shrinks", 0), ("fails", errno.EIO)):
        count[name] = 0
        for n in each_call(folder, READ, error, len(content) // 3):
            place.write_bytes(content)
            try:
                pymtp.Model(*((source, place) if drafter else (place, None)), threads=1).close()
            except ReadError as caught:
                assert str(caught).startswith(f"{place}: ") and "\n" not in str(caught), caught
                count[name] += 1
        assert count[name] == n - 1 > 0, (name, count, n)
    return count


# ---- memory ----


def task_memory(folder, source):
    """A machine whose memory is what a file says: refused before weights are read, and where a session's next step does not fit."""
    meminfo = folder / "meminfo"

    def left(kib):
        meminfo.write_text(f"MemTotal: 1000000 kB\nMemAvailable: {kib} kB\n")

    left(1000)
    LIBRARY.interpose_memory(str(meminfo).encode())
    arm(os.path.dirname(source), READ, 0)
    try:
        pymtp.Model(source, None, threads=1)
        raise AssertionError("a model that does not fit was loaded")
    except OutOfMemoryError as caught:
        assert source in str(caught) and "its weights need" in str(caught) and "0 MiB are available" in str(caught), caught
    reads = disarm()
    left(1 << 22)
    arm(os.path.dirname(source), READ, 0)
    ids = [int(i) for i in np.random.default_rng(1).integers(5, 1000, 4096)]
    refusals = []
    with pymtp.Model(source, None, kv="f32", threads=1, context=4096) as model:
        assert 0 < reads < disarm()
        with model.session() as calm, model.session() as pressed:
            for at in range(0, len(ids), 256):
                left(0)
                before = len(pressed.tokens)
                try:
                    logits = pressed.forward(ids[at:at + 256])
                except OutOfMemoryError as caught:
                    assert "are available" in str(caught) and len(pressed.tokens) == before, caught
                    refusals.append(at)
                    left(1 << 22)
                    logits = pressed.forward(ids[at:at + 256])
                left(1 << 22)
                assert logits.tobytes() == calm.forward(ids[at:at + 256]).tobytes(), at
    return {"refusals": refusals}


if __name__ == "__main__":
    task, first, *rest = sys.argv[1:]
    result = globals()[f"task_{task}"](pathlib.Path(os.path.realpath(first)), *rest)
    print(json.dumps(result))
