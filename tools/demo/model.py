"""The target and the drafter in plain torch, for training: parameters are named as in transformers, the mathematics is that
of Gemma 4 and its assistant, and rows hold whole documents side by side, each seeing only itself.

Matrices multiply in bfloat16 (the parameters stay float32), norms, softmax and residuals are float32. test_twin.py holds
both against transformers' own modules.
"""
import torch
import torch.nn.functional as F
from torch import nn

import shape as S

STEP_WEIGHT = (1.0, 0.9, 0.8, 0.7)  # of the drafter's chained steps: a later one counts only if the earlier ones hit


def rms(x, weight=None):
    y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + S.EPS)
    return y if weight is None else y * weight


class Norm(nn.Module):
    def __init__(self, n, value=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.full((n,), value))

    def forward(self, x):
        return rms(x, self.weight)


class Linear(nn.Linear):
    """bfloat16 in, bfloat16 out, unless `exact`."""

    exact = False

    def __init__(self, n_in, n_out):
        super().__init__(n_in, n_out, bias=False)
        nn.init.normal_(self.weight, std=n_in**-0.5)

    def forward(self, x):
        if Linear.exact:
            return F.linear(x, self.weight)
        return F.linear(x.bfloat16(), self.weight.bfloat16()).float()


def rope_table(kind, positions):
    """cos and sin, (positions, head_dim / 2)."""
    pairs = S.HEAD_DIM[kind] // 2
    i = torch.arange(pairs, dtype=torch.float32)
    frequency = S.THETA[kind] ** (-2 * i / S.HEAD_DIM[kind])
    frequency[int(S.ROTATED[kind] * pairs):] = 0
    angle = positions.float()[:, None] * frequency
    return angle.cos(), angle.sin()


def rotate(x, table):
    """x (rows, heads, positions, head_dim)."""
    cos, sin = table
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def attend(q, k, v, mask):
    """q (rows, heads, positions, dim); k, v (rows, 1, positions, dim); mask (rows, 1, positions, keys), added. Scale 1."""
    rows, heads, n, dim = q.shape
    if not Linear.exact:
        q, k, v = q.bfloat16(), k.bfloat16(), v.bfloat16()
    scores = torch.bmm(q.reshape(rows, heads * n, dim), k[:, 0].transpose(1, 2)).view(rows, heads, n, -1).float() + mask
    shares = scores.softmax(-1).to(q.dtype).view(rows, heads * n, -1)
    return torch.bmm(shares, v[:, 0]).view(rows, heads, n, dim).float()


class Attention(nn.Module):
    def __init__(self, kind, hidden, owns):
        super().__init__()
        self.dim, d = S.HEAD_DIM[kind], S.HEAD_DIM[kind]
        self.q_proj, self.o_proj = Linear(hidden, S.HEADS * d), Linear(S.HEADS * d, hidden)
        self.q_norm = Norm(d, d**-0.25)  # with k_norm: scores of unit variance at first
        if owns:
            self.k_proj, self.v_proj = Linear(hidden, d), Linear(hidden, d)
            self.k_norm = Norm(d, d**-0.25)

    def key_value(self, x, table):
        k, v = self.k_proj(x).unsqueeze(1), self.v_proj(x).unsqueeze(1)
        return rotate(self.k_norm(k), table), rms(v)

    def forward(self, x, kv, table, mask):
        rows, n, _ = x.shape
        q = rotate(self.q_norm(self.q_proj(x).view(rows, n, S.HEADS, self.dim)).transpose(1, 2), table)
        return self.o_proj(attend(q, *kv, mask).transpose(1, 2).reshape(rows, n, S.HEADS * self.dim))


class MLP(nn.Module):
    def __init__(self, hidden, width):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = Linear(hidden, width), Linear(hidden, width), Linear(width, hidden)

    def forward(self, x):
        return self.down_proj(F.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, kind, hidden, width, owns, ple):
        super().__init__()
        self.kind = kind
        self.self_attn = Attention(kind, hidden, owns)
        self.mlp = MLP(hidden, width)
        self.input_layernorm, self.post_attention_layernorm = Norm(hidden), Norm(hidden, 0.5)
        self.pre_feedforward_layernorm, self.post_feedforward_layernorm = Norm(hidden), Norm(hidden, 0.5)
        if ple:
            self.per_layer_input_gate, self.per_layer_projection = Linear(hidden, ple), Linear(ple, hidden)
            self.post_per_layer_input_norm = Norm(hidden, 0.5)
        self.layer_scalar = nn.Parameter(torch.ones(1))

    def forward(self, x, kv, table, mask, ple=None):
        """kv: None when the layer makes its own; returns the output and the K/V it used."""
        h = self.input_layernorm(x)
        kv = kv or self.self_attn.key_value(h, table)
        x = x + self.post_attention_layernorm(self.self_attn(h, kv, table, mask))
        x = x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))
        if ple is not None:
            gate = F.gelu(self.per_layer_input_gate(x), approximate="tanh") * ple
            x = x + self.post_per_layer_input_norm(self.per_layer_projection(gate))
        return x * self.layer_scalar, kv


