"""A GGUF writer in which every field can be wrong, written from the format and independent of the reader under test.

    b = Builder(alignment=64)
    b.kv("general.architecture", "str", "gemma4")
    b.kv("pattern", "[bool]", [True, False])          # "[[u32]]" nests
    b.tensor("token_embd.weight", [64, 256], F32, data)   # data: bytes, or None for zeros of the right size
    b.write(path)

Overrides replace what would be written and nothing else: Builder(magic=, version=, n_tensors=, n_kv=),
kv(key_bytes=, type_number=, element_type=, count=, length=), tensor(name_bytes=, n_dims=, offset=). Names and strings
may be str or bytes. raw(data) puts bytes where a key would stand and counts as one. After build(), `marks` holds the
offset of every field, and the end.
"""
import struct

F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 = 0, 1, 2, 3, 6, 7, 8
Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS, I8, I16, I32, I64, F64, BF16, MXFP4 = 10, 11, 12, 13, 14, 20, 23, 24, 25, 26, 27, 28, 30, 39
BLOCKS = {F32: (1, 4), F16: (1, 2), BF16: (1, 2), Q4_0: (32, 18), Q4_1: (32, 20), Q5_0: (32, 22), Q5_1: (32, 24), Q8_0: (32, 34),
          Q2_K: (256, 84), Q3_K: (256, 110), Q4_K: (256, 144), Q5_K: (256, 176), Q6_K: (256, 210), IQ4_NL: (32, 18),
          IQ4_XS: (256, 136), MXFP4: (32, 17), I8: (1, 1), I16: (1, 2), I32: (1, 4), I64: (1, 8), F64: (1, 8)}
NUMBERS = {"u8": (0, "B"), "i8": (1, "b"), "u16": (2, "H"), "i16": (3, "h"), "u32": (4, "I"), "i32": (5, "i"), "f32": (6, "f"),
           "bool": (7, "B"), "u64": (10, "Q"), "i64": (11, "q"), "f64": (12, "d")}


def to_bytes(s):
    return s.encode() if isinstance(s, str) else bytes(s)


def string(s, length=None):
    s = to_bytes(s)
    return struct.pack("<Q", len(s) if length is None else length) + s


def type_number(kind):
    return 9 if kind.startswith("[") else 8 if kind == "str" else NUMBERS[kind][0]


def payload(kind, value, element_type=None, count=None, length=None):
    """The bytes of a value, without its type number."""
    if kind.startswith("["):
        inner = kind[1:-1]
        head = struct.pack("<IQ", type_number(inner) if element_type is None else element_type, len(value) if count is None else count)
        return head + b"".join(payload(inner, v) for v in value)
    if kind == "str":
        return string(value, length)
    return struct.pack("<" + NUMBERS[kind][1], value)


class Builder:
    def __init__(self, version=3, magic=b"GGUF", alignment=None, n_tensors=None, n_kv=None):
        self.version, self.magic, self.n_tensors, self.n_kv = version, magic, n_tensors, n_kv
        self.alignment = 32 if alignment is None else alignment
        self.keys, self.tensors, self.marks = [], [], []
        if alignment is not None:
            self.kv("general.alignment", "u32", alignment)

    def kv(self, key, kind, value, key_bytes=None, type_number=None, **overrides):
        number = globals()["type_number"](kind) if type_number is None else type_number
        self.keys.append([string(key, key_bytes), struct.pack("<I", number), payload(kind, value, **overrides)])
        return self

    def raw(self, data):
        self.keys.append([data])
        return self

    def tensor(self, name, dims, type=F32, data=None, name_bytes=None, n_dims=None, offset=None):
        if data is None:
            values, size = BLOCKS.get(type, (1, 1))
            n = 1
            for d in dims:
                n *= d
            data = bytes(n // values * size)
        self.tensors.append((name, list(dims), type, bytes(data), name_bytes, n_dims, offset))
        return self

    def build(self):
        out = bytearray()
        self.marks = []

        def put(data):
            self.marks.append(len(out))
            out.extend(data)

        put(self.magic)
        put(struct.pack("<I", self.version))
        put(struct.pack("<Q", len(self.tensors) if self.n_tensors is None else self.n_tensors))
        put(struct.pack("<Q", len(self.keys) if self.n_kv is None else self.n_kv))
        for fields in self.keys:
            for field in fields:
                put(field)
        at = 0
        for name, dims, type, data, name_bytes, n_dims, offset in self.tensors:
            put(string(name, name_bytes))
            put(struct.pack("<I", len(dims) if n_dims is None else n_dims))
            for d in dims:
                put(struct.pack("<Q", d))
            put(struct.pack("<I", type))
            put(struct.pack("<Q", at if offset is None else offset))
            at += -(-len(data) // self.alignment) * self.alignment
        for _, _, _, data, *_ in self.tensors:
            out.extend(bytes(-len(out) % self.alignment))
            put(data)
        self.marks.append(len(out))
        return bytes(out)

    def write(self, path):
        with open(path, "wb") as f:
            f.write(self.build())
        return path


def boundaries(path):
    """Offsets of every field of a good file's header, keys and directory (not of array elements), and of each tensor's data."""
    data = open(path, "rb").read()
    marks, pos = [], 0

    def take(fmt):
        nonlocal pos
        marks.append(pos)
        value, = struct.unpack_from("<" + fmt, data, pos)
        pos += struct.calcsize(fmt)
        return value

    def take_string():
        nonlocal pos
        n = take("Q")
        marks.append(pos)
        s = data[pos:pos + n]
        pos += n
        return s

    def skip(number):
        nonlocal pos
        if number == 8:
            n, = struct.unpack_from("<Q", data, pos)
            pos += 8 + n
        elif number == 9:
            inner, n = take("I"), take("Q")
            for _ in range(n):
                skip(inner)
        else:
            pos += struct.calcsize({v[0]: v[1] for v in NUMBERS.values()}[number])

    take("I"), take("I")
    n_tensors, n_kv = take("Q"), take("Q")
    alignment, offsets = 32, []
    for _ in range(n_kv):
        key, number = take_string(), take("I")
        marks.append(pos)
        if key == b"general.alignment":
            alignment, = struct.unpack_from("<I", data, pos)
        skip(number)
    for _ in range(n_tensors):
        take_string()
        for _ in range(take("I")):
            take("Q")
        take("I")
        offsets.append(take("Q"))
    marks.append(pos)
    start = -(-pos // alignment) * alignment
    return sorted(set(marks + [start + o for o in offsets])), len(data)


def string_array(content, key):
    """The strings of an array key, found by its name in the bytes of a file."""
    pos = content.index(string(key) + struct.pack("<II", 9, 8)) + 8 + len(key) + 8
    n, = struct.unpack_from("<Q", content, pos)
    pos, out = pos + 8, []
    for _ in range(n):
        size, = struct.unpack_from("<Q", content, pos)
        out.append(content[pos + 8:pos + 8 + size].decode())
        pos += 8 + size
    return out
