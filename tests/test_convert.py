"""Checkpoints as transformers saves them, converted: what is computed, what is in the file, and how it tokenizes.

The checkpoints (tests/data/ckpt-*) are random, in four shapes: E2B (F32 in shards; per-layer inputs, shared keys and values, wide
MLP, drafter with centroids), 12B (F16, "unified"), 26B (BF16; experts, K=V) and 31B (BF16, text only, an embedding with more rows
than the tokenizer has tokens). expected.npz holds what transformers computes with them in float32; how close it must be is
derived in test_golden.py. Weights in F16 and BF16 meet float activations, so a file of the checkpoint's type is held to the same.
"""
import json
import re
import subprocess
import sys

import gguf
import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings, strategies as st

import checkpoint
import pymtp
from pymtp import convert
from pymtp.convert.tensors import rope_freqs
from pymtp.gguf_file import File

SHAPES = {"e2b": "F32", "12b": "F16", "26b": "BF16", "31b": "BF16"}
TOLERANCE = 2e-4  # as in test_golden.py


@pytest.fixture(scope="module")
def converted(data, tmp_path_factory):
    """converted(name, part, type, centroids=True) -> path of the GGUF, each written once."""
    folder, made = tmp_path_factory.mktemp("converted"), {}

    def get(name, part, kind, centroids=True):
        key = (name, part, kind, centroids)
        if key not in made:
            made[key] = folder / ("-".join(map(str, key)) + ".gguf")
            with convert.plan(data / f"ckpt-{name}" / part, kind, centroids) as plan:
                assert plan.write(made[key]) == plan.bytes == made[key].stat().st_size
        return made[key]

    return get


@pytest.fixture(params=[(name, kind) for name, own in SHAPES.items() for kind in sorted({"F32", own})], ids="-".join)
def pair(request, converted, data):
    """(target, drafter, what transformers computes)"""
    name, kind = request.param
    return converted(name, "target", kind), converted(name, "drafter", kind), np.load(data / f"ckpt-{name}" / "expected.npz")


# ---- what is computed ----

def test_logits(pair):
    target, _, expected = pair
    with pymtp.Model(target, kv="f32") as model, model.session() as s:
        logits = s.forward(expected["ids"], logits="all")
        assert np.abs(logits - expected["logits"]).max() <= TOLERANCE
        assert np.abs(s.hidden - expected["hidden"]).max() <= TOLERANCE


def test_drafts(pair):
    target, drafter, expected = pair
    with pymtp.Model(target, drafter=drafter, kv="f32") as model, model.session() as s:
        for P, tokens, rows in zip(expected["draft_pos"].tolist(), expected["draft_tokens"], expected["draft_logits"]):
            s.forward(expected["ids"][s.length:P], logits="none")
            pending = int(expected["ids"][P])
            assert s.draft(3, pending) == tokens.tolist()
            assert np.abs(s.draft_logits(3, pending) - rows).max() <= TOLERANCE


@pytest.mark.parametrize("name", SHAPES)
def test_quantized_on_the_way(converted, name):
    """The same bytes as from the checkpoint's own type through `requantize`; and the file runs."""
    from pymtp import quantize

    direct, via = converted(name, "target", "Q4_0"), converted(name, "target", SHAPES[name])
    with quantize.plan(via, "Q4_0") as plan:
        again = via.with_name(f"{name}-again.gguf")
        plan.write(again)
    a, b = (gguf.GGUFReader(path) for path in (direct, again))
    assert {t.name: (t.tensor_type, t.data.tobytes()) for t in a.tensors} == {t.name: (t.tensor_type, t.data.tobytes()) for t in b.tensors}
    assert any(t.tensor_type == gguf.GGMLQuantizationType.Q4_0 for t in a.tensors)
    with pymtp.Model(direct, drafter=converted(name, "drafter", "Q4_0")) as model:
        assert len(model.complete([2, 100, 101], max_tokens=8, ignore_eos=True, temperature=0).tokens) == 8


# ---- what is in the file ----

