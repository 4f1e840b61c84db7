"""The tree keeps its shape: folders include only what stands to their left, files stay readable, environment names are known."""
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"
ALLOWED = {
    "base": {"base"},
    "gguf": {"base", "gguf", "quant"},
    "quant": {"base", "quant"},
    "text": {"base", "gguf", "text"},
    "cpu": {"base", "gguf", "quant", "cpu"},
    "cache": {"base", "gguf", "cache"},
    "model": {"base", "gguf", "quant", "cache", "model"},
    "engine": {"base", "gguf", "quant", "text", "cache", "model", "engine"},
}
ENVIRONMENT = {"PYMTP_CPU"}
SOURCES = sorted(p for p in CSRC.rglob("*") if p.suffix in {".c", ".h", ".inc", ".def"})


def test_include_arrows():
    wrong = []
    for path in SOURCES:
        folder = path.relative_to(CSRC).parts[0]
        for name in re.findall(r'#include "([^"]+)"', path.read_text()):
            assert (CSRC / name).exists(), f"{path.name} includes {name}, which is not a path below csrc/"
            layer = name.split("/")[0]
            if folder in ALLOWED and "/" in name and layer not in ALLOWED[folder]:
                wrong.append(f"{path.relative_to(ROOT)} includes {name}")
            if name == "backend.h" and folder in {"base", "gguf", "quant", "text"}:
                wrong.append(f"{path.relative_to(ROOT)} includes backend.h")
    assert not wrong and SOURCES


def test_file_sizes():
    long = {str(p.relative_to(ROOT)): n for p in SOURCES + sorted(ROOT.glob("pymtp/**/*.py"))
            if (n := p.read_text().count("\n")) > 800 and p.name != "_ffi.py"}
    assert not long


def test_every_file_opens_with_what_it_owns():
    bare = [str(p.relative_to(ROOT)) for p in SOURCES if not p.read_text().startswith(f"/* {p.name} - ")]
    assert not bare


def test_environment_variables_are_the_documented_ones():
    read = {name for p in SOURCES for name in re.findall(r'getenv\("([^"]+)"\)', p.read_text())}
    assert read == ENVIRONMENT


def test_the_library_never_prints_or_exits():
    bad = re.compile(r"\b(printf|puts|fprintf|perror|exit|abort|_exit)\s*\(")
    hits = [f"{p.relative_to(ROOT)}: {m.group(0)}" for p in SOURCES for m in bad.finditer(re.sub(r"/\*.*?\*/", "", p.read_text(), flags=re.S))]
    assert not hits
