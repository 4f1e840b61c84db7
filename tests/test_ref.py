"""The numpy twin (tests/ref/gemma4_ref.py) against the goldens, which transformers computed in float32.

TOLERANCE: the twin computes in float64, so what is left is the float32 rounding of the reference. The twin itself run in
float32 moves by at most 8e-6 on these files (random signs: about 2^-24 * sqrt(row length * matmuls) of values of size 3);
another order of summation moves as much again. 5e-5 leaves a factor of 3 over the sum of both.
"""
import numpy as np
import pytest

from ref.gemma4_ref import Drafter, Target, inverse_frequencies, round_int8

TINY = ("tiny-e2b", "tiny-26b", "tiny-31b")


@pytest.mark.parametrize("name", TINY)
def test_twin_agrees_with_goldens(data, name):
    gold = np.load(data / f"{name}.npz")
    target = Target(data / f"{name}.gguf")
    logits, hidden = target.forward(gold["ids"])
    assert np.abs(logits - gold["logits"]).max() < 5e-5
    assert np.abs(hidden - gold["hidden"]).max() < 5e-5
    drafter = Drafter(data / f"{name}-drafter.gguf", target)
    for i, P in enumerate(gold["draft_pos"]):
        tokens, rows = drafter.draft(int(gold["ids"][P]), hidden[P - 1], int(P), 3)
        assert tokens == gold["draft_tokens"][i].tolist()
        assert np.abs(rows - gold["draft_logits"][i]).max() < 5e-5


@pytest.mark.parametrize("name", TINY)
def test_twin_continuation(data, name):
    """Teacher forcing: each of the 60 golden tokens is the argmax of the row before it."""
    gen = np.load(data / f"{name}.npz")["gen"]
    logits, _ = Target(data / f"{name}.gguf").forward(gen)
    assert logits[39:-1].argmax(-1).tolist() == gen[40:].tolist()


def test_missing_rope_freqs_are_made_up(data):
    file = Target(data / "tiny-31b.gguf").file
    given = inverse_frequencies(file, 1e6, 64, True)
    del file.tensors["rope_freqs.weight"]
    assert (inverse_frequencies(file, 1e6, 64, True) == given).all() and np.count_nonzero(given) == 8


def test_int8_rounding():
    x = np.random.default_rng(0).standard_normal((3, 70))
    x[1, 32:64] = 0
    y = round_int8(x)
    for row, got in zip(x, y):
        for i in range(0, 70, 32):
            step = np.abs(row[i : i + 32]).max() / 127
            assert np.abs(row[i : i + 32] - got[i : i + 32]).max() <= 0.5 * step * (1 + 1e-5)
    assert not y[1, 32:64].any()
    assert np.abs(round_int8(x, np.float16) - y).max() < np.abs(x).max() * 2**-11 * 1.01
