"""Requantizing: every tensor has the type its mix says and the bytes that the codec makes of the whole tensor, keys are copied, the
result runs close to its source, and nothing that goes wrong leaves a file."""
import fnmatch
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from gguf import GGUFReader, LlamaFileType
from gguf.quants import dequantize

import pymtp
from gguf_build import Builder
from pymtp import codec, gguf_write, imatrix, mixes, quantize
from pymtp.errors import ArgumentError, FormatError, UnsupportedError
from pymtp.gguf_write import Entry, encode, write
from test_cli import pymtp_cli, refused

EVERY = list(mixes.MIXES)


def requantize(source, target, mix, overrides=(), importance=None, **options):
    with quantize.plan(source, mix, overrides, importance, threads=2) as plan:
        plan.write(target, **options)
    return target


def types(path):
    with pymtp.File(path) as f:
        return {t.name: t.type for t in f.tensors()}


def values(path):
    """name -> float32 (..., row length), by the gguf package."""
    return {t.name: dequantize(t.data, t.tensor_type) for t in GGUFReader(path).tensors}


def raw(path):
    return {t.name: bytes(t.data) for t in GGUFReader(path).tensors}


# ---- which type ----

def test_types_of_a_mix(small_models):
    """Q4_K_M of the three structures: head, table, values, half of ffn_down; fallbacks where a row is no multiple of 256."""
    got = {}
    for variant in ("ple", "keqv", "moe"):
        with quantize.plan(small_models(variant, "Q8_0")[0], "Q4_K_M") as plan:
            got[variant] = {c.tensor.name: c.type for c in plan.changes}
    ple = got["ple"]  # 8 layers: 0, 3, 6 and 7 of them get more bits
    assert ple["token_embd.weight"] == "Q6_K" and ple["per_layer_token_embd.weight"] == "Q5_K"
    assert [ple[f"blk.{i}.ffn_down.weight"] for i in range(8)] == ["Q6_K" if i in (0, 3, 6, 7) else "Q4_K" for i in range(8)]
    assert ple["blk.0.attn_v.weight"] == "Q6_K" and ple["blk.1.attn_v.weight"] == "Q4_K" and ple["blk.0.attn_k.weight"] == "Q4_K"
    assert ple["per_layer_model_proj.weight"] == "BF16"
    assert ple["blk.0.proj.weight"] == "Q5_0"  # rows of 64
    assert ple["blk.0.inp_gate.weight"] == "Q4_K" and ple["blk.0.attn_norm.weight"] == "F32" and ple["rope_freqs.weight"] == "F32"
    keqv = got["keqv"]  # layers 2 and 5 make their values with attn_k
    assert keqv["blk.5.attn_k.weight"] == "Q6_K" and keqv["blk.4.attn_k.weight"] == "Q4_K" and keqv["output.weight"] == "Q6_K"
    moe = got["moe"]
    assert moe["blk.0.ffn_gate_inp.weight"] == "F32" and moe["blk.0.ffn_gate_up_exps.weight"] == "Q4_K"
    assert moe["blk.0.ffn_down_exps.weight"] == "Q5_0" and moe["blk.3.ffn_down_exps.weight"] == "Q8_0"  # rows of 96
    assert moe["blk.0.ffn_down_exps.scale"] == "F32"


@pytest.mark.parametrize("mix", EVERY)
def test_every_type_fits_its_rows(small_models, mix):
    for variant in ("ple", "keqv", "moe"):
        for path in small_models(variant, "Q8_0"):
            with quantize.plan(path, mix) as plan:
                for c in plan.changes:
                    assert c.type == "I32" or c.tensor.dims[0] % codec.block_values(c.type) == 0
                    assert len(c.tensor.dims) > 1 or c.type in ("F32", "I32")
                assert sum(c.type != c.tensor.type for c in plan.changes) >= (0 if mix == "Q8_0" else 20)


def test_file_types():
    assert {name: LlamaFileType(mixes.file_type(name)).name for name in EVERY} == {
        name: "ALL_F32" if name == "F32" else f"MOSTLY_{name}" for name in EVERY}


def test_layers_picked():
    assert [i for i in range(16) if mixes.layers_picked("more", i, 16)] == [0, 1, 4, 7, 10, 13, 14, 15]
    assert [i for i in range(30) if mixes.layers_picked("eighth", i, 30)] == [0, 1, 2]
    assert [i for i in range(4) if mixes.layers_picked("sixteenth", i, 4)] == [0]


