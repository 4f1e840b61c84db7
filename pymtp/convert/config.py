"""config.json of a checkpoint -> Shape: what is converted and all its sizes. Anything the runtime would compute otherwise is
refused here, by key.

Two ways to write the sizes of full-attention layers exist: `global_head_dim` and `num_global_key_value_heads`, and, since
transformers 5.17, `per_layer_config`.
"""
from __future__ import annotations

import pathlib
from dataclasses import dataclass

from ..errors import UnsupportedError
from .files import Fields, read_object

TARGETS = ("Gemma4ForConditionalGeneration", "Gemma4ForCausalLM", "Gemma4UnifiedForConditionalGeneration", "Gemma4UnifiedForCausalLM")
DRAFTERS = ("Gemma4AssistantForCausalLM", "Gemma4UnifiedAssistantForCausalLM")
SLIDING, FULL = "sliding_attention", "full_attention"
MAX_LAYERS = 1024


@dataclass(frozen=True)
class Shape:
    """All sizes of a network. Lists have one element for each layer."""

    drafter: bool
    layers: int
    width: int
    vocab: int  # rows of the embedding in the checkpoint; the tokenizer may have fewer
    context: int
    eps: float
    softcap: float | None
    sliding: list[bool]
    window: int
    heads: int
    kv_heads: list[int]
    head_dim: int  # of sliding layers
    global_head_dim: int
    shared_kv: int  # the last layers, which use keys and values of earlier ones
    k_eq_v: bool  # full layers have no value projection
    ff: list[int]
    rope_base: float
    rope_base_swa: float
    rotated_pairs: int  # of a head of a full layer; the others do not rotate
    tied: bool  # the head is the embedding
    ple: int  # width of per-layer inputs, or 0
    ple_vocab: int
    experts: int
    experts_used: int
    expert_ff: int
    target_width: int = 0  # of a drafter
    clusters: int = 0  # of a drafter with an ordered embedding
    clusters_used: int = 0

    def head_size(self, layer: int) -> int:
        return self.head_dim if self.sliding[layer] else self.global_head_dim

    def owns_kv(self, layer: int) -> bool:
        return layer < self.layers - self.shared_kv


def read_shape(folder: pathlib.Path) -> Shape:
    path = folder / "config.json"
    top = Fields(read_object(path), str(path))
    names = top.get("architectures", Fields.REQUIRED, "a list with one name", lambda v: isinstance(v, list) and len(v) == 1)
    if names[0] not in TARGETS + DRAFTERS:
        raise top.error("architectures", " or ".join(TARGETS + DRAFTERS), UnsupportedError)
    if "quantization_config" in top.values:
        raise top.error("quantization_config", "a checkpoint in F32, F16 or BF16", UnsupportedError)
    text = top.object("text_config") if "text_config" in top.values else top
    return _shape(top, text, names[0] in DRAFTERS)


def _shape(top: Fields, text: Fields, drafter: bool) -> Shape:
    _check_fixed(text)
    layers = text.size("num_hidden_layers", most=MAX_LAYERS)
    sliding = _sliding(text, layers)
    shared = text.size("num_kv_shared_layers", 0, least=0, most=layers) or (layers if drafter else 0)
    k_eq_v = text.flag("attention_k_eq_v", False)
    head_dim, kv = text.size("head_dim"), text.size("num_key_value_heads")
    global_dim, global_kv = _global_heads(text, sliding, k_eq_v)
    ff = text.size("intermediate_size")
    wide = text.flag("use_double_wide_mlp", False) and 0 < shared < layers
    vocab = text.size("vocab_size")
    full, swa = (text.object("rope_parameters").object(kind) for kind in (FULL, SLIDING))
    moe = text.flag("enable_moe_block", False)
    ple = text.size("hidden_size_per_layer_input", 0, least=0)
    return Shape(
        drafter=drafter, layers=layers, width=text.size("hidden_size"), vocab=vocab, context=text.size("max_position_embeddings"),
        eps=text.number("rms_norm_eps", 1e-6), softcap=text.number("final_logit_softcapping", None), sliding=sliding,
        window=text.size("sliding_window"), heads=text.size("num_attention_heads"),
        kv_heads=[kv if s else global_kv or kv for s in sliding], head_dim=head_dim, global_head_dim=global_dim, shared_kv=shared,
        k_eq_v=k_eq_v, ff=[2 * ff if wide and i >= layers - shared else ff for i in range(layers)],
        rope_base=_rope(full, "proportional", 1e6), rope_base_swa=_rope(swa, "default", 1e4),
        rotated_pairs=_rotated_pairs(full, global_dim),
        tied=top.flag("tie_word_embeddings", text.flag("tie_word_embeddings", True)),
        ple=ple, ple_vocab=text.size("vocab_size_per_layer_input", vocab) if ple else 0,
        experts=text.size("num_experts") if moe else 0, experts_used=text.size("top_k_experts") if moe else 0,
        expert_ff=text.size("moe_intermediate_size") if moe else 0, **(_drafter_part(top, text, layers, shared, vocab, moe, ple) if drafter else {}))


