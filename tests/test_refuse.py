"""What the loader takes and refuses: the golden models with one thing changed.

tool_weights prints the configuration and a digest of every weight under neutral names, so files that mean the same network
print the same; on a refusal it prints one line. Most changes are bytes patched in place (a tensor's name, shape or type),
the others are written by model_files.rewrite.
"""
import struct
import subprocess

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader, GGUFValueType
from gguf.quants import quantize

import driver
from model_files import bfloat16, rewrite, tensors

FORMAT, UNSUPPORTED, MISMATCH = -3, -4, -5
TARGETS = ("tiny-e2b", "tiny-26b", "tiny-31b")
REFUSED_TYPES = ((16, "IQ2_XXS"), (99, "type 99"))  # tried in turn


@pytest.fixture(scope="module")
def run(c_build):
    """run(FILE, [DRAFTER]) -> (exit code, output) of tool_weights."""
    def call(*paths):
        done = subprocess.run([c_build / "tool_weights", *paths], capture_output=True, text=True, timeout=120)
        assert done.returncode in (0, 1), (done.returncode, done.stdout, done.stderr)
        return done.returncode, done.stdout

    return call


@pytest.fixture(scope="module")
def dump(run):
    """Everything a good file means."""
    def call(*paths):
        code, text = run(*paths)
        assert code == 0, text
        return text

    return call


@pytest.fixture(scope="module")
def refused(run):
    """Asserts that the last file is refused with this code, in one line that names it and holds the fragments."""
    def call(paths, code, *fragments):
        rc, text = run(*paths)
        assert rc == 1 and text.startswith(f"error {code}: {paths[-1]}: ") and text.count("\n") == 1, (text, code, fragments)
        for fragment in fragments:
            assert fragment in text, (text, fragment)

    return call


@pytest.fixture
def golden(data):
    return lambda name: data / f"{name}.gguf"


# ---- patches in place ----


def patched(src, dst, old, new):
    """A copy with one run of bytes replaced by one of the same length."""
    content = src.read_bytes()
    assert content.count(old) == 1 and len(old) == len(new), (old, content.count(old))
    dst.write_bytes(content.replace(old, new))
    return dst


def entry(name, dims=None):
    """The start of a directory entry: the name as it is stored."""
    return struct.pack("<Q", len(name)) + name.encode() + (b"" if dims is None else struct.pack(f"<I{len(dims)}Q", len(dims), *dims))


def directory(path):
    """name -> (dims, type number)"""
    return {t.name: ([int(n) for n in t.shape], int(t.tensor_type)) for t in GGUFReader(path).tensors}


def without(src, dst, name):
    return patched(src, dst, entry(name), entry("x" + name[1:]))


def reshaped(src, dst, name, dims, new):
    return patched(src, dst, entry(name, dims), entry(name, new))


def retyped(src, dst, name, dims, old, new):
    return patched(src, dst, entry(name, dims) + struct.pack("<I", old), entry(name, dims) + struct.pack("<I", new))


def checked_names(path, layers):
    """The tensors of these layers and all outside layers."""
    return {n: v for n, v in directory(path).items() if not n.startswith("blk.") or int(n.split(".")[1]) in layers}


# ---- drafters in all dialects ----

DIALECTS = {
    "pull request": ("gemma4_assistant", {".n_embd_backbone": 128, ".attention.k_eq_v": False, ".requires_target_arch": "gemma4"},
                     {"nextn.pre_projection": "mtp.pre_projection", "nextn.post_projection": "mtp.post_projection",
                      "masked_embd_centroids": "mtp.centroids", "masked_embd_ordering": "mtp.token_ordering.weight"}),
    "ik_llama": ("gemma4_mtp", {".backbone_hidden_size": 128},
                 {"nextn.pre_projection": "mtp_pre_proj", "nextn.post_projection": "mtp_post_proj",
                  "masked_embd_centroids": "mtp_centroids", "masked_embd_ordering": "mtp_token_ordering.weight"}),
    "fork": ("gemma4", {".assistant.type": "mtp", ".assistant.backbone_hidden_size": 128},
             {"nextn.pre_projection": "assistant.pre_projection", "nextn.post_projection": "assistant.post_projection",
              "masked_embd_centroids": "assistant.centroids", "masked_embd_ordering": "assistant.token_ordering"}),
    "upstream": ("gemma4-assistant", {".embedding_length_out": 128, ".nextn_predict_layers": 4}, {}),
}


def dialect_of(src, dst, dialect, **changes):
    arch, keys, names = DIALECTS[dialect]
    rename = {n: n.replace(old, new) for n in directory(src) for old, new in names.items() if n.startswith(old)}
    keys = {".embedding_length_out": None, ".nextn_predict_layers": None, **keys, **changes.pop("keys", {})}
    return rewrite(src, dst, arch=arch, keys=keys, rename=rename, **changes)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("size", ["tiny-e2b", "tiny-31b"])