def test_overrides(small_models, tmp_path):
    source = small_models("moe", "Q8_0")[0]
    rules = mixes.parse_overrides(["blk.*.attn_?.weight=q5_1", "blk.0.attn_q.weight=F16", "*exps.weight=Q6_K"])
    out = types(requantize(source, tmp_path / "x.gguf", "Q8_0", rules))
    for name, kind in out.items():
        expected = "F16" if name == "blk.0.attn_q.weight" else "Q5_1" if fnmatch.fnmatch(name, "*.attn_[qkv].weight") else None
        assert expected in (kind, None), name
    assert out["blk.1.ffn_gate_up_exps.weight"] == "Q6_K" and out["blk.1.ffn_down_exps.weight"] == "Q8_0"  # rows of 96
    for bad, word in (("x", "PATTERN=TYPE"), ("=Q8_0", "PATTERN=TYPE"), ("a=Q9", "Q9"), ("a=I32", "I32")):
        with pytest.raises(ArgumentError, match=word):
            mixes.parse_overrides([bad])
    for rule, word in (("nothing*=Q8_0", "nothing"), ("output_norm.weight=Q8_0", "output_norm.weight")):
        with pytest.raises(ArgumentError, match=word):
            quantize.plan(source, "Q8_0", mixes.parse_overrides([rule]))
    with pytest.raises(ArgumentError, match="Q9_K"):
        quantize.plan(source, "Q9_K")


def test_overrides_from_python(small_models, tmp_path):
    """A type as codec takes it, and nothing that is no pair."""
    source = small_models("moe", "Q8_0")[0]
    for kind in ("Q4_0", "q4_0", 2):
        assert types(requantize(source, tmp_path / f"{kind}.gguf", "Q8_0", [("blk.0.attn_q.weight", kind)]))["blk.0.attn_q.weight"] == "Q4_0"
    for bad in (None, 5, "x", [1], ["*"], [("*",)], [("*", "Q8_0", 1)], [(None, "Q8_0")], [(b"*", "Q8_0")], [(["*"], "Q8_0")]):
        with pytest.raises(ArgumentError, match="^overrides: expected "):
            quantize.plan(source, "Q8_0", bad)
    for kind, error in ((None, ArgumentError), ([], ArgumentError), ("FOO", UnsupportedError), (-1, UnsupportedError), ("I32", UnsupportedError)):
        with pytest.raises(error, match="^override 'blk.0.attn_q.weight': type"):
            quantize.plan(source, "Q8_0", [("blk.0.attn_q.weight", kind)])


# ---- which bytes ----

@pytest.mark.parametrize("kind", [kind for kind in codec.types() if kind not in mixes.FLOATS])
def test_bytes_are_the_codecs(small_models, tmp_path, monkeypatch, kind):
    """Slices of a few rows give what encoding whole matrices gives; experts are matrices of their own."""
    source = small_models("moe", "F16+BF16")[0]
    monkeypatch.setattr(quantize, "SLICE_VALUES", 1000)
    requantize(source, tmp_path / "x.gguf", "Q8_0", [("blk.*_exps.weight", kind), ("*attn_q.weight", kind)])
    before, after, kinds = values(source), raw(tmp_path / "x.gguf"), types(tmp_path / "x.gguf")
    for name in ("blk.1.attn_q.weight", "blk.2.ffn_gate_up_exps.weight", "blk.2.ffn_down_exps.weight", "token_embd.weight"):
        whole = b"".join(bytes(codec.encode(kinds[name], m)) for m in before[name].reshape(-1, *before[name].shape[-2:]))
        assert after[name] == whole, name


@pytest.mark.parametrize("mix", ["MXFP4", "Q4_K+Q6_K", "Q2_K+Q3_K", "IQ4_XS+Q5_1", "Q4_1+Q5_0", "Q5_K+IQ4_NL"])
def test_quantized_sources_decode(small_models, tmp_path, mix):
    source = small_models("moe", mix)[0]
    requantize(source, tmp_path / "x.gguf", "F32")
    before, after = values(source), values(tmp_path / "x.gguf")
    assert set(types(tmp_path / "x.gguf").values()) == {"F32"} and set(before) == set(after)
    for name in before:
        assert before[name].tobytes() == after[name].tobytes(), name


