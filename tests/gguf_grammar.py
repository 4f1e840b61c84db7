"""Mutations of a GGUF file by its grammar: every field of header, metadata and directory to values at boundaries.

    cases(file) -> iterator of Case   of a micro_models.File

Fields are patched where they stand, or written anew where that changes lengths. A case carries what an error it ends in must name:
the key or tensor that was changed; or nothing where the change moves the reader off the fields (a wrong length or type).
"""
import dataclasses
import itertools
import math
import struct

import gguf_build
from gguf_build import NUMBERS, Builder

SIZE_MAX = 2**64 - 1
COUNTS = (0, 1, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 1, 2**32, 2**32 + 1, 2**42 + 1, 2**63 - 1, 2**63, 2**63 + 1, *(SIZE_MAX - k for k in (0, 1, 7, 31, 63)))
SMALLER = (-1, -2**31, -2**63)
FLOATS = (0.0, -0.0, 1e-300, -1.0, 1e38, 1e300, math.nan, math.inf, -math.inf)
TYPES = (*range(14), 2**31, 2**32 - 1)
TENSOR_TYPES = (*range(45), 2**31, 2**32 - 1)
ALIGNMENTS = (0, 1, 2, 3, 8, 16, 32, 33, 64, 4096, 2**20, 2**30, 2**31, 2**31 + 1, 2**32 - 1)


@dataclasses.dataclass
class Case:
    name: str    # what was changed, to what
    data: bytes
    named: str   # part of the error's text; "" where any one line will do


def fits(values, bytes):
    """Without those that are another value once cut to the field."""
    return [v for v in values if v < 256**bytes]


def patched(content, at, bytes, value):
    return content[:at] + value.to_bytes(bytes, "little") + content[at + bytes:]


class Layout:
    """Where the fields of a built file stand."""

    def __init__(self, file):
        builder = file.builder()
        self.content = builder.build()
        marks = iter(builder.marks)
        self.header = dict(zip(("magic", "version", "tensors", "keys"), marks))
        self.keys = {name: [next(marks) for _ in range(3)] for name in file.keys}  # name, type, value
        self.tensors = {}
        for name, (dims, *_) in file.tensors.items():
            at = next(marks), next(marks)
            self.tensors[name] = (*at, [next(marks) for _ in dims], next(marks), next(marks))  # name, n_dims, dims, type, offset


def header_cases(layout):
    for field, bytes in (("magic", 4), ("version", 4), ("tensors", 8), ("keys", 8)):
        for value in fits(COUNTS, bytes):
            yield Case(f"header {field} {value:#x}", patched(layout.content, layout.header[field], bytes, value), "")


def key_cases(file, layout):
    """The fields of keys as bytes."""
    for name, (kind, _) in file.keys.items():
        at_name, at_type, at_value = layout.keys[name]
        for value in COUNTS:
            yield Case(f"{name}: name length {value:#x}", patched(layout.content, at_name, 8, value), "")
        for value in TYPES:
            yield Case(f"{name}: type {value:#x}", patched(layout.content, at_type, 4, value), "" if value < 13 else name)
        yield Case(f"{name}: NUL in the name", layout.content[:at_name + 10] + b"\0" + layout.content[at_name + 11:], "NUL")
        if kind == "str":
            for value in COUNTS:
                yield Case(f"{name}: length {value:#x}", patched(layout.content, at_value, 8, value), name if value > 2**31 else "")
        if kind.startswith("["):
            for value in TYPES:
                yield Case(f"{name}: element type {value:#x}", patched(layout.content, at_value, 4, value), "" if value < 13 else name)
            for value in COUNTS:
                yield Case(f"{name}: count {value:#x}", patched(layout.content, at_value + 4, 8, value), name if value > 1 else "")


def value_forms(kind, value):
    """(kind, value) of what may stand in its place."""
    for v in COUNTS:
        yield "u64", v
    for v in SMALLER:
        yield "i64", v
    for v in FLOATS:
        yield "f64", v
    yield from (("f32", math.nan), ("bool", True), ("str", ""), ("str", "x\0y"), ("str", b"\xff\xc0\x80"), ("str", "x" * 70000), ("[u32]", []), ("[u32]", [1, 2]),
                ("[i64]", [-1] * 3), ("[f64]", [math.nan] * 2), ("[str]", []), ("[str]", ["", ""]), ("[[u32]]", [[1], [2, 3]]), ("[[str]]", [[], ["a"]]))
    if kind.startswith("["):
        yield kind, value[:-1]
        yield kind, value + value[-1:]
        yield "[" + kind + "]", [value]
        if value and not isinstance(value[0], str):
            for v in (0, 1, 2, 2**31 - 1, 2**31, 2**32, 2**63 - 1):
                yield "[u64]", [*value[:-1], v]
            yield "[i64]", [*value[:-1], -1]
        elif value:
            for text in ("", " ", "a", "a ", " a", "\0", "zz zz", "<0xFF>", "x" * 5000):
                yield "[str]", [*value[:-1], text]
                yield "[str]", [text, *value[1:]]


