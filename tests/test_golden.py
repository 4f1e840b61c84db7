"""The engine against what transformers computed in float32 (tests/data/tiny-*.npz), through the Python API.

F32 cache: 2e-4, the promise of the project. Float32 engines differ from the reference by their order of summation: about
1e-5 here (test_ref.py derives it from the twin run in float32); 2e-4 also allows for approximations of exp and tanh.

F16 and Q8_0 caches: the engine is compared with the twin that rounds its keys and values in the same way, so the rounding
itself (3e-3 and up to 1 in logits) does not blunt the test. What is left are values so close to a rounding border
that float32 noise decides, each moving one K or V by a whole step. How much that does is measured: the twin in float32
against the twin in float64. The engine's noise has the same size and other signs, so its difference is of the same kind:
at most 3 times that in root mean square, 5 times in the largest of 2e5 values.
"""
import numpy as np
import pytest

import pymtp
from ref.gemma4_ref import Drafter, Target

TINY = ("tiny-e2b", "tiny-26b", "tiny-31b")
TOLERANCE = 2e-4


@pytest.fixture(scope="module", params=TINY)
def golden(request, data):
    """(name, model with an F32 cache, the reference's arrays)"""
    name = request.param
    with pymtp.Model(data / f"{name}.gguf", drafter=data / f"{name}-drafter.gguf", kv="f32") as model:
        yield name, model, np.load(data / f"{name}.npz")


def test_logits_and_hidden(golden):
    _, model, gold = golden
    with model.session() as s:
        logits = s.forward(gold["ids"], logits="all")
        assert logits.shape == gold["logits"].shape and logits.dtype == np.float32
        assert np.abs(logits - gold["logits"]).max() <= TOLERANCE
        assert np.abs(s.hidden - gold["hidden"]).max() <= TOLERANCE


def test_drafts(golden):
    _, model, gold = golden
    with model.session() as s:
        for P, expected, rows in sorted(zip(gold["draft_pos"].tolist(), gold["draft_tokens"], gold["draft_logits"]), key=lambda g: g[0]):
            s.forward(gold["ids"][s.length : P], logits="none")
            pending = int(gold["ids"][P])
            assert s.draft(3, pending) == expected.tolist()
            assert np.abs(s.draft_logits(3, pending) - rows).max() <= TOLERANCE
            assert s.length == P


@pytest.mark.parametrize("draft", (0, 4))
def test_continuation(golden, draft):
    _, model, gold = golden
    done = model.complete(gold["gen"][:40].tolist(), temperature=0, ignore_eos=True, max_tokens=60, draft=draft)
    assert list(done.tokens) == gold["gen"][40:].tolist()
    assert done.finish_reason == "length"


@pytest.mark.parametrize("kv", ("f16", "q8_0"))
@pytest.mark.parametrize("name", TINY)
def test_rounded_cache(data, name, kv):
    path, ids = data / f"{name}.gguf", np.load(data / f"{name}.npz")["ids"]
    twin = Target(path, kv=kv)
    expected, hidden = twin.forward(ids)
    noise = Target(path, kv=kv, dtype=np.float32).forward(ids)[0] - expected
    with pymtp.Model(path, drafter=data / f"{name}-drafter.gguf", kv=kv) as model, model.session() as s:
        error = s.forward(ids, logits="all") - expected
        assert np.sqrt((error**2).mean()) <= 3 * np.sqrt((noise**2).mean())
        assert np.abs(error).max() <= 5 * np.abs(noise).max()

        # The drafter reads the same rounded cache. Its logits follow the hidden row and K/V smoothly, so they move by
        # as much as those of the target do.
        tokens, rows = Drafter(data / f"{name}-drafter.gguf", twin).draft(7, hidden[-1], len(ids), 3)
        assert s.draft(3, 7) == tokens
        assert np.abs(s.draft_logits(3, 7) - rows).max() <= 5 * np.abs(noise).max()
