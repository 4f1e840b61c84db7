"""Comparing files: errors of tensors and differences of predictions against plain numpy."""
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize

import pymtp
from gguf_build import F64, I32, Builder
from model_files import rewrite, tensors
from pymtp import compare
from pymtp.errors import ArgumentError, FormatError, MismatchError, UnsupportedError, WriteError
from pymtp.gguf_file import File
from pymtp.gguf_write import LONGEST_ROW
from test_cli import pymtp_cli, refused

TEXT = "import os\n\nclass Reader:\n    def __init__(self, path):\n        self.path = path\n\n    def read(self):\n        return open(self.path).read()\n"


@pytest.fixture(scope="module")
def pair(data, tmp_path_factory):
    """(trained model, the same with attn_output in Q4_0 and ffn_up in Q8_0)"""
    a, b = data / "trained-py.gguf", tmp_path_factory.mktemp("compare") / "b.gguf"
    changes = {}
    for name, values in floats(a).items():
        if name.endswith("attn_output.weight"):
            changes[name] = quantize(values, Type.Q4_0), Type.Q4_0
    return a, rewrite(a, b, replace=changes, keys={"general.name": "other", "general.description": "new", ".block_count": (12, _u64())})


def _u64():
    from gguf import GGUFValueType
    return GGUFValueType.UINT64


def floats(path):
    from gguf import GGUFReader
    return {t.name: dequantize(np.array(t.data), t.tensor_type).astype(np.float64) for t in GGUFReader(path).tensors}


# ---- tensors and keys ----

@pytest.mark.parametrize("slice_values", [compare.SLICE_VALUES, 1000])
def test_errors_are_numpys(pair, monkeypatch, slice_values):
    """To the rounding of float64 sums in another order."""
    monkeypatch.setattr(compare, "SLICE_VALUES", slice_values)
    a, b = floats(pair[0]), floats(pair[1])
    raw_a, raw_b = tensors(pair[0]), tensors(pair[1])
    with File(pair[0]) as file_a, File(pair[1]) as file_b:
        found = compare.compare_tensors(file_a, file_b)
    assert [t.name for t in found] == list(a)
    for t in found:
        x, y = a[t.name], b[t.name]
        assert math.isclose(t.relative_rms, np.sqrt(((x - y)**2).sum() / (x**2).sum()), rel_tol=1e-9, abs_tol=0)
        assert t.max_abs == np.abs(x - y).max() and (t.type_b == "Q4_0") == t.name.endswith("attn_output.weight") == (t.max_abs > 0)
        assert t.bytes_a == raw_a[t.name].nbytes and t.bytes_b == raw_b[t.name].nbytes


def test_keys(pair):
    with File(pair[0]) as a, File(pair[1]) as b:
        found = {k.key: (k.a, k.b) for k in compare.compare_keys(a, b)}
        assert compare.compare_keys(a, a) == []
    assert found == {"general.name": ('"Target"', '"other"'), "general.description": (None, '"new"'), "gemma4.block_count": ("12", "12")}


def test_many_keys(tmp_path):
    """In linear time: a look at every key of one file for every key of the other took minutes."""
    n, files = 20_000, []
    for name, value in (("a", 1), ("b", 2)):
        builder = Builder().kv("general.architecture", "str", "x")
        for i in range(n):
            builder.kv(f"k{i}", "u8", value if i == 7 else 0)
        files.append(builder.kv(f"only {name}", "u8", 0).write(tmp_path / f"{name}.gguf"))
    with File(files[0]) as a, File(files[1]) as b:
        assert [(k.key, k.a, k.b) for k in compare.compare_keys(a, b)] == [("k7", "1", "2"), ("only a", "0", None), ("only b", None, "0")]