def test_unchanged_types_are_copied(data, tmp_path):
    """The I32 ordering of a drafter and what already has its type: the same bytes; a second run changes nothing."""
    source = data / "tiny-e2b-drafter.gguf"
    requantize(source, tmp_path / "x.gguf", "F32")
    assert raw(source) == raw(tmp_path / "x.gguf")
    requantize(source, tmp_path / "q.gguf", "Q8_0")
    requantize(tmp_path / "q.gguf", tmp_path / "q2.gguf", "Q8_0")
    assert (tmp_path / "q.gguf").read_bytes() == (tmp_path / "q2.gguf").read_bytes()
    assert types(tmp_path / "q.gguf")["masked_embd_ordering"] == "I32" and types(tmp_path / "q.gguf")["masked_embd_centroids.weight"] == "F16"


def test_keys(data, tmp_path):
    requantize(data / "tiny-26b.gguf", tmp_path / "x.gguf", "Q4_0")
    with pymtp.File(data / "tiny-26b.gguf") as a, pymtp.File(tmp_path / "x.gguf") as b:
        set_here = {"general.file_type", "general.quantization_version"}
        assert [k for k in b.keys() if k not in set_here] == [k for k in a.keys() if k not in set_here]
        assert all(a.value_bytes(k) == b.value_bytes(k) for k in a.keys() if k not in set_here)
        assert b.value_bytes("general.file_type") == encode("u32", 2) and b.value("general.quantization_version") == 2


def test_split_sources(data, tmp_path):
    """Two parts become one file, the same as from the whole."""
    with pymtp.File(data / "tiny-26b.gguf") as f:
        keys = {k: f.value_bytes(k) for k in f.keys()}
    infos = GGUFReader(data / "tiny-26b.gguf").tensors
    for part in range(2):
        mine = [t for i, t in enumerate(infos) if i % 2 == part]
        split = {"split.no": encode("u16", part), "split.count": encode("u16", 2), "split.tensors.count": encode("i32", len(infos))}
        write(tmp_path / f"s-0000{part + 1}-of-00002.gguf", {**(keys if not part else {}), **split},
              [Entry(t.name, t.tensor_type.name, [int(n) for n in t.shape], lambda t=t: [bytes(t.data)]) for t in mine])
    requantize(data / "tiny-26b.gguf", tmp_path / "whole.gguf", "Q5_1")
    for part in (1, 2):
        requantize(tmp_path / f"s-0000{part}-of-00002.gguf", tmp_path / f"from-{part}.gguf", "Q5_1")
        assert raw(tmp_path / f"from-{part}.gguf") == raw(tmp_path / "whole.gguf")
        with pymtp.File(tmp_path / f"from-{part}.gguf") as f:
            assert not [k for k in f.keys() if k.startswith("split.")]
        pymtp.Model(tmp_path / f"from-{part}.gguf", None).close()


def test_rows_too_long_for_memory(tmp_path):
    """A slice holds at least a row. One that is only copied may be of any length."""
    columns = gguf_write.LONGEST_ROW + 32
    path = Builder().kv("general.architecture", "str", "gemma4").tensor("blk.0.attn_q.weight", [columns, 1], 0, b"").write(tmp_path / "long.gguf")
    os.truncate(path, path.stat().st_size + 4 * columns)
    with pytest.raises(UnsupportedError, match=rf"long.gguf: tensor 'blk.0.attn_q.weight': expected rows of at most {columns - 32} values, found {columns}"):
        quantize.plan(path, "Q8_0")
    with quantize.plan(path, "F32") as plan:
        assert plan.write(tmp_path / "same.gguf") > 4 * columns


# ---- importance ----

def test_importance_reaches_its_columns(small_models, tmp_path, monkeypatch):
    source = small_models("moe", "F16+BF16")[0]
    rng = np.random.default_rng(2)
    sums = {"blk.1.ffn_gate_up_exps.weight": imatrix.Sums(rng.random((16, 256), np.float32), np.arange(16, dtype=np.float32)),
            "blk.1.attn_q.weight": imatrix.Sums(rng.random((1, 256), np.float32), np.array([5], np.float32))}
    seen = []
    plain = codec.encode

    def spy(type, array, importance=None, threads=0):
        seen.append((array.shape, None if importance is None else np.array(importance)))
        return plain(type, array, importance, threads)

    monkeypatch.setattr(codec, "encode", spy)
    importance = imatrix.Imatrix("i.gguf", sums, ["t.txt"], 3)
    requantize(source, tmp_path / "x.gguf", "Q4_0", importance=importance)
    given = [weights for shape, weights in seen if weights is not None]
    assert len(given) == 16  # expert 0 met nothing
    expected = [*(sums["blk.1.ffn_gate_up_exps.weight"].sums[e] / e for e in range(1, 16)), sums["blk.1.attn_q.weight"].sums[0] / 5]
    for e in expected:
        assert sum(np.allclose(e, g, rtol=1e-6, atol=0) for g in given) == 1
    with pymtp.File(tmp_path / "x.gguf") as f:
        assert f.value("quantize.imatrix.file") == "i.gguf" and f.value("quantize.imatrix.dataset") == "t.txt"
        assert f.value("quantize.imatrix.entries_count") == 2 and f.value("quantize.imatrix.chunks_count") == 3


