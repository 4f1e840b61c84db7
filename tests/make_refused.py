"""Writes tests/fuzz/refused: files that must be refused, one for each way in which GGUF readers have been broken or a file can lie.

  python make_refused.py    writes refused/target/NAME and refused/drafter/NAME (drafters for the target micro_models "ple")

What each must say stands in refused/messages.json, which this script does not touch. test_refused.py compares.
"""
import dataclasses
import pathlib
import struct

import numpy as np

import gguf_build as G
import micro_models
from gguf_build import Builder

REFUSED = pathlib.Path(__file__).resolve().parent / "fuzz" / "refused"
NAN, INF = float("nan"), float("inf")


def some(**overrides):
    return Builder(**overrides).kv("general.name", "str", "x").tensor("t", [8])


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return Builder().kv("k", "[" * depth + "u8" + "]" * depth, value)


def malformed():
    """Headers, metadata and directories that no reader may follow."""
    yield "empty", b""
    yield "not-gguf", b"PK\x03\x04" + bytes(60)
    yield "version-1", some(version=1)
    yield "version-4", some(version=4)
    yield "big-endian", some(version=3 << 24)
    yield "header-cut", some().build()[:20]
    yield "tensors-2-64-1", some(n_tensors=2**64 - 1)
    yield "keys-2-63", some(n_kv=2**63)
    yield "name-length-2-64-8", Builder().kv("k", "str", "x", key_bytes=2**64 - 8).tensor("t", [8])
    yield "name-empty", Builder().kv("", "u8", 1).tensor("t", [8])
    yield "name-65536", Builder().kv("k" * 65536, "u8", 1)
    yield "name-nul", Builder().kv("k\0x", "u8", 1)
    yield "key-twice", Builder().kv("k", "u8", 1).kv("k", "str", "")
    yield "string-length-2-63", Builder().kv("k", "str", "x", length=2**63).tensor("t", [8])
    yield "array-count-wraps", Builder().kv("k", "[u64]", [], count=2**61).tensor("t", [8])
    yield "strings-bomb", Builder().kv("k", "[str]", [], count=2**40).tensor("t", [8])
    yield "type-13", Builder().kv("k", "u8", 1, type_number=13)
    yield "element-type-2-31", Builder().kv("k", "[u8]", [1], element_type=2**31)
    yield "bool-2", Builder().kv("k", "bool", 2)
    yield "nested-9", nested(9)
    yield "nested-100000", Builder().raw(G.string("k") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 10000)
    yield "nested-count-wraps", Builder().raw(G.string("k") + struct.pack("<IIQ", 9, 9, 1) + struct.pack("<IQ", 10, 2**61)).tensor("t", [8])
    for n in (0, 3, 2**32 - 1):
        yield f"alignment-{n}", Builder().kv("general.alignment", "u32", n).tensor("t", [8])
    yield "alignment-text", Builder().kv("general.alignment", "str", "32").tensor("t", [8])
    yield "alignment-2-31", Builder().kv("general.alignment", "u32", 2**31).tensor("t", [8])
    yield "dimensions-0", Builder().tensor("t", [], data=bytes(64))
    yield "dimensions-5", Builder().tensor("t", [2] * 5)
    yield "dimension-zero", Builder().tensor("t", [8, 0], data=bytes(64))
    yield "elements-wrap", Builder().tensor("t", [2**32, 2**32], data=bytes(64))
    yield "elements-wrap-to-64", Builder().tensor("t", [2**62 + 16, 4], data=bytes(64))
    yield "bytes-wrap", Builder().tensor("t", [2**62], G.F32, data=bytes(64))
    yield "row-no-multiple", Builder().tensor("t", [33], G.Q8_0, data=bytes(64))
    yield "tensor-beyond-end", Builder().tensor("t", [2**20], data=bytes(32))
    yield "offset-beyond-end", Builder().tensor("t", [8], offset=2**40)
    yield "offset-wraps", Builder().tensor("t", [8], offset=2**64 - 32)
    yield "offset-unaligned", Builder().tensor("t", [8], offset=8)
    yield "tensors-overlap", Builder().tensor("a", [64]).tensor("b", [8], offset=128)
    yield "tensor-twice", Builder().tensor("t", [8]).tensor("t", [8])
    yield "tensor-name-nul", Builder().tensor("t\0", [8])
    yield "split-alone", Builder().kv("split.count", "u16", 2).kv("split.no", "u16", 0).tensor("t", [8])