def _check_fixed(text: Fields) -> None:
    """What Gemma 4 could vary and no runtime of it does."""
    if text.text("hidden_activation", "gelu_pytorch_tanh") != "gelu_pytorch_tanh":
        raise text.error("hidden_activation", "gelu_pytorch_tanh", UnsupportedError)
    if text.flag("attention_bias", False):
        raise text.error("attention_bias", "false", UnsupportedError)
    if text.get("use_bidirectional_attention", None, "\"vision\" or null", lambda v: isinstance(v, str)) not in (None, "vision"):
        raise text.error("use_bidirectional_attention", "\"vision\" or null", UnsupportedError)


def _sliding(text: Fields, layers: int) -> list[bool]:
    """Which layers slide; the last never does, whatever the file says, as in transformers."""
    types = text.get("layer_types", [SLIDING if (i + 1) % 6 else FULL for i in range(layers)],
                     f"{layers} times {SLIDING} or {FULL}",
                     lambda v: isinstance(v, list) and len(v) == layers and all(t in (SLIDING, FULL) for t in v))
    return [t == SLIDING for t in types[:-1]] + [False]


def _global_heads(text: Fields, sliding: list[bool], k_eq_v: bool) -> tuple[int, int | None]:
    """(head size, KV heads where they differ) of full layers."""
    if text.values.get("per_layer_config") is None:
        kv = text.size("num_global_key_value_heads", None)
        return text.size("global_head_dim", 512), kv if k_eq_v else None
    layers = text.object("per_layer_config")
    found = set()
    for i, slides in enumerate(sliding):
        of = layers.object(str(i))
        sizes = of.size("head_dim", None), of.size("num_key_value_heads", None)
        if slides and sizes != (None, None):
            raise layers.error(str(i), f"nothing for a layer of {SLIDING}", UnsupportedError)
        if not slides:
            found.add(sizes)
    if len(found) != 1 or None in {dim for dim, _ in found}:
        raise text.error("per_layer_config", f"the same head_dim for all layers of {FULL}", UnsupportedError)
    return found.pop()


def _rope(rope: Fields, kind: str, base: float) -> float:
    if rope.text("rope_type", kind) != kind:
        raise rope.error("rope_type", kind, UnsupportedError)
    if rope.number("factor", 1.0) != 1.0:
        raise rope.error("factor", "1", UnsupportedError)
    if kind == "default" and rope.number("partial_rotary_factor", 1.0) != 1.0:
        raise rope.error("partial_rotary_factor", "1", UnsupportedError)
    return rope.number("rope_theta", base)


def _rotated_pairs(rope: Fields, head_dim: int) -> int:
    fraction = rope.number("partial_rotary_factor", 0.25)
    if not 0 < fraction <= 1:
        raise rope.error("partial_rotary_factor", "a number above 0 and at most 1")
    return int(fraction * head_dim // 2)


def _drafter_part(top: Fields, text: Fields, layers: int, shared: int, vocab: int, moe: bool, ple: int) -> dict[str, int]:
    if shared != layers:
        raise text.error("num_kv_shared_layers", f"{layers}: all layers of a drafter use the target's keys and values")
    if moe:
        raise text.error("enable_moe_block", "false in a drafter")
    if ple:
        raise text.error("hidden_size_per_layer_input", "0 in a drafter")
    part = {"target_width": top.size("backbone_hidden_size")}
    if top.flag("use_ordered_embeddings", False):
        part["clusters"] = top.size("num_centroids", most=vocab)
        part["clusters_used"] = top.size("centroid_intermediate_top_k", most=part["clusters"])
        if vocab % part["clusters"]:
            raise top.error("num_centroids", f"a divisor of the vocabulary of {vocab}")
    return part
