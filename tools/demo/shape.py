"""The shapes of the demo pair: the E2B family in small.

Everything that transformers' configurations, the training twin and the evaluation need to agree on is here, once. Row
lengths of the target's matrices are multiples of 256 (K-quants) except the 32-wide side of the per-layer embeddings; the
drafter is 128 wide, as llama.cpp refuses a drafter as wide as its target.
"""
VOCAB = 4096
CONTEXT = 2048
WINDOW = 128
KINDS = "sssf"  # s: sliding, f: full; repeated

HIDDEN = 256
LAYERS = 8
SHARED = 4  # the last layers read the K/V of the last owner of their kind, with an MLP twice as wide
HEADS = 4
HEAD_DIM = {"s": 64, "f": 128}
THETA = {"s": 10000.0, "f": 1000000.0}
ROTATED = {"s": 1.0, "f": 0.25}  # share of the pairs that rotate
FFN = 512
PLE = 32
SOFTCAP = 30.0
EPS = 1e-6

DRAFT_HIDDEN = 128
DRAFT_LAYERS = 4
DRAFT_FFN = 256

NAMES = {"s": "sliding_attention", "f": "full_attention"}


def kind(layer: int) -> str:
    return KINDS[layer % len(KINDS)]


def _common() -> dict:
    return dict(vocab_size=VOCAB, head_dim=HEAD_DIM["s"], global_head_dim=HEAD_DIM["f"], sliding_window=WINDOW, rms_norm_eps=EPS,
                max_position_embeddings=CONTEXT, num_attention_heads=HEADS, num_key_value_heads=1, pad_token_id=0, eos_token_id=1,
                bos_token_id=2, tie_word_embeddings=True, attention_k_eq_v=False)


def target_config() -> dict:
    """Arguments of transformers' Gemma4TextConfig."""
    return dict(_common(), hidden_size=HIDDEN, intermediate_size=FFN, num_hidden_layers=LAYERS, num_kv_shared_layers=SHARED,
                layer_types=[NAMES[kind(i)] for i in range(LAYERS)], hidden_size_per_layer_input=PLE,
                vocab_size_per_layer_input=VOCAB, use_double_wide_mlp=True, final_logit_softcapping=SOFTCAP)


def drafter_config() -> dict:
    """Arguments of transformers' Gemma4AssistantConfig. The centroid head comes later (centroids.py)."""
    text = dict(_common(), model_type="gemma4_text", hidden_size=DRAFT_HIDDEN, intermediate_size=DRAFT_FFN,
                num_hidden_layers=DRAFT_LAYERS, num_kv_shared_layers=DRAFT_LAYERS,
                layer_types=[NAMES[kind(i)] for i in range(DRAFT_LAYERS)], hidden_size_per_layer_input=0,
                vocab_size_per_layer_input=0, final_logit_softcapping=None)
    return dict(text_config=text, backbone_hidden_size=HIDDEN, use_ordered_embeddings=False, tie_word_embeddings=True)
