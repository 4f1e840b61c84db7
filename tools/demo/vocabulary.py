"""The tokenizer: byte-pair encoding in Gemma's format, with Gemma's special tokens at Gemma's ids where 4096 allow.

The first 494 ids are laid out as Gemma's: special tokens, runs of newlines and of spaces, bytes. Merges come from training on
the demo's own texts and Python's library, never across words, digits or newlines, so that plain merging by rank without any
pre-tokenization, which is what Gemma's format means, gives the same pieces.
"""
import json
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

import shape as S

SPACE = "▁"
CONTROL = {0: "<pad>", 1: "<eos>", 2: "<bos>", 3: "<unk>", 4: "<mask>", 46: "<|tool>", 47: "<tool|>", 48: "<|tool_call>", 49: "<tool_call|>",
           50: "<|tool_response>", 51: "<tool_response|>", 52: '<|"|>', 98: "<|think|>", 100: "<|channel>", 101: "<channel|>", 105: "<|turn>",
           106: "<turn|>"}
MEDIA = ("<|image>", "<|audio>", "<|image|>", "<|audio|>", "<image|>", "<audio|>", "<|video|>")
NEWLINES, SPACES, BYTES, FIRST = 107, 138, 238, 494
LONGEST = 31  # runs of newlines and of spaces
WORDS = Regex(r"\n+|▁{2,}|[0-9]|▁?[A-Za-z]+|▁?[^A-Za-z0-9\s▁]+")


def fixed() -> list[str]:
    pieces = [f"<unused{i}>" for i in range(FIRST)]
    pieces[5] = "[multimodal]"
    for i, piece in CONTROL.items():
        pieces[i] = piece
    for n in range(1, LONGEST + 1):
        pieces[NEWLINES + n - 1] = "\n" * n
    for n in range(2, LONGEST + 1):
        pieces[SPACES + n - 2] = SPACE * n
    for b in range(256):
        pieces[BYTES + b] = f"<0x{b:02X}>"
    return pieces


def runs() -> list[tuple[str, str]]:
    """Merges that make any run up to LONGEST one token, however it is split on the way."""
    return [(c * k, c * (n - k)) for n in range(2, LONGEST + 1) for k in range(1, n) for c in ("\n", SPACE)]


def train(texts) -> Tokenizer:
    rough = Tokenizer(models.BPE())
    rough.normalizer = normalizers.Replace(" ", SPACE)
    rough.pre_tokenizer = pre_tokenizers.Split(WORDS, "isolated")
    alphabet = [chr(c) for c in range(33, 127)] + [SPACE, "\t"]
    room = S.VOCAB - FIRST - len(MEDIA)
    learner = trainers.BpeTrainer(vocab_size=room + 64, initial_alphabet=alphabet, limit_alphabet=len(alphabet), show_progress=False,
                                  max_token_length=24)
    rough.train_from_iterator(texts, learner)
    learned = json.loads(rough.to_str())["model"]
    pieces = fixed()
    known = set(pieces)
    pieces += [c for c in alphabet if c not in known]
    merges = runs()
    for left, right in learned["merges"]:
        piece = left + right
        if set(piece) <= {"\n"} or set(piece) <= {SPACE}:
            continue  # runs() has them
        if len(pieces) == S.VOCAB - len(MEDIA):
            break
        pieces.append(piece)
        merges.append((left, right))
    pieces += MEDIA
    if len(set(pieces)) != S.VOCAB:
        raise ValueError(f"vocabulary: expected {S.VOCAB} pieces, found {len(set(pieces))}")
    return build({piece: i for i, piece in enumerate(pieces)}, merges)


def build(vocab, merges) -> Tokenizer:
    tok = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tok.normalizer = normalizers.Replace(" ", SPACE)
    tok.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tok.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    tok.add_special_tokens([AddedToken(piece, special=True, normalized=False) for piece in (*CONTROL.values(), *MEDIA)])
    return tok
