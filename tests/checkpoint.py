"""Copies of checkpoints with changes, and safetensors files in which every field can be wrong. Written apart from pymtp.convert.

    copy(src, dst, config={"text_config.head_dim": 8, "architectures": None}, tensors={"model.norm.weight": None}, files={"README.md": "..."})

None removes a key, tensor or file; a callable gets the old value. A tensor is (dtype, shape, bytes).
"""
import json
import shutil
import struct

import numpy as np


def read(path):
    """name -> (dtype, shape, bytes) of one file, in the order of its data."""
    raw = path.read_bytes()
    n, = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8:8 + n])
    header.pop("__metadata__", None)
    order = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
    return {name: (t["dtype"], t["shape"], raw[8 + n + t["data_offsets"][0]:8 + n + t["data_offsets"][1]]) for name, t in order}


def read_all(folder):
    return {name: t for path in sorted(folder.glob("*.safetensors")) for name, t in read(path).items()}


def values(tensor):
    """A tensor as float32 or integers."""
    kind, shape, raw = tensor
    if kind == "BF16":
        return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    array = np.frombuffer(raw, {"F32": "<f4", "F16": "<f2", "I64": "<i8"}[kind]).reshape(shape)
    return array.astype(np.float32) if kind == "F16" else array


def header_of(tensors):
    """The header of a file with these tensors, as an object."""
    header, at = {}, 0
    for name, (kind, shape, raw) in tensors.items():
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, at + len(raw)]}
        at += len(raw)
    return header


def write(path, tensors, header=None, data=None):
    """A safetensors file; `header` (an object or bytes) and `data` replace what would be written."""
    header = header_of(tensors) if header is None else header
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    data = b"".join(t[2] for t in tensors.values()) if data is None else data
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)


def change(values, name, new):
    if callable(new):
        new = new(values[name])
    if new is None:
        values.pop(name)
    else:
        values[name] = new


def copy(src, dst, config=None, tensors=None, files=None, tokenizer=None):
    """A checkpoint with one file of tensors, changed; returns dst."""
    shutil.copytree(src, dst, ignore=shutil.ignore_patterns("*.safetensors", "*.index.json"))
    for file, changes in (("config.json", config), ("tokenizer.json", tokenizer)):
        values = json.loads((dst / file).read_text())
        for path, new in (changes or {}).items():
            *parents, key = path.split(".")
            at = values
            for parent in parents:
                at = at[parent]
            change(at, key, new)
        (dst / file).write_text(json.dumps(values))
    loaded = read_all(src)
    for name, new in (tensors or {}).items():
        change(loaded, name, new)
    write(dst / "model.safetensors", loaded)
    for name, content in (files or {}).items():
        if content is None:
            (dst / name).unlink()
        elif isinstance(content, bytes):
            (dst / name).write_bytes(content)
        else:
            (dst / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return dst
