"""Checkpoints that must be refused: one line that names the file and the key or tensor, and no file left behind."""
import json
import os
import subprocess
import sys

import numpy as np
import pytest

import checkpoint
import pymtp
from pymtp import convert
from pymtp.convert import files

NORM = "model.norm.weight"
NAN = float("nan")


def refused(folder, error, text):
    with pytest.raises(error) as caught:
        with convert.plan(folder, "F32") as plan:
            plan.write(folder.parent / "out.gguf")
    message = str(caught.value)
    assert text in message and "\n" not in message
    assert not list(folder.parent.glob("*.gguf")) and not list(folder.parent.glob(".*"))


# ---- configuration, tokenizer, tensors that do not fit ----

F, U = pymtp.errors.FormatError, pymtp.errors.UnsupportedError
VOCAB = "tokenizer.json: key 'model.vocab': "
CASES = {
    "architecture": (U, "key 'architectures': expected Gemma4ForConditionalGeneration or", dict(config={"architectures": ["LlamaForCausalLM"]})),
    "no architecture": (F, "key 'architectures': expected a list with one name, found none", dict(config={"architectures": None})),
    "quantized": (U, "key 'quantization_config'", dict(config={"quantization_config": {"bits": 4}})),
    "activation": (U, "key 'hidden_activation': expected gelu_pytorch_tanh, found \"silu\"", dict(config={"hidden_activation": "silu"})),
    "no text": (F, "key 'hidden_activation': expected text, found \"\\ud800\"", dict(config={"hidden_activation": "\ud800"})),
    "bias": (U, "key 'attention_bias': expected false, found true", dict(config={"attention_bias": True})),
    "bidirectional": (U, "key 'use_bidirectional_attention'", dict(config={"use_bidirectional_attention": "all"})),
    "no width": (F, "key 'hidden_size': expected an integer in 1..2147483647, found none", dict(config={"hidden_size": None})),
    "width": (F, "key 'hidden_size': expected an integer in 1..2147483647, found -1", dict(config={"hidden_size": -1})),
    "width of text": (F, "key 'hidden_size': expected an integer in 1..2147483647, found \"64\"", dict(config={"hidden_size": "64"})),
    "layers": (F, "key 'num_hidden_layers': expected an integer in 1..1024", dict(config={"num_hidden_layers": 10**9})),
    "epsilon": (F, "key 'rms_norm_eps': expected a number of 32 bits", dict(config={"rms_norm_eps": 1e300})),
    "not a number": (F, "key 'final_logit_softcapping': expected a number of 32 bits, found NaN", dict(config={"final_logit_softcapping": NAN})),
    "layer types": (F, "key 'layer_types': expected 10 times", dict(config={"layer_types": ["full_attention"]})),
    "rotation": (U, "key 'rope_parameters.full_attention.rope_type': expected proportional, found \"yarn\"",
                 dict(config={"rope_parameters.full_attention.rope_type": "yarn"})),
    "rotation factor": (U, "key 'rope_parameters.full_attention.factor': expected 1, found 8", dict(config={"rope_parameters.full_attention.factor": 8})),
    "rotated part": (F, "partial_rotary_factor': expected a number above 0 and at most 1, found 2",
                     dict(config={"rope_parameters.full_attention.partial_rotary_factor": 2})),
    "layer sizes": (U, "key 'per_layer_config': expected the same head_dim for all layers of full_attention",
                    dict(config={"per_layer_config.4": {"head_dim": 64}})),
    "sliding layer sizes": (U, "key 'per_layer_config.0': expected nothing for a layer of sliding_attention", dict(config={"per_layer_config.0": {"head_dim": 64}})),
    "missing": (F, f"tensor '{NORM}': missing from the checkpoint, expected [64]", dict(tensors={NORM: None})),
    "shape": (F, f"tensor '{NORM}': expected [64] by config.json, found [2, 32]", dict(tensors={NORM: lambda t: (t[0], [2, 32], t[2])})),
    "value": (pymtp.ArgumentError, f"tensor '{NORM}': row 0, column 1: ", dict(
        tensors={NORM: lambda t: ("F32", [64], np.array([1, NAN] + [1] * 62, "<f4").tobytes())})),
    "integers": (F, f"tensor '{NORM}': expected F32, F16 or BF16, found I32", dict(tensors={NORM: ("I32", [64], bytes(256))})),
    "unknown": (F, "tensor 'model.layers.0.self_attn.q_proj.bias': not expected by config.json",
                dict(tensors={"model.layers.0.self_attn.q_proj.bias": ("BF16", [1], bytes(2))})),
    "layers beyond": (F, "tensor 'model.layers.5.input_layernorm.weight': not expected by config.json, nor are 68 more", dict(
        config={"num_hidden_layers": 5, "layer_types": lambda v: v[:5], "per_layer_config": lambda v: {"4": v["4"]}})),
    "expert": (F, "key 'num_experts': expected an integer", dict(config={"enable_moe_block": True})),
    "tokenizer algorithm": (U, "tokenizer.json: key 'model.type': expected BPE, found \"Unigram\"", dict(tokenizer={"model.type": "Unigram"})),
    "normalizer": (U, "tokenizer.json: key 'normalizer': expected to replace spaces", dict(tokenizer={"normalizer": {"type": "NFKC"}})),
    "splitter": (U, "tokenizer.json: key 'pre_tokenizer'", dict(tokenizer={"pre_tokenizer": {"type": "ByteLevel"}})),
    "holes": (F, VOCAB + "expected each id in 0..511 once", dict(tokenizer={"model.vocab.the": 600})),
    "id twice": (F, VOCAB + "expected each id in", dict(tokenizer={"model.vocab.the": 400})),
    "more tokens than rows": (F, VOCAB + "expected at most 528 tokens, the rows of the embedding, found 600",
                              dict(tokenizer={"model.vocab": lambda v: v | {f"x{i}": i for i in range(512, 600)}})),
    "surrogate": (F, VOCAB + "token 512: expected text, found a lone surrogate", dict(tokenizer={"model.vocab": lambda v: v | {"\ud800": 512}})),
    "added token": (F, "key 'added_tokens': expected token '<bos>' at its place", dict(tokenizer={"added_tokens": lambda v: [v[2] | {"id": 9}]})),
    "added tokens of one id": (F, "key 'added_tokens': expected token '<two>' at its place in the vocabulary, found it at 512", dict(
        tokenizer={"added_tokens": lambda v: v + [{"content": piece, "id": 512, "special": False} for piece in ("<one>", "<two>")]})),
    "stripping token": (U, "token '<bos>': expected one without spaces", dict(tokenizer={"added_tokens": lambda v: [v[2] | {"lstrip": True}]})),
    "merge": (F, "key 'model.merges': merge 0: expected two parts, found [\"a\"]", dict(tokenizer={"model.merges": [["a"]]})),
    "merge of no token": (F, "key 'model.merges': merge 0: expected tokens, found \"qqqq\"", dict(tokenizer={"model.merges": [["qqqq", "a"]]})),
    "merge of a newline": (U, "merge 0: expected newlines apart from other text", dict(
        tokenizer={"model.merges": [["\n", "a"]], "model.vocab": lambda v: v | {"\na": 512}})),
    "end token": (F, "generation_config.json: key 'eos_token_id': expected ids below 512", dict(files={"generation_config.json": {"eos_token_id": [700]}})),
    "end token just beyond": (F, "generation_config.json: key 'eos_token_id': expected ids below 512, found [1, 512]",
                              dict(files={"generation_config.json": {"eos_token_id": [1, 512]}})),
    "suppressed token just beyond": (F, "generation_config.json: key 'suppress_tokens': expected ids below 512, found [512]",
                                     dict(files={"generation_config.json": {"suppress_tokens": [512]}})),
    "template": (F, "tokenizer_config.json: key 'chat_template': expected text", dict(
        files={"chat_template.jinja": None, "tokenizer_config.json": {"chat_template": "\ud800"}})),
    "start token": (F, "tokenizer_config.json: key 'bos_token': expected a token of tokenizer.json", dict(files={"tokenizer_config.json": {"bos_token": "<s>"}})),
    "temperature": (F, "generation_config.json: key 'temperature'", dict(files={"generation_config.json": {"temperature": "hot"}})),
    "no JSON": (F, "config.json: expected JSON", dict(files={"config.json": "{"})),
    "no object": (F, "config.json: expected a JSON object, found list", dict(files={"config.json": "[]"})),
    "deep": (F, "config.json: expected JSON", dict(files={"config.json": "[" * 100000})),
    "not UTF-8": (F, "config.json: expected UTF-8, found byte 0xff at 0", dict(files={"config.json": b"\xff"})),
    "key twice": (F, "config.json: key 'a': found twice", dict(files={"config.json": '{"a": 1, "a": 2}'})),
    "no tokenizer": (pymtp.errors.ReadError, "tokenizer.json: No such file", dict(files={"tokenizer.json": None})),
}