def masks(document, strict=False):
    """(sliding, full), to be added to scores, for rows whose tokens belong to `document` (rows, n); 0 pads. The target's query
    sees its own document up to itself; the drafter's, strict, only what is before it. One that sees nothing has no meaning."""
    n = document.shape[1]
    distance = torch.arange(n)[:, None] - torch.arange(n)[None, :]
    full = (document[:, :, None] == document[:, None, :])[:, None] & (distance >= int(strict))
    return tuple(torch.zeros(seen.shape).masked_fill_(~seen, -1e9) for seen in (full & (distance < S.WINDOW), full))


class Stack(nn.Module):
    """The part that transformers calls `model`."""

    def __init__(self, hidden, layers):
        super().__init__()
        self.embed_tokens = nn.Embedding(S.VOCAB, hidden)
        nn.init.normal_(self.embed_tokens.weight, std=hidden**-0.5)
        self.layers = nn.ModuleList(layers)
        self.norm = Norm(hidden)


class Target(nn.Module):
    def __init__(self):
        super().__init__()
        first = S.LAYERS - S.SHARED
        self.model = Stack(S.HIDDEN, [Layer(S.kind(i), S.HIDDEN, S.FFN * (2 if i >= first else 1), i < first, S.PLE)
                                      for i in range(S.LAYERS)])
        m = self.model
        m.embed_tokens_per_layer = nn.Embedding(S.VOCAB, S.LAYERS * S.PLE)
        nn.init.normal_(m.embed_tokens_per_layer.weight, std=S.PLE**-0.5)
        m.per_layer_model_projection = Linear(S.HIDDEN, S.LAYERS * S.PLE)
        m.per_layer_projection_norm = Norm(S.PLE)

    def embed(self, ids):
        return self.model.embed_tokens(ids) * S.HIDDEN**0.5

    def forward(self, ids, document):
        """The hidden states after the output norm, and {kind: (k, v)} of the last owners. Positions count from the row's start:
        only differences matter."""
        m, (rows, n) = self.model, ids.shape
        x = self.embed(ids)
        own = m.embed_tokens_per_layer(ids) * S.PLE**0.5
        context = m.per_layer_model_projection(x) * S.HIDDEN**-0.5
        ple = (m.per_layer_projection_norm(context.view(rows, n, S.LAYERS, S.PLE)) + own.view(rows, n, S.LAYERS, S.PLE)) * 2**-0.5
        mask = dict(zip("sf", masks(document)))
        table = {kind: rope_table(kind, torch.arange(n)) for kind in "sf"}
        last = {}
        for i, layer in enumerate(m.layers):
            kind, shared = layer.kind, i >= S.LAYERS - S.SHARED
            x, last[kind] = layer(x, last[kind] if shared else None, table[kind], mask[kind], ple[:, :, i])
        return m.norm(x), last

    def logits(self, hidden):
        return S.SOFTCAP * torch.tanh(F.linear(hidden, self.model.embed_tokens.weight) / S.SOFTCAP)


class Drafter(nn.Module):
    """One step at a time for every position of a row at once: position P drafts as if P tokens were processed and the token at
    P were pending. It sees the keys before P and rotates its queries to P, at every step of a round."""

    def __init__(self):
        super().__init__()
        self.model = Stack(S.DRAFT_HIDDEN, [Layer(S.kind(i), S.DRAFT_HIDDEN, S.DRAFT_FFN, False, 0) for i in range(S.DRAFT_LAYERS)])
        self.pre_projection = Linear(2 * S.HIDDEN, S.DRAFT_HIDDEN)
        self.post_projection = Linear(S.DRAFT_HIDDEN, S.HIDDEN)

    def forward(self, embedded, hidden, kv, mask, table):
        """embedded: the target's scaled embedding of the token; hidden: of the step before. Returns (output norm, next hidden)."""
        x = self.pre_projection(torch.cat([embedded, hidden], -1))
        for layer in self.model.layers:
            x, _ = layer(x, kv[layer.kind], table[layer.kind], mask[layer.kind])
        x = self.model.norm(x)
        return x, self.post_projection(x)


class SoftcappedLoss(torch.autograd.Function):
    """Mean cross-entropy of softcapped logits over the wanted rows, with gradients computed chunk by chunk, so that the logits of
    a whole batch never lie in memory."""

    CHUNK = 512

    @staticmethod
    def forward(ctx, hidden, table, wanted):
        half, low = table.bfloat16(), hidden.bfloat16()
        grad_hidden = torch.empty_like(hidden)
        grad_table = torch.zeros_like(table)
        loss, n = hidden.new_zeros(()), wanted.numel()
        for i in range(0, n, SoftcappedLoss.CHUNK):
            rows, want = low[i:i + SoftcappedLoss.CHUNK], wanted[i:i + SoftcappedLoss.CHUNK, None]
            bent = torch.tanh(F.linear(rows, half).float().div_(S.SOFTCAP))
            logits = bent * S.SOFTCAP
            total = logits.logsumexp(-1, keepdim=True)
            loss += (total - logits.gather(1, want)).sum()
            grad = logits.sub_(total).exp_()
            grad.scatter_add_(1, want, torch.full_like(total, -1.0))
            grad = grad.mul_(bent.pow_(2).neg_().add_(1)).div_(n).bfloat16()
            grad_hidden[i:i + SoftcappedLoss.CHUNK] = (grad @ half).float()
            grad_table += (grad.T @ rows).float()
        ctx.save_for_backward(grad_hidden, grad_table)
        return loss / n

    @staticmethod
    def backward(ctx, grad):
        grad_hidden, grad_table = ctx.saved_tensors
        return grad * grad_hidden, grad * grad_table, None