@pytest.mark.parametrize("mix", ["Q4_0", "Q4_K_S", "Q2_K"])
def test_importance_lowers_the_weighed_error(data, tmp_path, mix):
    """Collected by the engine from text. The errors of columns, weighed as the activations will weigh them, are what it is for; a search
    for the best scale is not exact, so that a tensor may lose a little."""
    source = data / "trained-py.gguf"
    with pymtp.Model(source, None, threads=2) as model:
        importance = imatrix.Imatrix("i", imatrix.collect(model, imatrix.pieces(model, [(data / "python-prompts.json").read_text()], 256)[:2])[0], [], 2)
    before = values(source)
    plain, weighed = (values(requantize(source, tmp_path / f"{bool(i)}.gguf", mix, (), i)) for i in (None, importance))
    ratios = []
    for name, sums in importance.entries.items():
        errors = [((made[name] - before[name]) ** 2 * sums.mean(0)).sum() for made in (plain, weighed)]
        if errors[0]:
            ratios.append(errors[1] / errors[0])
    assert len(ratios) > 50 and max(ratios) < 1.02 and np.mean(ratios) < 0.98


def test_importance_of_another_model(small_models):
    source = small_models("moe", "Q8_0")[0]
    for sums, word in (({"x": (1, 4)}, "none of the tensors"), ({"blk.1.attn_q.weight": (1, 128)}, "attn_q.*1 x 256.*1 x 128"),
                       ({"blk.1.ffn_down_exps.weight": (8, 96)}, "16 x 96")):
        entries = {n: imatrix.Sums(np.ones(shape, np.float32), np.ones(shape[0], np.float32)) for n, shape in sums.items()}
        with pytest.raises(ArgumentError, match=word):
            quantize.plan(source, "Q4_0", (), imatrix.Imatrix("i.gguf", entries, [], 0))


# ---- the result runs ----

def logits_of(path, ids):
    with pymtp.Model(path, None, kv="f32", threads=2) as model, model.session() as s:
        return s.forward(ids)


def rms(x):
    return float(np.sqrt(np.square(x, dtype=np.float64).mean()))


@pytest.mark.parametrize("mix", EVERY)
def test_results_run_close_to_their_source(data, tmp_path, mix):
    """A trained model of 12 MiB on text it knows. A matrix with a relative error e (root mean square, measured here) moves its output by e of
    its size; activations rounded to 8 bits add the largest of a block, some 4 times the typical value, / 127 / sqrt(12): 1 %. A sublayer is
    at most three products in series and its output is normed, so it is off by at most sqrt(3) times that; a sum of such outputs, whose
    errors are independent, is no further off than they are. Logits are measured against their own spread."""
    source = data / "trained-py.gguf"
    requantize(source, tmp_path / "x.gguf", mix)
    before, after = values(source), values(tmp_path / "x.gguf")
    errors = [rms(after[n] - before[n]) / rms(before[n]) for n in before if n.startswith("blk.") and before[n].ndim > 1]
    with pymtp.Tokenizer(source) as t:
        ids = t.tokenize("def main(argv=None):\n    for name in argv:\n        print(name)\n    return 0\n", bos=True)
    a, b = logits_of(source, ids), logits_of(tmp_path / "x.gguf", ids)
    moved = rms((b - b.mean(1, keepdims=True)) - (a - a.mean(1, keepdims=True))) / rms(a - a.mean(1, keepdims=True))
    bound = np.sqrt(3 * (rms(np.array(errors)) ** 2 + 0.01**2))
    assert len(errors) > 50 and moved <= bound < 0.5  # or the comparison would say nothing