@pytest.mark.parametrize("case", CASES)
def test_refused(data, tmp_path, case):
    error, text, changes = CASES[case]
    refused(checkpoint.copy(data / "ckpt-31b" / "target", tmp_path / "c", **changes), error, text)


DRAFTER_CASES = {
    "own keys and values": (F, "key 'text_config.num_kv_shared_layers': expected 4", dict(config={"text_config.num_kv_shared_layers": 2})),
    "per-layer inputs": (F, "hidden_size_per_layer_input': expected 0 in a drafter", dict(
        config={"text_config.hidden_size_per_layer_input": 8, "text_config.vocab_size_per_layer_input": 512})),
    "experts": (F, "enable_moe_block': expected false in a drafter", dict(
        config={f"text_config.{key}": 2 for key in ("num_experts", "top_k_experts", "moe_intermediate_size")} | {"text_config.enable_moe_block": True})),
    "own head": (F, "key 'tie_word_embeddings': expected true in a drafter", dict(config={"tie_word_embeddings": False})),
    "target width": (F, "key 'backbone_hidden_size': expected an integer", dict(config={"backbone_hidden_size": None})),
    "clusters": (F, "key 'num_centroids': expected a divisor of the vocabulary of 512", dict(config={"num_centroids": 15})),
    "clusters used": (F, "key 'centroid_intermediate_top_k': expected an integer in 1..16", dict(config={"centroid_intermediate_top_k": 17})),
    "ordering": (F, "tensor 'masked_embedding.token_ordering': expected each of 0..511 once",
                 dict(tensors={"masked_embedding.token_ordering": lambda t: (t[0], t[1], bytes(len(t[2])))})),
    "ordering of floats": (F, "tensor 'masked_embedding.token_ordering': expected integers, found F32",
                           dict(tensors={"masked_embedding.token_ordering": ("F32", [512], bytes(2048))})),
    "centroids": (F, "tensor 'masked_embedding.centroids.weight': missing", dict(tensors={"masked_embedding.centroids.weight": None})),
    "fewer tokens than ordered": (U, "without centroids (--no-centroids) it converts", dict(
        tokenizer={"model.vocab": lambda v: {p: i for p, i in v.items() if i < 511}})),
}


