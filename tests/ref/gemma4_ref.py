"""The executable twin of docs/MODEL.md: Gemma 4 and its MTP drafter in numpy, straight-line and slow.

It reads the same GGUF files as pymtp (through the `gguf` package, weights dequantized) and computes in float64, so
that what remains between it and an engine is the engine's rounding. Written for reading: one function per network,
every row at once, no cache, nothing fused. Run it:  python gemma4_ref.py TARGET.gguf [DRAFTER.gguf] ID ID ...

Options model what an engine rounds on purpose:
  kv="f16" | "q8_0"   keys and values are rounded as they enter the cache (q8_0: per head, blocks of 32)
  act8=True           activations that meet a block-quantised matrix become int8 per block of 32
  dtype=np.float32    the same network in another arithmetic: shows how far rounding alone may move the result

What to expect. Without roundings a float32 engine agrees to about 1e-4 in logits (|logit| < 30). With kv or act8 a
value within float32 noise of a rounding border may fall on the other side in the engine; such a flip moves
one activation by a whole step, and what follows in that row rounds differently from there on. So most rows agree as
closely as without, while a few differ by a fraction of what the rounding itself does to the logits.
"""
import math
import sys

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader
from gguf.quants import dequantize

UNQUANTISED = (Type.F32, Type.F16, Type.BF16)


class File:
    """Metadata and dequantized tensors of one GGUF. Arrays are (rows, row length): y = W x."""

    def __init__(self, path, dtype):
        reader = GGUFReader(path)
        self.fields, self.dtype, self.cache = reader.fields, dtype, {}
        self.tensors = {t.name: t for t in reader.tensors}
        self.arch = self.fields["general.architecture"].contents()

    def key(self, name, default=None):
        field = self.fields.get(f"{self.arch}.{name}")
        return default if field is None else field.contents()

    def per_layer(self, name, layers, default=None):
        value = self.key(name, default)
        return list(value) if isinstance(value, (list, tuple)) else [value] * layers

    def __contains__(self, name):
        return name in self.tensors

    def rows(self, name, ids):
        """(len(ids), row length): an embedding lookup."""
        t = self.tensors[name]
        return dequantize(np.ascontiguousarray(t.data[ids]), t.tensor_type).astype(self.dtype)

    def __getitem__(self, name):
        if name not in self.cache:
            t = self.tensors[name]
            data = t.data if t.tensor_type == Type.I32 else dequantize(t.data, t.tensor_type).astype(self.dtype)
            self.cache[name] = data
        return self.cache[name]

    def quantised(self, name):
        return self.tensors[name].tensor_type not in UNQUANTISED


# ---- pieces ----------------------------------------------------------------------------------------------------


def gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def softmax(s):
    e = np.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def blocks_of_32(x):
    """(..., n) float32 -> (..., ceil(n / 32), 32), zero-filled at the end."""
    x = np.asarray(x, np.float32)
    x = np.concatenate([x, np.zeros((*x.shape[:-1], -x.shape[-1] % 32), np.float32)], -1)
    return x.reshape(*x.shape[:-1], -1, 32)


def round_int8(x, scale_type=np.float32):
    """x as int8 blocks of 32 hold it, in float32 as the engine computes it: d = max|x| / 127, q = rint(x * (127 / max|x|)); the
    scale is then stored. (rint(x / d) would decide exact ties otherwise, and rows of a Q4_0 table are full of them.)"""
    b = blocks_of_32(x)
    most = np.abs(b).max(-1, keepdims=True)
    q = np.rint(b * (np.float32(127) / np.where(most == 0, np.float32(1), most)))
    y = (most / np.float32(127)).astype(scale_type).astype(x.dtype) * q.astype(x.dtype)
    return y.reshape(*x.shape[:-1], -1)[..., : x.shape[-1]]


