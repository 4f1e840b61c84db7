"""Importance matrices: what the engine's tap sums is what the twin sums, outputs stay as they are, files read back and are checked."""
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import pymtp
from gguf_build import Builder
from pymtp import imatrix
from pymtp.errors import ArgumentError, FormatError, StateError
from ref.gemma4_ref import Target
from test_cli import pymtp_cli, refused

MODELS = ["tiny-e2b", "tiny-26b", "tiny-31b"]


class Summing(Target):
    """The twin, with sums of the rows that meet each matrix."""

    def forward(self, ids):
        self.sums = {}
        return super().forward(ids)

    def meets(self, x, name, matrix=0):
        sums, rows = self.sums.setdefault((name, matrix), (0, 0))
        self.sums[name, matrix] = sums + (np.asarray(x, np.float64) ** 2).sum(0), rows + len(x)


def example(vocab, n=70):
    return [2] + np.random.default_rng(3).integers(300, vocab, n - 1).tolist()


@pytest.mark.parametrize("name", MODELS)
def test_sums_are_those_of_the_twin(data, name):
    """The models are float32, so the engine differs from float64 by rounding alone: logits below 30 agree to 1e-4, a few 1e-6 of their
    size, and activations do no worse than 1e-4 of the root mean square of their tensor. A sum of squares S of a column, with errors
    of d = 1e-4 rms in each of n rows, is off by at most 2 d sqrt(n S) + n d^2."""
    twin = Summing(data / f"{name}.gguf")
    with pymtp.Model(data / f"{name}.gguf", None, kv="f32", threads=2) as model:
        ids = example(model.info.vocab)
        twin.forward(ids)
        found, _ = imatrix.collect(model, [ids])
    assert {(m, i) for m, s in found.items() for i in range(len(s.counts)) if s.counts[i]} == set(twin.sums)
    for (tensor, matrix), (sums, rows) in twin.sums.items():
        got = found[tensor]
        assert got.counts[matrix] == rows, tensor
        d = 1e-4 * np.sqrt(sums.mean() / rows)
        bound = 2 * d * np.sqrt(rows * sums) + rows * d * d + 2**-23 * sums
        assert (np.abs(got.sums[matrix] - sums) <= bound).all(), (tensor, matrix)


def test_every_matrix_is_seen(data):
    """All weight matrices that a pass multiplies have sums of their columns."""
    with pymtp.File(data / "tiny-26b.gguf") as f:
        expected = {t.name: (int(np.prod(t.dims[2:])), t.dims[0]) for t in f.tensors() if len(t.dims) > 1}
    with pymtp.Model(data / "tiny-26b.gguf", None) as model:
        found, nll = imatrix.collect(model, [example(model.info.vocab)])
    assert {name: s.sums.shape for name, s in found.items()} == expected and 3 < nll < 15


@pytest.mark.parametrize("variant, mix", [("moe", "Q4_K+Q6_K"), ("ple", "Q4_0"), ("keqv", "F16+BF16")])
def test_outputs_do_not_change_and_sums_depend_on_tokens_alone(small_models, variant, mix):
    target, _ = small_models(variant, mix)
    rows, sums = [], []
    for threads, chunk in ((1, 1), (2, 7), (3, 128)):
        with pymtp.Model(target, None, threads=threads, chunk=chunk) as model:
            ids = example(model.info.vocab)
            with model.session() as s:
                rows.append(s.forward(ids).tobytes() + s.hidden.tobytes())
            sums.append(imatrix.collect(model, [ids, ids[:9]])[0])
            with model.session() as s:
                call = imatrix.Call()
                call.check(imatrix.lib.pymtp_tap_start(model._core.handle.ptr, call.err))
                rows.append(s.forward(ids).tobytes() + s.hidden.tobytes())
    assert len(set(rows)) == 1
    for other in sums[1:]:
        assert list(other) == list(sums[0])
        for name, s in other.items():
            assert s.sums.tobytes() == sums[0][name].sums.tobytes() and (s.counts == sums[0][name].counts).all(), name


def test_the_tap_itself(data):
    lib, call = imatrix.lib, imatrix.Call()
    with pymtp.Model(data / "tiny-26b.gguf", None) as model:
        p = model._core.handle.ptr
        assert lib.pymtp_tap_count(p, call.err) == StateError.code and lib.pymtp_tap_get(p, 0, imatrix.new_struct("pymtp_tap_sums")) < 0
        lib.pymtp_tap_stop(p)
        one = imatrix.collect(model, [[2, 300, 301]])[0]
        two = imatrix.collect(model, [[2, 300, 301]])[0]  # starts at zero again
        assert all(one[n].sums.tobytes() == two[n].sums.tobytes() for n in one) and len(one) == len(two)
        assert lib.pymtp_tap_count(p, call.err) == StateError.code
    with pymtp.Model(data / "tiny-26b.gguf", data / "tiny-26b-drafter.gguf") as model, pytest.raises(StateError, match="drafter"):
        imatrix.collect(model, [[2, 300]])


