"""tests/fuzz/refused: files that must be refused, with the whole message of each (make_refused.py says what is wrong in them).

As compiled and under AddressSanitizer + UBSan. Classes of past bugs by file: elements-wrap*, bytes-wrap, array-count-wraps, offset-wraps
(CVE-2025-53630, CVE-2026-27940); tensor-beyond-end, offset-beyond-end, header-cut (CVE-2026-7482); tensors-2-64-1, keys-2-63, strings-bomb
(ggml 1516); alignment-* (llama.cpp 24997); type-13, key-twice, nested-*, name-nul (llama.cpp 26318); heads-0, kv-heads-0, layers-0,
dimension-zero (GO-2025-3559: division by zero).
"""
import json
import pathlib

import pytest

import micro_models
from gguf_grammar import Case
from test_gguf_grammar import run

REFUSED = pathlib.Path(__file__).resolve().parent / "fuzz" / "refused"
MESSAGES = json.loads((REFUSED / "messages.json").read_text())


@pytest.mark.parametrize("build", ["c_build", "asan_build"])
@pytest.mark.parametrize("role", ["target", "drafter"])
def test_refused(request, tmp_path, build, role):
    files = sorted((REFUSED / role).iterdir())
    target = tmp_path / "ple.gguf"
    target.write_bytes(micro_models.target("ple").bytes())
    cases = [Case(f.name, f.read_bytes(), "") for f in files]
    lines = run(request.getfixturevalue(build) / "tool_cases", cases, target if role == "drafter" else None)
    assert {f.name: text for f, (_, text) in zip(files, lines)} == MESSAGES[role]