@pytest.mark.parametrize("name", ["tiny-e2b", "tiny-26b", "tiny-31b"])
def test_pairs_generate(data, tmp_path, name):
    """Target and drafter of each structure, requantized: they load, pair and give the plain output."""
    target = requantize(data / f"{name}.gguf", tmp_path / "t.gguf", "Q4_K_M")
    drafter = requantize(data / f"{name}-drafter.gguf", tmp_path / "d.gguf", "Q8_0")
    with pymtp.Model(target, drafter, threads=2) as model:
        plain = model.complete([2, 300, 301, 302], max_tokens=24, temperature=0, ignore_eos=True, draft=0)
        drafted = model.complete([2, 300, 301, 302], max_tokens=24, temperature=0, ignore_eos=True, draft=3)
    assert plain.tokens == drafted.tokens and len(plain.tokens) == 24 and drafted.stats.drafted > 0


# ---- the command ----

def test_command(data, tmp_path):
    source, out = data / "tiny-26b.gguf", tmp_path / "o.gguf"
    dry = pymtp_cli("quantize", "requantize", source, out, "q4_k_m", "--dry-run")
    assert dry.returncode == 0 and not os.listdir(tmp_path)
    assert "F32 -> Q6_K" not in dry.stdout and "F32 -> Q8_0" in dry.stdout and "bits a weight" in dry.stdout  # rows of 128
    planned = json.loads(pymtp_cli("quantize", "requantize", source, out, "Q4_0", "--dry-run", "--json").stdout)
    assert not os.listdir(tmp_path) and planned["written"] is False
    done = pymtp_cli("quantize", "requantize", source, out, "Q4_0", "--json")
    result = json.loads(done.stdout)
    assert done.stderr == "" and result["written"] and out.stat().st_size == result["bytes_to"] == planned["bytes_to"]
    assert result["tensors"] == planned["tensors"] and {t["name"]: t["to"] for t in planned["tensors"]} == types(out)
    assert sum(t["bytes_from"] for t in planned["tensors"]) == planned["bytes_from"]
    before = out.read_bytes()
    refused(pymtp_cli("quantize", "requantize", source, out, "Q8_0"), 1, "o.gguf", "exists")
    assert out.read_bytes() == before
    assert "is 2" in pymtp_cli("quantize", "requantize", source, out, "Q8_0", "--force").stdout and out.read_bytes() != before
    refused(pymtp_cli("quantize", "requantize", out, out, "Q8_0", "--force"), 1, "o.gguf", "the source itself")
    refused(pymtp_cli("quantize", "requantize", source, tmp_path / "p", "Q4_9"), 2, "Q4_9", "Q4_K_M")
    refused(pymtp_cli("quantize", "requantize", source, tmp_path / "p", "Q4_0", "--tensor", "zz*=Q8_0"), 1, "zz*")
    refused(pymtp_cli("quantize", "requantize", tmp_path / "none", tmp_path / "p", "Q4_0"), 1, "none")
    refused(pymtp_cli("quantize", "requantize", source, tmp_path / "p", "Q4_0", "--imatrix", source), 1, "general.type")
    refused(pymtp_cli("quantize", "requantize", source, tmp_path / "no" / "p", "Q4_0"), 1, "No such file")
    refused(pymtp_cli("quantize", "nope"), 2, "nope")
    assert os.listdir(tmp_path) == ["o.gguf"]


def test_tool(data, tmp_path):
    """tools/quantize.py is the same group."""
    tool = data.parent.parent / "tools" / "quantize.py"
    done = subprocess.run([sys.executable, tool, "requantize", data / "tiny-31b.gguf", tmp_path / "o.gguf", "Q8_0"], capture_output=True, text=True)
    assert done.returncode == 0 and "bits a weight" in done.stdout, done
    assert subprocess.run([sys.executable, tool, "nope"], capture_output=True).returncode == 2