@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("part", ("target", "drafter"))
def test_every_tensor(converted, data, name, part):
    """Every tensor of the text network is there once, bit for bit; nothing else is, but the frequencies of full layers."""
    folder = data / f"ckpt-{name}" / part
    source = checkpoint.read_all(folder)
    with convert.plan(folder, "F32") as plan:
        origin = {t.name: t.source for t in plan.source.tensors}
        assert len(set(origin.values())) == len(origin)
        skipped = set(source) - set(origin.values())
        assert all("tower" in n or "vision" in n or "audio" in n for n in skipped)
        assert plan.source.notes == ([f"left out: {len(skipped)} tensors of image and audio encoders"] if skipped else [])
        frequencies = rope_freqs(plan.source.shape)
    for t in gguf.GGUFReader(converted(name, part, "F32")).tensors:
        found = np.asarray(t.data)
        if origin[t.name] is None:
            assert t.name == "rope_freqs.weight" and np.array_equal(found, frequencies)
            assert found.tolist() == [1.0] * 4 + [np.float32(1e30)] * 12, "a quarter of a head of 32 rotates"
            continue
        expected = checkpoint.values(source[origin[t.name]])
        assert np.array_equal(found, expected[:512] if len(expected) == 528 else expected)
        assert found.shape == (512,) + expected.shape[1:] if len(expected) == 528 else expected.shape


def test_keys(converted):
    """One file's keys in full; sizes that other shapes differ in are what the logits depend on."""
    with File(converted("26b", "target", "BF16")) as file:
        found = {key: file.value(key) for key in file.keys() if not key.startswith("tokenizer.ggml.tok")}
    merges = found.pop("tokenizer.ggml.merges")
    assert merges[:2] == ["\u2581 \u2581", "\n \n"] and set(found.pop("tokenizer.ggml.scores")) == {-1000.0}
    assert found.pop("gemma4.attention.layer_norm_rms_epsilon") == pytest.approx(1e-6, rel=1e-6)
    assert found.pop("general.sampling.top_p") == pytest.approx(0.95, rel=1e-6)
    assert found.pop("tokenizer.chat_template").startswith("{{ bos_token }}")
    assert found == {
        "general.architecture": "gemma4", "general.type": "model", "general.name": "target", "general.sampling.temp": 1.0,
        "general.sampling.top_k": 64, "general.quantization_version": 2, "general.file_type": 32,
        "gemma4.block_count": 4, "gemma4.context_length": 256, "gemma4.embedding_length": 64, "gemma4.feed_forward_length": 64,
        "gemma4.attention.head_count": 4, "gemma4.attention.head_count_kv": [2, 2, 2, 1], "gemma4.attention.key_length": 32,
        "gemma4.attention.value_length": 32, "gemma4.attention.key_length_swa": 16, "gemma4.attention.value_length_swa": 16,
        "gemma4.attention.sliding_window": 16, "gemma4.attention.sliding_window_pattern": [True, True, True, False],
        "gemma4.attention.shared_kv_layers": 0, "gemma4.embedding_length_per_layer_input": 0, "gemma4.rope.freq_base": 1e6,
        "gemma4.rope.freq_base_swa": 1e4, "gemma4.rope.dimension_count": 32, "gemma4.rope.dimension_count_swa": 16,
        "gemma4.final_logit_softcapping": 30.0, "gemma4.expert_count": 8, "gemma4.expert_used_count": 3,
        "gemma4.expert_feed_forward_length": 32, "tokenizer.ggml.model": "gemma4", "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.bos_token_id": 2, "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.unknown_token_id": 3, "tokenizer.ggml.padding_token_id": 0, "tokenizer.ggml.mask_token_id": 4,
        "tokenizer.ggml.eot_token_id": 6}