def test_surprise():
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], np.float32)) + 3
    assert imatrix.surprise(logits, [1, 2]) == pytest.approx(-np.log(0.25) - np.log(0.8), rel=1e-6)


@pytest.mark.parametrize("tokens", [10**14, 10**20])
def test_pieces_larger_than_texts(data, tokens):
    with pymtp.Model(data / "trained-py.gguf", None) as model:
        ids = model.tokenize("def f(x):", bos=True)
        assert imatrix.pieces(model, ["def f(x):", ""], tokens) == [ids]
        for small in (1, 0, -tokens):
            with pytest.raises(ArgumentError, match=f"tokens: expected at least 2, found {small}"):
                imatrix.pieces(model, ["def f(x):"], small)


# ---- files ----

def test_files_read_back(tmp_path):
    rng = np.random.default_rng(1)
    entries = {"b.weight": imatrix.Sums(rng.random((4, 32), np.float32), np.array([3, 0, 1, 7], np.float32)),
               "a.weight": imatrix.Sums(rng.random((1, 64), np.float32), np.array([9], np.float32))}
    imatrix.save(tmp_path / "i.gguf", entries, ["x.txt"], 2, 512)
    back = imatrix.read(tmp_path / "i.gguf")
    assert list(back.entries) == ["a.weight", "b.weight"] and back.datasets == ["x.txt"] and back.chunks == 2
    for name, s in entries.items():
        assert (back.entries[name].sums == s.sums).all() and (back.entries[name].counts == s.counts).all()
    assert back.entries["b.weight"].mean(1) is None and (back.entries["b.weight"].mean(3) == entries["b.weight"].sums[3] / 7).all()
    with pymtp.File(tmp_path / "i.gguf") as f:  # as llama.cpp writes and reads them
        assert [(t.name, t.dims, t.type) for t in f.tensors()] == [
            ("a.weight.in_sum2", [64, 1], "F32"), ("a.weight.counts", [1, 1], "F32"),
            ("b.weight.in_sum2", [32, 4], "F32"), ("b.weight.counts", [1, 4], "F32")]
        assert f.value("general.type") == "imatrix" and f.value("imatrix.chunk_size") == 512


@pytest.mark.parametrize("size", [10**14, 10**20])
def test_a_piece_size_beyond_the_key(tmp_path, size):
    """What was collected with it is not lost; nothing reads the key but people."""
    sums = imatrix.Sums(np.ones((1, 4), np.float32), np.ones(1, np.float32))
    imatrix.save(tmp_path / "i.gguf", {"a": sums}, ["x"], 1, size)
    with pymtp.File(tmp_path / "i.gguf") as f:
        assert f.value("imatrix.chunk_size") == 2**32 - 1


@pytest.mark.parametrize("kind, chunks", [("i32", -1), ("u64", 2**40), ("bool", True), ("str", "x")])
def test_a_number_of_chunks_that_is_none(tmp_path, kind, chunks):
    """Counts as not given, as it is written into every file that the matrix makes."""
    path = Builder().kv("general.type", "str", "imatrix").kv("imatrix.chunk_count", kind, chunks).tensor("a.in_sum2", [4, 1]) \
        .tensor("a.counts", [1, 1]).write(tmp_path / "i.gguf")
    assert imatrix.read(path).chunks == 0


F32, F16 = 0, 1
BAD = {
    "general.type": lambda b: b.kv("general.type", "str", "model").tensor("a.in_sum2", [4, 1]).tensor("a.counts", [1, 1]),
    "in_sum2": lambda b: b.kv("general.type", "str", "imatrix").tensor("a.counts", [1, 1]),
    "a.counts": lambda b: b.kv("general.type", "str", "imatrix").tensor("a.in_sum2", [4, 1]),
    "F16": lambda b: b.kv("general.type", "str", "imatrix").tensor("a.in_sum2", [4, 1], F16).tensor("a.counts", [1, 1]),
    "expected 2 counts": lambda b: b.kv("general.type", "str", "imatrix").tensor("a.in_sum2", [4, 2]).tensor("a.counts", [1, 3]),
    "from 0": lambda b: b.kv("general.type", "str", "imatrix").tensor("a.in_sum2", [1, 1], F32, b"\0\0\x80\xbf").tensor("a.counts", [1, 1]),
    "their counts": lambda b: b.kv("general.type", "str", "imatrix").tensor("a.in_sum2", [1, 1], F32, b"\xca\xf2\x49\x71")
    .tensor("a.counts", [1, 1], F32, b"\1\0\0\0"),  # 1e30 of a smallest fraction of a row
    "imatrix.datasets": lambda b: b.kv("general.type", "str", "imatrix").kv("imatrix.datasets", "[u8]", [0] * (1 << 20))
    .tensor("a.in_sum2", [1, 1]).tensor("a.counts", [1, 1]),
    "found 'a{70,}[.]{3}$": lambda b: b.kv("general.type", "str", "a" * 5000).tensor("a.in_sum2", [4, 1]).tensor("a.counts", [1, 1]),
    "sums and counts": lambda b: b.kv("general.type", "str", "imatrix").tensor("a.in_sum2", [1, 1]).tensor("a.counts", [1, 1], F32, b"\0\0\xc0\x7f"),
}