def changed(file, keys=None, tensors=None, drop=()):
    """A copy with other keys (those that start with a dot belong to the architecture; None removes) and tensors."""
    out = dataclasses.replace(file, keys=dict(file.keys), tensors={n: t for n, t in file.tensors.items() if n not in drop})
    for name, value in (keys or {}).items():
        name = file.arch + name if name.startswith(".") else name
        out.keys.pop(name, None)
        if value is not None:
            out.keys[name] = value
    out.tensors |= tensors or {}
    return out


def floats(*values):
    return [len(values)], G.F32, np.array(values, np.float32).tobytes()


def targets():
    """Well-formed files that are no Gemma 4, or whose parts disagree."""
    dense, ple, moe = (micro_models.target(v) for v in ("dense", "ple", "moe"))
    tokens, tokenizer = micro_models.PIECES, "tokenizer.ggml."
    for name, key, value in (
        ("architecture-llama", "general.architecture", ("str", "llama")), ("architecture-number", "general.architecture", ("u32", 4)),
        ("architecture-missing", "general.architecture", None), ("layers-0", ".block_count", ("u32", 0)), ("layers-2-31", ".block_count", ("u32", 2**31)),
        ("context-0", ".context_length", ("u32", 0)), ("width-missing", ".embedding_length", None),
        ("width-64", ".embedding_length", ("u32", 64)), ("width-2-64-1", ".embedding_length", ("u64", 2**64 - 1)), ("heads-0", ".attention.head_count", ("u32", 0)),
        ("kv-heads-0", ".attention.head_count_kv", ("u32", 0)), ("head-size-24", ".attention.key_length", ("u32", 24)),
        ("values-of-another-size", ".attention.value_length", ("u32", 16)), ("epsilon-nan", ".attention.layer_norm_rms_epsilon", ("f32", NAN)),
        ("epsilon-0", ".attention.layer_norm_rms_epsilon", ("f32", 0.0)), ("softcap-inf", ".final_logit_softcapping", ("f32", INF)),
        ("rope-base-0", ".rope.freq_base", ("f32", 0.0)), ("rope-yarn", ".rope.scaling.type", ("str", "yarn")), ("window-0", ".attention.sliding_window", ("u32", 0)),
        ("pattern-short", ".attention.sliding_window_pattern", ("[bool]", [True])), ("all-layers-share", ".attention.shared_kv_layers", ("u32", 2)),
        ("ffn-0", ".feed_forward_length", ("[u32]", [32, 0])), ("tokenizer-gpt2", tokenizer + "model", ("str", "gpt2")), ("tokens-missing", tokenizer + "tokens", None),
        ("tokens-numbers", tokenizer + "tokens", ("[u32]", [1] * 32)), ("tokens-short", tokenizer + "tokens", ("[str]", tokens[:-1])),
        ("tokens-repeated", tokenizer + "tokens", ("[str]", [*tokens[:-1], "a"])), ("token-types-short", tokenizer + "token_type", ("[i32]", [1] * 31)),
        ("token-type-7", tokenizer + "token_type", ("[i32]", [7] * 32)), ("bos-32", tokenizer + "bos_token_id", ("u32", 32)),
        ("bos-negative", tokenizer + "bos_token_id", ("i32", -1)), ("merge-without-gap", tokenizer + "merges", ("[str]", ["ab"])),
        ("merge-of-nothing", tokenizer + "merges", ("[str]", ["a zz"])), ("suppressed-2-63", tokenizer + "suppress_tokens", ("[u64]", [2**63])),
    ):
        yield name, changed(dense, {key: value}).bytes()
    three = {".block_count": ("u32", 3), ".attention.sliding_window_pattern": ("u32", 2), ".attention.head_count_kv": ("[u32]", [2, 1, 2])}
    yield "layers-3", changed(dense, three).bytes()
    yield "experts-0", changed(moe, {".expert_count": ("u32", 0)}).bytes()
    yield "experts-used-5", changed(moe, {".expert_used_count": ("u32", 5)}).bytes()
    yield "per-layer-width-0", changed(ple, {".embedding_length_per_layer_input": ("u32", 0)}).bytes()
    yield "tensor-missing", changed(dense, drop=("blk.1.ffn_up.weight",)).bytes()
    dims, _, data = dense.tensors["blk.0.attn_q.weight"]
    yield "tensor-iq2", changed(dense, tensors={"blk.0.attn_q.weight": (dims, 16, data)}).bytes()
    yield "tensor-type-99", changed(dense, tensors={"blk.0.attn_q.weight": (dims, 99, data)}).bytes()
    yield "norm-integers", changed(dense, tensors={"output_norm.weight": ([32], G.I32, bytes(128))}).bytes()
    yield "bias-beside-matrix", changed(dense, tensors={"blk.0.attn_q.bias": floats(*[0.0] * 32)}).bytes()
    yield "rope-factor-nan", changed(dense, tensors={"rope_freqs.weight": floats(*[NAN] * 16)}).bytes()
    yield "drafter-as-target", micro_models.drafter("dense").bytes()