def test_centroids(converted):
    """There with their keys, or gone with them; the dense head's first draft may differ, its file loads."""
    keys = {"gemma4-assistant.use_ordered_embeddings", "gemma4-assistant.n_centroids", "gemma4-assistant.centroid_top_k"}
    tensors = {"masked_embd_centroids.weight", "masked_embd_ordering"}
    for centroids in (True, False):
        with File(converted("e2b", "drafter", "F32", centroids)) as file:
            assert keys & set(file.keys()) == (keys if centroids else set())
            assert tensors & {t.name for t in file.tensors()} == (tensors if centroids else set())
    with pymtp.Model(converted("e2b", "target", "F32"), drafter=converted("e2b", "drafter", "F32", False)) as model, model.session() as s:
        s.forward([2, 30, 31], logits="none")
        dense = s.draft_logits(1, 32)[0]
        assert len(np.unique(dense)) > 500, "no row of logits is filled up"


def test_both_forms_of_layer_sizes(data, tmp_path, converted):
    """global_head_dim and num_global_key_value_heads, as published, say the same as per_layer_config."""
    changed = checkpoint.copy(data / "ckpt-31b" / "target", tmp_path / "target", config={"per_layer_config": None})
    config = json.loads((changed / "config.json").read_text()) | {"global_head_dim": 32, "num_global_key_value_heads": 2}
    (changed / "config.json").write_text(json.dumps(config))
    with convert.plan(changed, "F32") as plan:
        plan.write(tmp_path / "a.gguf")
    assert (tmp_path / "a.gguf").read_bytes() == converted("31b", "target", "F32").read_bytes()


def test_unused_keys_and_values_are_kept(data, tmp_path):
    """Publishers leave those of layers that share: they are copied, and change nothing."""
    name = "model.language_model.layers.3.self_attn.k_proj.weight"
    src = data / "ckpt-e2b" / "target"
    own = checkpoint.read_all(src)["model.language_model.layers.0.self_attn.k_proj.weight"]
    folder = checkpoint.copy(src, tmp_path / "c")
    tensors = checkpoint.read_all(folder)
    checkpoint.write(folder / "model.safetensors", tensors | {name: own})
    with convert.plan(folder, "F32") as plan:
        plan.write(tmp_path / "a.gguf")
    expected = np.load(data / "ckpt-e2b" / "expected.npz")
    with File(tmp_path / "a.gguf") as file, pymtp.Model(tmp_path / "a.gguf", kv="f32") as model, model.session() as s:
        assert "blk.3.attn_k.weight" in {t.name for t in file.tensors()}
        assert np.abs(s.forward(expected["ids"], logits="all") - expected["logits"]).max() <= TOLERANCE


def test_card_and_name(data, tmp_path):
    card = "---\nlicense: gemma\nlicense_link: 'https://x/y'\ntags:\n- a\n-  \"b c\"\nlanguage: en\nbase_model:\n  - google/gemma-4\nx: {y: 1}\n---\nbody\n"
    folder = tmp_path / "models--some--gemma-4-x" / "snapshots" / ("0" * 40)
    folder.parent.mkdir(parents=True)
    checkpoint.copy(data / "ckpt-31b" / "drafter", folder, files={"README.md": card})
    with convert.plan(folder) as plan:
        keys = {key: value for key, _, value in plan.source.keys if key.startswith("general.")}
    assert keys.items() >= {"general.name": "gemma-4-x", "general.license": "gemma", "general.license.link": "https://x/y",
                            "general.base_model.count": 1, "general.base_model.0.name": "gemma-4", "general.base_model.0.organization": "google",
                            "general.base_model.0.repo_url": "https://huggingface.co/google/gemma-4"}.items()
    assert keys["general.tags"] == ["a", "b c"] and keys["general.languages"] == ["en"]


# ---- the tokenizer ----

@pytest.fixture(scope="module")
def both(converted, data):
    """The tokenizer of the converted file and the `tokenizers` package with the checkpoint's."""
    return pymtp.Tokenizer(converted("e2b", "target", "F32")), tokenizers.Tokenizer.from_file(str(data / "ckpt-e2b/target/tokenizer.json"))


PIECES = ["the ", "model", " of", "\n", "\n\n\n", "  ", "\u2581", "\u00e9", "\u4e16", "\U0001f600", "\r\n", "\t", "<bos>", "<turn|>", "<|tool_call>",
          "<unused0>", "<unused1>", "<0x41>", "<", ">", "<|", "|>", "'s", "123", "\x00"]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=8)), max_size=12).map("".join))
