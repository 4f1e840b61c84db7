"""Makes random Gemma 4 checkpoints with transformers, and what transformers computes with them: tests/data/ckpt-*.

    python tools/make_checkpoints.py tests/data [NAME...]        # needs torch and transformers 5.17.0

Each folder ckpt-NAME holds target/ and drafter/, saved with save_pretrained as publishers do (one file or shards, F32, F16 or
BF16, with or without encoders), and expected.npz, computed in float32 from the weights as saved:
    ids (n,)                      token ids, a BOS first
    logits (n, vocab)             after softcapping, causal over ids
    hidden (n, width)             after the output norm
    draft_pos (p,)                contexts P: the target has processed ids[:P], the pending token is ids[P]
    draft_logits (p, 3, vocab)    of three chained greedy draft steps at position P; sliding layers see keys k with P - k < window
    draft_tokens (p, 3)
The vocabulary is a BPE trained on this repository's documentation, in the form of Gemma's tokenizer.json.
"""
from __future__ import annotations

import json
import pathlib
import shutil
import sys

import numpy as np
import tokenizers
import torch
from transformers import (Gemma4AssistantConfig, Gemma4AssistantForCausalLM, Gemma4AudioConfig, Gemma4Config, Gemma4ForCausalLM,
                          Gemma4ForConditionalGeneration, Gemma4TextConfig, Gemma4UnifiedAssistantConfig,
                          Gemma4UnifiedAssistantForCausalLM, Gemma4UnifiedConfig, Gemma4UnifiedForConditionalGeneration,
                          Gemma4UnifiedTextConfig, GemmaTokenizer, GenerationConfig)

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOKENS = 512
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|turn>", "<turn|>", "<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>",
           "<|tool_response>", "<tool_response|>", '<|"|>', "<|think|>", "<|channel>", "<channel|>"]
LAYER = {"s": "sliding_attention", "f": "full_attention"}
HEAD, GLOBAL_HEAD, WINDOW, POSITIONS = 16, 32, 16, (1, 9, 24, 40)
TEMPLATE = "{{ bos_token }}{% for m in messages %}<|turn>{{ m.role }}\n{{ m.content | trim }}<turn|>\n{% endfor %}"

# of a target: class, layers, KV heads, and what differs from a plain one; of its drafter: clusters (0: dense head)
SHAPES = {
    "e2b": dict(kind="multimodal", layers="ssfssf", kv=1, clusters=16, dtype=torch.float32, shard="300KB",
                num_kv_shared_layers=3, hidden_size_per_layer_input=16, use_double_wide_mlp=True),
    "12b": dict(kind="unified", layers="sssf", kv=2, clusters=0, dtype=torch.float16,
                attention_k_eq_v=True, num_global_key_value_heads=1),
    "26b": dict(kind="multimodal", layers="sssf", kv=2, clusters=0, dtype=torch.bfloat16, attention_k_eq_v=True, num_global_key_value_heads=1,
                enable_moe_block=True, num_experts=8, top_k_experts=3, moe_intermediate_size=32),
    "31b": dict(kind="text", layers="ssssf" * 2, kv=4, clusters=0, dtype=torch.bfloat16, heads=8, rows=528,
                attention_k_eq_v=True, num_global_key_value_heads=2),
}


