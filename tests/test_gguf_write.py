"""The GGUF writer: what it writes reads back, and a write that fails, is interrupted or killed leaves nothing under the final name."""
import os
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest
from gguf import GGUFReader

import pymtp
from gguf_build import Builder
from pymtp import gguf_write
from pymtp.errors import ArgumentError, WriteError
from pymtp.gguf_write import Entry, encode, file_bytes, new_file, write

VALUES = [("u8", 255), ("i8", -1), ("u16", 65535), ("i16", -2), ("u32", 2**32 - 1), ("i32", -3), ("f32", 0.1), ("bool", True), ("u64", 2**64 - 1),
          ("i64", -4), ("f64", 0.1), ("str", "déjà"), ("str", ""), ("[str]", ["a", "", "b\n"]), ("[u32]", []), ("[f32]", [1.5, -0.0]),
          ("[bool]", [True, False]), ("[[i16]]", [[1, -1], []]), ("[[str]]", [["x"], []])]


def example(alignment=None):
    """The same file for the writer and for the independent Builder of the tests."""
    rng = np.random.default_rng(0)
    builder = Builder(alignment=alignment)
    keys = {} if alignment is None else {"general.alignment": encode("u32", alignment)}
    for i, (kind, value) in enumerate([("str", "gemma4"), *VALUES]):
        key = f"key.{i}" if i else "general.architecture"
        builder.kv(key, kind, value)
        keys[key] = encode(kind, value)
    tensors = []
    for name, kind, number, dims, n in (("a", "F32", 0, [3], 12), ("b.weight", "Q8_0", 8, [64, 5], 340), ("c", "Q4_K", 12, [256, 2, 3], 864)):
        data = rng.bytes(n)
        builder.tensor(name, dims, number, data)
        tensors.append(Entry(name, kind, dims, lambda data=data: (data[i:i + 100] for i in range(0, len(data), 100))))
    return keys, tensors, builder.build()


@pytest.mark.parametrize("alignment", [None, 8, 4096])
def test_bytes_are_those_of_the_format(tmp_path, alignment):
    keys, tensors, expected = example(alignment)
    align = alignment or 32
    expected += bytes(-len(expected) % align)  # the writer pads the last tensor as well
    seen = []
    assert write(tmp_path / "x.gguf", keys, tensors, progress=lambda t, n: seen.append((t.name, n))) == len(expected) == file_bytes(keys, tensors)
    assert (tmp_path / "x.gguf").read_bytes() == expected
    assert sum(n for name, n in seen if name == "b.weight") == 340 and max(n for _, n in seen) <= 100
    assert os.listdir(tmp_path) == ["x.gguf"]


def test_readers_agree(tmp_path):
    keys, tensors, _ = example()
    write(tmp_path / "x.gguf", keys, tensors)
    with pymtp.File(tmp_path / "x.gguf") as f:
        assert {key: f.value_bytes(key) for key in f.keys()} == keys and list(keys) == f.keys()
        assert f.value_bytes("none") is None
        assert [(t.name, t.type, t.dims, t.bytes) for t in f.tensors()] == [(t.name, t.type, list(t.dims), t.bytes) for t in tensors]
        for i, t in enumerate(tensors):
            out = bytearray(t.bytes)
            f.read(i, 0, out)
            assert out == b"".join(t.chunks())
        with pytest.raises(ArgumentError, match="b.weight"):
            f.read(1, 300, bytearray(41))
    reader = GGUFReader(tmp_path / "x.gguf")  # of another hand
    assert {t.name: bytes(t.data) for t in reader.tensors} == {t.name: b"".join(t.chunks()) for t in tensors}
    assert reader.fields["key.12"].contents() == "déjà" and reader.fields["key.9"].contents() == 2**64 - 1


def test_values_of_the_wrong_kind():
    for kind, value in (("u8", 256), ("u32", -1), ("f32", "x"), ("f32", 1e300), ("f64", 10**400), ("str", 5), ("[u32]", 5), ("[u8]", [300])):
        with pytest.raises(ArgumentError, match="kind"):
            encode(kind, value)
    with pytest.raises(ArgumentError, match="u7"):
        encode("u7", 1)
    for kind in (None, 5, b"u8", ["u8"]):
        with pytest.raises(ArgumentError, match="^kind: expected a str, found "):
            encode(kind, 1)


def test_rows_of_no_size():
    assert gguf_write.row_bytes("Q4_K", 512) == 288 and gguf_write.row_bytes("F32", 0) == 0
    for kind in ("FOO", None, 5, [], "f32\0"):
        with pytest.raises(ArgumentError, match="^type: expected a type of GGUF tensors, found "):
            gguf_write.row_bytes(kind, 32)
    for cols in (None, "x", 256.0, [256], -256, 2**64):
        with pytest.raises(ArgumentError, match="^cols: expected "):
            gguf_write.row_bytes("Q4_K", cols)


