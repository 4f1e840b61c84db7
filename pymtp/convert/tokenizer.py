"""tokenizer.json, tokenizer_config.json and the chat template -> tokenizer.ggml.* keys.

The runtime's tokenizer knows one algorithm: spaces become U+2581, then BPE over characters with bytes for what is unknown, newlines
apart from everything else. A tokenizer.json that says anything else is refused, so what is converted tokenizes as it did before.
"""
from __future__ import annotations

import pathlib
import re
from typing import Any

from .._text import as_json, shown
from ..errors import FormatError, UnsupportedError
from .files import MAX_TOKENIZER, Fields, is_text, read_object, read_text
from .keys import Key, read_generation

SPACE = "\u2581"
NORMAL, CONTROL, USER_DEFINED, BYTE = 1, 3, 4, 6  # token types of GGUF
BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")
# Special tokens that readers of answers need to see in text.
MARKERS = {"<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>', "<|channel>", "<channel|>"}
TURN_END = "<turn|>"
KNOWN_ENDS = ("<eos>", TURN_END, "<|tool_response>")  # end generation in any file


def tokenizer_keys(folder: pathlib.Path, rows: int) -> tuple[list[Key], int]:
    """The keys, and the number of tokens: at most `rows`, those of the embedding."""
    path = folder / "tokenizer.json"
    top = Fields(read_object(path, MAX_TOKENIZER), str(path))
    model = top.object("model")
    _check_algorithm(top, model)
    tokens, types = _tokens(top, model, rows)
    ids = {piece: i for i, piece in enumerate(tokens)}
    keys: list[Key] = [
        ("tokenizer.ggml.model", "str", "gemma4"),
        ("tokenizer.ggml.tokens", "[str]", tokens),
        ("tokenizer.ggml.scores", "[f32]", [-1000.0] * len(tokens)),  # other runtimes expect them; BPE has none
        ("tokenizer.ggml.token_type", "[i32]", types),
        ("tokenizer.ggml.merges", "[str]", _merges(model, ids)),
        ("tokenizer.ggml.add_space_prefix", "bool", False),
        ("tokenizer.ggml.add_bos_token", "bool", True),
    ]
    return keys + _special_keys(folder, ids), len(tokens)


def _check_algorithm(top: Fields, model: Fields) -> None:
    def expect(fields: Fields, key: str, what: str, *allowed: Any) -> None:
        if fields.values.get(key) not in allowed:
            raise fields.error(key, what, UnsupportedError)

    expect(model, "type", "BPE", "BPE")
    expect(model, "byte_fallback", "true", True)
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        expect(model, key, "null", None, "")
    expect(model, "ignore_merges", "false", None, False)
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    expect(top, "normalizer", "to replace spaces by U+2581", replace, {"type": "Sequence", "normalizers": [replace]})
    splitter = top.values.get("pre_tokenizer")  # on spaces, of which the normalizer leaves none
    if splitter is not None and not (isinstance(splitter, dict) and splitter.get("type") == "Split" and splitter.get("pattern") == {"String": " "}):
        raise top.error("pre_tokenizer", "none, or a split at spaces", UnsupportedError)


def _tokens(top: Fields, model: Fields, rows: int) -> tuple[list[str], list[int]]:
    """Pieces and types by id. Ids are 0, 1, 2, ... without gaps."""
    vocab = model.get("vocab", Fields.REQUIRED, "an object of ids", lambda v: isinstance(v, dict) and all(type(i) is int for i in v.values()))
    added = top.get("added_tokens", [], "a list of tokens", lambda v: isinstance(v, list) and all(_is_added(t) for t in v))
    by_id = {i: piece for piece, i in vocab.items()}
    types = {i: BYTE if BYTE_PIECE.fullmatch(piece) else NORMAL for i, piece in by_id.items()}
    for token in added:
        piece, i = token["content"], token["id"]
        if vocab.get(piece, i) != i or by_id.setdefault(i, piece) != piece:
            raise FormatError(f"{top.where}: key 'added_tokens': expected token {shown(piece)} at its place in the vocabulary, found it at {i}")
        if " " in piece or any(token.get(flag) for flag in ("single_word", "lstrip", "rstrip")):
            raise UnsupportedError(f"{top.where}: key 'added_tokens': token {shown(piece)}: expected one without spaces, "
                                   "single_word, lstrip or rstrip")
        types[i] = CONTROL if token["special"] and piece not in MARKERS else USER_DEFINED
    if len(by_id) != len(vocab.keys() | {t["content"] for t in added}) or sorted(by_id) != list(range(len(by_id))):
        raise FormatError(f"{top.where}: key 'model.vocab': expected each id in 0..{len(by_id) - 1} once")
    if not 1 <= len(by_id) <= rows:
        raise FormatError(f"{top.where}: key 'model.vocab': expected at most {rows} tokens, the rows of the embedding, found {len(by_id)}")
    for i, piece in by_id.items():
        if not is_text(piece):
            raise FormatError(f"{top.where}: key 'model.vocab': token {i}: expected text, found a lone surrogate")
    return [by_id[i] for i in range(len(by_id))], [types[i] for i in range(len(by_id))]


def _is_added(token: Any) -> bool:
    return (isinstance(token, dict) and type(token.get("id")) is int and token["id"] >= 0 and isinstance(token.get("content"), str)
            and token["content"] != "" and isinstance(token.get("special"), bool))


def _merges(model: Fields, ids: dict[str, int]) -> list[str]:
    """Merges as "left right". Both forms of tokenizer.json are read: pairs, and joined by a space."""
    merges = model.get("merges", Fields.REQUIRED, "a list of merges", lambda v: isinstance(v, list))
    out = []
    for rank, merge in enumerate(merges):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(p, str) and p and " " not in p for p in pair)):
            raise FormatError(f"{model.where}: key 'model.merges': merge {rank}: expected two parts, found {as_json(merge)}")
        left, right = pair
        for piece in (left, right, left + right):
            if piece not in ids:
                raise FormatError(f"{model.where}: key 'model.merges': merge {rank}: expected tokens, found {as_json(piece)}")
        if "\n" in left + right and (left + right).strip("\n"):
            raise UnsupportedError(f"{model.where}: key 'model.merges': merge {rank}: expected newlines apart from other text, "
                                   f"found {as_json(merge)}")
        out.append(f"{left} {right}")
    return out


