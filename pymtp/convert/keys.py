"""Shape, generation_config.json and the model card -> metadata keys: (key, kind, value), kind as in "u32", "str" or "[i32]"."""
from __future__ import annotations

import os
import pathlib
import re
from typing import Any

from .config import Shape
from .files import Fields, read_object, read_text

Key = tuple[str, str, Any]
COMMIT = re.compile(r"[0-9a-f]{40}")


def architecture(shape: Shape) -> str:
    return "gemma4-assistant" if shape.drafter else "gemma4"


def network_keys(shape: Shape, centroids: bool) -> list[Key]:
    """The keys below the architecture's prefix."""
    s = shape
    keys: list[Key] = [
        ("block_count", "u32", s.layers),
        ("context_length", "u32", s.context),
        ("embedding_length", "u32", s.width),
        _per_layer("feed_forward_length", s.ff),
        ("attention.head_count", "u32", s.heads),
        _per_layer("attention.head_count_kv", s.kv_heads),
        ("attention.key_length", "u32", s.global_head_dim),
        ("attention.value_length", "u32", s.global_head_dim),
        ("attention.key_length_swa", "u32", s.head_dim),
        ("attention.value_length_swa", "u32", s.head_dim),
        ("attention.layer_norm_rms_epsilon", "f32", s.eps),
        ("attention.sliding_window", "u32", s.window),
        ("attention.sliding_window_pattern", "[bool]", s.sliding),
        ("attention.shared_kv_layers", "u32", s.shared_kv),
        ("embedding_length_per_layer_input", "u32", s.ple),
        ("rope.freq_base", "f32", s.rope_base),
        ("rope.freq_base_swa", "f32", s.rope_base_swa),
        ("rope.dimension_count", "u32", s.global_head_dim),
        ("rope.dimension_count_swa", "u32", s.head_dim),
    ]
    if s.softcap:
        keys.append(("final_logit_softcapping", "f32", s.softcap))
    if s.experts:
        keys += [("expert_count", "u32", s.experts), ("expert_used_count", "u32", s.experts_used),
                 ("expert_feed_forward_length", "u32", s.expert_ff)]
    if s.drafter:
        keys += [("embedding_length_out", "u32", s.target_width), ("nextn_predict_layers", "u32", s.layers)]
    if s.clusters and centroids:
        keys += [("use_ordered_embeddings", "bool", True), ("n_centroids", "u32", s.clusters), ("centroid_top_k", "u32", s.clusters_used)]
    return [(f"{architecture(s)}.{key}", kind, value) for key, kind, value in keys]


def _per_layer(key: str, values: list[int]) -> Key:
    """One number where all layers agree, as publishers write it."""
    return (key, "u32", values[0]) if len(set(values)) == 1 else (key, "[i32]", values)


def general_keys(folder: pathlib.Path, shape: Shape) -> list[Key]:
    """general.*: what the model is called, where it comes from, how it is meant to be sampled."""
    keys: list[Key] = [("general.architecture", "str", architecture(shape)), ("general.type", "str", "model"),
                       ("general.name", "str", model_name(folder))]
    card = read_card(folder)
    for key in ("license", "license_name", "license_link"):
        if isinstance(card.get(key), str):
            keys.append((f"general.{key.replace('_', '.')}", "str", card[key]))
    for key, name in (("tags", "tags"), ("language", "languages")):
        values = card.get(key)
        if values:
            keys.append((f"general.{name}", "[str]", values if isinstance(values, list) else [values]))
    base = card.get("base_model", [])
    base = base if isinstance(base, list) else [base]
    if base:
        keys.append(("general.base_model.count", "u32", len(base)))
    for i, repository in enumerate(base):
        owner, _, name = repository.rpartition("/")
        keys.append((f"general.base_model.{i}.name", "str", name))
        if owner:
            keys += [(f"general.base_model.{i}.organization", "str", owner),
                     (f"general.base_model.{i}.repo_url", "str", f"https://huggingface.co/{repository}")]
    return keys + sampling_keys(folder)


def model_name(folder: pathlib.Path) -> str:
    """The folder's name; in a cache of Hugging Face, whose folders are commits, the repository's."""
    folder = folder.resolve()
    name = folder.name
    if COMMIT.fullmatch(name) and folder.parent.name == "snapshots":
        name = folder.parent.parent.name.rpartition("--")[2]
    return os.fsencode(name).decode("utf-8", "replace")


def sampling_keys(folder: pathlib.Path) -> list[Key]:
    generation = read_generation(folder)
    found: list[Key] = [("general.sampling.temp", "f32", generation.number("temperature", None)),
                        ("general.sampling.top_k", "i32", generation.size("top_k", None, least=0)),
                        ("general.sampling.top_p", "f32", generation.number("top_p", None))]
    return [key for key in found if key[2] is not None]


def read_generation(folder: pathlib.Path) -> Fields:
    """generation_config.json; empty when there is none."""
    path = folder / "generation_config.json"
    return Fields(read_object(path) if path.is_file() else {}, str(path))


def read_card(folder: pathlib.Path) -> dict[str, str | list[str]]:
    """The front matter of README.md as far as it is `key: text` and `key:` with lines of `- text`; the rest is skipped."""
    path = folder / "README.md"
    lines = read_text(path).splitlines() if path.is_file() else []
    card: dict[str, str | list[str]] = {}
    if not lines or lines[0].strip() != "---" or "---" not in lines[1:]:
        return card
    key = None
    for line in lines[1:lines.index("---", 1)]:
        item = re.fullmatch(r"\s*-\s+(.+)", line)
        pair = re.fullmatch(r"([A-Za-z_]+):\s*(.*)", line)
        if item and key is not None:
            values = card.setdefault(key, [])
            if isinstance(values, list):
                values.append(_plain(item[1]))
        elif pair:
            key = pair[1]
            if pair[2]:
                card[key] = _plain(pair[2])
        else:
            key = None
    return card


def _plain(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text
