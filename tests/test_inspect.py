"""pymtp quantize inspect: what it says a token reads is what a pass over one row multiplies, by the engine's own counters."""
import json
import re

import numpy as np
import pytest

import pymtp
from pymtp import costs
from test_cli import pymtp_cli, refused

NOT_PRODUCTS = ("_norm", "post_norm", "layer_output_scale", "rope_freqs", ".scale", "per_layer_token_embd")


def table(path):
    with pymtp.File(path) as f:
        return {t["name"]: t for t in costs.table(f)}


def multiplied(tensors):
    """The part of per_token that products read: without norms, and rows of tables."""
    out = 0
    for name, t in tensors.items():
        if len(t["dims"]) > 1 and not any(part in name for part in NOT_PRODUCTS):
            row = t["bytes"] // t["dims"][1]
            out += t["per_token"] - (row if name == "token_embd.weight" else 0)
    return out


def passes(path, drafter=None):
    """Weight bytes of one row of the target, and of one draft."""
    with pymtp.Model(path, drafter, threads=1) as model, model.session() as s:
        s.forward([2, 300, 301])
        first = model.counters.weight_bytes
        s.forward([302])
        second = model.counters.weight_bytes
        if drafter:
            s.draft(1, 303)
        return second - first, model.counters.weight_bytes - second


@pytest.mark.parametrize("variant, mix", [("ple", "Q4_K+Q6_K"), ("keqv", "Q4_0"), ("moe", "Q4_K+Q6_K"), ("moe", "Q8_0")])
def test_against_counters(small_models, variant, mix):
    target, drafter = small_models(variant, mix)
    one_row, one_draft = passes(target, drafter)
    assert multiplied(table(target)) == one_row
    mine = table(drafter)
    head = mine["token_embd.weight"]
    expected = sum(t["per_token"] for n, t in mine.items() if len(t["dims"]) > 1)
    assert expected == one_draft
    assert (head["per_token"] < head["bytes"]) == (variant == "ple")  # clusters


@pytest.mark.parametrize("name", ["tiny-e2b", "tiny-26b", "tiny-31b"])
def test_golden_models(data, name):
    assert multiplied(table(data / f"{name}.gguf")) == passes(data / f"{name}.gguf")[0]


def test_command(data, small_models):
    target, _ = small_models("moe", "Q4_K+Q6_K")
    out = json.loads(pymtp_cli("quantize", "inspect", target, "--json").stdout)
    assert out["bytes"] == sum(t["bytes"] for t in out["tensors"]) == sum(t["bytes"] for t in out["types"])
    assert out["per_token"] == sum(t["per_token"] for t in out["tensors"]) < out["bytes"] + 1000
    assert sum(t["share"] for t in out["tensors"]) == pytest.approx(1)
    experts = next(t for t in out["tensors"] if t["name"] == "blk.0.ffn_down_exps.weight")
    assert experts["per_token"] == experts["bytes"] * 4 // 16 and experts["type"] == "Q5_0"
    text = pymtp_cli("quantize", "inspect", target).stdout
    for part in ("blk.0.ffn_down_exps.weight", "16 x 256 x 96", "Q5_0", "bits a weight; a token reads"):
        assert part in text, part
    assert "blk.0" not in pymtp_cli("quantize", "inspect", target, "--by-type").stdout
    refused(pymtp_cli("quantize", "inspect", data / "none.gguf"), 1, "none.gguf")


def test_a_vocabulary_has_no_tensors(vocab_gguf):
    done = pymtp_cli("quantize", "inspect", vocab_gguf)
    assert done.returncode == 0 and "0 B" in done.stdout


@pytest.mark.parametrize("command", [("show",), ("quantize", "inspect")], ids=" ".join)
def test_names_of_a_file_do_not_command_the_terminal(tmp_path, command):
    """Escape sequences (here: a window's title), C1 and other control characters and broken UTF-8 in keys, values and names; names without end."""
    from gguf_build import Builder

    evil, long = "\x1b]0;owned\x07\x7f\x9b31m\r", "n" * 5000
    b = Builder().kv("general.architecture", "str", "gemma4").kv("k" + evil, "str", evil).kv(long, "str", long)
    path = b.tensor("t" + evil, [8]).tensor(long, [8]).write(tmp_path / "evil.gguf")
    done = pymtp_cli(*command, path)
    assert done.returncode == 0, done.stderr
    assert not re.search("[\0-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]", done.stdout) and "t\\x1b]0;owned\\x07\\x7f" in done.stdout
    assert "\n" + "n" * 200 + "..." in done.stdout.replace("\n  ", "\n") and "n" * 201 not in done.stdout


def test_odd_configuration(tmp_path):
    """Keys of the wrong type count as absent; nothing here needs a model that loads."""
    from gguf_build import Builder

    b = Builder().kv("general.architecture", "str", "gemma4").kv("gemma4.block_count", "str", "x").kv("gemma4.expert_count", "i32", -1)
    path = b.tensor("blk.0.ffn_down_exps.weight", [32, 4, 2]).tensor("v.patch.weight", [8, 8]).tensor("output.weight", [32, 5]).tensor(
        "token_embd.weight", [32, 5]).write(tmp_path / "odd.gguf")
    got = {n: t["per_token"] for n, t in table(path).items()}
    assert got == {"blk.0.ffn_down_exps.weight": 1024, "v.patch.weight": 0, "output.weight": 640, "token_embd.weight": 128}
    assert np.isfinite([t["share"] for t in table(path).values()]).all()
