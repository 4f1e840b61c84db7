"""What tests/test_fault.py runs under lib_fault_write.c: one scenario, over and over, with another change below a folder failing.

    fault_child.py quantize SOURCE FOLDER    requantizes SOURCE over an existing FOLDER/out.gguf
    fault_child.py pull REFERENCE FOLDER     pulls from a server into FOLDER, emptied before each n

The n-th change fails with ENOSPC or EIO, for odd n all after it too. Every n, or of a long run the first, the last and some between,
where one piece of content after the other is written. Prints a JSON list, one object for every n:
    n
    error     type and text of the pymtp.Error; null: there was none; false: nothing failed, there were fewer changes
    left      files below the folder after the failure, with their SHA-256
    again     the same after another try without a failure
"""
import ctypes
import errno
import hashlib
import json
import pathlib
import shutil
import sys

import pymtp
from pymtp import hub, quantize

lib = ctypes.CDLL(None)
lib.fault_write_disarm.restype = ctypes.c_long
scenario, source, folder = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])


def run():
    if scenario == "pull":
        hub.pull(source)
        return
    with quantize.plan(source, "BF16", threads=1) as plan:
        plan.write(folder / "out.gguf", overwrite=True)


def files():
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def prepare():
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if scenario == "quantize":
        (folder / "out.gguf").write_bytes(b"old")


def attempt(n):
    """The result of failing at n. Its error is False when there were fewer changes."""
    prepare()
    failure = None
    lib.fault_write_arm(str(folder).encode(), ctypes.c_long(n), errno.ENOSPC if n % 4 < 2 else errno.EIO, n % 2)
    try:
        run()
    except pymtp.Error as error:
        failure = [type(error).__name__, str(error)]
    finally:
        changes = lib.fault_write_disarm()
    left = files()
    run()
    return {"n": n, "error": failure if changes >= n else False, "left": left, "again": files()}


def changes():
    """How many there are without a failure. Those of a pull differ a little, with the sizes in which content arrives."""
    prepare()
    lib.fault_write_arm(str(folder).encode(), ctypes.c_long(1 << 40), 0, 0)
    run()
    return lib.fault_write_disarm()


total = changes()
chosen = range(1, total + 1) if total < 60 else [*range(1, 21), *range(21, total - 16, 20), *range(total - 16, total + 1)]
json.dump([attempt(n) for n in chosen], sys.stdout)
