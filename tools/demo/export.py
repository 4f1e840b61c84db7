"""Checkpoints in transformers' form, from which pymtp converts: python export.py FOLDER writes FOLDER/target and FOLDER/drafter.

--check also runs transformers' own modules on random text and fails unless they and the training twin agree.
"""
import argparse
import json
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import Gemma4AssistantConfig, Gemma4AssistantForCausalLM, Gemma4TextConfig
from transformers.models.gemma4.modeling_gemma4 import Gemma4ForCausalLM

import corpus
import model as M
import shape as S
import train

# float32 sums of 256 to 1024 products in another order, over 8 layers: measured 2e-5; a wrong formula is 1e-1 and more
AGREE = 1e-3


def filled(module, state):
    """module with the twin's parameters; layer_scalar is a buffer there. Every tensor must find its place."""
    own = dict(module.named_parameters()) | dict(module.named_buffers())
    missing = [name for name in own if name not in state and not name.endswith(("inv_freq", "embed_scale")) and "lm_head" not in name]
    extra = [name for name in state if name not in own]
    if missing or extra:
        raise ValueError(f"transformers has {missing} that the twin lacks, the twin {extra}")
    with torch.no_grad():
        for name, value in state.items():
            own[name].copy_(value)
    return module.eval()


def target(state):
    config = Gemma4TextConfig(**S.target_config())
    config._attn_implementation = "eager"
    config.architectures = ["Gemma4ForCausalLM"]
    return filled(Gemma4ForCausalLM(config), state)


def drafter(state):
    config = Gemma4AssistantConfig(**S.drafter_config())
    config._attn_implementation = config.text_config._attn_implementation = "eager"
    config.architectures = ["Gemma4AssistantForCausalLM"]
    return filled(Gemma4AssistantForCausalLM(config), state)


def check_target(theirs, twin):
    M.Linear.exact = True
    ids = torch.randint(S.VOCAB, (1, 300), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        ref = theirs(ids, output_hidden_states=True, return_shared_kv_states=True, use_cache=False)
        hidden, kv = twin(ids, torch.ones_like(ids))
    errors = {"logits": (twin.logits(hidden) - ref.logits).abs().max().item(), "hidden": (hidden - ref.hidden_states[-1]).abs().max().item()}
    for kind, name in S.NAMES.items():
        for part, a, b in zip("kv", kv[kind], ref.shared_kv_states[name]):
            errors[part + kind] = (a - b).abs().max().item()
    return errors, ids, ref


def check_drafter(theirs, twin, target_twin, ids, ref):
    """Chained steps at one position, which the twin computes for all positions at once. transformers' sliding layers see one or
    two keys more than the window, so the position stays below it."""
    errors, position = {}, 100
    kv = {S.NAMES[k]: None for k in S.NAMES}
    rows = ids[:, :position + train.STEPS + 1]
    with torch.no_grad():
        hidden, mine = target_twin(rows, torch.ones_like(rows))
        for kind, name in S.NAMES.items():
            kv[name] = tuple(x[:, :, :position] for x in mine[kind])
        mask = dict(zip("sf", M.masks(torch.ones_like(rows), strict=True)))
        table = {kind: M.rope_table(kind, torch.arange(rows.shape[1])) for kind in "sf"}
        state = torch.nn.functional.pad(hidden, (0, 0, 1, 0))[:, :-1]
        embedded, their_state = target_twin.embed(rows), state[:, position:position + 1]
        for j in range(train.STEPS):
            normed, state = twin(torch.nn.functional.pad(embedded, (0, 0, 0, j))[:, j:], state, mine, mask, table)
            out = theirs(inputs_embeds=torch.cat([embedded[:, position + j:position + j + 1], their_state], -1),
                         attention_mask=torch.ones(1, position + 1, dtype=torch.long), position_ids=torch.tensor([[position]]),
                         shared_kv_states=kv, use_cache=False)
            their_state = out.last_hidden_state
            errors[f"draft {j + 1}"] = (state[:, position] - their_state[:, 0]).abs().max().item()
    return errors


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--check", action="store_true", help="compare with transformers first")
    args = parser.parse_args()
    twin = M.Target().eval()
    twin.load_state_dict(torch.load(args.folder / "target.pt", weights_only=True)["model"])
    big = target(twin.state_dict())
    errors, ids, ref = check_target(big, twin) if args.check else ({}, None, None)
    small = None
    if (args.folder / "drafter.pt").exists():
        small_twin = M.Drafter().eval()
        small_twin.load_state_dict(torch.load(args.folder / "drafter.pt", weights_only=True)["model"])
        small = drafter(small_twin.state_dict())
        if args.check:
            errors |= check_drafter(small, small_twin, twin, ids, ref)
    if args.check:
        print({name: f"{value:.1e}" for name, value in errors.items()})
        if max(errors.values()) > AGREE:
            raise SystemExit(f"the twin differs from transformers by more than {AGREE}")
    big.save_pretrained(args.folder / "target")
    _tokenizer(args.folder, args.folder / "target")
    if small is not None:
        small.save_pretrained(args.folder / "drafter")
        _tokenizer(args.folder, args.folder / "drafter")


def _tokenizer(folder: Path, into: Path):
    """tokenizer.json, and the few settings that converters read beside it."""
    (into / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"}
    (into / "tokenizer_config.json").write_text(json.dumps(names | {"tokenizer_class": "GemmaTokenizer", "model_max_length": S.CONTEXT}, indent=1))
    settings = dict(bos_token_id=corpus.BOS, eos_token_id=[corpus.EOS, corpus.END], pad_token_id=0, do_sample=True, temperature=1.0, top_k=64, top_p=0.95)
    (into / "generation_config.json").write_text(json.dumps(settings, indent=1))


if __name__ == "__main__":
    main()