def drafters():
    """For the target "ple"."""
    good = micro_models.drafter("ple")
    ordering = np.frombuffer(good.tensors["masked_embd_ordering"][2], np.int32)

    def ordered(at, value):
        out = ordering.copy()
        out[at] = value
        return {"masked_embd_ordering": ([32], G.I32, out.tobytes())}

    for name, key, value in (
        ("another-width", ".embedding_length_out", ("u32", 64)), ("another-window", ".attention.sliding_window", ("u32", 9)),
        ("another-head-size", ".attention.key_length", ("u32", 64)), ("other-kv-heads", ".attention.head_count_kv", ("u32", 2)),
        ("another-architecture", ".requires_target_arch", ("str", "gemma5")), ("layers-0", ".block_count", ("u32", 0)),
        ("clusters-searched-0", ".centroid_top_k", ("u32", 0)), ("another-vocabulary", "tokenizer.ggml.tokens", ("[str]", micro_models.PIECES[::-1])),
        ("vocabulary-numbers", "tokenizer.ggml.tokens", ("[u32]", [0] * 32)),
    ):
        yield name, changed(good, {key: value}).bytes()
    yield "target-as-drafter", micro_models.target("ple").bytes()
    yield "of-another-size", micro_models.drafter("moe").bytes()
    yield "ordering-repeats", changed(good, tensors=ordered(7, ordering[0])).bytes()
    yield "ordering-32", changed(good, tensors=ordered(9, 32)).bytes()
    yield "ordering-negative", changed(good, tensors=ordered(0, -(2**31))).bytes()
    yield "ordering-floats", changed(good, tensors={"masked_embd_ordering": floats(*range(32))}).bytes()
    yield "clusters-5", changed(good, tensors={"masked_embd_centroids.weight": ([32, 5], G.F16, bytes(320))}).bytes()
    yield "projection-missing", changed(good, drop=("nextn.pre_projection.weight",)).bytes()
    yield "few-tokens", changed(good, tensors={"token_embd.weight": ([32, 31], G.F16, bytes(32 * 31 * 2))}).bytes()


def main():
    for role, files in (("target", [*malformed(), *targets()]), ("drafter", drafters())):
        (REFUSED / role).mkdir(parents=True, exist_ok=True)
        for name, content in files:
            (REFUSED / role / name).write_bytes(content if isinstance(content, bytes) else content.build())


if __name__ == "__main__":
    main()