def test_sources_that_cannot_be_requantized(tmp_path):
    def source(kind, data):
        return Builder().kv("general.architecture", "str", "gemma4").tensor("blk.0.x.weight", [256, 2], kind, data).write(tmp_path / "a.gguf")

    with pytest.raises(UnsupportedError, match="blk.0.x.weight.*IQ1_S"):
        quantize.plan(source(19, bytes(100)), "Q8_0")
    Builder().kv("general.architecture", "str", "gemma4").tensor(b"blk.0.\xff.weight", [256, 2]).write(tmp_path / "a.gguf")
    with pytest.raises(FormatError, match="a.gguf: tensor 'blk.0.\ufffd.weight': its name is no UTF-8"):
        quantize.plan(tmp_path / "a.gguf", "Q8_0")
    values = np.ones((2, 256), np.float32)
    values[1, 7] = np.nan
    with pytest.raises(ArgumentError, match="blk.0.x.weight.*rows from 1 on.*row 0.*column 7"):
        with quantize.plan(source(0, values.tobytes()), "Q8_0") as plan:
            quantize.SLICE_VALUES, kept = 1, quantize.SLICE_VALUES
            try:
                plan.write(tmp_path / "out.gguf")
            finally:
                quantize.SLICE_VALUES = kept
    assert os.listdir(tmp_path) == ["a.gguf"]


# ---- large files, interruptions ----

@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """One tensor of 288 MiB."""
    path = tmp_path_factory.mktemp("large") / "large.gguf"
    piece = np.random.default_rng(0).standard_normal(8 << 20).astype(np.float16).tobytes()
    write(path, {"general.architecture": encode("str", "gemma4")}, [Entry("blk.0.ffn_up.weight", "F16", [4096, 36864], lambda: [piece] * 18)])
    return path


def test_memory_is_bounded(large, tmp_path):
    """The slices of the tensor, which is 288 MiB and 576 MiB as floats, take what a slice takes: read, as floats, encoded, at most 128 MiB."""
    script = ("import resource, sys\nfrom pymtp import quantize\n"
              "start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
              "with quantize.plan(sys.argv[1], 'Q8_0', threads=2) as plan:\n    plan.write(sys.argv[2])\n"
              "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start)")
    done = subprocess.run([sys.executable, "-c", script, large, tmp_path / "o.gguf"], capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 128 << 20
    assert (tmp_path / "o.gguf").stat().st_size > 36864 * 4096 // 32 * 34


def test_alignment_that_would_pad_by_much(tmp_path):
    """A file of some bytes would become one of gigabytes."""
    path = tmp_path / "a.gguf"
    path.write_bytes(Builder().kv("general.architecture", "str", "gemma4").kv("general.alignment", "u32", 1 << 30).build())
    with pytest.raises(UnsupportedError, match="a.gguf: general.alignment: expected at most 1048576, found 1073741824"):
        quantize.plan(path, "Q4_0")


def test_targets_that_are_none(data, tmp_path):
    (tmp_path / "afile").write_bytes(b"")
    with quantize.plan(data / "tiny-31b-drafter.gguf", "F16") as plan:
        for name in ("afile/out.gguf", "x" * 256, "a\0b", "\ud800", ""):
            with pytest.raises(pymtp.Error):
                plan.write(f"{tmp_path}/{name}" if name else name)
    assert os.listdir(tmp_path) == ["afile"]


def test_interruptions(large, tmp_path):
    """At random moments; afterwards there is no file, or with SIGKILL one under a hidden name, which the rerun removes."""
    args = [sys.executable, "-m", "pymtp", "quantize", "requantize", large, tmp_path / "o.gguf", "Q8_0", "--threads", "1"]
    rng = random.Random(5)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        child = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        end = time.monotonic() + 60
        while not any(part.stat().st_size > 1 << 20 for part in tmp_path.glob(f".o.gguf.part-{child.pid}-*")):
            assert time.monotonic() < end and child.poll() is None
            time.sleep(0.005)
        time.sleep(rng.random() * 0.05)
        child.send_signal(number)
        _, errors = child.communicate(timeout=60)
        assert child.returncode in ((130,) if number == signal.SIGINT else (-number,)), errors
        assert b"Traceback" not in errors
        left = os.listdir(tmp_path)
        assert len(left) <= 1 and all(name.startswith(".o.gguf.part-") for name in left) and (left == [] or number == signal.SIGKILL)
    assert subprocess.run(args, capture_output=True).returncode == 0 and os.listdir(tmp_path) == ["o.gguf"]


def test_no_room(data, tmp_path):
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))  # noqa: E731
    done = subprocess.run([sys.executable, "-m", "pymtp", "quantize", "requantize", data / "tiny-26b.gguf", tmp_path / "o.gguf", "Q8_0"],
                          capture_output=True, text=True, preexec_fn=limit)
    refused(done, 1, "o.gguf", "File too large")
    assert os.listdir(tmp_path) == []
