"""The GGUF reader: good files against the `gguf` package, bad ones against the message they must end in.

Bad files run through tool_open as compiled and under AddressSanitizer + UBSan, where any finding ends the program."""
import json
import math
import os
import pathlib
import random
import re
import subprocess

import gguf
import numpy as np
import pytest

import gguf_build as G
import make_models
from conftest import SANITIZER
from gguf_build import Builder
from pymtp._lib import ffi, lib, new_struct

ARG, IO, FORMAT = -1, -2, -3

# ---- good files ----


class File:
    """pymtp_file_* in Python."""

    def __init__(self, path):
        err = new_struct("pymtp_error")
        self.p = lib.pymtp_file_open(os.fsencode(path), err)
        assert self.p, ffi.string(err.text).decode()
        self.p = ffi.gc(self.p, lib.pymtp_file_close)

    def keys(self):
        return [ffi.string(lib.pymtp_file_key(self.p, i)) for i in range(lib.pymtp_file_n_keys(self.p))]

    def text(self, key, max_items=2**40):
        key = G.to_bytes(key)
        n = lib.pymtp_file_value_json(self.p, key, max_items, ffi.NULL, 0)
        assert n >= 0
        out = ffi.new("char[]", n + 1)
        assert lib.pymtp_file_value_json(self.p, key, max_items, out, n + 1) == n
        return ffi.string(out)

    def value(self, key, max_items=2**40):
        return json.loads(self.text(key, max_items))

    def tensors(self):
        info, out = new_struct("pymtp_tensor_info"), []
        for i in range(lib.pymtp_file_n_tensors(self.p)):
            assert lib.pymtp_file_tensor(self.p, i, info) == 0
            assert list(info.dims[info.n_dims:4]) == [1] * (4 - info.n_dims)
            out.append((ffi.string(info.name).decode(), ffi.string(info.type).decode(), list(info.dims[0:info.n_dims]), info.bytes))
        assert lib.pymtp_file_tensor(self.p, len(out), info) == ARG
        return out


def same_as_package(path):
    reader, mine = gguf.GGUFReader(path), File(path)
    fields = {k: f for k, f in reader.fields.items() if not k.startswith("GGUF.")}
    assert [k.decode() for k in mine.keys()] == list(fields)
    for key, field in fields.items():
        found, expected = mine.value(key), field.contents()
        if gguf.GGUFValueType.FLOAT32 in field.types:  # the shortest text that reads back as the same float
            found, expected = np.float32(found).tolist(), np.float32(expected).tolist()
        assert found == expected, key
    assert mine.tensors() == [(t.name, t.tensor_type.name, [int(d) for d in t.shape], int(t.n_bytes)) for t in reader.tensors]


@pytest.mark.parametrize("name", ["tiny-e2b", "tiny-e2b-drafter", "tiny-26b", "tiny-31b-drafter", "trained-py"])
def test_golden(data, name):
    same_as_package(data / f"{name}.gguf")


def test_vocabulary(vocab_gguf):
    content, mine = vocab_gguf.read_bytes(), File(vocab_gguf)
    for key, count in (("tokenizer.ggml.tokens", 262144), ("tokenizer.ggml.merges", 514906)):
        assert mine.value(key) == G.string_array(content, key) and len(mine.value(key)) == count
    assert mine.tensors() == []


SCALARS = {"u8": 255, "i8": -128, "u16": 65535, "i16": -32768, "u32": 2**32 - 1, "i32": -2**31, "f32": 0.1, "bool": True, "str": "\u2581a\"\\\n\t\x01é𝄞",
           "u64": 2**64 - 1, "i64": -2**63, "f64": 0.1}


