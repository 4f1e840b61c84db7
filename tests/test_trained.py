"""The trained pair (11 M parameters, Python sources): drafts are accepted as a trained drafter's should be, and change nothing."""
import json
import re
import subprocess
import sys

import pytest

import pymtp

TOKENS = 64


@pytest.fixture(scope="module")
def pair(data):
    with pymtp.Model(data / "trained-py.gguf", drafter=data / "trained-py-drafter.gguf") as model:
        yield model


@pytest.fixture(scope="module")
def prompts(data):
    return list(json.loads((data / "python-prompts.json").read_text())["prompts"].values())


def acceptance(model, prompts, **options):
    """Share of accepted drafts by position over all prompts at depth 4, after checking each output against the plain run."""
    drafted, accepted = [0] * 4, [0] * 4
    for i, prompt in enumerate(prompts):
        plain = model.complete(prompt, max_tokens=TOKENS, seed=i, draft=0, ignore_eos=True, **options)
        fast = model.complete(prompt, max_tokens=TOKENS, seed=i, draft=4, ignore_eos=True, **options)
        assert fast.tokens == plain.tokens and fast.text == plain.text
        assert fast.stats.passes < plain.stats.passes
        for k in range(4):
            drafted[k] += fast.stats.drafted_by_position[k]
            accepted[k] += fast.stats.accepted_by_position[k]
    return [a / max(d, 1) for a, d in zip(accepted, drafted)]


def test_acceptance(pair, prompts):
    """0.55 and 0.85 leave room below torch's measurement on held-out text: 0.607 greedy, 0.587 with shared noise at 0.8, where
    greedy drafts reach 0.457 (0.75 of greedy) and independent ones 0.340 (0.56 of greedy): both would fail the second bound."""
    greedy = acceptance(pair, prompts, temperature=0)
    sampled = acceptance(pair, prompts, temperature=0.8, top_k=64, top_p=0.95)
    print("greedy by position", [round(x, 3) for x in greedy], "temperature 0.8", [round(x, 3) for x in sampled])
    assert greedy[0] >= 0.55
    assert sampled[0] >= 0.85 * greedy[0]


def test_cli_continues_python(data):
    """`pymtp run --raw` continues code with code, the same with drafts and without."""
    prompt = "import os\nimport sys\n\n\ndef main(argv):\n    for name in argv:\n        if "
    out = []
    for draft in ("0", "4", "auto"):
        command = [sys.executable, "-m", "pymtp", "run", str(data / "trained-py.gguf"), "--drafter", str(data / "trained-py-drafter.gguf"),
                   "--raw", "--temperature", "0", "--max-tokens", "80", "--draft", draft, prompt]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        out.append(done.stdout)
    assert out[0] == out[1] == out[2]
    assert re.search(r"^ {4,}\w+", out[0], re.M), "the continuation keeps an indented block"
    assert re.search(r"\b(if|for|return|def|self|in|not|is|else|None)\b", out[0]), "the continuation speaks Python"