def test_no_tensor_of_the_wrong_size(tmp_path):
    for data in (bytes(8), bytes(16)):
        with pytest.raises(ArgumentError, match="tensor a"):
            write(tmp_path / "x", {}, [Entry("a", "F32", [3], lambda: [data])])
    with pytest.raises(ArgumentError, match="32"):
        write(tmp_path / "x", {}, [Entry("a", "Q8_0", [33], lambda: [])])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind, value, words", [("u32", 1 << 30, "expected at most 1048576, found 1073741824"), ("u32", 2 << 20, "expected at most 1048576"),
                                                ("u32", 4, "expected a power of two from 8, found 4"), ("u32", 48, "found 48"),
                                                ("str", "32", "expected a u32")])
def test_alignments_that_are_refused(tmp_path, kind, value, words):
    keys = {"general.alignment": encode(kind, value)}
    for refused in (lambda: file_bytes(keys, []), lambda: write(tmp_path / "x", keys, [])):
        with pytest.raises(ArgumentError, match="general.alignment: .*" + words):
            refused()
    assert os.listdir(tmp_path) == []


def test_the_largest_alignment(tmp_path):
    keys = {"general.alignment": encode("u32", 1 << 20)}
    assert write(tmp_path / "x", keys, []) == file_bytes(keys, []) == os.path.getsize(tmp_path / "x") == 1 << 20


def test_existing_files(tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(b"old")
    with pytest.raises(WriteError, match="x.gguf: exists"):
        write(path, {}, [])
    assert path.read_bytes() == b"old"
    write(path, {}, [], overwrite=True)
    assert path.read_bytes()[:4] == b"GGUF" and os.listdir(tmp_path) == ["x.gguf"]
    (tmp_path / "link").symlink_to(path)
    (tmp_path / "pipe").mkdir()
    for name in ("link", "pipe"):
        with pytest.raises(WriteError, match=name):
            write(tmp_path / name, {}, [], overwrite=True)


def test_a_file_that_appears_meanwhile_is_kept(tmp_path):
    with pytest.raises(WriteError, match="exists"):
        with new_file(tmp_path / "x", 0) as f:
            f.write(b"new")
            (tmp_path / "x").write_bytes(b"other")
    assert (tmp_path / "x").read_bytes() == b"other" and os.listdir(tmp_path) == ["x"]


def test_a_source_that_fails(tmp_path):
    def chunks():
        yield bytes(4)
        raise OSError(5, "Input/output error", "source.bin")

    with pytest.raises(WriteError, match="source.bin: Input/output error"):
        write(tmp_path / "x", {}, [Entry("a", "F32", [3], chunks)])
    with pytest.raises(WriteError, match="none: No such file"):
        write(tmp_path / "none" / "x", {}, [])
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_none(tmp_path):
    (tmp_path / "afile").write_bytes(b"old")
    with pytest.raises(WriteError, match="afile/out.gguf: Not a directory"):
        write(tmp_path / "afile" / "out.gguf", {}, [])
    assert (tmp_path / "afile").read_bytes() == b"old"


def test_a_folder_that_becomes_none(tmp_path):
    """What then cannot be removed does not hide why the file could not be written."""
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(WriteError, match="folder/x: Not a directory"):
        with new_file(folder / "x", 0):
            folder.rename(tmp_path / "moved")
            folder.write_bytes(b"")


@pytest.mark.parametrize("name", ["x" * 255, "x" * 245 + ".gguf", "\U0001f600" * 63], ids=["x", "long", "wide"])
def test_a_name_as_long_as_names_can_be(tmp_path, name):
    for overwrite in (False, True):
        write(tmp_path / name, {}, [], overwrite)
    assert os.listdir(tmp_path) == [name]


def test_a_name_that_is_too_long_is_seen_before(tmp_path):
    def chunks():
        raise AssertionError("written for nothing")

    with pytest.raises(WriteError, match=r"/x{256}: File name too long"):
        write(tmp_path / ("x" * 256), {}, [Entry("a", "F32", [3], chunks)])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["a\0b", "\ud800"], ids=["NUL", "surrogate"])
def test_names_that_are_none(tmp_path, name):
    with pytest.raises(ArgumentError, match="path: "):
        write(tmp_path / name, {}, [])
    with pytest.raises(ArgumentError, match="path: "):
        write(f"{tmp_path}/{name}/x", {}, [])
    assert os.listdir(tmp_path) == []