def _special_keys(folder: pathlib.Path, ids: dict[str, int]) -> list[Key]:
    """Ids with a meaning, by the names tokenizer_config.json gives them, else by the ids of the other configurations."""
    path = folder / "tokenizer_config.json"
    named = Fields(read_object(path) if path.is_file() else {}, str(path))
    generation = read_generation(folder)
    keys: list[Key] = []
    ends = generation.sizes("eos_token_id", [])
    for role, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"), ("mask", "mask")):
        value = named.values.get(f"{role}_token")
        piece = value.get("content") if isinstance(value, dict) else value
        if piece is not None and not (isinstance(piece, str) and piece in ids):
            raise named.error(f"{role}_token", "a token of tokenizer.json")
        default = f"<{role}>"  # of every Gemma
        found = ids[piece] if piece is not None else ends[0] if role == "eos" and ends else ids.get(default)
        if found is not None:
            keys.append((f"tokenizer.ggml.{key}_token_id", "u32", found))
    suppressed = generation.sizes("suppress_tokens", [])
    for key, values in (("eos_token_id", ends), ("suppress_tokens", suppressed)):
        if any(i >= len(ids) for i in values):
            raise generation.error(key, f"ids below {len(ids)}")
    if TURN_END in ids and ids[TURN_END] in ends:
        keys.append(("tokenizer.ggml.eot_token_id", "u32", ids[TURN_END]))
    written = {value for key, _, value in keys if key.endswith(("eos_token_id", "eot_token_id"))} | {ids.get(p) for p in KNOWN_ENDS}
    if set(ends) - written:
        keys.append(("tokenizer.ggml.eos_token_ids", "[i32]", ends))
    if suppressed:
        keys.append(("tokenizer.ggml.suppress_tokens", "[i32]", suppressed))
    template = _template(folder, named)
    return keys + ([("tokenizer.chat_template", "str", template)] if template else [])


def _template(folder: pathlib.Path, named: Fields) -> str | None:
    """chat_template.jinja, else the one in tokenizer_config.json: text, or a list of named ones."""
    if (folder / "chat_template.jinja").is_file():
        return read_text(folder / "chat_template.jinja")
    found = named.values.get("chat_template")
    if isinstance(found, list):
        found = next((t.get("template") for t in found if isinstance(t, dict) and t.get("name") == "default"), None)
    if found is not None and not (isinstance(found, str) and is_text(found)):
        raise named.error("chat_template", "text")
    return found
