"""Rewrites GGUF models with changes, for tests of what the loader accepts and refuses.

    rewrite(src, dst, arch="gemma4_mtp", keys={".block_count": 5, "general.name": None}, rename={"a.weight": "b.weight"},
            drop=["rope_freqs.weight"], replace={"blk.0.attn_q.weight": array})

Order: tensors are dropped, renamed, then replaced or added under their new names; keys move to the new architecture's prefix,
then change. A key that starts with a dot belongs to the architecture. A value may be (value, GGUFValueType[, element type]);
otherwise int is u32, float f32. A tensor may be an array or (array, GGMLQuantizationType): bytes of rows where it is
quantised.
"""
import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter
from gguf import GGMLQuantizationType as Type

V = GGUFValueType
PLAIN = {bool: V.BOOL, int: V.UINT32, float: V.FLOAT32, str: V.STRING}


def typed(value):
    """(value, type, element type or None)"""
    if isinstance(value, tuple):
        return value if len(value) == 3 else (*value, None)
    if isinstance(value, list):
        return value, V.ARRAY, PLAIN[type(value[0])]
    return value, PLAIN[type(value)], None


def tensors(path):
    """name -> array: floats as they are, quantised rows as bytes. Row length last."""
    return {t.name: np.array(t.data) for t in GGUFReader(path).tensors}


def rewrite(src, dst, arch=None, keys=None, drop=(), rename=None, replace=None):
    reader = GGUFReader(src)
    old = reader.fields["general.architecture"].contents()
    arch, rename = arch or old, rename or {}
    values = {}
    for name, field in reader.fields.items():
        if name.startswith(("GGUF.", "general.architecture")):
            continue
        element = field.types[-1] if field.types[0] == V.ARRAY else None
        name = arch + name[len(old):] if name.startswith(old + ".") else name
        values[name] = (field.contents(), field.types[0], element)
    for name, value in (keys or {}).items():
        name = arch + name if name.startswith(".") else name
        values.pop(name, None)
        if value is not None:
            values[name] = typed(value)
    data = {rename.get(t.name, t.name): (np.array(t.data), t.tensor_type) for t in reader.tensors if t.name not in drop}
    for name, value in (replace or {}).items():
        data[name] = value if isinstance(value, tuple) else (value, None)

    writer = GGUFWriter(dst, arch)
    for name, (value, kind, element) in values.items():
        writer.add_key_value(name, value, kind, element)
    for name, (array, kind) in data.items():
        writer.add_tensor(name, np.ascontiguousarray(array), raw_dtype=kind if array.dtype in (np.uint8, np.uint16) else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return dst


def bfloat16(array):
    """(bits, BF16), for replace."""
    return (np.ascontiguousarray(array, np.float32).view(np.uint32) >> 16).astype(np.uint16).view(np.uint8), Type.BF16