def make_tokenizer() -> GemmaTokenizer:
    """Special tokens, the 256 bytes, the characters and merges of the documentation."""
    text = [(ROOT / name).read_text() for name in ("docs/DESIGN.md", "docs/MODEL.md", "LICENSE")]
    first = SPECIAL + [f"<0x{byte:02X}>" for byte in range(256)] + ["\u2581", "\u2581\u2581", "\n", "\n\n"]
    trained = tokenizers.Tokenizer(tokenizers.models.BPE())
    trained.normalizer = tokenizers.normalizers.Replace(" ", "\u2581")
    trained.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex("\n+"), "isolated")
    trained.train_from_iterator(text, tokenizers.trainers.BpeTrainer(vocab_size=TOKENS - len(first), show_progress=False, limit_alphabet=90))
    model = json.loads(trained.to_str())["model"]
    pieces = first + [piece for piece in sorted(model["vocab"], key=model["vocab"].get) if piece not in first]
    assert len(pieces) >= TOKENS - 4
    pieces += [f"<unused{i}>" for i in range(TOKENS - len(pieces))]
    merges = [("\u2581", "\u2581"), ("\n", "\n")] + [tuple(m) for m in model["merges"] if "".join(m) not in first]
    made = GemmaTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges)
    made.add_special_tokens({"additional_special_tokens": SPECIAL[5:]})
    made.add_tokens(["<unused0>"] if "<unused0>" in pieces else [])
    made.chat_template = TEMPLATE
    return made


def text_config(cls: type, shape: dict) -> object:
    """The configuration of a target's text network."""
    extra = {k: v for k, v in shape.items() if k not in ("kind", "layers", "kv", "clusters", "dtype", "shard", "heads", "rows")}
    if cls is Gemma4TextConfig:
        extra = {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": shape.get("rows", TOKENS)} | extra
    return cls(hidden_size=64, intermediate_size=64, num_hidden_layers=len(shape["layers"]), num_attention_heads=shape.get("heads", 4),
               num_key_value_heads=shape["kv"], layer_types=[LAYER[c] for c in shape["layers"]], final_logit_softcapping=30.0,
               **sizes(shape), **extra)


def sizes(shape: dict) -> dict:
    return dict(vocab_size=shape.get("rows", TOKENS), head_dim=HEAD, global_head_dim=GLOBAL_HEAD, sliding_window=WINDOW,
                max_position_embeddings=256)


def make_target(shape: dict) -> torch.nn.Module:
    if shape["kind"] == "text":
        return Gemma4ForCausalLM(text_config(Gemma4TextConfig, shape))
    if shape["kind"] == "unified":
        vision = dict(mm_embed_dim=16, mm_posemb_size=4, patch_size=2, pooling_kernel_size=1, model_patch_size=2, output_proj_dims=16)
        audio = dict(audio_embed_dim=16, hidden_size=16, output_proj_dims=16)
        config = Gemma4UnifiedConfig(text_config=text_config(Gemma4UnifiedTextConfig, shape), vision_config=vision, audio_config=audio)
        return Gemma4UnifiedForConditionalGeneration(config)
    audio = Gemma4AudioConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=1, output_proj_dims=16, subsampling_conv_channels=[4, 4])
    vision = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1, head_dim=16,
                  patch_size=4, position_embedding_size=16)
    config = Gemma4Config(text_config=text_config(Gemma4TextConfig, shape), vision_config=vision, audio_config=audio)
    return Gemma4ForConditionalGeneration(config)


def make_drafter(shape: dict) -> torch.nn.Module:
    unified = shape["kind"] == "unified"
    kept = {k: shape[k] for k in ("attention_k_eq_v", "num_global_key_value_heads") if k in shape}
    text = dict(model_type="gemma4_unified_text" if unified else "gemma4_text", hidden_size=32, intermediate_size=64, num_hidden_layers=4,
                num_attention_heads=shape.get("heads", 4), num_key_value_heads=shape["kv"], num_kv_shared_layers=4,
                layer_types=[LAYER[c] for c in "sssf"], final_logit_softcapping=None, **sizes(shape), **kept)
    if not unified:
        text |= dict(hidden_size_per_layer_input=0, vocab_size_per_layer_input=0)
    config, cls = (Gemma4UnifiedAssistantConfig, Gemma4UnifiedAssistantForCausalLM) if unified else (Gemma4AssistantConfig, Gemma4AssistantForCausalLM)
    return cls(config(text_config=text, backbone_hidden_size=64, use_ordered_embeddings=bool(shape["clusters"]),
                      num_centroids=shape["clusters"] or 2048, centroid_intermediate_top_k=4))


