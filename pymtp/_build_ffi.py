"""Turns csrc/pymtp.h into the cffi module pymtp._ffi (out-of-line ABI mode): `python _build_ffi.py HEADER OUT`.

The header is the only description of the interface. It stays inside what cffi parses: plain declarations and integer
defines; everything else of the preprocessor is dropped here.
"""
import pathlib
import re
import sys

INTEGER_DEFINE = re.compile(r"#define\s+(\w+)\s+(-?\d+)\s*$")
EXTERN_C = re.compile(r'#ifdef __cplusplus.*?#endif', re.S)


def declarations(header: str) -> str:
    """The header's text as a cdef."""
    text = re.sub(r"/\*.*?\*/", "", header, flags=re.S)
    lines = []
    for line in EXTERN_C.sub("", text).splitlines():
        if line.startswith("#"):
            if match := INTEGER_DEFINE.match(line):
                lines.append(f"#define {match[1]} {match[2]}")
        elif line.strip():
            lines.append(line.replace("PYMTP_API ", ""))
    return "\n".join(lines)


def main(header: str, out: str) -> None:
    from cffi import FFI

    ffi = FFI()
    ffi.set_source("pymtp._ffi", None)
    ffi.cdef(declarations(pathlib.Path(header).read_text(encoding="utf-8")))
    ffi.emit_python_code(out)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: _build_ffi.py HEADER OUT")
    main(sys.argv[1], sys.argv[2])
