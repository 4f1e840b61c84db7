"""Which tensor of a checkpoint becomes which tensor of a GGUF file: two tables of names and shapes, and the plan made of them.

Values are never changed: no norm has a 1 added, no rows are reordered, experts stay packed (of ffn_gate_up_exps the first half of
an expert's rows is its gate). Two things differ from the checkpoint: rows of the embeddings beyond the tokenizer's vocabulary
are left out, and rope_freqs.weight is new: it divides the frequencies of full layers, 1 where pairs rotate, 1e30 where they do not.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._text import shown
from ..errors import FormatError, UnsupportedError
from .config import Shape
from .safetensors import Checkpoint

# (GGUF name, checkpoint name, shape, when). A letter of a shape is a size of the network or layer, see _sizes; `when` names a part.
ENDS = (
    ("token_embd.weight", "embed_tokens.weight", "VD", "always"),
    ("per_layer_token_embd.weight", "embed_tokens_per_layer.weight", "WA", "ple"),
    ("per_layer_model_proj.weight", "per_layer_model_projection.weight", "AD", "ple"),
    ("per_layer_proj_norm.weight", "per_layer_projection_norm.weight", "P", "ple"),
    ("output_norm.weight", "norm.weight", "D", "always"),
)
LAYER = (
    ("attn_norm.weight", "input_layernorm.weight", "D", "always"),
    ("attn_q.weight", "self_attn.q_proj.weight", "QD", "always"),
    ("attn_k.weight", "self_attn.k_proj.weight", "KD", "keys"),
    ("attn_v.weight", "self_attn.v_proj.weight", "KD", "values"),
    ("attn_q_norm.weight", "self_attn.q_norm.weight", "H", "always"),
    ("attn_k_norm.weight", "self_attn.k_norm.weight", "H", "keys"),
    ("attn_output.weight", "self_attn.o_proj.weight", "DQ", "always"),
    ("post_attention_norm.weight", "post_attention_layernorm.weight", "D", "always"),
    ("ffn_norm.weight", "pre_feedforward_layernorm.weight", "D", "always"),
    ("ffn_gate.weight", "mlp.gate_proj.weight", "FD", "always"),
    ("ffn_up.weight", "mlp.up_proj.weight", "FD", "always"),
    ("ffn_down.weight", "mlp.down_proj.weight", "DF", "always"),
    ("post_ffw_norm.weight", "post_feedforward_layernorm.weight", "D", "always"),
    ("ffn_gate_inp.weight", "router.proj.weight", "ED", "moe"),
    ("ffn_gate_inp.scale", "router.scale", "D", "moe"),
    ("ffn_gate_up_exps.weight", "experts.gate_up_proj", "EGD", "moe"),
    ("ffn_down_exps.weight", "experts.down_proj", "EDX", "moe"),
    ("ffn_down_exps.scale", "router.per_expert_scale", "E", "moe"),
    ("pre_ffw_norm_2.weight", "pre_feedforward_layernorm_2.weight", "D", "moe"),
    ("post_ffw_norm_1.weight", "post_feedforward_layernorm_1.weight", "D", "moe"),
    ("post_ffw_norm_2.weight", "post_feedforward_layernorm_2.weight", "D", "moe"),
    ("inp_gate.weight", "per_layer_input_gate.weight", "PD", "ple"),
    ("proj.weight", "per_layer_projection.weight", "DP", "ple"),
    ("post_norm.weight", "post_per_layer_input_norm.weight", "D", "ple"),
    ("layer_output_scale.weight", "layer_scalar", "1", "always"),
)
# Names from here on are whole: they do not stand below the text network.
TOP = (
    ("output.weight", "lm_head.weight", "VD", "untied"),
    ("nextn.pre_projection.weight", "pre_projection.weight", "DB", "drafter"),
    ("nextn.post_projection.weight", "post_projection.weight", "TD", "drafter"),
    ("masked_embd_centroids.weight", "masked_embedding.centroids.weight", "CD", "centroids"),
    ("masked_embd_ordering", "masked_embedding.token_ordering", "V", "centroids"),
)
TEXT_NETWORKS = ("model.language_model.", "model.")  # where the text network stands; the first that has an embedding
ENCODERS = ("model.vision_tower.", "model.audio_tower.", "model.vision_embedder.", "model.embed_vision.", "model.embed_audio.")
ORDERING = "masked_embd_ordering"
ROPE_FREQS = "rope_freqs.weight"


@dataclass(frozen=True)
class Planned:
    """A tensor to write. dims as in NumPy: the row length last. `source`: its name in the checkpoint, None for a new one."""

    name: str
    source: str | None
    dims: tuple[int, ...]

    @property
    def rows(self) -> int:
        return int(np.prod(self.dims[:-1], dtype=np.int64))


def plan(shape: Shape, checkpoint: Checkpoint, vocab: int, centroids: bool = True) -> tuple[list[Planned], list[str]]:
    """The tensors to write, in file order, and notes on what is left out. Refuses missing, misshapen and unknown tensors."""
    network = next((p for p in TEXT_NETWORKS if p + "embed_tokens.weight" in checkpoint.tensors), TEXT_NETWORKS[-1])
    wanted: list[tuple[str, str, str, bool, int]] = []
    for rows, below in ((ENDS, network), (TOP, "")):
        wanted += [(name, below + source, dims, False, -1) for name, source, dims, when in rows if _applies(shape, when, -1)]
    for layer in range(shape.layers):
        wanted += [(f"blk.{layer}.{name}", f"{network}layers.{layer}.{source}", dims, _optional(shape, when, layer), layer)
                   for name, source, dims, when in LAYER if _applies(shape, when, layer)]
    planned = [Planned(ROPE_FREQS, None, (shape.global_head_dim // 2,))]
    for name, source, letters, optional, layer in wanted:
        if optional and source not in checkpoint.tensors:
            continue
        expected = tuple(_sizes(shape, layer)[c] for c in letters)
        _check(checkpoint, source, expected, integers=name == ORDERING)
        planned.append(Planned(name, source, (vocab,) + expected[1:] if letters[0] in "VW" else expected))
    notes = _left_out(shape, checkpoint, {source for _, source, *_ in wanted}, network)
    if not centroids:
        planned = [t for t in planned if not t.name.startswith("masked_embd_")]
    elif shape.clusters and vocab != shape.vocab:
        raise UnsupportedError(f"masked_embedding.token_ordering: expected {vocab} tokens, as the tokenizer has, found {shape.vocab}; "
                               "without centroids (--no-centroids) it converts")
    return planned, notes


def _sizes(shape: Shape, layer: int) -> dict[str, int]:
    sizes = {"1": 1, "V": shape.vocab, "W": shape.ple_vocab, "D": shape.width, "P": shape.ple, "A": shape.ple * shape.layers, "B": 2 * shape.target_width,
             "T": shape.target_width, "C": shape.clusters, "E": shape.experts, "X": shape.expert_ff, "G": 2 * shape.expert_ff}
    if layer >= 0:
        head = shape.head_size(layer)
        sizes |= {"H": head, "Q": shape.heads * head, "K": shape.kv_heads[layer] * head, "F": shape.ff[layer]}
    return sizes


def _applies(shape: Shape, when: str, layer: int) -> bool:
    if when in ("keys", "values"):
        return not shape.drafter and (when == "keys" or shape.sliding[layer] or not shape.k_eq_v)
    return {"always": True, "ple": shape.ple > 0, "moe": shape.experts > 0, "untied": not shape.tied, "drafter": shape.drafter,
            "centroids": shape.clusters > 0}[when]


def _optional(shape: Shape, when: str, layer: int) -> bool:
    """Keys and values of a layer that uses another's: publishers keep them, transformers does not save them, nothing reads them."""
    return when in ("keys", "values") and not shape.owns_kv(layer)