@pytest.mark.parametrize("case", DRAFTER_CASES)
def test_drafter_refused(data, tmp_path, case):
    error, text, changes = DRAFTER_CASES[case]
    refused(checkpoint.copy(data / "ckpt-e2b" / "drafter", tmp_path / "c", **changes), error, text)


# ---- safetensors files ----

def entry(**fields):
    """A header whose tensor of 4 bytes at the start is wrong in some fields."""
    return {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | fields}


HEADERS = {
    "offsets": (F, "tensor 'a': data_offsets: expected 4 bytes of F32 [1], found [0, 3]", entry(data_offsets=[0, 3])),
    "backwards": (F, "tensor 'a': data_offsets: expected where the data begins and ends, found [4, 0]", entry(data_offsets=[4, 0])),
    "negative": (F, "tensor 'a': data_offsets", entry(data_offsets=[-4, 0])),
    "one offset": (F, "tensor 'a': data_offsets", entry(data_offsets=[0])),
    "size": (F, "tensor 'a': shape: expected a list of sizes, found [-1]", entry(shape=[-1])),
    "large": (F, "tensor 'a': shape: expected a list of sizes", entry(shape=[2**60])),
    "product": (F, "tensor 'a': data_offsets: expected", entry(shape=[2**40, 2**40])),
    "dimensions": (F, "tensor 'a': shape: expected a list of sizes, found [1, 1, 1, 1, 1, 1, 1, 1, 1]", entry(shape=[1] * 9)),
    "boolean size": (F, "tensor 'a': shape", entry(shape=[True])),
    "type": (U, "tensor 'a': dtype: expected F32, F16, BF16, I32, I64, found \"F8_E4M3\"", entry(dtype="F8_E4M3")),
    "no type": (F, "tensor 'a': dtype", entry(dtype=None)),
    "no entry": (F, "tensor 'a': header: expected an object, found 5", {"a": 5}),
    "overlap": (F, "tensor 'b': expected to begin at byte 4 of the data, where the one before ends, found 2",
                entry() | {"b": {"dtype": "F16", "shape": [1], "data_offsets": [2, 4]}}),
    "gap": (F, "tensor 'a': expected to begin at byte 0 of the data", entry(data_offsets=[4, 8])),
    "beyond": (F, "data: expected 12 bytes, found 8", entry() | {"b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}),
    "unused": (F, "data: expected 4 bytes, found 8", entry()),
    "no JSON": (F, "header: expected JSON", b"{]"),
    "not UTF-8": (F, "header: expected UTF-8", b"\xff\xff"),
    "key twice": (F, "header: key 'a': found twice", b'{"a": 1, "a": 2}'),
}


@pytest.mark.parametrize("case", HEADERS)
def test_header_refused(data, tmp_path, case):
    error, text, header = HEADERS[case]
    folder = checkpoint.copy(data / "ckpt-31b" / "drafter", tmp_path / "c")
    checkpoint.write(folder / "model.safetensors", {}, header, bytes(8))
    refused(folder, error, text)


@pytest.mark.parametrize("content, text", [(b"", "header: expected at most 0 bytes"), (b"\x01\0\0", "header"), (b"\xff" * 8 + b"{}", "header: expected at most 2 bytes"),
                                           ((1 << 40).to_bytes(8, "little") + b"{}", "found 1099511627776")])
def test_header_length_refused(data, tmp_path, content, text):
    folder = checkpoint.copy(data / "ckpt-31b" / "drafter", tmp_path / "c", files={"model.safetensors": content})
    refused(folder, F, text)


def test_cut_file(data, tmp_path):
    folder = checkpoint.copy(data / "ckpt-31b" / "drafter", tmp_path / "c")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    refused(folder, F, "model.safetensors: data: expected")


def test_file_that_shrinks(data, tmp_path):
    """After it was checked: an error, and nothing under the final name."""
    folder = checkpoint.copy(data / "ckpt-31b" / "drafter", tmp_path / "c")
    with convert.plan(folder, "F32") as plan:
        with open(folder / "model.safetensors", "r+b") as f:
            f.truncate(20000)
        with pytest.raises(pymtp.errors.ReadError, match="the file ends within it"):
            plan.write(tmp_path / "out.gguf")
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


INDEXES = {
    "no map": (F, "key 'weight_map': expected the files", {"weight_map": {}}),
    "outside": (F, "tensor 'a': expected the name of a file in the folder, found \"../x\"", {"weight_map": {"a": "../x"}}),
    "no shard": (pymtp.errors.ReadError, "x.safetensors: No such file", {"weight_map": {"a": "x.safetensors"}}),
    "not in its shard": (F, "tensor 'a': in the index, but not in the file", {"weight_map": {"a": "one.safetensors"}}),
}


NO_FILE_NAMES = ["", ".", "..", "a/", "/", "a\0b", "\ud800", "\x1b[31m", "x" * 256, "\U0001f600" * 64, 5, None]


@pytest.mark.parametrize("name", NO_FILE_NAMES, ids=lambda name: ascii(name)[:12])
def test_index_names_no_file(data, tmp_path, name):
    folder = checkpoint.copy(data / "ckpt-31b" / "drafter", tmp_path / "c", files={"model.safetensors": None,
                                                                                   "model.safetensors.index.json": {"weight_map": {"a": name}}})
    refused(folder, F, f"model.safetensors.index.json: tensor 'a': expected the name of a file in the folder, found {json.dumps(name)[:80]}")


def test_index_names_a_folder(data, tmp_path):
    folder = checkpoint.copy(data / "ckpt-31b" / "drafter", tmp_path / "c", files={"model.safetensors": None,
                                                                                   "model.safetensors.index.json": {"weight_map": {"a": "sub"}}})
    (folder / "sub").mkdir()
    refused(folder, pymtp.errors.ReadError, f"{folder / 'sub'}: not a regular file")


@pytest.mark.parametrize("case", INDEXES)
def test_index_refused(data, tmp_path, case):
    error, text, index = INDEXES[case]
    folder = checkpoint.copy(data / "ckpt-31b" / "drafter", tmp_path / "c", files={"model.safetensors.index.json": index})
    (folder / "model.safetensors").rename(folder / "one.safetensors")
    refused(folder, error, text)


def test_shard_with_more_than_the_index_says(data, tmp_path):
    folder = checkpoint.copy(data / "ckpt-31b" / "drafter", tmp_path / "c")
    names = list(checkpoint.read(folder / "model.safetensors"))
    (folder / "model.safetensors").rename(folder / "one.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {n: "one.safetensors" for n in names[1:]}}))
    refused(folder, F, f"tensor '{names[0]}': in the file, but not there in the index")


def test_no_checkpoint(data, tmp_path):
    folder = checkpoint.copy(data / "ckpt-31b" / "drafter", tmp_path / "c", files={"model.safetensors": None})
    refused(folder, pymtp.errors.ReadError, "expected model.safetensors or model.safetensors.index.json, found neither")
    refused(tmp_path / "nothing", pymtp.errors.ReadError, "nothing: expected the folder of a checkpoint")


# ---- what is no regular file ----

def pipe(path):
    """Opening it to read waits for a writer."""
    os.mkfifo(path)


def endless(path):
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [pipe, endless])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "one.safetensors"])
def test_no_regular_file(data, tmp_path, name, make):
    folder = checkpoint.copy(data / "ckpt-31b" / "drafter", tmp_path / "c", files={
        "model.safetensors": None, "model.safetensors.index.json": {"weight_map": {"a": "one.safetensors"}}})
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    refused(folder, pymtp.errors.ReadError, f"{folder / name}: not a regular file")