@pytest.mark.parametrize("names", [(b"k\xff",), (b"k\xff", b"k\xfe"), (b"k\xff", "k\ufffd".encode())])
def test_keys_that_are_no_text(tmp_path, names):
    """They cannot be asked for by name, so whether their values differ is not known: refused, also where a key that is text looks the same."""
    files = []
    for value in (1, 2):
        builder = Builder().kv("general.architecture", "str", "x")
        for name in names:
            builder.kv(name, "u32", value)
        files.append(builder.write(tmp_path / f"{value}.gguf"))
    plain = Builder().kv("k\ufffd", "u32", 1).write(tmp_path / "plain.gguf")
    with File(files[0]) as a, File(files[1]) as b, File(plain) as c:
        for which, pair in (("a", (a, b)), ("a", (a, c)), ("b", (c, a))):
            with pytest.raises(FormatError, match=f"^{which}: key 'k\ufffd': is no UTF-8$"):
                compare.compare_keys(*pair)
    long = Builder().kv(b"\xff\n\x1b[31m" + b"a" * 60_000, "u32", 1).write(tmp_path / "long.gguf")
    with File(long) as a, pytest.raises(FormatError, match="is no UTF-8") as caught:
        compare.compare_keys(a, a)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 200


def test_the_command_names_the_file(tmp_path):
    bad = Builder().kv(b"k\xff", "u32", 1).write(tmp_path / "bad.gguf")
    good = Builder().kv("k", "u32", 1).write(tmp_path / "good.gguf")
    refused(pymtp_cli("quantize", "compare", good, bad), 1, f"{bad}: key", "is no UTF-8")


def test_rows_too_long_for_memory(tmp_path):
    paths = [Builder().tensor("a", [LONGEST_ROW + 32, 1], kind, b"").write(tmp_path / f"{kind}.gguf") for kind in (0, 8)]
    for path in paths:
        os.truncate(path, path.stat().st_size + 4 * (LONGEST_ROW + 32))
    with File(paths[0]) as a, File(paths[1]) as b, pytest.raises(UnsupportedError, match=f"tensor 'a': expected rows of at most {LONGEST_ROW} values"):
        compare.compare_tensors(a, b)


def test_odd_tensors(tmp_path):
    """Other shapes, integers, doubles, types nobody knows, zeros, infinities, tensors of one file only."""
    x = np.arange(6, dtype=np.float64)
    files = []
    for n, name in ((1, "a"), (2, "b")):
        builder = Builder().kv("general.architecture", "str", "x")
        builder.tensor("shape", [4, n]).tensor("int", [6], I32, (x * n).astype(np.int32).tobytes()).tensor("double", [6], F64, (x + n).tobytes())
        builder.tensor("zero", [4], data=np.full(4, n - 1, np.float32).tobytes()).tensor("same", [4], data=np.ones(4, np.float32).tobytes())
        builder.tensor("infinite", [2], data=np.array([np.inf, n], np.float32).tobytes()).tensor("only " + name, [4])
        builder.tensor("unknown", [256], 16, bytes(66))  # IQ2_XXS
        files.append(builder.write(tmp_path / f"{name}.gguf"))
    with File(files[0]) as a, File(files[1]) as b:
        found = {t.name: (t.relative_rms, t.max_abs) for t in compare.compare_tensors(a, b)}
        assert compare.names_only_in(a, b) == ["only a"] and compare.names_only_in(b, a) == ["only b"]
    assert found.pop("int") == (1.0, 5.0)
    assert found.pop("double") == (math.sqrt(6 / ((x + 1)**2).sum()), 1.0)
    assert found == {"shape": (None, None), "zero": (None, 1.0), "same": (0.0, 0.0), "infinite": (None, None), "unknown": (None, None)}


# ---- predictions ----

def reference(a, b, text):
    logs = []
    for path in (a, b):
        with pymtp.Model(path, None) as model, model.session() as session:
            ids = model.tokenize(text, bos=True)
            x = session.forward(ids[:-1]).astype(np.float64)
            logs.append(x - np.log(np.exp(x - x.max(1, keepdims=True)).sum(1, keepdims=True)) - x.max(1, keepdims=True))
    p, q = logs
    following = np.arange(len(ids) - 1), np.array(ids[1:])
    return (len(ids) - 1, math.exp(-p[following].mean()), math.exp(-q[following].mean()), (np.exp(p) * (p - q)).sum(1).mean(),
            np.mean(p.argmax(1) == q.argmax(1)))