def test_a_pipe_is_not_taken_for_a_partial_file(tmp_path):
    """Opening it would wait for a writer."""
    os.mkfifo(tmp_path / ".x.part-1")
    write(tmp_path / "x", {}, [])
    assert sorted(os.listdir(tmp_path)) == [".x.part-1", "x"]


def test_no_room_is_seen_before(tmp_path):
    with pytest.raises(WriteError, match=r"x: needs 4611686018427387904 bytes, \d+ are left"):
        with new_file(tmp_path / "x", 2**62):
            pass
    assert os.listdir(tmp_path) == []


# ---- as a process ----

SCRIPT = """
import sys, time
from pymtp.errors import WriteError
from pymtp.gguf_write import Entry, write
def chunks():
    for i in range({chunks}):
        yield bytes(1 << 20)
        print(i, flush=True)
        time.sleep({pause})
try:
    write({path!r}, {{}}, [Entry("a", "F32", [{chunks} << 18], chunks)])
except WriteError as error:
    sys.exit(f"failed: {{error}}")
"""


def start(path, chunks=1000, pause=0.01, **options):
    return subprocess.Popen([sys.executable, "-c", SCRIPT.format(path=str(path), chunks=chunks, pause=pause)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_leave_nothing(tmp_path, number):
    child = start(tmp_path / "x")
    assert child.stdout.readline() == "0\n"
    assert len(os.listdir(tmp_path)) == 1  # under its hidden name
    child.send_signal(number)
    child.stdout.read()
    assert child.wait(60) == -number  # as without the cleaning up
    assert os.listdir(tmp_path) == []


def test_a_killed_writer_is_cleaned_up_after(tmp_path):
    running, killed = start(tmp_path / "y"), start(tmp_path / "x")
    other = start(tmp_path / "x", chunks=40, pause=0.05)
    for child in (running, killed, other):
        assert child.stdout.readline() == "0\n"
    other.send_signal(signal.SIGSTOP)  # not done before the third has begun, however long that takes
    killed.kill()
    killed.wait(60)
    before = set(os.listdir(tmp_path))
    assert len(before) == 3 and all(name.startswith(".") for name in before)
    write(tmp_path / "z", {}, [])  # another name: not its business
    assert set(os.listdir(tmp_path)) == before | {"z"}
    third = start(tmp_path / "x", pause=0.05)
    assert third.stdout.readline() == "0\n"
    left = set(os.listdir(tmp_path))
    assert len([n for n in left if n.startswith(".x.part-")]) == 2  # the killed one's is gone, the running one's is not
    other.send_signal(signal.SIGCONT)
    assert other.communicate()[1] == "" and other.returncode == 0 and (tmp_path / "x").stat().st_size > 40 << 20
    for child in (running, third):
        child.kill()
        child.communicate()


def test_a_killed_writer_of_a_long_name_is_cleaned_up_after(tmp_path):
    killed = start(tmp_path / ("x" * 250))
    assert killed.stdout.readline() == "0\n"
    killed.kill()
    killed.communicate()
    assert len(os.listdir(tmp_path)) == 1
    write(tmp_path / ("x" * 250), {}, [])
    assert os.listdir(tmp_path) == ["x" * 250]


def test_the_file_size_limit(tmp_path):
    """RLIMIT_FSIZE stands for a quota."""
    child = start(tmp_path / "x", chunks=8, pause=0, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, 4 << 20)))
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 1 and errors == f"failed: {tmp_path / 'x'}: File too large\n"
    assert os.listdir(tmp_path) == []


def test_a_full_disk(tmp_path):
    """Fills after the check of free space, as when others write too."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", tmp_path], capture_output=True).returncode:
        pytest.skip("mount is not permitted")
    try:
        child = start(tmp_path / "x", chunks=7, pause=0.2)
        assert child.stdout.readline() == "0\n"
        (tmp_path / "filler").write_bytes(bytes(4 << 20))
        _, errors = child.communicate(timeout=60)
        assert child.returncode == 1 and errors == f"failed: {tmp_path / 'x'}: No space left on device\n"
        assert os.listdir(tmp_path) == ["filler"]
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a folder of another user")
def test_a_folder_that_cannot_be_listed(tmp_path):
    """It cannot be synced, but the file is complete under its name."""
    code = """if True:
        import os, sys
        from pymtp.gguf_write import new_file
        os.chdir(sys.argv[1])  # the folders above it are not that user's
        os.seteuid(65534)
        with new_file("a", 1) as f:
            f.write(b"a")
        os.seteuid(0)  # who checks for leaks at the end writes elsewhere
        """
    folder = tmp_path / "f"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    folder.chmod(0o300)
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True)
    assert done.returncode == 0 and os.listdir(folder) == ["a"], done.stderr