def test_dialects(golden, dump, c_build, tmp_path, dialect, size):
    """With and without centroids, with and without rope_freqs: the same drafter as in the golden file."""
    target, plain = golden(size), golden(f"{size}-drafter")
    expected = dump(target, plain)
    assert ("clusters=32 members=40 top=8" in expected) == (size == "tiny-e2b")
    for i, drop in enumerate([(), ("rope_freqs.weight",)]):
        path = dialect_of(plain, tmp_path / f"{i}.gguf", dialect, drop=drop)
        assert dump(target, path) == expected
    done = subprocess.run([c_build / "tool_open", target, path], capture_output=True, text=True)
    assert done.stdout == "ok\n", done.stdout


@pytest.mark.parametrize("dialect", DIALECTS)
def test_drafter_without_keys(golden, dump, tmp_path, dialect):
    """Shapes and the target tell all but how many clusters to search."""
    plain = golden("tiny-e2b-drafter")
    arch = "gemma4-assistant."
    keys = {n.replace(arch, "."): None for n in GGUFReader(plain).fields if n.startswith(arch) and "centroid_top_k" not in n}
    given = {".assistant.type": "mtp"} if dialect == "fork" else {n: None for n in DIALECTS[dialect][1]}
    path = dialect_of(plain, tmp_path / "d.gguf", dialect, keys={**keys, **given})
    assert dump(golden("tiny-e2b"), path) == dump(golden("tiny-e2b"), plain)


def test_centroid_options(golden, dump, tmp_path):
    target, plain = golden("tiny-e2b"), golden("tiny-e2b-drafter")

    def of(**changes):
        text = dump(target, rewrite(plain, tmp_path / "d.gguf", **changes))
        return next(line for line in text.splitlines() if line.startswith("drafter"))

    assert "clusters=32 members=40 top=5 " in of(keys={".centroid_top_k": None, ".masked_embedding.top_k": 5})
    assert "clusters=32 members=40 top=32 " in of(keys={".centroid_top_k": 100})
    assert "clusters=32 members=40 top=32 " in of(keys={".centroid_top_k": None})
    assert "clusters=32 members=40 top=8 " in of(keys={".n_centroids": 2048, ".use_ordered_embeddings": None})  # the tensor counts
    dense = of(drop=("masked_embd_centroids.weight", "masked_embd_ordering"))
    assert "clusters=0 members=0 top=0 " in dense and "centroids=" not in dense
    assert of(keys={".use_ordered_embeddings": False}) == dense
    assert "clusters=16 members=80 top=8 " in of(replace={"masked_embd_centroids.weight": tensors(plain)["masked_embd_centroids.weight"][:16]})


# ---- targets that mean the same ----


def i32(*values):
    return (list(values), GGUFValueType.ARRAY, GGUFValueType.INT32) if len(values) > 1 else (values[0], GGUFValueType.INT32)


def test_lenient_keys(golden, dump, tmp_path):
    """Integers of any width, scalars as arrays and arrays as scalars, defaults of what may be missing."""
    e2b = golden("tiny-e2b")
    u64, array, i64 = GGUFValueType.UINT64, GGUFValueType.ARRAY, GGUFValueType.INT64
    same = {
        "widths": {".block_count": (10, u64), ".context_length": i32(4096), ".embedding_length": (128, GGUFValueType.INT16),
                   ".attention.sliding_window": (64, GGUFValueType.UINT8), ".attention.head_count": ([4] * 10, array, i64)},
        "arrays": {".attention.key_length": ([64, 64], array, i64), ".attention.head_count_kv": i32(*[1] * 10)},
        "pattern": {".attention.sliding_window_pattern": 5},
        "integers": {".attention.sliding_window_pattern": i32(1, 1, 1, 1, 0, 1, 1, 1, 1, 0)},
        "float64": {".rope.freq_base": (1e6, GGUFValueType.FLOAT64), ".rope.freq_base_swa": 10000, ".final_logit_softcapping": 30},
        "defaults": {".rope.freq_base": None, ".rope.freq_base_swa": None, ".rope.dimension_count": None,
                     ".rope.dimension_count_swa": None, ".attention.value_length": None, ".attention.value_length_swa": None,
                     ".embedding_length_per_layer_input": None},
    }
    expected = dump(e2b)
    assert "last=3,4" in expected and [f"source={s}" in line for s, line in zip((0, 1, 2, 3, 4, 3, 3, 3, 3, 4), expected.splitlines()[3:])] == [True] * 10
    for name, keys in same.items():
        assert dump(rewrite(e2b, tmp_path / "t.gguf", keys=keys)) == expected, name
    moe = golden("tiny-26b")
    assert dump(rewrite(moe, tmp_path / "t.gguf", keys={".expert_feed_forward_length": None, ".attention.shared_kv_layers": None})) == dump(moe)
    mha = rewrite(golden("tiny-31b"), tmp_path / "t.gguf", keys={".final_logit_softcapping": None})
    assert " cap=0 " in dump(mha)