@pytest.mark.parametrize("chunk", [compare.CHUNK_LOGITS, 3 * 4096, 1])
def test_predictions_are_numpys(pair, monkeypatch, chunk):
    """One pass or many: the same logits; sums to the rounding of float64 in another order (a KL of 1e-2 of terms near 1)."""
    monkeypatch.setattr(compare, "CHUNK_LOGITS", chunk)
    rows = []
    found = compare.compare_predictions(*pair, TEXT, progress=rows.append)
    n, perplexity_a, perplexity_b, kl, top1 = reference(*pair, TEXT)
    assert found.positions == n and sum(rows) == 2 * n and found.top1 == top1
    assert math.isclose(found.perplexity_a, perplexity_a, rel_tol=1e-9) and math.isclose(found.perplexity_b, perplexity_b, rel_tol=1e-9)
    assert math.isclose(found.kl, kl, rel_tol=1e-6) and kl > 0 and perplexity_a != perplexity_b


def test_a_model_and_itself(pair):
    found = compare.compare_predictions(pair[0], pair[0], TEXT, tokens=20)
    assert found.positions == 19 and found.kl == 0 and found.top1 == 1 and found.perplexity_a == found.perplexity_b


@pytest.mark.parametrize("tokens", [10**14, 10**20])
def test_more_tokens_than_the_text_has(pair, tokens):
    assert compare.compare_predictions(*pair, TEXT, tokens) == compare.compare_predictions(*pair, TEXT)


@pytest.mark.parametrize("tokens", [1, 0, -1, -10**20])
def test_no_tokens(pair, tokens):
    with pytest.raises(ArgumentError, match=f"tokens: expected at least 2, found {tokens}"):
        compare.compare_predictions(*pair, TEXT, tokens)


def test_refused(data, pair, monkeypatch):
    with pytest.raises(ArgumentError, match="at least two tokens"):
        compare.compare_predictions(*pair, "")
    with pytest.raises(MismatchError, match="their tokenizers give different tokens"):
        compare.compare_predictions(pair[0], data / "tiny-26b.gguf", TEXT)
    with pytest.raises(pymtp.Error, match="expected a target"):
        compare.compare_predictions(data / "trained-py-drafter.gguf", pair[0], TEXT)

    class Full:
        def write(self, data):
            raise OSError(28, "No space left on device")

    with pytest.raises(WriteError, match="temporary file for logits .* No space left on device"):
        compare._record(pair[0], TEXT, 10, None, Full(), lambda n: None)


# ---- the command ----

def command(*args):
    return subprocess.run([sys.executable, "-m", "pymtp", "quantize", "compare", *map(str, args)], capture_output=True, text=True, timeout=300,
                          env={**os.environ})


def test_command(pair, tmp_path):
    text = tmp_path / "text.py"
    text.write_text(TEXT)
    done = command(*pair, "--text", text, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["predictions"] == vars(compare.compare_predictions(*pair, TEXT))
    assert len(result["tensors"]) == 198 and result["only_a"] == result["only_b"] == [] and len(result["keys"]) == 3
    done = command(*pair, "--text", text, "--tokens", 10)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "  general.description: (none) -> \"new\"" in lines and lines[-1].startswith("9 tokens predicted: perplexity ")
    assert sum("-> Q4_0" in line for line in lines) == 12 and "186 hold the same values" in lines[-2]


def test_command_refuses(data, pair, tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    for args, code, words in [
        ((pair[0], tmp_path / "none.gguf"), 1, "none.gguf"),
        ((pair[0], broken), 1, "broken.gguf"),
        ((pair[0],), 2, "B.gguf"),
        ((*pair, "--tokens", 1), 2, "--tokens"),
        ((*pair, "--text", tmp_path / "none"), 1, "none"),
        ((data / "trained-py-drafter.gguf", data / "trained-py-drafter.gguf", "--text", __file__), 1, "expected a target"),
    ]:
        done = command(*args)
        assert done.returncode == code and words in done.stderr, done.stderr
        assert done.stdout == "" and done.stderr.startswith("pymtp: ") and done.stderr.count("\n") == 1