def test_tokenizes_as_before(both, text):
    ours, theirs = both
    assert ours.tokenize(text, special=True) == theirs.encode(text, add_special_tokens=False).ids


def test_tokenizes_documents_as_before(both):
    ours, theirs = both
    text = (checkpoint.__doc__ + (__doc__ or "") + json.dumps({"a": [1, 2.5, None]}, indent=4)) * 3
    ids = ours.tokenize(text)
    assert ids == theirs.encode(text, add_special_tokens=False).ids
    assert ours.detokenize(ids) == text


def test_token_types_and_ends(converted):
    """Special tokens are control ones but for the markers readers need; a token added as ordinary is found in text."""
    path = converted("e2b", "target", "F32")
    with File(path) as file:
        tokens, types = file.value("tokenizer.ggml.tokens"), file.value("tokenizer.ggml.token_type")
    kind = dict(zip(tokens, types, strict=True))
    assert [kind[p] for p in ("<bos>", "<|turn>", "<|think|>", "<|channel>", '<|"|>', "<unused0>", "<0x41>", "the", "<unused1>")] == [3, 3, 3, 4, 4, 4, 6, 1, 1]
    tokenizer = pymtp.Tokenizer(path)
    assert [i for i in range(512) if tokenizer.is_eog(i)] == [1, 6, 11]


def test_further_end_tokens(data, tmp_path):
    """Ends that generation_config.json lists beyond the known ones end generation too."""
    generation = {"eos_token_id": [1, 300], "suppress_tokens": [510]}
    folder = checkpoint.copy(data / "ckpt-31b" / "target", tmp_path / "c", files={"generation_config.json": generation})
    with convert.plan(folder) as plan:
        plan.write(tmp_path / "a.gguf")
    tokenizer = pymtp.Tokenizer(tmp_path / "a.gguf")
    assert tokenizer.is_eog(300) and tokenizer.is_eog(1) and not tokenizer.is_eog(301)
    with File(tmp_path / "a.gguf") as file:
        assert file.value("tokenizer.ggml.suppress_tokens") == [510]


# ---- memory ----

def test_memory_is_bounded(tmp_path, data):
    """Converting grows a process by less than one tensor has bytes, of a checkpoint that holds three such: memory holds slices."""
    ff, width = 1 << 21, 32
    size = 2 * ff * width
    mlp = {f"model.layers.0.mlp.{name}_proj.weight": shape for name, shape in (("gate", [ff, width]), ("up", [ff, width]), ("down", [width, ff]))}
    one_layer = {"num_hidden_layers": 1, "num_kv_shared_layers": 1, "layer_types": ["full_attention"], "intermediate_size": ff,
                 "per_layer_config": {"0": {"head_dim": 32, "num_key_value_heads": 2}}}
    folder = checkpoint.copy(data / "ckpt-31b" / "drafter", tmp_path / "c", config={f"text_config.{k}": v for k, v in one_layer.items()})
    whole = checkpoint.read(folder / "model.safetensors")
    last = {name.replace("layers.3", "layers.0"): t for name, t in whole.items() if "layers.3." in name}
    tensors = {name: t for name, t in (whole | last).items() if not re.search(r"layers\.[123]\.", name) and name not in mlp}
    header, end = checkpoint.header_of(tensors), sum(len(t[2]) for t in tensors.values())
    for name, shape in mlp.items():
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    checkpoint.write(folder / "model.safetensors", tensors, header)
    with open(folder / "model.safetensors", "ab") as f:
        f.truncate(f.tell() + 3 * size)
    program = f"""
import resource
from pymtp import convert
peak = lambda: 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with convert.plan({str(folder)!r}, "Q8_0") as plan:
    before = peak()
    plan.write({str(tmp_path / 'out.gguf')!r})
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.gguf").stat().st_size > 3 * size * 34 // 64
    assert int(done.stdout) < size
