"""The sampler through the C API: its frequencies, and the shared noise of drafter and target.

Under one Gumbel noise two distributions p and q choose the same token with probability
    sum over i with p_i, q_i > 0 of  1 / sum_j max(p_j / p_i, q_j / q_i),
between (1 - TV) / (1 + TV) and 1 - TV (Daliri, Musco, Suresh 2024). Seeds are fixed: the tests are deterministic."""
import math

import numpy as np
import pytest

from pymtp._lib import ffi, lib, new_struct

DRAWS = 6000


def params(**values):
    out = new_struct("pymtp_params")
    lib.pymtp_params_init(out)
    out.top_k, out.top_p = 0, 1.0
    for name, value in values.items():
        setattr(out, name, value)
    return out


def draws(probabilities, ids, n=DRAWS, start=0, **options):
    """Choices at n positions from candidates `ids` with these probabilities (as logits)."""
    logits = ffi.new("float[]", [math.log(p) for p in probabilities])
    ids, chain = ffi.new("int32_t[]", [int(i) for i in ids]), params(**options)
    out = [lib.pymtp_sample(chain, logits, ids, len(probabilities), ffi.NULL, 0, start + i, ffi.NULL) for i in range(n)]
    assert min(out) >= 0
    return np.array(out)


def pair(number):
    """(p, q) over ids 0..n-1, zeros where a token is out; q a disturbed p, some truncated, some with tails apart."""
    rng = np.random.default_rng(number)
    n = int(rng.integers(3, 50))
    logits = rng.normal(0, 2, n)
    p, q = np.exp(logits), np.exp(logits + rng.normal(0, (0.1, 0.5, 1, 2)[number % 4], n))
    if number % 5 in (1, 2):  # each keeps its own best ones, as top-k does
        for x in (p, q):
            x[np.argsort(-x)[max(2, n // 3):]] = 0
    if number % 5 == 3:  # the tails have nothing in common
        tail = np.arange(n) >= max(2, n // 2)
        p[tail & (np.arange(n) % 2 == 0)] = 0
        q[tail & (np.arange(n) % 2 == 1)] = 0
    return p / p.sum(), q / q.sum()


def agreement(p, q):
    both = np.flatnonzero((p > 0) & (q > 0))
    return sum(1 / np.maximum(p / p[i], q / q[i]).sum() for i in both)


@pytest.mark.parametrize("number", range(20))
def test_shared_noise(number):
    p, q = pair(number)
    a, b = np.flatnonzero(p), np.flatnonzero(q)
    b = b[::-1]  # the order of candidates must not matter
    expected, tv = agreement(p, q), 0.5 * np.abs(p - q).sum()
    assert (1 - tv) / (1 + tv) - 1e-12 <= expected <= 1 - tv + 1e-12
    target = draws(p[a], a, seed=number)
    shared = np.mean(target == draws(q[b], b, seed=number))
    apart = np.mean(target == draws(q[b], b, seed=number + 1000))
    # a mean of DRAWS independent yes-or-no draws
    assert abs(shared - expected) <= 4 * math.sqrt(expected * (1 - expected) / DRAWS)
    assert apart < shared


def test_equal_distributions_always_agree():
    p, _ = pair(4)
    ids = np.arange(len(p))
    assert np.array_equal(draws(p, ids, seed=5), draws(p[::-1] * 7, ids[::-1], seed=5))


@pytest.mark.parametrize("options, shape", [
    ({}, lambda p: p),
    ({"temperature": 0.5}, lambda p: p ** 2),
    ({"temperature": 2.0}, lambda p: p ** 0.5),
    ({"top_k": 4}, lambda p: np.where(np.argsort(np.argsort(-p)) < 4, p, 0)),
    ({"top_p": 0.8}, lambda p: np.where(np.cumsum(p) - p < 0.8, p, 0)),
    ({"min_p": 0.2}, lambda p: np.where(p >= 0.2 * p[0], p, 0)),
    ({"top_p": 0.8, "temperature": 1.5}, lambda p: np.where(np.cumsum(p) - p < 0.8, p, 0) ** (1 / 1.5)),
])
def test_frequencies(options, shape):
    """Pearson's statistic of df degrees of freedom has mean df and variance 2 df: within five deviations of its mean."""
    p = np.array([0.3, 0.2, 0.15, 0.1, 0.08, 0.07, 0.05, 0.03, 0.02])
    expected = shape(p)
    expected = expected / expected.sum() * 20000
    ids = np.array([4, 0, 900, 17, 5, 262143, 6, 8, 99])
    found = draws(p, ids, n=20000, start=1000, seed=2024, **options)
    counts = np.array([np.sum(found == i) for i in ids])
    assert not counts[expected == 0].any()
    kept = expected > 0
    df = kept.sum() - 1
    assert ((counts - expected)[kept] ** 2 / expected[kept]).sum() <= df + 5 * math.sqrt(2 * df)


def test_seeds_and_positions_differ():
    p = np.full(64, 1 / 64)
    ids = np.arange(64)
    a, b = draws(p, ids, n=2000, seed=1), draws(p, ids, n=2000, seed=2)
    later = draws(p, ids, n=2000, seed=1, start=1)
    assert np.array_equal(a[1:], later[:-1])  # a function of the absolute position
    # chance agreement 1/64 of 2000: 31, standard deviation 5.5
    assert np.sum(a == b) < 31 + 5 * 5.6 and np.sum(a[1:] == a[:-1]) < 31 + 5 * 5.6


def test_history_and_bias():
    logits, history = ffi.new("float[]", [3, 2.5, 1]), ffi.new("int32_t[]", [0, 0, 1])
    ids, values = ffi.new("int32_t[]", [2, 2]), ffi.new("float[]", [1, 1])
    choose = lambda chain, n: lib.pymtp_sample(chain, logits, ffi.NULL, 3, history, n, 0, ffi.NULL)
    assert choose(params(temperature=0), 3) == 0
    assert choose(params(temperature=0, repetition_penalty=1.5), 1) == 1
    assert choose(params(temperature=0, frequency_penalty=0.3), 2) == 1
    assert choose(params(temperature=0, presence_penalty=5), 3) == 2
    assert choose(params(temperature=0, bias_ids=ids, bias_values=values, n_bias=1), 0) == 0  # 1 + 1 < 3
    assert choose(params(temperature=0, bias_ids=ids, bias_values=values, n_bias=2), 0) == 0  # 3 = 3: the lowest id
    values[1] = float("-inf")
    assert choose(params(temperature=0, bias_ids=ids, bias_values=values, n_bias=2, presence_penalty=9), 3) == 0  # id 2 is banned