def _check(checkpoint: Checkpoint, source: str, expected: tuple[int, ...], integers: bool) -> None:
    found = checkpoint.tensors.get(source)
    if found is None:
        raise FormatError(f"tensor '{source}': missing from the checkpoint, expected {list(expected)}")
    if found.shape != expected:
        raise FormatError(f"{found.file}: tensor '{source}': expected {list(expected)} by config.json, found {list(found.shape)}")
    if found.type.startswith("I") != integers:
        raise FormatError(f"{found.file}: tensor '{source}': expected {'integers' if integers else 'F32, F16 or BF16'}, found {found.type}")


def _left_out(shape: Shape, checkpoint: Checkpoint, used: set[str], network: str) -> list[str]:
    """Notes on encoders and a tied head that are there beside the text network; anything else is refused."""
    extra = [name for name in checkpoint.tensors if name not in used]
    encoders = [name for name in extra if name.startswith(ENCODERS)]
    head = [name for name in extra if shape.tied and name == "lm_head.weight"]
    unknown = sorted(set(extra) - set(encoders) - set(head))
    if unknown:
        raise FormatError(f"{checkpoint.tensors[unknown[0]].file}: tensor {shown(unknown[0])}: not expected by config.json"
                          + (f", nor are {len(unknown) - 1} more" if len(unknown) > 1 else ""))
    notes = [f"left out: {len(encoders)} tensors of image and audio encoders"] if encoders else []
    return notes + (["left out: lm_head.weight, a copy of the embedding"] if head else [])


def rope_freqs(shape: Shape) -> np.ndarray:
    """Divisors of the rotation frequencies of a full layer's pairs."""
    values = np.full(shape.global_head_dim // 2, 1e30, np.float32)
    values[:shape.rotated_pairs] = 1.0
    return values


def check_ordering(values: np.ndarray, source: str) -> np.ndarray:
    """The order of tokens in clusters as 32-bit integers; every token once."""
    if not np.array_equal(np.sort(values), np.arange(len(values))):
        raise FormatError(f"tensor '{source}': expected each of 0..{len(values) - 1} once")
    return values.astype(np.int32)