@pytest.mark.parametrize("word", BAD)
def test_bad_files(tmp_path, word):
    path = BAD[word](Builder()).write(tmp_path / "bad.gguf")
    with pytest.raises(FormatError, match=word) as caught:
        imatrix.read(path)
    assert "bad.gguf" in str(caught.value)


@pytest.mark.filterwarnings("error")
def test_odd_counts(tmp_path):
    """None warns; nothing that met no row counts as too large."""
    path = Builder().kv("general.type", "str", "imatrix").tensor("a.in_sum2", [1, 2]).tensor("a.counts", [1, 2]).write(tmp_path / "i.gguf")
    assert imatrix.read(path).entries["a"].mean(0) is None


def test_sums_larger_than_any_model_has(tmp_path):
    """Refused by their size, before memory is taken."""
    path = Builder().kv("general.type", "str", "imatrix").tensor("a.counts", [1, 1]).tensor("a.in_sum2", [1 << 38, 1], F32, b"").write(tmp_path / "i.gguf")
    os.truncate(path, path.stat().st_size + (1 << 40))
    with pytest.raises(FormatError, match=rf"i.gguf: expected tensors of at most {1 << 30} bytes, found {(1 << 40) + 4}"):
        imatrix.read(path)


# ---- the command ----

def test_command(data, tmp_path):
    text = tmp_path / "t.txt"
    text.write_text("def f(x):\n    return x + 1\n" * 30)
    done = pymtp_cli("quantize", "imatrix", data / "trained-py.gguf", text, "-", "-o", tmp_path / "i.gguf", "--piece", 40, "--pieces", 5, stdin="abc")
    assert done.returncode == 0 and done.stderr == "" and "200 tokens in 5 pieces" in done.stdout, done
    assert set(os.listdir(tmp_path)) == {"t.txt", "i.gguf"}
    back = imatrix.read(tmp_path / "i.gguf")
    assert back.chunks == 5 and back.datasets == ["t.txt", "-"] and all(s.counts.max() <= 200 for s in back.entries.values())
    assert back.entries["token_embd.weight"].counts == [200]
    refused(pymtp_cli("quantize", "imatrix", data / "trained-py.gguf", text, "-o", tmp_path / "i.gguf"), 1, "i.gguf", "exists")
    refused(pymtp_cli("quantize", "imatrix", data / "trained-py.gguf", tmp_path / "none", "-o", tmp_path / "j"), 1, "none")
    refused(pymtp_cli("quantize", "imatrix", data / "trained-py.gguf", "-", "-o", tmp_path / "j"), 1, "TEXT")
    refused(pymtp_cli("quantize", "imatrix", data / "trained-py.gguf", "/dev/zero", "-o", tmp_path / "j"), 1, "/dev/zero: expected at most 256 MiB")
    refused(pymtp_cli("quantize", "imatrix", data / "trained-py.gguf", "-o", tmp_path / "j"), 2, "TEXT")
    assert set(os.listdir(tmp_path)) == {"t.txt", "i.gguf"}


def test_interrupted_command(data, tmp_path):
    text = tmp_path / "t.txt"
    text.write_text("def f(x):\n    return x + 1\n" * 30000)
    child = subprocess.Popen([sys.executable, "-c", "import signal, threading, os\n"
                              "from pymtp.cli import main\nfrom pymtp import imatrix\nplain = imatrix.surprise\n"
                              "def seen(*args):\n    print('running', flush=True)\n    return plain(*args)\n"
                              "imatrix.surprise = seen\n"
                              f"main(['quantize', 'imatrix', {str(data / 'trained-py.gguf')!r}, {str(text)!r}, '-o', {str(tmp_path / 'i')!r}])"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout.readline() == b"running\n"
    child.send_signal(signal.SIGINT)
    child.stdout.read()
    assert child.wait(60) == 130 and b"Traceback" not in child.stderr.read()
    assert os.listdir(tmp_path) == ["t.txt"]
