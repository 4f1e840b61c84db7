"""Gemma 4 pairs of 15 to 30 KB each, small enough to be mutated byte by byte and kept in the tree.

  target(variant), drafter(variant) -> File   keys: name -> (kind, value), tensors: name -> (dims, type, bytes); kinds as in gguf_build
  File.builder(**options) -> gguf_build.Builder;  File.bytes()

variant  ple    per-layer embeddings, a layer that shares keys and values; drafter with a centroid head   (the structure of E2B)
         dense  global layers take their values from the keys, output of its own; dense drafter         (12B, 31B)
         moe    the same and experts                                                           (26B-A4B)

32 tokens, width 32, window 8. Matrices take the formats with blocks of 32 in turn, so that every file has nearly all of them.
Files are the same bytes on every call.
"""
import dataclasses
import pathlib
import zlib

import numpy as np
from gguf import GGMLQuantizationType as Type

import gguf_build
from make_models import encoded

D, WINDOW, CONTEXT, DIM, DIM_GLOBAL, HEADS, FF = 32, 8, 160, 16, 32, 2, 32
PIECES = ["<pad>", "<eos>", "<bos>", "<unk>", "\u2581", *"abcdefghijklmnopqrs", "<turn|>", "<|turn>", "<0x0A>", "<0xC3>", "<0xA9>", "ab", "\u2581a",
          "<|channel>"]
MERGES = ["a b", "\u2581 a"]
FORMATS = (Type.Q4_0, Type.Q8_0, Type.Q4_1, Type.Q5_0, Type.IQ4_NL, Type.Q5_1, Type.MXFP4)
VARIANTS = {  # sliding by layer, layers that share, KV heads sliding and global, width of per-layer inputs, experts (count, used, ff)
    "ple": dict(sliding=[True, False, True], shared=1, kv=(1, 1), ple=16, experts=None, centroids=True),
    "dense": dict(sliding=[True, False], shared=0, kv=(2, 1), ple=0, experts=None, centroids=False),
    "moe": dict(sliding=[True, False], shared=0, kv=(2, 1), ple=0, experts=(4, 2, 32), centroids=False),
}
CLUSTERS = 4


@dataclasses.dataclass
class File:
    arch: str
    keys: dict
    tensors: dict

    def key(self, name, kind, value):
        self.keys[f"{self.arch}.{name}"] = (kind, value)

    def matrix(self, name, *dims, type=None):
        """Row length first."""
        type = FORMATS[len(self.tensors) % len(FORMATS)] if type is None else type
        if dims[0] % gguf_build.BLOCKS[type][0]:
            type = Type.F16
        rng = np.random.default_rng(zlib.crc32(f"{self.arch} {name}".encode()))
        self.tensors[name] = (list(dims), int(type), encoded(rng, dims[::-1], type, dims[0] ** -0.5).tobytes())

    def vector(self, name, n, mean=1.0):
        rng = np.random.default_rng(zlib.crc32(f"{self.arch} {name}".encode()))
        self.tensors[name] = ([n], gguf_build.F32, (mean + 0.1 * rng.standard_normal(n)).astype(np.float32).tobytes())

    def builder(self, **options):
        b = gguf_build.Builder(**options)
        for name, (kind, value) in self.keys.items():
            b.kv(name, kind, value)
        for name, (dims, type, data) in self.tensors.items():
            b.tensor(name, dims, type, data)
        return b

    def bytes(self):
        return self.builder().build()


