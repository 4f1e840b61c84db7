"""GGUF files mutated by their grammar (gguf_grammar.py): each ends in an error that names what was changed, or opens and gives two
tokens, or says that its logits are not finite. No signal, no hang, and no more memory than 4 x the file + 64 MiB.

Classes: CVE-2025-53630 and CVE-2026-27940 (sizes and offsets that wrap), CVE-2026-7482 (extents beyond the file), allocation bombs
(ggml 1516), alignments (llama.cpp 24997), types, duplicates, nested arrays and NUL in names (llama.cpp 26318), division by zero
(GO-2025-3559). All cases:  python tests/test_gguf_grammar.py BUILD_FOLDER [sanitized]   where that folder has tool_cases.
"""
import collections
import itertools
import os
import re
import struct
import subprocess
import sys
import tempfile

import pytest

import gguf_grammar
import micro_models

FILES = [(variant, role) for variant in micro_models.VARIANTS for role in ("target", "drafter")]
MIB = 1024  # KiB

# What an error may name instead of the key or tensor that was changed: what then disagrees with it. By the end of its name.
INSTEAD = {
    "block_count": r"key '.*sliding_window_pattern': expected 1 values",
    "embedding_length": r"tensor 'token_embd.weight': expected shape",
    "feed_forward_length": r"tensor 'blk.0.ffn_gate.weight': expected shape",
    "attention.head_count": r"tensor 'blk.0.attn_q.weight': expected shape",
    "attention.head_count_kv": r"tensor 'blk.\d.attn_k.weight': expected shape",
    "attention.sliding_window_pattern": r"tensor 'blk.\d.attn_q(_norm)?.weight': expected ",  # head sizes go by the kind of layer
    "attention.shared_kv_layers": r"tensor 'blk.2.attn_k_norm.weight': missing",
    "embedding_length_per_layer_input": r"tensor 'per_layer_token_embd.weight': ",
    "tokenizer.ggml.tokens": r"tokenizer.ggml.token_type: expected \d+ elements, one per token",
    "expert_count": r"key 'gemma4.expert_used_count': ",
    "expert_feed_forward_length": r"tensor 'blk.0.ffn_down_exps.weight': expected shape",
    "token_embd.weight": r"tensor 'output.weight': expected shape",
    "nextn.pre_projection.weight": r"key 'gemma4-assistant.embedding_length': ",
    "ffn_gate.weight": r"key 'gemma4-assistant.feed_forward_length': ",
    "general.alignment": r"tensor 'rope_freqs.weight': ",  # the first tensor: where the data begins
}


def run(tool, cases, target=None):
    """The line of each case: (peak KiB, text)."""
    with tempfile.TemporaryFile() as given:
        for case in cases:
            given.write(struct.pack("<I", len(case.data)) + case.data)
        given.seek(0)
        done = subprocess.run([str(tool), *([str(target)] if target else [])], stdin=given, capture_output=True, text=True, errors="replace",
                              env={**os.environ, "ASAN_OPTIONS": "allocator_may_return_null=1:max_allocation_size_mb=4096"})
    assert done.returncode == 0 and not done.stderr, done.stderr[-4000:]
    lines = [line.split(" ", 1) for line in done.stdout.split("\n")[:-1]]
    assert len(lines) == len(cases)
    return [(int(peak), text) for peak, text in lines]


def named(case, text):
    return case.named in text or any(re.search(what, text) for key, what in INSTEAD.items() if case.named.endswith(key))


def wrong(case, peak, text, bounded):
    """Why the outcome is not as promised; None when it is."""
    if not re.match(r"ok$|not finite: .*position|error -\d+: \S", text):
        return text
    if bounded and peak > 4 * len(case.data) // 1024 + 64 * MIB:
        return f"{peak // MIB} MiB for a file of {len(case.data)} bytes"
    if text.startswith("error") and not named(case, text):
        return f"expected {case.named!r} in {text!r}"
    return None


def check(tool, variant, role, every, bounded, folder):
    """Every `every`-th case of a file. Returns how many ended how."""
    source = getattr(micro_models, role)(variant)
    target = None
    if role == "drafter":
        target = folder / f"{variant}.gguf"
        target.write_bytes(micro_models.target(variant).bytes())
    counts, bad = collections.Counter(), []
    chosen = itertools.islice(gguf_grammar.cases(source), 0, None, every)
    while batch := list(itertools.islice(chosen, 500)):
        for case, (peak, text) in zip(batch, run(tool, batch, target)):
            counts[text.split(" ")[0].rstrip(":")] += 1
            reason = wrong(case, peak, text, bounded)
            if reason:
                bad.append(f"{case.name}: {reason}")
    assert not bad, f"{len(bad)} of {sum(counts.values())}:\n" + "\n".join(bad)
    return counts


@pytest.mark.parametrize(("variant", "role"), FILES)
def test_cases(c_build, tmp_path, variant, role):
    counts = check(c_build / "tool_cases", variant, role, 7, True, tmp_path)
    assert counts["error"] > 500 and counts["ok"] > 50


@pytest.mark.parametrize(("variant", "role"), FILES)
def test_cases_sanitized(asan_build, tmp_path, variant, role):
    """Memory is not bounded here: the sanitizer's own counts."""
    assert check(asan_build / "tool_cases", variant, role, 61, False, tmp_path)["error"] > 50


if __name__ == "__main__":
    import pathlib

    with tempfile.TemporaryDirectory() as work:
        for name, part in FILES:
            tool_path = pathlib.Path(sys.argv[1]) / "tool_cases"
            print(name, part, dict(check(tool_path, name, part, 1, "sanitized" not in sys.argv, pathlib.Path(work))), flush=True)