def rebuilt(file, keys=None, tensors=None):
    return dataclasses.replace(file, keys=file.keys if keys is None else keys, tensors=file.tensors if tensors is None else tensors)


def value_cases(file):
    """Keys with other values, without, and twice."""
    for name, (kind, value) in file.keys.items():
        for new in value_forms(kind, value):
            yield Case(f"{name} = {new[0]} {str(new[1])[:60]!r}", rebuilt(file, {**file.keys, name: new}).bytes(), name)
        yield Case(f"{name} missing", rebuilt(file, {n: v for n, v in file.keys.items() if n != name}).bytes(), name)
        yield Case(f"{name} twice", file.builder().kv(name, kind, value).build(), f"'{name}': expected once, found twice")
        yield Case(f"{name} twice, of two types", file.builder().kv(name, "[[u8]]", [[1], []]).build(), f"'{name}': expected once, found twice")


def nested_cases(file):
    """Arrays in arrays where no key is known, as deep as they may be and deeper."""
    for depth in (1, 2, 7, 8, 9, 60):
        for inner, leaf in (("u8", [1]), ("str", ["a", ""]), ("f64", [math.nan]), ("bool", [True]), ("u64", [])):
            value = leaf
            for _ in range(depth - 1):
                value = [value]
            yield Case(f"{depth} arrays of {inner}", file.builder().kv("nest", "[" * depth + inner + "]" * depth, value).build(), "nest")
    for count in COUNTS:
        heads = struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) + struct.pack("<IQ", 8, count)
        yield Case(f"nested count {count:#x}", file.builder().raw(gguf_build.string("nest") + heads).build(), "nest" if count > 1 else "")


def tensor_cases(file, layout):
    for name, (dims, type, data) in file.tensors.items():
        at_name, at_dims, at_dim, at_type, at_offset = layout.tensors[name]
        for value in COUNTS:
            yield Case(f"{name}: name length {value:#x}", patched(layout.content, at_name, 8, value), "")
        yield Case(f"{name}: NUL in the name", layout.content[:at_name + 9] + b"\0" + layout.content[at_name + 10:], "NUL")
        for value in (0, 1, 2, 3, 4, 5, 2**31 - 1, 2**31, 2**32 - 1):
            yield Case(f"{name}: {value:#x} dimensions", patched(layout.content, at_dims, 4, value), name if value > 4 else "")
        for i, at in enumerate(at_dim):
            for value in (*COUNTS, dims[i] - 1, dims[i] + 1, dims[i] * 2, 2**24, 2**24 + 1):
                yield Case(f"{name}: dimension {i} {value:#x}", patched(layout.content, at, 8, value), name)
        for value in TENSOR_TYPES:
            yield Case(f"{name}: type {value:#x}", patched(layout.content, at_type, 4, value), name)
        old = int.from_bytes(layout.content[at_offset:at_offset + 8], "little")
        for value in (*COUNTS, old + 1, max(old - 32, 0), old + 32, len(layout.content) // 32 * 32, 2**63 - 32, SIZE_MAX - 31 - len(layout.content)):
            yield Case(f"{name}: offset {value:#x}", patched(layout.content, at_offset, 8, value % 2**64), name)
        yield Case(f"{name} missing", rebuilt(file, tensors={n: t for n, t in file.tensors.items() if n != name}).bytes(), name)
        yield Case(f"{name} twice", file.builder().tensor(name, dims, type, data).build(), f"'{name}': expected once, found twice")


def alignment_cases(file):
    for kind in ("u32", "u64", "i32", "u8", "f32", "str", "bool", "[u32]", "[[u32]]"):
        for value in ALIGNMENTS:
            if kind in NUMBERS and kind not in ("f32", "bool") and value >= 256**struct.calcsize(NUMBERS[kind][1]) // (2 if kind == "i32" else 1):
                continue
            content = {"str": str(value), "bool": value & 1, "[u32]": [value], "[[u32]]": [[value]]}.get(kind, value)
            step = value if value and value & (value - 1) == 0 and value <= 4096 else 32  # how the file is really laid out
            b = Builder()
            b.alignment = step
            b.kv("general.alignment", kind, content)
            for key, (key_kind, key_value) in file.keys.items():
                b.kv(key, key_kind, key_value)
            for name, (dims, type, data) in file.tensors.items():
                b.tensor(name, dims, type, data)
            yield Case(f"general.alignment = {kind} {value:#x}", b.build(), "general.alignment" if step != value or kind not in NUMBERS else "")


def cases(file):
    layout = Layout(file)
    yield Case("unchanged", layout.content, "no error at all")
    yield from itertools.chain(header_cases(layout), key_cases(file, layout), value_cases(file), nested_cases(file), tensor_cases(file, layout),
                               alignment_cases(file))
