"""Small Gemma 4 targets with matching drafters as GGUF, in any mix of formats, from a seed.

  build(variant, mix, folder, seed=0) -> (target path, drafter path)

variant  ple    PLE, shared KV, double-wide MLP; centroid drafter             (the structure of E2B)
         keqv   global layers without attn_v and with fewer KV heads; dense drafter  (12B, 31B)
         moe    the same and experts with expert_ff = 96, where K-quants do not fit   (26B-A4B)
mix      "Q4_0", or "Q4_K+Q6_K": the second is for token_embd, the PLE table, attn_v and ffn_down. Rows that are no multiple
         of the format's block fall back as published files do. Norms, router and scales are F32, per_layer_model_proj BF16.

D = 256, window 32 (more than 128 tokens wrap the rings), vocabulary and tokenizer of tests/data/tiny-e2b.gguf. Formats that the gguf
package can quantise hold normally distributed weights; the others hold random valid blocks, their scales chosen so that
the spread is the same. Scales are such that greedy text does not collapse: the negative layer_output_scale of layer 0 makes the
embedding count against itself (a tied head would otherwise repeat the last token; keqv has an output.weight of its own),
and the output norm makes logits of standard deviation about 3.

Run it to write one pair:  python make_models.py VARIANT MIX FOLDER [SEED]
"""
import functools
import pathlib
import sys
import zlib

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader, GGUFValueType, GGUFWriter
from gguf.quants import dequantize, quantize

TOKENIZER = pathlib.Path(__file__).resolve().parent / "data" / "tiny-e2b.gguf"
MIXES = ("Q4_0", "Q8_0", "Q4_K+Q6_K", "Q5_K+IQ4_NL", "MXFP4")
VOCAB, D, WINDOW, CONTEXT = 1280, 256, 32, 2048
CLUSTERS, TOP = 32, 8

# layers, every p-th global, heads, KV heads sliding/global, head dims sliding/global, FFN by layer
VARIANTS = {
    "ple": dict(layers=8, p=4, heads=4, kv=(1, 1), dim=(64, 128), ff=[512] * 4 + [1024] * 4, shared=4, ple=64, keqv=False, moe=None),
    "keqv": dict(layers=6, p=3, heads=8, kv=(4, 1), dim=(32, 64), ff=[768] * 6, shared=0, ple=0, keqv=True, moe=None),
    "moe": dict(layers=4, p=4, heads=4, kv=(2, 1), dim=(64, 128), ff=[160] * 4, shared=0, ple=0, keqv=True, moe=(16, 4, 96)),
}
DRAFTER_WIDTH, DRAFTER_FF = 256, 512

# Where the f16 scale of a block lies, and where its f16 offset and the offset as a multiple of the scale, which centres
# the values at zero (half the largest quant, times a sign for formats that subtract).
SCALES = {
    Type.Q2_K: (80, 82, 1.5), Type.Q3_K: (108, None, 0), Type.Q4_K: (0, 2, 7.5), Type.Q5_K: (0, 2, 15.5), Type.Q6_K: (208, None, 0),
    Type.IQ4_NL: (0, None, 0), Type.IQ4_XS: (0, None, 0),
}
# What published files use where the row is no multiple of 256.
FALLBACK = {Type.Q2_K: Type.Q4_0, Type.Q3_K: Type.Q4_1, Type.Q4_K: Type.Q5_0, Type.Q5_K: Type.Q5_1, Type.Q6_K: Type.Q8_0, Type.IQ4_XS: Type.IQ4_NL}


def put_scales(blocks, kind, d):
    """Writes scales d (n,) into blocks (n, bytes)."""
    at, offset_at, ratio = SCALES[kind]
    blocks[:, at : at + 2] = d.astype(np.float16).view(np.uint8).reshape(-1, 2)
    if offset_at is not None:
        blocks[:, offset_at : offset_at + 2] = (d * ratio).astype(np.float16).view(np.uint8).reshape(-1, 2)


