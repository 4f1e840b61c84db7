"""The trained pair (11 M parameters, Python sources): drafts are accepted as a trained drafter's should be, and change nothing."""
import json
import re
import subprocess
import sys

import numpy as np
import pytest

import driver
import pymtp
from pymtp._lib import ffi, lib

TOKENS = 64


@pytest.fixture(scope="module")
def pair(data):
    with pymtp.Model(data / "trained-py.gguf", drafter=data / "trained-py-drafter.gguf") as model:
        yield model


@pytest.fixture(scope="module")
def prompts(data):
    return list(json.loads((data / "python-prompts.json").read_text())["prompts"].values())


def test_drafts_change_nothing_and_are_accepted(pair, prompts):
    """Free-running text: the outputs are equal, and more than half of the first drafts are accepted."""
    for options in (dict(temperature=0), dict(temperature=0.8, top_k=64, top_p=0.95)):
        drafted, accepted = [0] * 4, [0] * 4
        for i, prompt in enumerate(prompts):
            plain = pair.complete(prompt, max_tokens=TOKENS, seed=i, draft=0, ignore_eos=True, **options)
            fast = pair.complete(prompt, max_tokens=TOKENS, seed=i, draft=4, ignore_eos=True, **options)
            assert fast.tokens == plain.tokens and fast.text == plain.text
            assert fast.stats.passes < plain.stats.passes
            for k in range(4):
                drafted[k] += fast.stats.drafted_by_position[k]
                accepted[k] += fast.stats.accepted_by_position[k]
        print(options, "accepted of drafted by position:", [round(a / d, 3) for a, d in zip(accepted, drafted)])
        assert accepted[0] / drafted[0] >= 0.55


def choice(logits, position, **options):
    """What the engine's sampler takes from a row of logits."""
    params, err = driver.struct("pymtp_params"), driver.struct("pymtp_error")
    lib.pymtp_params_init(params)
    for name, value in options.items():
        setattr(params, name, value)
    row = np.ascontiguousarray(logits, np.float32)
    token = lib.pymtp_sample(params, ffi.from_buffer("float[]", row), ffi.NULL, row.size, ffi.NULL, 0, position, err)
    assert token >= 0, ffi.string(err.text)
    return token


def test_agreement_on_given_text(pair, prompts):
    """Greedy and sampled on the SAME text, the library's own (free-running greedy text repeats itself, which is easy to draft, so
    the two cannot be compared there). 0.55 and 0.85 leave room below torch's 0.607 greedy and 0.587 with shared noise; greedy
    drafts (0.457) and independent ones (0.340) would fail the second bound: 0.75 and 0.56 of greedy."""
    sampling = {"greedy": dict(temperature=0.0), "shared": dict(temperature=0.8, top_k=64, top_p=0.95)}
    agreed, rounds = dict.fromkeys((*sampling, "greedy drafts", "independent"), 0), 0
    for seed, prompt in enumerate(prompts):
        ids = pair.tokenize(prompt, bos=True)[:100]
        with pair.session() as s:
            s.forward(ids[:4], logits="none")
            for position in range(4, len(ids)):
                draft = s.draft_logits(1, ids[position])[0]
                row = s.forward([ids[position]], logits="last")[0]
                rounds += 1
                for name, options in sampling.items():
                    agreed[name] += choice(row, position + 1, seed=seed, **options) == choice(draft, position + 1, seed=seed, **options)
                drawn = choice(row, position + 1, seed=seed, **sampling["shared"])
                agreed["greedy drafts"] += drawn == int(draft.argmax())
                agreed["independent"] += drawn == choice(draft, position + 1, seed=seed + 1000, **sampling["shared"])
    share = {name: n / rounds for name, n in agreed.items()}
    print({name: round(x, 3) for name, x in share.items()}, "of", rounds)
    assert share["greedy"] >= 0.55
    assert share["shared"] >= 0.85 * share["greedy"]
    assert share["shared"] > share["greedy drafts"] > share["independent"]


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
    assert re.search(r"\b(if|for|return|def|self|in|not|is|else|None|import|from)\b", out[0]), "the continuation speaks Python"