def test_written_by_the_package(tmp_path):
    """Every metadata type, scalar and array, and an alignment of 64."""
    w = gguf.GGUFWriter(tmp_path / "a.gguf", "gemma4")
    w.add_custom_alignment(64)
    names = {v: k for k, v in dict(u8="UINT8", i8="INT8", u16="UINT16", i16="INT16", u32="UINT32", i32="INT32", f32="FLOAT32", bool="BOOL",
                                   str="STRING", u64="UINT64", i64="INT64", f64="FLOAT64").items()}
    for package, mine in names.items():
        kind = gguf.GGUFValueType[package]
        w.add_key_value(f"one.{mine}", SCALARS[mine], kind)
        w.add_key_value(f"many.{mine}", [SCALARS[mine]] * 3, gguf.GGUFValueType.ARRAY, kind)
    rng = np.random.default_rng(0)
    for i, kind in enumerate((np.float32, np.float16, np.int8, np.int16, np.int32, np.int64, np.float64)):
        w.add_tensor(f"t{i}", rng.integers(0, 9, (3, 5 + i)).astype(kind))
    w.add_tensor("four", np.zeros((2, 3, 4, 5), np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    same_as_package(tmp_path / "a.gguf")


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("alignment", [None, 1, 8, 32, 4096])
def test_versions_and_alignments(tmp_path, version, alignment):
    b = Builder(version=version, alignment=alignment)
    for kind, value in SCALARS.items():
        b.kv("one." + kind, kind, value).kv("many." + kind, f"[{kind}]", [value] * 2)
    for number, (values, size) in G.BLOCKS.items():
        b.tensor(f"t{number}", [values * 2, 3], number)
    b.tensor("scalar", [1])
    f = File(b.write(tmp_path / "a.gguf"))
    for kind, value in SCALARS.items():
        value = float(np.float32(value)) if kind == "f32" else value
        got, many = f.value("one." + kind), f.value("many." + kind)
        if kind == "f32":
            got, many = float(np.float32(got)), [float(np.float32(v)) for v in many]
        assert got == value and many == [value] * 2
    assert [t[3] for t in f.tensors()] == [6 * size for _, size in G.BLOCKS.values()] + [4]


def test_json(tmp_path):
    b = Builder().kv("nest", "[[[i32]]]", [[[1, 2, 3], []], [], [[4]]]).kv("texts", "[[str]]", [["a", "b"], []])
    b.kv("empty", "[str]", []).kv("bad", "str", b"a\xff\xc0\x80\xed\xa0\x80z\0q").kv("special", "[f64]", [math.nan, math.inf, 1.0, 1e300, -0.0])
    b.kv("floats", "[f32]", [1e30, 1e-6, 16777216.0, 3.1415927]).kv("many", "[u8]", list(range(100))).kv("", "u8", 1)
    b.keys.pop()
    f = File(b.write(tmp_path / "a.gguf"))
    assert f.value("nest") == [[[1, 2, 3], []], [], [[4]]] and f.value("texts") == [["a", "b"], []]
    assert f.value("nest", 1) == [[[1, "..."], "..."], "..."]
    assert f.value("empty") == [] and f.value("bad") == "a\ufffd\ufffd\ufffd\ufffd\ufffd\ufffdz\0q"
    assert f.text("special") == b"[null, null, 1.0, 1e+300, -0.0]"
    assert f.text("floats") == b"[1e+30, 1e-06, 16777216.0, 3.1415927]"
    assert f.value("many", 3) == [0, 1, 2, "..."] and f.value("many", 100) == list(range(100)) and f.value("many", 0) == ["..."]
    small = ffi.new("char[]", b"#" * 10)
    assert lib.pymtp_file_value_json(f.p, b"special", 9, small, 5) == 31 and ffi.buffer(small)[:6] == b"[nul\0#"
    assert lib.pymtp_file_value_json(f.p, b"none", 9, small, 5) == -1
    size = ffi.new("size_t *")
    raw = lib.pymtp_file_string(f.p, b"bad", size)
    assert ffi.buffer(raw, size[0])[:] == b"a\xff\xc0\x80\xed\xa0\x80z\0q"
    assert lib.pymtp_file_string(f.p, b"many", size) == ffi.NULL


def test_unknown_types_stay_readable(tmp_path):
    b = Builder().tensor("a", [256], 16, bytes(66)).tensor("b", [64], 40, bytes(36)).tensor("c", [7], 999, bytes(9)).tensor("d", [32], G.Q8_0)
    assert File(b.write(tmp_path / "a.gguf")).tensors() == [("a", "IQ2_XXS", [256], 0), ("b", "NVFP4", [64], 0), ("c", "type 999", [7], 0),
                                                            ("d", "Q8_0", [32], 34)]
    for kind in gguf.GGMLQuantizationType:
        values, size = gguf.GGML_QUANT_SIZES[kind]
        path = Builder().tensor("t", [values * 4], kind.value, bytes(size * 4)).write(tmp_path / "b.gguf")
        name, shown, _, found = File(path).tensors()[0]
        assert shown == kind.name and found in (0, 4 * size)


# ---- split sets ----


def write_set(folder, count=3, change=None, name="m"):
    """A set of parts with two tensors each; change(i, builder arguments) may spoil one."""
    paths = []
    for i in range(count):
        numbers = {"split.no": i, "split.count": count, "split.tensors.count": 2 * count}
        if change:
            change(i, numbers)
        b = Builder()
        if i == 0:
            b.kv("general.name", "str", "first")
        for key, value in numbers.items():
            b.kv(key, "i32" if "tensors" in key else "u16", value)
        b.tensor(f"a{i}", [8]).tensor(f"b{i}", [32], G.Q8_0)
        paths.append(b.write(folder / f"{name}-{i + 1:05d}-of-{count:05d}.gguf"))
    return paths


def test_split_set(tmp_path):
    for path in write_set(tmp_path):
        f = File(path)
        assert f.value("general.name") == "first"
        assert [t[0] for t in f.tensors()] == ["a0", "b0", "a1", "b1", "a2", "b2"]
    assert len(File(write_set(tmp_path, 1)[0]).tensors()) == 2


def bad_sets(folder):
    """(path, code, fragment)"""
    def spoiled(name, opened, key, value, part):
        where = folder / name
        where.mkdir()
        return write_set(where, change=lambda i, numbers: numbers.update({key: value}) if i == part else None)[opened]

    out = [(spoiled("count", 0, "split.count", 4, 1), FORMAT, "split.count': expected 3"), (spoiled("number", 2, "split.no", 2, 1), FORMAT, "split.no': expected 1"),
           (spoiled("far", 0, "split.no", 3, 0), FORMAT, "split.no': expected one of 3"),
           (spoiled("total", 1, "split.tensors.count", 7, 0), FORMAT, "split.tensors.count': expected 6")]
    (folder / "missing").mkdir()
    missing = write_set(folder / "missing")
    missing[1].unlink()
    out.append((missing[0], IO, "m-00002-of-00003.gguf: No such file"))
    (folder / "renamed").mkdir()
    renamed = write_set(folder / "renamed")[1]
    out.append((renamed.rename(folder / "renamed" / "x.gguf"), FORMAT, "expected a file name ending in -00002-of-00003.gguf"))
    (folder / "twice").mkdir()
    twice = write_set(folder / "twice", 2)
    data = twice[1].read_bytes()
    twice[1].write_bytes(data.replace(b"a1", b"a0"))
    out.append((twice[0], FORMAT, "'a0': expected once, found twice"))
    return out


@pytest.fixture(scope="session")
def small_pair(tmp_path_factory):
    return [pathlib.Path(p) for p in make_models.build("ple", "Q4_0", tmp_path_factory.mktemp("pair"))]


# ---- bad files ----

WRAP = 2**64 - 8


def bad_files(folder):
    """(path, code, fragment): one file of each kind."""
    out = []

    def add(content, code, fragment):
        path = folder / f"{len(out):03d}.gguf"
        path.write_bytes(content if isinstance(content, bytes) else content.build())
        out.append((path, code, fragment))

    def some(**overrides):
        return Builder(**overrides).kv("general.name", "str", "x").tensor("t", [8])

    good = some().build()
    # not GGUF at all, or another kind of it
    add(b"", FORMAT, "not a GGUF file: it is empty")
    add(b"GGU", FORMAT, "not a GGUF file")
    add(b"PK\x03\x04" + bytes(500), FORMAT, "not a GGUF file")
    add(some(magic=b"FUGG"), FORMAT, "not a GGUF file")
    add(some(version=1), FORMAT, "version: expected 2 or 3, found 1")
    add(some(version=0), FORMAT, "version: expected 2 or 3, found 0")
    add(some(version=4), FORMAT, "version: expected 2 or 3, found 4")
    add(some(version=3 << 24), FORMAT, "big-endian")
    add(good[:20], IO, "truncated: header")
    # counts and lengths
    for n in (2**63, WRAP, 2**64 - 1, len(good)):
        add(some(n_tensors=n), FORMAT, "number of tensors: expected at most")
        add(some(n_kv=n), FORMAT, "number of keys: expected at most")
    for n in (2**63, WRAP, 2**64 - 1, 10**6):
        add(Builder().kv("k", "str", "x", key_bytes=n).tensor("t", [8]), IO, "truncated: key")
        add(Builder().kv("k", "str", "x", length=n).tensor("t", [8]), IO, "truncated: key 'k'")
        for kind in ("[u8]", "[u64]", "[str]", "[[u8]]"):
            add(Builder().kv("k", kind, [], count=n).tensor("t", [8]), FORMAT, "key 'k': array length: expected at most")
        add(Builder().tensor("t", [8], name_bytes=n), IO, "truncated: tensor")
    add(Builder().raw(G.string("k") + G.struct.pack("<IIQ", 9, 9, 1) + G.struct.pack("<IQ", 10, 2**61)).tensor("t", [8]), FORMAT, "array length")
    add(Builder().raw(G.string("k") + G.struct.pack("<IIQ", 9, 9, 1) + G.struct.pack("<IQQ", 8, 1, WRAP)).tensor("t", [8]), IO, "truncated: key 'k'")
    # values
    add(Builder().kv("k", "u8", 1, type_number=13), FORMAT, "key 'k': value type: expected 0..12, found 13")
    add(Builder().kv("k", "[u8]", [1], element_type=2**31), FORMAT, "value type: expected 0..12")
    add(Builder().kv("k", "[u8]", [1], element_type=8).tensor("t", [8]), IO, "truncated: key 'k'")
    add(Builder().kv("k", "bool", 2), FORMAT, "bool: expected 0 or 1, found 2")
    add(Builder().kv("k", "[bool]", [1, 0, 255]), FORMAT, "bool: expected 0 or 1, found 255")
    add(Builder().kv("k", "[[bool]]", [[1], [7]]), FORMAT, "bool: expected 0 or 1, found 7")
    deep = 1
    for _ in range(20):
        deep = [deep]
    add(Builder().kv("k", "[" * 20 + "u8" + "]" * 20, deep), FORMAT, "arrays at most 8 deep")
    add(Builder().raw(G.string("k") + G.struct.pack("<I", 9) + G.struct.pack("<IQ", 9, 1) * 100000), FORMAT, "arrays at most 8 deep")
    add(Builder().kv("k", "u8", 1).kv("j", "u8", 1).kv("k", "str", ""), FORMAT, "key 'k': expected once, found twice")
    add(Builder().kv("k\0x", "u8", 1), FORMAT, "without NUL bytes")
    add(Builder().kv("", "u8", 1).tensor("t", [8]), FORMAT, "name length: expected 1..65535 bytes, found 0")
    add(Builder().kv("k" * 65536, "u8", 1), FORMAT, "name length: expected 1..65535 bytes, found 65536")
    for n in (0, 3, 33, 2**32 - 1):
        add(Builder().kv("general.alignment", "u32", n).tensor("t", [8]), FORMAT, f"general.alignment': expected a power of two, found {n}")
    for kind, value in (("str", "32"), ("f32", 32.0), ("[u32]", [32])):
        add(Builder().kv("general.alignment", kind, value).tensor("t", [8]), FORMAT, "general.alignment': expected an integer")
    add(Builder().kv("general.alignment", "i32", -32).tensor("t", [8]), FORMAT, "power of two, found -32")
    add(Builder().kv("split.count", "str", "2"), FORMAT, "split.count': expected a number")
    add(Builder().kv("split.count", "u16", 2), FORMAT, "split.no': expected one of 2")
    add(Builder().kv("split.count", "u64", 2**62).kv("split.no", "u16", 0), FORMAT, "at most 65535")
    # tensors
    add(Builder().tensor("t", [8]).tensor("t", [8]), FORMAT, "tensor 't': expected once, found twice")
    add(Builder().tensor("t\0", [8]), FORMAT, "without NUL bytes")
    add(Builder().tensor("", [8]).kv("filler", "[u8]", [0] * 50), FORMAT, "name length: expected 1..65535 bytes, found 0")
    add(Builder().tensor("t", [], data=bytes(64)), FORMAT, "number of dimensions: expected 1..4, found 0")
    add(Builder().tensor("t", [2] * 5), FORMAT, "number of dimensions: expected 1..4, found 5")
    add(Builder().tensor("t", [8], n_dims=2**32 - 1), FORMAT, "number of dimensions")
    for i in range(4):
        add(Builder().tensor("t", [0 if k == i else 2 for k in range(4)], data=bytes(64)), FORMAT, f"dimension {i}: expected at least 1, found 0")
    add(Builder().tensor("t", [2**32, 2**32], data=bytes(64)), FORMAT, "number of elements below 2^63")
    add(Builder().tensor("t", [2**63], data=bytes(64)), FORMAT, "number of elements below 2^63")
    add(Builder().tensor("t", [2**16] * 4, data=bytes(64)), FORMAT, "number of elements below 2^63")
    add(Builder().tensor("t", [2**62], G.F32, data=bytes(64)), FORMAT, "a size below 2^63 bytes")
    add(Builder().tensor("t", [2**61], G.F32, data=bytes(64)), FORMAT, "a size below 2^63 bytes")
    add(Builder().tensor("t", [33], G.Q8_0, data=bytes(640)), FORMAT, "row length: expected a multiple of 32 for type Q8_0, found 33")
    add(Builder().tensor("t", [128, 2], G.Q4_K, data=bytes(640)), FORMAT, "row length: expected a multiple of 256 for type Q4_K, found 128")
    add(Builder().tensor("t", [8], offset=8), FORMAT, "offset: expected a multiple of 32, found 8")
    add(Builder(alignment=64).tensor("t", [8], offset=32), FORMAT, "offset: expected a multiple of 64, found 32")
    add(Builder().tensor("t", [8], offset=2**64 - 32), FORMAT, "offset: expected one inside the file")
    add(Builder().tensor("t", [8], offset=2**63), IO, "truncated: tensor 't'")
    add(Builder().tensor("t", [8], offset=32), IO, "truncated: tensor 't': expected 32 bytes")
    add(Builder().tensor("t", [8], data=bytes(31)), IO, "truncated: tensor 't'")
    add(Builder().tensor("t", [2**40], data=bytes(32)), IO, "truncated: tensor 't'")
    add(Builder().tensor("t", [8], 999, offset=64), IO, "truncated: tensor 't'")
    add(Builder().tensor("a", [64]).tensor("b", [8], offset=128), FORMAT, "tensor 'b': data at offset 224 overlaps that of tensor 'a'")  # the data starts at 96
    add(Builder().tensor("a", [64]).tensor("b", [8], offset=0), FORMAT, "overlaps that of tensor 'a'")
    add(Builder().tensor("a", [8], 999).tensor("b", [8], offset=0), FORMAT, "overlaps")
    add(Builder().tensor("x\n\x1b[31m", [0], data=bytes(8)), FORMAT, "dimension 0")
    return out


def run_tool(build, args):
    done = subprocess.run([str(build / "tool_open"), *map(str, args)], capture_output=True, timeout=600,
                          env={**os.environ, "ASAN_OPTIONS": "allocator_may_return_null=1:max_allocation_size_mb=4096"})
    assert done.returncode in (0, 1) and not done.stderr, done.stderr[-3000:].decode(errors="replace")
    return done.returncode, done.stdout.decode(errors="replace").splitlines()


@pytest.fixture(params=["c_build", "asan_build"])
def build(request):
    return request.getfixturevalue(request.param)


def check(build, mode, cases):
    code, lines = run_tool(build, [mode, *(path for path, *_ in cases)])
    assert code == 1 and len(lines) == len(cases)
    wrong = [f"{path.name}: expected {number} {fragment!r}, found {line!r}" for (path, number, fragment), line in zip(cases, lines)
             if not (line.startswith(f"error {number}: {path.parent}") and fragment in line)]
    assert not wrong, "\n".join(wrong)


def test_bad_files(build, tmp_path):
    """Counts, lengths, dimensions and offsets that wrap or point outside (CVE-2025-53630, CVE-2026-27940), and every other malformed field."""
    check(build, "--file", bad_files(tmp_path))


def test_bad_sets(build, tmp_path):
    check(build, "--file", bad_sets(tmp_path))


def test_no_file(build, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    cases = [(tmp_path / "none.gguf", IO, "No such file"), (tmp_path / "pipe", IO, "not a regular file")]
    closed = tmp_path / "closed.gguf"
    closed.write_bytes(Builder().build())
    closed.chmod(0)
    if not os.access(closed, os.R_OK):  # root may read anything
        cases.append((closed, IO, "Permission denied"))
    check(build, "--file", cases)
    assert run_tool(build, ["--file", tmp_path])[1] == [f"error {IO}: {tmp_path}: is a directory, not a file"]
    assert run_tool(build, ["--file", ""])[1] == [f"error {ARG}: no file name given"]


def test_truncated_anywhere(build, data, tmp_path):
    """A golden drafter cut at every boundary of its structure and at 200 random places: an error each time, also as a model
    (CVE-2026-7482: extents that the file does not hold)."""
    source = data / "tiny-e2b-drafter.gguf"
    marks, size = G.boundaries(source)
    assert len(marks) > 500
    rng = random.Random(1)
    cuts = sorted(set(marks + [rng.randrange(marks[-1]) for _ in range(100)] + [rng.randrange(size) for _ in range(100)]))
    content = source.read_bytes()
    for start in range(0, len(cuts), 100):
        paths = []
        for cut in cuts[start:start + 100]:
            paths.append(tmp_path / f"{cut}.gguf")
            paths[-1].write_bytes(content[:cut])
        code, lines = run_tool(build, ["--model", *paths])
        assert code == 1 and len(lines) == len(paths)
        for path, line in zip(paths, lines):
            assert line.startswith((f"error {IO}: {path}", f"error {FORMAT}: {path}")), line
            path.unlink()


@pytest.mark.parametrize("what", ["target", "drafter"])
def test_random_damage(build, what, small_pair, tmp_path):
    """Bytes of header, metadata and directory changed at random, most in the fields and not in the arrays. Whatever comes of
    it, it is "ok" or one line, and nothing for the sanitizers. 150 files."""
    target, drafter = small_pair
    source = target if what == "target" else drafter
    mode = ["--model"] if what == "target" else ["--drafter", target]
    content, marks = source.read_bytes(), G.boundaries(source)[0]
    end = max(m for m in marks if m < len(content) // 4)
    fields = [m for m in marks if m <= end]
    rng, failed = random.Random(2), 0
    for _ in range(3):
        paths = []
        for i in range(50):
            damaged = bytearray(content)
            for _ in range(rng.choice((1, 2, 8))):
                at = rng.choice(fields) + rng.randrange(8) if rng.random() < 0.8 else rng.randrange(end)
                damaged[at] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
            paths.append(tmp_path / f"{i}.gguf")
            paths[-1].write_bytes(damaged)
        lines = run_tool(build, [*mode, *paths])[1]
        assert len(lines) == 50
        assert all(re.match(r"ok$|error -\d+: \S", line) for line in lines), lines
        failed += sum(line != "ok" for line in lines)
    assert failed > 75  # the damage is real


@pytest.mark.skipif(SANITIZER is not None or not os.path.exists("/proc/self"), reason="needs a limit on address space")
def test_memory_is_bounded(c_build, tmp_path):
    """The densest structures there are take at most about four times the file, and a few MB for the program itself."""
    n = 200000
    keys, tensors = Builder(), Builder()
    for i in range(n):
        keys.raw(G.string(f"{i:06x}") + bytes(5))
        tensors.tensor(f"{i:06x}", [1], G.I8, offset=32 * i)
    strings = Builder().kv("k", "[str]", [""] * (10 * n))
    nested = Builder().kv("k", "[[u8]]", [[]] * (5 * n))
    for name, builder in (("keys", keys), ("tensors", tensors), ("strings", strings), ("nested", nested)):
        path = builder.write(tmp_path / f"{name}.gguf")
        metadata = builder.marks[-1 - len(builder.tensors)]
        measured = subprocess.run(["/bin/sh", "-c", 'ulimit -v "$1"; shift; exec "$@"', "sh", str((4 * metadata >> 10) + 4096), str(c_build / "tool_open"),
                                   "--file", str(path)], capture_output=True, text=True)
        assert measured.stdout == "ok\n", (name, metadata, measured.stdout, measured.stderr)


# ---- as models ----


def test_pairs(build, data, tmp_path):
    """tool_open FILE [DRAFTER]: the goldens fit, everything else is told apart in one line."""
    golden = lambda name: data / f"{name}.gguf"
    other = Builder().kv("general.architecture", "str", "llama").tensor("token_embd.weight", [8, 4]).write(tmp_path / "llama.gguf")
    bare = Builder().tensor("t", [8]).write(tmp_path / "bare.gguf")
    for args, expected in [
            (["tiny-e2b"], "ok"), (["tiny-e2b", "tiny-e2b-drafter"], "ok"), (["tiny-31b", "tiny-31b-drafter"], "ok"),
            (["tiny-e2b", "trained-py-drafter"], "error -5: "), (["tiny-e2b", "tiny-e2b"], "error -5: "), (["tiny-e2b-drafter"], "error -5: ")]:
        code, lines = run_tool(build, [golden(name) for name in args])
        assert len(lines) == 1 and lines[0].startswith(expected) and code == (expected != "ok"), (args, lines)
        assert expected == "ok" or str(golden(args[-1])) in lines[0], lines
    for path in (other, bare):
        code, lines = run_tool(build, [path])
        assert code == 1 and lines[0].startswith(("error -3: ", "error -4: ")) and str(path) in lines[0], lines
    assert "llama" in run_tool(build, [other])[1][0]
    code, lines = run_tool(build, [golden("tiny-e2b"), tmp_path / "none.gguf"])
    assert code == 1 and lines[0].startswith(f"error {IO}: {tmp_path / 'none.gguf'}"), lines
