"""Precision on a trained model: the engine pays for rounding activations to int8 per block of 32, and for nothing else.

Mean KL(exact || engine) over 1600 positions of Python, exact being the twin on the dequantized weights, over the same of the twin
that rounds these activations and nothing else. The engine's roundings are another sample of the same noise, so the two
means differ by sampling only: the standard error of their ratio is 0.02 (ratio_error). BOUND is five of these above 1. The
F16 cache adds 1/2000 (the twin with kv="f16" alone). The twin in float32 serves as exact: its own KL is 1e-12, int8 gives 1e-4.

An engine that rounds more fails: activations in blocks of 256, as is usual for K-quants elsewhere, cost three times as much.
benchmarks/precision.py compares with llama.cpp, and in other formats.
"""
import sys

import numpy as np
import pytest

from conftest import ROOT
from ref import gemma4_ref

sys.path.insert(0, str(ROOT / "benchmarks"))
import precision  # noqa: E402

BOUND = 1.1


@pytest.fixture(scope="module")
def trained(data):
    """(path, texts as ids, exact logits, logits with int8 activations)"""
    path = data / "trained-py.gguf"
    ids = precision.prompts(path)[::2]
    return path, ids, twin(path, ids, act8=False), twin(path, ids, act8=True)


def twin(path, ids, act8):
    return precision.run_exact(path, ids, act8, np.float32)


def ratio(exact, logits, reference):
    """Mean KL of logits over that of reference."""
    return precision.ratio_error(*(precision.divergences(exact, x)[0] for x in (logits, reference)))[0]


@pytest.mark.parametrize("kv", ("f16", "f32"))
def test_only_activations_are_rounded(trained, kv):
    path, ids, exact, int8 = trained
    assert sum(map(len, ids)) > 1000
    assert ratio(exact, precision.run_pymtp(path, ids, kv, threads=None), int8) <= BOUND


def test_larger_blocks_would_fail(trained, monkeypatch):
    path, ids, exact, int8 = trained
    blocks = lambda x: x.astype(np.float32).reshape(*x.shape[:-1], -1, min(256, x.shape[-1]))
    monkeypatch.setattr(gemma4_ref, "blocks_of_32", blocks)
    assert ratio(exact, twin(path, ids, act8=True), int8) > 2 * BOUND