def test_large_json(data, tmp_path):
    """Refused by its size before it is read."""
    folder = checkpoint.copy(data / "ckpt-31b" / "drafter", tmp_path / "c")
    os.truncate(folder / "config.json", files.MAX_BYTES + 1)
    refused(folder, F, f"config.json: expected at most {files.MAX_BYTES} bytes, found {files.MAX_BYTES + 1}")


# ---- names that are not for a terminal ----

LONG = "\x1b[31m" + "a" * 1_000_000


@pytest.mark.parametrize("case", ["no fields", "no object", "gap", "twice", "unknown"])
def test_names_are_shown_short_and_escaped(data, tmp_path, case):
    folder = checkpoint.copy(data / "ckpt-31b" / "drafter", tmp_path / "c")
    path = folder / "model.safetensors"
    tensor = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    headers = {"no fields": {LONG: {}}, "no object": {LONG: 5}, "gap": {LONG: tensor | {"data_offsets": [4, 8]}},
               "twice": "{%s: 1, %s: 1}".replace("%s", json.dumps(LONG)).encode()}
    if case == "unknown":
        checkpoint.write(path, checkpoint.read(path) | {LONG: ("F32", [1], bytes(4))})
    else:
        checkpoint.write(path, {}, headers[case], bytes(8))
    refused_shortly(folder)