@functools.lru_cache(maxsize=None)
def spread(kind):
    """Standard deviation of random blocks of scale 1."""
    blocks = np.random.default_rng(0).integers(0, 256, (512, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8)
    put_scales(blocks, kind, np.ones(512))
    return float(dequantize(blocks, kind).std())


def encoded(rng, shape, kind, std):
    """Random weights of about N(0, std) in format `kind`; quantised ones as bytes (..., bytes per row)."""
    if kind not in SCALES:
        x = (rng.standard_normal(shape) * std).astype(np.float32)
        return x if kind == Type.F32 else x.astype(np.float16) if kind == Type.F16 else quantize(x, kind)
    values, size = gguf.GGML_QUANT_SIZES[kind]
    n = int(np.prod(shape)) // values
    blocks = rng.integers(0, 256, (n, size), np.uint8)
    put_scales(blocks, kind, std / spread(kind) * rng.uniform(0.7, 1.3, n))
    return blocks.reshape(*shape[:-1], shape[-1] // values * size)


class Model:
    def __init__(self, path, arch, mix, seed):
        self.w, self.arch, self.seed = GGUFWriter(path, arch), arch, seed
        names = mix.split("+")
        self.main, self.second = Type[names[0]], Type[names[-1]]
        for name, f in GGUFReader(TOKENIZER).fields.items():
            if name.startswith("tokenizer."):
                kinds = (f.types[0], f.types[-1]) if f.types[0] == GGUFValueType.ARRAY else (f.types[0],)
                self.w.add_key_value(name, f.contents(), *kinds)

    def key(self, name, value):
        add = {list: self.w.add_array, float: self.w.add_float32, bool: self.w.add_bool, int: self.w.add_uint32}[type(value)]
        add(f"{self.arch}.{name}", value)

    def rng(self, name):
        """Each tensor has its own stream: its values do not depend on what else the file holds."""
        return np.random.default_rng((self.seed, zlib.crc32(name.encode()), len(self.arch)))

    def matrix(self, name, shape, kind=None, std=None):
        if kind is None:  # F32 is 0
            kind = self.second if name.endswith(("token_embd.weight", "attn_v.weight", "ffn_down.weight")) else self.main
        if shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
            kind = FALLBACK[kind]
        data = encoded(self.rng(name), shape, kind, std or shape[-1] ** -0.5)
        self.w.add_tensor(name, data, raw_dtype=None if kind in (Type.F32, Type.F16) else kind)

    def vector(self, name, n, mean=1.0, std=0.1):
        self.w.add_tensor(name, (mean + std * self.rng(name).standard_normal(n)).astype(np.float32))

    def head_norm(self, name, dim):
        """Of queries and keys: scores q . k then have a standard deviation of about 2."""
        self.vector(name, dim, 2**0.5 * dim**-0.25, 0.1 * dim**-0.25)

    def shape_keys(self, layers, sliding, v, shared, ple, heads, ff):
        for name, value in (
            ("block_count", layers), ("context_length", CONTEXT), ("feed_forward_length", ff), ("attention.head_count", heads),
            ("attention.head_count_kv", [v["kv"][0] if s else v["kv"][1] for s in sliding]),
            ("attention.key_length", v["dim"][1]), ("attention.value_length", v["dim"][1]),
            ("attention.key_length_swa", v["dim"][0]), ("attention.value_length_swa", v["dim"][0]),
            ("attention.layer_norm_rms_epsilon", 1e-6), ("attention.sliding_window", WINDOW), ("attention.sliding_window_pattern", sliding),
            ("attention.shared_kv_layers", shared), ("embedding_length_per_layer_input", ple), ("rope.freq_base", 1e6),
            ("rope.freq_base_swa", 1e4), ("rope.dimension_count", v["dim"][1]), ("rope.dimension_count_swa", v["dim"][0]),
        ):
            self.key(name, value)
        turned = v["dim"][1] // 8
        self.w.add_tensor("rope_freqs.weight", np.array([1.0] * turned + [1e30] * (v["dim"][1] // 2 - turned), np.float32))

    def layer(self, i, width, heads, dim, ff, scale):
        """What a layer has in target and drafter."""
        b = f"blk.{i}."
        for name in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
            self.vector(f"{b}{name}.weight", width)
        self.head_norm(b + "attn_q_norm.weight", dim)
        for name, shape in (("attn_q", (heads * dim, width)), ("attn_output", (width, heads * dim)), ("ffn_gate", (ff, width)),
                            ("ffn_up", (ff, width)), ("ffn_down", (width, ff))):
            self.matrix(f"{b}{name}.weight", shape)
        self.vector(b + "layer_output_scale.weight", 1, scale, 0.05 * scale)
        return b

    def close(self):
        self.w.write_header_to_file()
        self.w.write_kv_data_to_file()
        self.w.write_tensors_to_file()
        self.w.close()


def write_target(path, v, mix, seed):
    m = Model(path, "gemma4", mix, seed)
    sliding = [(i + 1) % v["p"] != 0 for i in range(v["layers"])]
    m.w.add_string("general.name", path.stem)
    m.key("embedding_length", D)
    m.key("final_logit_softcapping", 30.0)
    m.shape_keys(v["layers"], sliding, v, v["shared"], v["ple"], v["heads"], v["ff"] if len(set(v["ff"])) > 1 else v["ff"][0])
    m.matrix("token_embd.weight", (VOCAB, D))
    if v["keqv"] and not v["moe"]:
        m.matrix("output.weight", (VOCAB, D), m.second)
    m.vector("output_norm.weight", D, 3.0, 0.3)
    if v["ple"]:
        m.matrix("per_layer_token_embd.weight", (VOCAB, v["layers"] * v["ple"]), m.second, v["ple"] ** -0.5)
        m.matrix("per_layer_model_proj.weight", (v["layers"] * v["ple"], D), Type.BF16, 1.0)
        m.vector("per_layer_proj_norm.weight", v["ple"])
    if v["moe"]:
        for name, value in zip(("expert_count", "expert_used_count", "expert_feed_forward_length"), v["moe"]):
            m.key(name, value)
    for i in range(v["layers"]):
        dim, kv = (v["dim"][0], v["kv"][0]) if sliding[i] else (v["dim"][1], v["kv"][1])
        b = m.layer(i, D, v["heads"], dim, v["ff"][i], 0.1 ** (1 / v["layers"]) * (1 if i else -1))
        if i < v["layers"] - v["shared"]:
            m.matrix(b + "attn_k.weight", (kv * dim, D))
            m.head_norm(b + "attn_k_norm.weight", dim)
            if sliding[i] or not v["keqv"]:
                m.matrix(b + "attn_v.weight", (kv * dim, D))
        if v["ple"]:
            m.matrix(b + "inp_gate.weight", (v["ple"], D))
            m.matrix(b + "proj.weight", (D, v["ple"]))
            m.vector(b + "post_norm.weight", D)
        if v["moe"]:
            experts, _, ff = v["moe"]
            m.matrix(b + "ffn_gate_inp.weight", (experts, D), Type.F32, 1.5)  # chosen experts stand out of the 16
            m.vector(b + "ffn_gate_inp.scale", D)
            for name in ("pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2"):
                m.vector(f"{b}{name}.weight", D)
            m.matrix(b + "ffn_gate_up_exps.weight", (experts, 2 * ff, D))
            m.matrix(b + "ffn_down_exps.weight", (experts, D, ff))
            m.vector(b + "ffn_down_exps.scale", experts)
    m.close()


def write_drafter(path, v, mix, seed, centroids):
    m = Model(path, "gemma4-assistant", mix, seed)
    sliding = [True, True, True, False]
    m.w.add_string("general.name", path.stem)
    for name, value in (("embedding_length", DRAFTER_WIDTH), ("embedding_length_out", D), ("nextn_predict_layers", 4)):
        m.key(name, value)
    m.shape_keys(4, sliding, v, 4, 0, v["heads"], DRAFTER_FF)
    m.matrix("token_embd.weight", (VOCAB, DRAFTER_WIDTH), std=3 * DRAFTER_WIDTH**-0.5)
    m.vector("output_norm.weight", DRAFTER_WIDTH)
    m.matrix("nextn.pre_projection.weight", (DRAFTER_WIDTH, 2 * D))
    m.matrix("nextn.post_projection.weight", (D, DRAFTER_WIDTH))
    if centroids:
        m.key("n_centroids", CLUSTERS)
        m.key("centroid_top_k", TOP)
        m.key("use_ordered_embeddings", True)
        m.matrix("masked_embd_centroids.weight", (CLUSTERS, DRAFTER_WIDTH), Type.F16)
        m.w.add_tensor("masked_embd_ordering", m.rng("ordering").permutation(VOCAB).astype(np.int32))
    for i, s in enumerate(sliding):
        m.layer(i, DRAFTER_WIDTH, v["heads"], v["dim"][0 if s else 1], DRAFTER_FF, 0.7)
    m.close()


def build(variant, mix, folder, seed=0):
    """Writes the pair into folder (which exists) and returns both paths; files that are there already are kept."""
    stem = f"{variant}-{mix.lower()}-{seed}"
    target, drafter = (pathlib.Path(folder) / f"{stem}{part}.gguf" for part in ("", "-drafter"))
    v = VARIANTS[variant]
    if not drafter.exists():
        write_target(target, v, mix, seed)
        write_drafter(drafter, v, mix, seed, centroids=variant == "ple")
    return target, drafter


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    print(*build(sys.argv[1], sys.argv[2], sys.argv[3], int((sys.argv[4:] or ["0"])[0])))