def test_optional_tensors(golden, dump, tmp_path):
    """Missing rope_freqs and layer scales, K/V of layers that share them, untied output, encoders beside the text network."""
    e2b = golden("tiny-e2b")
    t = tensors(e2b)
    scales = {n: np.ones(1, np.float32) for n in t if "layer_output_scale" in n}
    path = tmp_path / "t.gguf"
    expected = dump(e2b)
    assert dump(rewrite(e2b, path, drop=["rope_freqs.weight"])) == expected
    unscaled = dump(rewrite(e2b, path, replace=scales))
    assert unscaled != expected and unscaled.count("scale=1 ") == 10
    assert dump(rewrite(e2b, path, drop=list(scales))) == unscaled
    unused = {f"blk.{i}.{n}": t[f"blk.{j}.{n}"] for i, j in ((5, 0), (9, 4)) for n in ("attn_k.weight", "attn_v.weight", "attn_k_norm.weight")}
    assert dump(rewrite(e2b, path, replace=unused)) == expected
    assert dump(rewrite(e2b, path, replace={"output.weight": t["token_embd.weight"]})) == expected
    untied = dump(rewrite(e2b, path, replace={"output.weight": t["token_embd.weight"][::-1]}))
    assert untied.splitlines()[1:] == expected.splitlines()[1:] and untied != expected
    encoders = {n: np.zeros((2, 3, 4, 5), np.float32) for n in ("v.patch_embd.weight", "a.blk.0.attn_q.weight", "mm.input_projection.weight")}
    keys = {"gemma4.vision.block_count": 3, "gemma4.audio.block_count": 4, "tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "gemma4"}
    assert dump(rewrite(e2b, path, replace=encoders, keys=keys)) == expected


def test_rope_freqs_values(golden, dump, tmp_path):
    """The tensor divides; from 1e29 on a pair does not turn."""
    e2b = golden("tiny-e2b")
    factors = np.array([2.0] * 4 + [1e29] * 14 + [np.inf] * 14, np.float32)
    plain, changed = ([float(x) for x in next(s for s in dump(p).splitlines() if s.startswith("global")).split()[2:]]
                      for p in (e2b, rewrite(e2b, tmp_path / "t.gguf", replace={"rope_freqs.weight": factors})))
    assert changed == [x / 2 for x in plain[:4]] + [0.0] * 28


def test_small_vectors_in_half_floats(golden, dump, tmp_path):
    e2b = golden("tiny-e2b")
    norms = {n: x for n, x in tensors(e2b).items() if x.ndim == 1 and x.size > 1 and n != "rope_freqs.weight"}
    halves = {n: x.astype(np.float16) for n, x in norms.items()}
    bits = {n: bfloat16(x) for n, x in norms.items()}
    cut = {n: (x.view(np.uint32) & 0xFFFF0000).view(np.float32) for n, x in norms.items()}
    pairs = [(halves, {n: x.astype(np.float32) for n, x in halves.items()}), (bits, cut)]
    for narrow, wide in pairs:
        assert dump(rewrite(e2b, tmp_path / "a.gguf", replace=narrow)) == dump(rewrite(e2b, tmp_path / "b.gguf", replace=wide))


def test_formats_mix(golden, dump, tmp_path):
    """Any matrix may have any format, per_layer_model_proj and the router too."""
    for size in ("tiny-e2b", "tiny-26b"):
        src = golden(size)
        matrices = {n: x for n, x in tensors(src).items() if x.ndim > 1 and x.shape[-1] % 32 == 0}
        kinds = (Type.Q8_0, Type.Q4_0, Type.Q5_1, Type.F16, Type.BF16)
        replace = {}
        for i, (name, x) in enumerate(matrices.items()):
            kind = kinds[i % len(kinds)]
            replace[name] = x.astype(np.float16) if kind == Type.F16 else (quantize(x, kind), kind)
        text = dump(rewrite(src, tmp_path / "t.gguf", replace=replace))
        assert len(text.splitlines()) == len(dump(src).splitlines())


def fused_qkv(t, layers, shared=()):
    """(dropped, added): attn_q, attn_k and attn_v of layers as one tensor; queries alone in `shared` ones."""
    drop, add = [], {}
    for i in layers:
        names = [f"blk.{i}.attn_{x}.weight" for x in "qkv"]
        names = [n for n in (names[:1] if i in shared else names) if n in t]
        drop += names
        add[f"blk.{i}.attn_qkv.weight"] = np.concatenate([t[n] for n in names])
    return drop, add


def split_experts(t):
    drop = [n for n in t if "ffn_gate_up_exps" in n]
    add = {}
    for n in drop:
        half = t[n].shape[1] // 2
        add[n.replace("gate_up", "gate")], add[n.replace("gate_up", "up")] = t[n][:, :half], t[n][:, half:]
    return drop, add


def rearranged(golden, folder):
    """Files whose tensors are cut in other ways: (original, rearranged)."""
    out = []
    for size, layers, shared in (("tiny-e2b", range(10), (5, 6, 7)), ("tiny-31b", range(6), ())):
        drop, add = fused_qkv(tensors(golden(size)), layers, shared)
        out.append((golden(size), rewrite(golden(size), folder / f"{size}-qkv.gguf", drop=drop, replace=add)))
    drop, add = split_experts(tensors(golden("tiny-26b")))
    out.append((golden("tiny-26b"), rewrite(golden("tiny-26b"), folder / "split.gguf", drop=drop, replace=add)))
    return out


def test_fused_and_split_tensors(golden, dump, tmp_path):
    for original, other in rearranged(golden, tmp_path):
        assert dump(other) == dump(original), other


def test_rearranged_files_compute_the_same(golden, tmp_path):
    """Bit for bit: the rows are the same rows."""
    for original, other in rearranged(golden, tmp_path):
        results = []
        for path in (original, other):
            with driver.opened(path) as model:
                results.append(driver.complete(model, [2, 30, 40, 50], max_tokens=12, temperature=0.0)[0])
        assert results[0] == results[1], other


def test_only_one_kind_of_layer(golden, dump, refused, tmp_path):
    """The first five layers of tiny-31b all slide: no numbers of global layers are needed, and no drafter layer may be global."""
    keys = {".block_count": 5, ".attention.sliding_window_pattern": True, ".attention.head_count_kv": 4, ".attention.key_length": None,
            ".attention.value_length": None, ".rope.dimension_count": None}
    path = rewrite(golden("tiny-31b"), tmp_path / "t.gguf", keys=keys)
    text = dump(path)
    assert " last=4,-1 " in text and "global dim=0\n" in text
    refused((path, golden("tiny-31b-drafter")), MISMATCH, "sliding_window_pattern", "global layer 3")


# ---- refused targets ----

NAN, INF = float("nan"), float("inf")
BAD_KEYS = [  # golden, changed keys, key named, expected in the text
    ("tiny-e2b", {".block_count": 0}, "block_count", "1..1024, found 0"),
    ("tiny-e2b", {".block_count": 5000}, "block_count", "1..1024, found 5000"),
    ("tiny-e2b", {".block_count": "ten"}, "block_count", 'found "ten"'),
    ("tiny-e2b", {".block_count": 9}, "attention.sliding_window_pattern", "9 values"),
    ("tiny-e2b", {".block_count": [10, 11]}, "block_count", "found [10, 11]"),
    ("tiny-e2b", {".context_length": 1 << 25}, "context_length", "found 33554432"),
    ("tiny-e2b", {".context_length": 0}, "context_length", "found 0"),
    ("tiny-e2b", {".embedding_length": i32(-128)}, "embedding_length", "found -128"),
    ("tiny-e2b", {".embedding_length": (1 << 63, GGUFValueType.UINT64)}, "embedding_length", "found 9223372036854775808"),
    ("tiny-e2b", {".embedding_length": 128.0}, "embedding_length", "an integer"),
    ("tiny-e2b", {".feed_forward_length": [256] * 9}, "feed_forward_length", "10 values"),
    ("tiny-e2b", {".feed_forward_length": 0}, "feed_forward_length", "found 0"),
    ("tiny-e2b", {".attention.head_count": 0}, "attention.head_count", "found 0"),
    ("tiny-e2b", {".attention.head_count": 1 << 24}, "attention.head_count", "head size"),
    ("tiny-31b", {".attention.head_count_kv": 3}, "attention.head_count_kv", "divisor of the 8 heads, found 3"),
    ("tiny-e2b", {".attention.head_count_kv": 0}, "attention.head_count_kv", "found 0"),
    ("tiny-e2b", {".attention.key_length": 24}, "attention.key_length", "multiple of 16, found 24"),
    ("tiny-e2b", {".attention.key_length_swa": 1 << 20}, "attention.key_length_swa", "found 1048576"),
    ("tiny-e2b", {".attention.value_length": 32}, "attention.value_length", "expected 64, found 32"),
    ("tiny-e2b", {".attention.value_length_swa": 64}, "attention.value_length_swa", "expected 32, found 64"),
    ("tiny-e2b", {".attention.layer_norm_rms_epsilon": 0.0}, "attention.layer_norm_rms_epsilon", "found 0"),
    ("tiny-e2b", {".attention.layer_norm_rms_epsilon": NAN}, "attention.layer_norm_rms_epsilon", "a number"),
    ("tiny-e2b", {".attention.layer_norm_rms_epsilon": -1e-6}, "attention.layer_norm_rms_epsilon", "a number"),
    ("tiny-e2b", {".final_logit_softcapping": INF}, "final_logit_softcapping", "a number"),
    ("tiny-e2b", {".final_logit_softcapping": -30.0}, "final_logit_softcapping", "found -30"),
    ("tiny-e2b", {".rope.freq_base": 0.0}, "rope.freq_base", "found 0"),
    ("tiny-e2b", {".rope.freq_base_swa": NAN}, "rope.freq_base_swa", "a number"),
    ("tiny-e2b", {".rope.dimension_count": 16}, "rope.dimension_count", "expected 64"),
    ("tiny-e2b", {".rope.dimension_count_swa": 64}, "rope.dimension_count_swa", "expected 32"),
    ("tiny-e2b", {".rope.scaling.type": "yarn"}, "rope.scaling.type", 'found "yarn"'),
    ("tiny-e2b", {".attention.sliding_window": 0}, "attention.sliding_window", "found 0"),
    ("tiny-e2b", {".attention.sliding_window_pattern": [True] * 11}, "attention.sliding_window_pattern", "10 values"),
    ("tiny-e2b", {".attention.sliding_window_pattern": 0}, "attention.sliding_window_pattern", "found 0"),
    ("tiny-e2b", {".attention.sliding_window_pattern": ["yes"] * 10}, "attention.sliding_window_pattern", "integers"),
    ("tiny-e2b", {".attention.shared_kv_layers": 10}, "attention.shared_kv_layers", "0..9, found 10"),
    ("tiny-e2b", {".attention.shared_kv_layers": 6}, "attention.shared_kv_layers", "a global layer with own keys below layer 4"),
    ("tiny-e2b", {".embedding_length_per_layer_input": 0}, "embedding_length_per_layer_input", "found 0"),
    ("tiny-e2b", {".embedding_length_per_layer_input": 1 << 24}, "embedding_length_per_layer_input", "10 x 16777216"),
    ("tiny-26b", {".expert_count": 0}, "expert_count", "found no experts"),
    ("tiny-26b", {".expert_count": 5000}, "expert_count", "0..4096, found 5000"),
    ("tiny-26b", {".expert_used_count": 17}, "expert_used_count", "1..16, found 17"),
    ("tiny-26b", {".expert_used_count": 0}, "expert_used_count", "found 0"),
    ("tiny-26b", {".expert_used_count": None}, "expert_used_count", "missing"),
    ("tiny-26b", {".expert_count": 4096, ".expert_feed_forward_length": 1 << 24}, "expert_feed_forward_length", "rows over all experts"),
]


@pytest.mark.parametrize("case", BAD_KEYS, ids=lambda c: f"{c[2]}-{c[3]}")
def test_bad_keys(golden, refused, tmp_path, case):
    size, keys, key, text = case
    refused((rewrite(golden(size), tmp_path / "t.gguf", keys=keys),), FORMAT, f"key 'gemma4.{key}'", text)


def test_missing_keys(golden, refused, tmp_path):
    for name in ("block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count", "attention.key_length",
                 "attention.key_length_swa", "attention.layer_norm_rms_epsilon", "attention.sliding_window", "attention.sliding_window_pattern"):
        refused((rewrite(golden("tiny-e2b"), tmp_path / "t.gguf", keys={f".{name}": None}),), FORMAT, f"key 'gemma4.{name}': missing")


SHAPE_AGAINST_KEY = [  # the first tensor that does not fit is named
    ("tiny-e2b", {".embedding_length": 64}, "token_embd.weight"), ("tiny-e2b", {".feed_forward_length": 256}, "blk.5.ffn_gate.weight"),
    ("tiny-e2b", {".attention.head_count": 8}, "blk.0.attn_q.weight"), ("tiny-31b", {".attention.head_count_kv": 4}, "blk.5.attn_k.weight"),
    ("tiny-e2b", {".attention.key_length": 32, ".attention.value_length": 32, ".rope.dimension_count": 32}, "rope_freqs.weight"),
    ("tiny-e2b", {".embedding_length_per_layer_input": 16}, "per_layer_token_embd.weight"),
    ("tiny-31b", {".embedding_length_per_layer_input": 16}, "per_layer_token_embd.weight"),
    ("tiny-26b", {".expert_count": 8}, "blk.0.ffn_gate_inp.weight"), ("tiny-26b", {".expert_feed_forward_length": 16}, "blk.0.ffn_down_exps.weight"),
    ("tiny-31b", {".expert_count": 8, ".expert_used_count": 2, ".expert_feed_forward_length": 16}, "blk.0.post_ffw_norm_1.weight"),
    ("tiny-e2b", {".attention.shared_kv_layers": 4}, "blk.5.attn_k_norm.weight"),
]


@pytest.mark.parametrize("case", SHAPE_AGAINST_KEY, ids=lambda c: f"{list(c[1])[0]}-{c[2]}")
def test_keys_and_shapes_disagree(golden, refused, tmp_path, case):
    size, keys, tensor = case
    refused((rewrite(golden(size), tmp_path / "t.gguf", keys=keys),), FORMAT, f"tensor '{tensor}'")


OPTIONAL = ("rope_freqs.weight", "layer_output_scale.weight")


@pytest.mark.parametrize("size", TARGETS)
def test_every_tensor_is_checked(golden, dump, refused, tmp_path, size):
    """Of the first and last layers and outside: each missing, reshaped or of a type that is not computed with."""
    src, path = golden(size), tmp_path / "t.gguf"
    for i, (name, (dims, kind)) in enumerate(checked_names(src, (0, 4, 9)).items()):
        if name.endswith(OPTIONAL) or (size, name) == ("tiny-e2b", "blk.4.attn_v.weight"):  # its only global layer with own keys
            dump(without(src, path, name))
        else:
            refused((without(src, path, name),), FORMAT, f"tensor '{name}'", "missing")
        new = [dims[0] // 2, *dims[1:]] if dims[0] > 1 else [2]  # a scalar has room in its padding
        refused((reshaped(src, path, name, dims, new),), FORMAT, f"tensor '{name}'", f"shape {dims[0]} x ", f"found {new[0]} x ")
        number, text = REFUSED_TYPES[i % 2]
        refused((retyped(src, path, name, dims, kind, number),), UNSUPPORTED, f"tensor '{name}'", text)


def test_lost_values_of_a_global_layer(golden, refused, tmp_path):
    """Of several global layers all or none take their values from the keys."""
    e2b = golden("tiny-e2b")
    t = tensors(e2b)
    own = {f"blk.9.{n}": t[f"blk.4.{n}"] for n in ("attn_k.weight", "attn_k_norm.weight")}
    own |= {f"blk.{i}.{n}": t[f"blk.0.{n}"] for i in range(5, 9) for n in ("attn_k.weight", "attn_v.weight", "attn_k_norm.weight")}
    path = rewrite(e2b, tmp_path / "t.gguf", keys={".attention.shared_kv_layers": 0}, replace=own)
    refused((path,), FORMAT, "tensor 'blk.9.attn_v.weight'", "own")


def test_bad_fused_qkv(golden, refused, tmp_path):
    t = tensors(golden("tiny-e2b"))
    drop, add = fused_qkv(t, [0])
    for rows in (128, 160, 191):  # 128 queries, 32 keys, 32 values; a sliding layer has all
        cut = {n: x[:rows] for n, x in add.items()}
        refused((rewrite(golden("tiny-e2b"), tmp_path / "t.gguf", drop=drop, replace=cut),), FORMAT, "tensor 'blk.0.attn_qkv.weight'",
                f"expected 192 rows, found {rows}")


def test_vectors_are_not_quantised(golden, refused, tmp_path):
    x = tensors(golden("tiny-e2b"))["output_norm.weight"]
    path = rewrite(golden("tiny-e2b"), tmp_path / "t.gguf", replace={"output_norm.weight": (quantize(x, Type.Q8_0), Type.Q8_0)})
    refused((path,), UNSUPPORTED, "tensor 'output_norm.weight'", "expected F32, F16 or BF16, found Q8_0")


@pytest.mark.parametrize("name", ["blk.0.attn_q.scale", "blk.3.ffn_down.scale", "blk.2.ffn_up.input_scale", "blk.1.attn_output.bias", "blk.0.ffn_gate_up_exps.scale"])
def test_companions_of_matrices(golden, refused, tmp_path, name):
    path = rewrite(golden("tiny-26b"), tmp_path / "t.gguf", replace={name: np.ones(1, np.float32)})
    refused((path,), UNSUPPORTED, f"tensor '{name}'", "beside")


@pytest.mark.parametrize("value", [0.0, -1.0, NAN])
def test_bad_rope_freqs(golden, refused, tmp_path, value):
    factors = tensors(golden("tiny-e2b"))["rope_freqs.weight"]
    factors[3] = value
    refused((rewrite(golden("tiny-e2b"), tmp_path / "t.gguf", replace={"rope_freqs.weight": factors}),), FORMAT, "tensor 'rope_freqs.weight'", "at 3")


def test_other_architectures(golden, refused, tmp_path):
    e2b = golden("tiny-e2b")
    for arch in ("llama", "gemma3", "gemma4\n", "dflash", "x" * 300):
        path = rewrite(e2b, tmp_path / "t.gguf", arch=arch)
        refused((path,), UNSUPPORTED, "key 'general.architecture'", "expected 'gemma4'", arch[:6])
        refused((e2b, path), UNSUPPORTED, "key 'general.architecture'", "'gemma4-assistant'", arch[:6])
    path = patched(e2b, tmp_path / "n.gguf", b"general.architecture", b"general.architecturx")
    refused((path,), FORMAT, "key 'general.architecture': missing")


# ---- refused pairs ----


def test_swapped_roles(golden, refused, tmp_path):
    for dialect in DIALECTS:
        path = dialect_of(golden("tiny-e2b-drafter"), tmp_path / "d.gguf", dialect)
        refused((path,), MISMATCH, "expected a target", f"drafter ('{DIALECTS[dialect][0]}')")
    for size in TARGETS:
        refused((golden("tiny-e2b"), golden(size)), MISMATCH, "expected a drafter", "found a target")


BAD_PAIRS = [  # changed keys of the drafter, code, fragments
    ({".embedding_length_out": 256}, MISMATCH, "key 'gemma4-assistant.embedding_length_out': expected 128, the target's width, found 256"),
    ({".attention.sliding_window": 65}, MISMATCH, "key 'gemma4-assistant.attention.sliding_window': expected 64, the target's window, found 65"),
    ({".attention.key_length": 128}, MISMATCH, "key 'gemma4-assistant.attention.key_length': expected 64, the target's head size, found 128"),
    ({".attention.key_length_swa": 64}, MISMATCH, "key 'gemma4-assistant.attention.key_length_swa': expected 32"),
    ({".attention.head_count_kv": 2}, MISMATCH, "key 'gemma4-assistant.attention.head_count_kv': expected 1, the target's KV heads, found 2"),
    ({".attention.head_count_kv": [1, 1, 1, 2]}, MISMATCH, "key 'gemma4-assistant.attention.head_count_kv': expected 1"),
    ({".requires_target_arch": "gemma5"}, MISMATCH, "key 'gemma4-assistant.requires_target_arch': expected \"gemma4\", found \"gemma5\""),
    ({".attention.sliding_window_pattern": [True, True, True, True]}, MISMATCH, "tensor 'blk.3.attn_q_norm.weight': expected 32"),
    ({".attention.sliding_window_pattern": [True, True, True]}, FORMAT, "4 values"),
    ({".embedding_length": 128}, FORMAT, "key 'gemma4-assistant.embedding_length': expected 64, found 128"),
    ({".block_count": 5, ".attention.sliding_window_pattern": 4}, FORMAT, "tensor 'blk.4.attn_q_norm.weight': missing"),
    ({".block_count": 0}, FORMAT, "key 'gemma4-assistant.block_count'"),
    ({".attention.head_count": 8}, FORMAT, "key 'gemma4-assistant.attention.head_count': expected 4 heads"),
    ({".feed_forward_length": 64}, FORMAT, "key 'gemma4-assistant.feed_forward_length': expected 128"),
    ({".rope.dimension_count": 16}, FORMAT, "key 'gemma4-assistant.rope.dimension_count': expected 64"),
    ({".attention.layer_norm_rms_epsilon": NAN}, FORMAT, "key 'gemma4-assistant.attention.layer_norm_rms_epsilon'"),
    ({".use_ordered_embeddings": 2}, FORMAT, "key 'gemma4-assistant.use_ordered_embeddings'"),
    ({".centroid_top_k": 0}, FORMAT, "key 'gemma4-assistant.centroid_top_k'"),
]


@pytest.mark.parametrize("case", BAD_PAIRS, ids=lambda c: c[2][:60])
def test_bad_pair_keys(golden, refused, tmp_path, case):
    keys, code, text = case
    refused((golden("tiny-e2b"), rewrite(golden("tiny-e2b-drafter"), tmp_path / "d.gguf", keys=keys)), code, text)


def test_shapes_of_another_pair(golden, refused, tmp_path):
    """The same where no key tells."""
    plain = golden("tiny-e2b-drafter")
    t, path = tensors(plain), tmp_path / "d.gguf"

    def pair(target, fragment, code=MISMATCH, keys=None, **replace):
        names = {n.replace("__", "."): x for n, x in replace.items()}
        refused((golden(target), rewrite(plain, path, replace=names, keys=keys)), code, *fragment)

    pre, embd = t["nextn.pre_projection.weight"], t["token_embd.weight"]
    pair("tiny-e2b", ("tensor 'nextn.pre_projection.weight'", "expected 256", "twice the target's width", "found 192"),
         keys={".embedding_length_out": None}, nextn__pre_projection__weight=pre[:, :192])
    pair("tiny-e2b", ("tensor 'token_embd.weight'", "expected 1280", "the target's vocabulary", "found 1279"), token_embd__weight=embd[:-1])
    pair("tiny-e2b", ("tensor 'blk.0.attn_q_norm.weight'", "expected 32", "found 16"), keys={".attention.key_length_swa": None},
         blk__0__attn_q_norm__weight=t["blk.0.attn_q_norm.weight"][:16])
    pair("tiny-e2b", ("tensor 'blk.3.attn_q_norm.weight'", "expected 64", "found 32"), blk__3__attn_q_norm__weight=t["blk.0.attn_q_norm.weight"])
    pair("tiny-31b", ("tensor 'blk.0.attn_q.weight'", "expected 4 heads or a multiple", "found 2"), keys={".attention.head_count_kv": None},
         blk__0__attn_q__weight=t["blk.0.attn_q.weight"][:64])
    pair("tiny-e2b", ("tensor 'blk.0.attn_q.weight'", "multiple of 32 rows", "found 100"), code=FORMAT, blk__0__attn_q__weight=t["blk.0.attn_q.weight"][:100])
    refused((golden("tiny-e2b"), golden("tiny-26b-drafter")), MISMATCH, "attention.head_count_kv")


def test_every_drafter_tensor_is_checked(golden, dump, refused, tmp_path):
    src, target, path = golden("tiny-e2b-drafter"), golden("tiny-e2b"), tmp_path / "d.gguf"
    for i, (name, (dims, kind)) in enumerate(checked_names(src, (0, 3)).items()):
        if name.endswith(OPTIONAL):
            dump(target, without(src, path, name))
        else:
            refused((target, without(src, path, name)), FORMAT, f"tensor '{name}'", "missing")
        new = [dims[0] // 2, *dims[1:]] if dims[0] > 1 else [2]
        refused((target, reshaped(src, path, name, dims, new)), MISMATCH if "q_norm" in name or "pre_proj" in name else FORMAT, f"tensor '{name}'")
        number, text = REFUSED_TYPES[i % 2]
        refused((target, retyped(src, path, name, dims, kind, number)), UNSUPPORTED, f"tensor '{name}'", text)


def test_bad_orderings(golden, refused, tmp_path):
    plain = golden("tiny-e2b-drafter")
    t = tensors(plain)
    order, centroids = t["masked_embd_ordering"], t["masked_embd_centroids.weight"]

    def bad(fragments, code=FORMAT, order=order, centroids=centroids):
        path = rewrite(plain, tmp_path / "d.gguf", replace={"masked_embd_ordering": order, "masked_embd_centroids.weight": centroids})
        refused((golden("tiny-e2b"), path), code, *fragments)

    def changed(at, value):
        out = order.copy()
        out[at] = value
        return out

    bad(("'masked_embd_ordering'", "permutation of 0..1279", f"found {order[0]} at 7 for the second time"), order=changed(7, order[0]))
    bad(("'masked_embd_ordering'", "found 1280 at 9"), order=changed(9, 1280))
    bad(("'masked_embd_ordering'", "found -1 at 0"), order=changed(0, -1))
    bad(("'masked_embd_ordering'", "found -2147483648 at 0"), order=changed(0, -(2**31)))
    bad(("'masked_embd_ordering'", "expected 1280 ids, found 1279"), order=order[:-1])
    bad(("'masked_embd_ordering'", "expected I32, found F32"), code=UNSUPPORTED, order=order.astype(np.float32))
    bad(("'masked_embd_ordering'", "expected I32, found I64"), code=UNSUPPORTED, order=order.astype(np.int64))
    bad(("'masked_embd_centroids.weight'", "divides the vocabulary of 1280, found 31"), centroids=centroids[:31])


# ---- giving everything back ----


@pytest.mark.parametrize("size", [*TARGETS, "trained-py"])
def test_failing_storage(c_build, golden, size):
    """Each request to the back end fails once; afterwards nothing is left, and the count says that all were tried."""
    done = subprocess.run([c_build / "tool_weights", "--fail", golden(size), golden(f"{size}-drafter")], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("ok "), done.stdout + done.stderr
    assert int(done.stdout.split()[1]) > 100