@pytest.mark.parametrize("weights", [{LONG: 5}, {LONG: "one.safetensors"}])
def test_names_of_an_index_are_shown_short_and_escaped(data, tmp_path, weights):
    folder = checkpoint.copy(data / "ckpt-31b" / "drafter", tmp_path / "c", files={"model.safetensors.index.json": {"weight_map": weights}})
    (folder / "model.safetensors").rename(folder / "one.safetensors")
    refused_shortly(folder)


def test_pieces_are_shown_short_and_escaped(data, tmp_path):
    for name, change in (("place", {"id": 3}), ("stripping", {"id": 512, "lstrip": True})):
        token = {"content": LONG, "special": True} | change
        refused_shortly(checkpoint.copy(data / "ckpt-31b" / "drafter", tmp_path / name, tokenizer={"added_tokens": [token]}))


def refused_shortly(folder):
    with pytest.raises(pymtp.Error) as caught:
        convert.plan(folder)
    message = str(caught.value)
    assert message.isprintable() and len(message) < len(str(folder)) + 400, message[:1000]
    assert r"'\x1b[31maaaa" in message


# ---- the command ----

def command(*args):
    return subprocess.run([sys.executable, "-m", "pymtp", "quantize", "convert", *map(str, args)], capture_output=True, text=True)


def test_command(data, tmp_path):
    folder, out = data / "ckpt-e2b" / "drafter", tmp_path / "out.gguf"
    done = command(folder, out, "--dry-run")
    assert done.returncode == 0 and not out.exists()
    assert "masked_embd_ordering" in done.stdout and "F32 -> BF16" in done.stdout and "would be" in done.stdout.splitlines()[-1]
    done = command(folder, out, "--type", "f32", "--tensor", "token_embd.weight=q8_0", "--no-centroids", "--json")
    report = json.loads(done.stdout)
    assert report["bytes_to"] == out.stat().st_size and report["written"] and done.stderr == ""
    types = {t["name"]: t["to"] for t in report["tensors"]}
    assert types["token_embd.weight"] == "Q8_0" and types["blk.0.attn_q.weight"] == "F32" and "masked_embd_ordering" not in types
    again = command(folder, out)
    assert (again.returncode, again.stdout) == (1, "") and again.stderr == f"pymtp: {out}: exists already\n"
    assert command(folder, out, "--force").returncode == 0
    wrong = command(folder, out, "--type", "Q7")
    assert wrong.returncode == 2 and "expected one of F32, F16" in wrong.stderr and len(wrong.stderr.splitlines()) == 1
    missing = command(tmp_path / "no", out)
    assert missing.returncode == 1 and missing.stderr == f"pymtp: {tmp_path / 'no'}: expected the folder of a checkpoint\n"