def inverse_frequencies(file, base, head_dim, global_layer):
    """(head_dim / 2,) of RoPE. CRITICAL: global layers divide the exponent by head_dim and turn only the first quarter of
    the pairs: rope_freqs divides by 1 there and by 1e30 elsewhere; where it is missing the same is made here."""
    f = float(base) ** (-2.0 * np.arange(head_dim // 2) / head_dim)
    if global_layer:
        if "rope_freqs.weight" in file:
            factors = file["rope_freqs.weight"].astype(np.float64)
            f = np.where(factors > 1e20, 0.0, f / factors)
        else:
            f[head_dim // 8 :] = 0
    return f


def rope(x, pos, freq):
    """x (T, heads, head_dim), pos (T,). CRITICAL: element i pairs with i + head_dim / 2, not with i + 1."""
    angle = np.asarray(pos, np.float64)[:, None, None] * freq
    c, s = np.cos(angle).astype(x.dtype), np.sin(angle).astype(x.dtype)
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([a * c - b * s, b * c + a * s], -1)


def attend(q, k, v, visible):
    """q (T, heads, d), k and v (S, kv heads, d), visible (T, S) -> (T, heads * d). CRITICAL: scale 1, no softcap."""
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, 1), np.repeat(v, group, 1)
    scores = np.where(visible, np.einsum("thd,shd->hts", q, k), -np.inf)
    return np.einsum("hts,shd->thd", softmax(scores), v).reshape(len(q), -1)


class Network:
    """What target and drafter share: sizes by layer, norms and matrices of one file."""

    def __init__(self, path, act8, dtype):
        f = self.file = File(path, dtype)
        self.act8, self.dtype = act8, dtype
        n = self.layers = int(f.key("block_count"))
        self.eps = float(f.key("attention.layer_norm_rms_epsilon"))
        self.window = int(f.key("attention.sliding_window"))
        self.sliding = [bool(s) for s in f.key("attention.sliding_window_pattern")]
        self.heads = [int(h) for h in f.per_layer("attention.head_count", n)]
        self.kv_heads = [int(h) for h in f.per_layer("attention.head_count_kv", n, f.key("attention.head_count"))]
        size = {True: int(f.key("attention.key_length_swa")), False: int(f.key("attention.key_length"))}
        self.head_dim = [size[s] for s in self.sliding]
        self.freq = {
            True: inverse_frequencies(f, f.key("rope.freq_base_swa", 1e4), size[True], False),
            False: inverse_frequencies(f, f.key("rope.freq_base", 1e6), size[False], True),
        }

    def rms(self, x, weight=None):
        """CRITICAL: the weight is used as it is, no +1. Without a weight it is a plain normalisation."""
        y = x / np.sqrt((x * x).mean(-1, keepdims=True) + self.dtype(self.eps))
        return y if weight is None else y * self.file[weight]

    def meets(self, x, name, matrix=0):
        """For subclasses that look on: rows x (T, n) meet a matrix of tensor `name`, before they are rounded."""

    def linear(self, x, name, planes=1):
        """planes=2: activations are rounded as int8 blocks, and what that leaves once more."""
        self.meets(x, name)
        if self.act8 and self.file.quantised(name):
            first = round_int8(x)
            x = first + round_int8(x - first) if planes == 2 else first
        return x @ self.file[name].T

    def queries(self, x, layer, pos):
        """RoPE(RMS per head(Wq h)): (T, heads, head_dim). Returns h = RMS(x, attn_norm) too."""
        b = f"blk.{layer}."
        h = self.rms(x, b + "attn_norm.weight")
        q = self.linear(h, b + "attn_q.weight").reshape(len(x), self.heads[layer], -1)
        return rope(self.rms(q, b + "attn_q_norm.weight"), pos, self.freq[self.sliding[layer]]), h

    def glu(self, x, b):
        return self.linear(gelu(self.linear(x, b + "ffn_gate.weight")) * self.linear(x, b + "ffn_up.weight"), b + "ffn_down.weight")

    def output_scale(self, b):
        name = b + "layer_output_scale.weight"
        return self.file[name][0] if name in self.file else self.dtype(1)


# ---- target ----------------------------------------------------------------------------------------------------


class Target(Network):
    def __init__(self, path, kv="f32", act8=False, dtype=np.float64):
        super().__init__(path, act8, dtype)
        f = self.file
        self.kv_type = kv
        self.width = int(f.key("embedding_length"))
        self.ple = int(f.key("embedding_length_per_layer_input", 0))
        self.softcap = float(f.key("final_logit_softcapping", 0.0))
        self.used = int(f.key("expert_used_count", 0))
        self.first_shared = self.layers - int(f.key("attention.shared_kv_layers", 0))
        own = range(self.first_shared)
        self.last = {s: max((i for i in own if self.sliding[i] == s), default=None) for s in (True, False)}

    def stored(self, x):
        """What the cache gives back of x (T, kv heads, head_dim)."""
        if self.kv_type == "f16":
            return x.astype(np.float32).astype(np.float16).astype(self.dtype)
        return round_int8(x, np.float16) if self.kv_type == "q8_0" else x

    def embed(self, ids):
        """CRITICAL: times sqrt(D), for the drafter's input too."""
        return self.file.rows("token_embd.weight", ids) * self.dtype(math.sqrt(self.width))

    def ple_inputs(self, ids, x):
        """(T, layers, ple): a table lookup and a projection of the embedding, computed once per token."""
        shape = (len(ids), self.layers, self.ple)
        a = self.file.rows("per_layer_token_embd.weight", ids).reshape(shape) * self.dtype(math.sqrt(self.ple))
        b = self.linear(x, "per_layer_model_proj.weight").reshape(shape) * self.dtype(self.width**-0.5)
        return (self.rms(b, "per_layer_proj_norm.weight") + a) * self.dtype(2**-0.5)

    def keys_values(self, h, layer, pos):
        b = f"blk.{layer}."
        shape = (len(h), self.kv_heads[layer], self.head_dim[layer])
        kr = self.linear(h, b + "attn_k.weight").reshape(shape)
        # CRITICAL: without attn_v the value is the RAW key projection, before its norm and before RoPE.
        vr = self.linear(h, b + "attn_v.weight").reshape(shape) if b + "attn_v.weight" in self.file else kr
        k = rope(self.rms(kr, b + "attn_k_norm.weight"), pos, self.freq[self.sliding[layer]])
        return self.stored(k), self.stored(self.rms(vr))

    def experts(self, x, b):
        """The routed half of a MoE block. CRITICAL: the router sees x normalised without weight, the experts see another
        norm; the expert's own scale comes after renormalising, so the weights no longer sum to 1."""
        f, n = self.file, self.rms(x, b + "pre_ffw_norm_2.weight")
        r = self.rms(x) * self.dtype(self.width**-0.5) * f[b + "ffn_gate_inp.scale"]
        p = softmax(self.linear(r, b + "ffn_gate_inp.weight"))
        best = np.argsort(-p, axis=-1, kind="stable")[:, : self.used]
        w = np.take_along_axis(p, best, -1)
        w = w / w.sum(-1, keepdims=True) * f[b + "ffn_down_exps.scale"][best]
        fused = b + "ffn_gate_up_exps.weight" in f
        names = [b + n for n in (("ffn_gate_up_exps.weight",) if fused else ("ffn_gate_exps.weight", "ffn_up_exps.weight"))]
        rounded = lambda v, name: round_int8(v) if self.act8 and f.quantised(name) else v
        out, down = np.zeros_like(x), b + "ffn_down_exps.weight"
        for t in range(len(x)):
            for rank, e in enumerate(best[t]):
                for m in names:
                    self.meets(n[t][None], m, e)
                gate, up = np.split(np.concatenate([f[m][e] @ rounded(n[t], m) for m in names]), 2)
                h = gelu(gate) * up
                self.meets(h[None], down, e)
                out[t] += w[t, rank] * (f[down][e] @ rounded(h, down))
        return self.rms(out, b + "post_ffw_norm_2.weight")

    def forward(self, ids):
        """ids (T,), positions 0..T-1 -> logits (T, vocab) after softcapping, hidden (T, D) after the output norm.
        self.kv[layer] = keys, values (T, kv heads, head_dim) of the layers that own them."""
        f, T = self.file, len(ids)
        pos = np.arange(T)
        distance = pos[:, None] - pos[None, :]
        visible = {False: distance >= 0, True: (distance >= 0) & (distance < self.window)}
        x = self.embed(ids)
        ple = self.ple_inputs(ids, x) if self.ple else None
        self.kv = {}
        for layer in range(self.layers):
            b, sliding = f"blk.{layer}.", self.sliding[layer]
            q, h = self.queries(x, layer, pos)
            if layer < self.first_shared:
                self.kv[layer] = self.keys_values(h, layer, pos)
            # CRITICAL: shared layers read the last owning layer of the same kind; attn_k in the file is not used.
            k, v = self.kv[layer if layer < self.first_shared else self.last[sliding]]
            o = self.linear(attend(q, k, v, visible[sliding]), b + "attn_output.weight")
            x = x + self.rms(o, b + "post_attention_norm.weight")
            y = self.glu(self.rms(x, b + "ffn_norm.weight"), b)
            if b + "ffn_gate_inp.weight" in f:
                y = self.rms(y, b + "post_ffw_norm_1.weight") + self.experts(x, b)
            x = x + self.rms(y, b + "post_ffw_norm.weight")
            if ple is not None:
                z = self.linear(gelu(self.linear(x, b + "inp_gate.weight")) * ple[:, layer], b + "proj.weight", planes=2)
                x = x + self.rms(z, b + "post_norm.weight")
            x = x * self.output_scale(b)  # CRITICAL: scales the whole residual stream, last of all
        hidden = self.rms(x, "output_norm.weight")
        logits = self.linear(hidden, "output.weight" if "output.weight" in f else "token_embd.weight")
        return (self.softcap * np.tanh(logits / self.softcap) if self.softcap else logits), hidden

    def greedy(self, ids, n):
        """ids continued by n greedy tokens, everything recomputed at each."""
        ids = list(ids)
        for _ in range(n):
            ids.append(int(self.forward(ids)[0][-1].argmax()))
        return ids


# ---- drafter ---------------------------------------------------------------------------------------------------


class Drafter(Network):
    """A guest of a Target that has run forward(): it reads its embedding table and the K/V of its last two owning layers."""

    def __init__(self, path, target, act8=False, dtype=np.float64):
        super().__init__(path, act8, dtype)
        self.target = target
        self.top = int(self.file.key("centroid_top_k", 32))

    def head(self, hn):
        """hn (1, d) -> (vocab,). Centroid head: only members of the best clusters are scored, the rest get min - 1.
        CRITICAL: the drafter's own embedding table, no softcap."""
        if "masked_embd_centroids.weight" not in self.file:
            return self.linear(hn, "token_embd.weight")[0]
        score = self.linear(hn, "masked_embd_centroids.weight")[0]
        best = np.argsort(-score, kind="stable")[: self.top]
        ids = self.file["masked_embd_ordering"].reshape(len(score), -1)[best].reshape(-1)
        x = round_int8(hn) if self.act8 and self.file.quantised("token_embd.weight") else hn
        chosen = self.file["token_embd.weight"][ids] @ x[0]
        logits = np.full(self.file["token_embd.weight"].shape[0], chosen.min() - 1)
        logits[ids] = chosen
        return logits

    def step(self, token, h, P):
        """One draft: token and h (D,) at position P -> logits (vocab,), h of the next step (D,)."""
        # CRITICAL: embedding first, then h; the table is the target's, h the target's hidden AFTER its output norm.
        x = self.linear(np.concatenate([self.target.embed([token])[0], h])[None], "nextn.pre_projection.weight")
        for layer in range(self.layers):
            b, sliding = f"blk.{layer}.", self.sliding[layer]
            q, _ = self.queries(x, layer, [P])
            k, v = (a[:P] for a in self.target.kv[self.target.last[sliding]])
            visible = P - np.arange(P) < self.window if sliding else np.ones(P, bool)
            o = self.linear(attend(q, k, v, visible[None]), b + "attn_output.weight")
            x = x + self.rms(o, b + "post_attention_norm.weight")
            y = self.glu(self.rms(x, b + "ffn_norm.weight"), b)
            x = (x + self.rms(y, b + "post_ffw_norm.weight")) * self.output_scale(b)
        hn = self.rms(x, "output_norm.weight")
        return self.head(hn), self.linear(hn, "nextn.post_projection.weight")[0]

    def draft(self, pending, h, P, n):
        """n chained greedy drafts after `pending`. CRITICAL: P stays the same, so do the keys 0..P-1."""
        tokens, logits = [], []
        for _ in range(n):
            row, h = self.step(pending, h, P)
            pending = int(row.argmax())
            tokens.append(pending)
            logits.append(row)
        return tokens, np.array(logits)


if __name__ == "__main__":
    files = [a for a in sys.argv[1:] if a.endswith(".gguf")]
    prompt = [int(a) for a in sys.argv[1:] if not a.endswith(".gguf")]
    if not files or not prompt:
        sys.exit(__doc__)
    twin = Target(files[0])
    rows, hid = twin.forward(prompt)
    print("next:", int(rows[-1].argmax()), "top 5:", np.argsort(-rows[-1])[:5].tolist())
    if files[1:]:
        print("drafts:", Drafter(files[1], twin).draft(int(rows[-1].argmax()), hid[-1], len(prompt), 4)[0])