def common(arch, name, v, sliding, width, shared):
    """Keys that target and drafter have, and the rotation."""
    f = File(arch, {"general.architecture": ("str", arch), "general.name": ("str", name)}, {})
    for key, kind, value in (
        ("block_count", "u32", len(sliding)), ("context_length", "u32", CONTEXT), ("embedding_length", "u32", width),
        ("feed_forward_length", "u32", FF), ("attention.head_count", "u32", HEADS),
        ("attention.head_count_kv", "[u32]", [v["kv"][0] if s else v["kv"][1] for s in sliding]),
        ("attention.key_length", "u32", DIM_GLOBAL), ("attention.value_length", "u32", DIM_GLOBAL), ("attention.key_length_swa", "u32", DIM),
        ("attention.value_length_swa", "u32", DIM), ("attention.layer_norm_rms_epsilon", "f32", 1e-6), ("attention.sliding_window", "u32", WINDOW),
        ("attention.sliding_window_pattern", "[bool]", sliding), ("attention.shared_kv_layers", "u32", shared), ("rope.freq_base", "f32", 1e6),
        ("rope.freq_base_swa", "f32", 1e4), ("rope.dimension_count", "u32", DIM_GLOBAL), ("rope.dimension_count_swa", "u32", DIM),
    ):
        f.key(key, kind, value)
    turned = DIM_GLOBAL // 8
    f.tensors["rope_freqs.weight"] = ([DIM_GLOBAL // 2], gguf_build.F32, np.array([1.0] * turned + [1e30] * (DIM_GLOBAL // 2 - turned), np.float32).tobytes())
    return f


def layer(f, i, width, dim):
    """What a layer has in target and drafter. Returns the prefix of its names."""
    b = f"blk.{i}."
    for name in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
        f.vector(f"{b}{name}.weight", width)
    f.vector(b + "attn_q_norm.weight", dim)
    for name, columns, rows in (("attn_q", width, HEADS * dim), ("attn_output", HEADS * dim, width), ("ffn_gate", width, FF),
                                ("ffn_up", width, FF), ("ffn_down", FF, width)):
        f.matrix(f"{b}{name}.weight", columns, rows)
    f.vector(b + "layer_output_scale.weight", 1, 0.5)
    return b


def target(variant):
    v = VARIANTS[variant]
    f = common("gemma4", f"micro-{variant}", v, v["sliding"], D, v["shared"])
    f.key("final_logit_softcapping", "f32", 30.0)
    f.key("embedding_length_per_layer_input", "u32", v["ple"])
    f.keys |= {"general.sampling.temp": ("f32", 1.0), "general.sampling.top_k": ("i32", 64), "general.sampling.top_p": ("f32", 0.95),
               "tokenizer.ggml.model": ("str", "gemma4"), "tokenizer.ggml.tokens": ("[str]", PIECES), "tokenizer.ggml.merges": ("[str]", MERGES),
               "tokenizer.ggml.token_type": ("[i32]", [6 if p.startswith("<0x") else 1 for p in PIECES]),
               "tokenizer.ggml.bos_token_id": ("u32", 2), "tokenizer.ggml.eos_token_id": ("u32", 1),
               "tokenizer.ggml.eos_token_ids": ("[u32]", [1, PIECES.index("<turn|>")]), "tokenizer.ggml.unknown_token_id": ("u32", 3),
               "tokenizer.ggml.suppress_tokens": ("[u32]", [0])}
    f.matrix("token_embd.weight", D, len(PIECES))
    if not v["ple"]:
        f.matrix("output.weight", D, len(PIECES))
    f.vector("output_norm.weight", D, 3.0)
    if v["ple"]:
        every = len(v["sliding"]) * v["ple"]
        f.matrix("per_layer_token_embd.weight", every, len(PIECES))
        f.matrix("per_layer_model_proj.weight", D, every)
        f.vector("per_layer_proj_norm.weight", v["ple"])
    if v["experts"]:
        for name, value in zip(("expert_count", "expert_used_count", "expert_feed_forward_length"), v["experts"]):
            f.key(name, "u32", value)
    for i, sliding in enumerate(v["sliding"]):
        dim, kv = (DIM, v["kv"][0]) if sliding else (DIM_GLOBAL, v["kv"][1])
        b = layer(f, i, D, dim)
        if i < len(v["sliding"]) - v["shared"]:
            f.matrix(b + "attn_k.weight", D, kv * dim)
            f.vector(b + "attn_k_norm.weight", dim)
            if sliding or v["ple"]:
                f.matrix(b + "attn_v.weight", D, kv * dim)
        if v["ple"]:
            f.matrix(b + "inp_gate.weight", D, v["ple"])
            f.matrix(b + "proj.weight", v["ple"], D)
            f.vector(b + "post_norm.weight", D)
        if v["experts"]:
            n, _, ff = v["experts"]
            f.matrix(b + "ffn_gate_inp.weight", D, n, type=Type.F32)
            f.vector(b + "ffn_gate_inp.scale", D)
            for name in ("pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2"):
                f.vector(f"{b}{name}.weight", D)
            f.matrix(b + "ffn_gate_up_exps.weight", D, 2 * ff, n, type=Type.Q4_0)
            f.matrix(b + "ffn_down_exps.weight", ff, D, n, type=Type.Q4_0)
            f.vector(b + "ffn_down_exps.scale", n)
    return f


def drafter(variant):
    v = VARIANTS[variant]
    f = common("gemma4-assistant", f"micro-{variant}-drafter", v, [True, False], D, 2)
    f.key("embedding_length_out", "u32", D)
    f.key("nextn_predict_layers", "u32", 2)
    f.matrix("token_embd.weight", D, len(PIECES))
    f.vector("output_norm.weight", D)
    f.matrix("nextn.pre_projection.weight", 2 * D, D)
    f.matrix("nextn.post_projection.weight", D, D)
    if v["centroids"]:
        f.key("n_centroids", "u32", CLUSTERS)
        f.key("centroid_top_k", "u32", 2)
        f.key("use_ordered_embeddings", "bool", True)
        f.matrix("masked_embd_centroids.weight", D, CLUSTERS, type=Type.F16)
        ordering = np.random.default_rng(0).permutation(len(PIECES)).astype(np.int32)
        f.tensors["masked_embd_ordering"] = ([len(PIECES)], gguf_build.I32, ordering.tobytes())
    for i in range(2):
        layer(f, i, D, DIM_GLOBAL if i else DIM)
    return f


def write_seeds(corpus):
    """The seeds of the fuzz targets model (a target) and pair (the number of a target, then a drafter)."""
    for i, variant in enumerate(VARIANTS):
        (corpus / "model" / variant).write_bytes(target(variant).bytes())
        (corpus / "pair" / variant).write_bytes(bytes([i]) + drafter(variant).bytes())


if __name__ == "__main__":
    write_seeds(pathlib.Path(__file__).resolve().parent / "fuzz" / "corpus")