def randomize(model: torch.nn.Module, seed: int) -> None:
    """Matrices around 0, norms and scales around 1; a random order of tokens."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in list(model.named_parameters()) + list(model.named_buffers()):
            if name.endswith("token_ordering"):
                value.copy_(torch.randperm(len(value), generator=random))
            elif value.is_floating_point() and not name.endswith(("inv_freq", "embed_scale")):
                centre = 1.0 if "norm" in name or name.endswith(("scale", "layer_scalar")) else 0.0
                value.copy_(centre + 0.25 * torch.randn(value.shape, generator=random))


def save(model: torch.nn.Module, shape: dict, folder: pathlib.Path) -> torch.nn.Module:
    """Writes a checkpoint and gives back the model in float32, loaded: its weights are rounded, its rotation frequencies are not."""
    model.to(shape["dtype"]).save_pretrained(folder, max_shard_size=shape.get("shard", "5GB"))
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder)
    ends = [tokenizer.convert_tokens_to_ids(piece) for piece in ("<eos>", "<turn|>", "<|tool_response>")]
    generation = GenerationConfig(bos_token_id=2, pad_token_id=0, eos_token_id=ends, do_sample=True, temperature=1.0, top_k=64, top_p=0.95)
    if shape["kind"] == "unified":
        generation.suppress_tokens = [510, 511]
    generation.save_pretrained(folder)
    return type(model).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def compute(target: torch.nn.Module, drafter: torch.nn.Module) -> dict[str, np.ndarray]:
    """What expected.npz holds. Logits of rows beyond the vocabulary are left out, as the converter leaves out these rows."""
    random = torch.Generator().manual_seed(7)
    ids = torch.cat([torch.tensor([2]), torch.randint(len(SPECIAL), TOKENS, (47,), generator=random)])
    text = getattr(target.model, "language_model", target.model)
    out = text(ids[None], output_hidden_states=True, return_shared_kv_states=True, use_cache=False)
    hidden = out.last_hidden_state
    logits = 30 * torch.tanh(target.lm_head(hidden) / 30)
    found = {"ids": ids, "logits": logits[0, :, :TOKENS], "hidden": hidden[0], "draft_pos": torch.tensor(POSITIONS)}
    rows, tokens = [], []
    for P in POSITIONS:
        # The sliding view is cut to the keys that P sees: transformers would show two more.
        seen = {LAYER["f"]: 0, LAYER["s"]: max(0, P - WINDOW + 1)}
        kv = {name: tuple(x[:, :, seen[name]:P] for x in out.shared_kv_states[name]) for name in seen}
        token, h = ids[P], hidden[:, P - 1:P]
        for _ in range(3):
            step = drafter(inputs_embeds=torch.cat([text.get_input_embeddings()(token[None, None]), h], -1), position_ids=torch.tensor([[P]]),
                           attention_mask=None, shared_kv_states=kv, use_cache=False)
            h, row = step.last_hidden_state, step.logits[0, 0, :TOKENS]
            token = row.argmax()
            rows.append(row)
            tokens.append(token)
    found |= {"draft_logits": torch.stack(rows).view(len(POSITIONS), 3, -1), "draft_tokens": torch.stack(tokens).view(-1, 3)}
    return {name: value.numpy() for name, value in found.items()}


def make(name: str, folder: pathlib.Path) -> None:
    shape, out = SHAPES[name], folder / f"ckpt-{name}"
    shutil.rmtree(out, ignore_errors=True)
    models = []
    for i, (part, build) in enumerate((("target", make_target), ("drafter", make_drafter))):
        model = build(shape)
        randomize(model, 10 + i)
        models.append(save(model, shape, out / part))
    with torch.no_grad():
        np.savez_compressed(out / "expected.npz", **compute(*models))


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    for chosen in sys.argv[2:] or SHAPES:
        make(chosen, pathlib.Path(sys.argv[1]))
