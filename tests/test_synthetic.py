"""A pair of full width whose every token and every draft is known: benchmarks/make_synthetic.py pair e2b, 8 layers.

The right output is a walk through the successor table, the drafter's guess another table: so tokens, passes, and drafts
accepted at each position are predicted exactly, from the tables alone. (Logits of the right token lead by more than 9 of the
drafter's 16 and 35 of the target's 42, far beyond any rounding.)
"""
import shutil
import subprocess
import sys

import numpy as np
import pytest

import pymtp
from conftest import ROOT

NEW, DEPTH, STARTS = 64, 4, 3


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """(folder, successor table, draft table); 1.4 GB, removed at the end."""
    folder = tmp_path_factory.mktemp("synthetic")
    command = [sys.executable, str(ROOT / "benchmarks" / "make_synthetic.py"), "pair", "e2b", str(folder), "--accept", "0.8", "--layers", "8"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    yield folder, np.load(folder / "e2b-pair-next.npy"), np.load(folder / "e2b-pair-draft.npy")
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def model(pair):
    folder = pair[0]
    with pymtp.Model(folder / "e2b-pair-q4_0.gguf", drafter=folder / "e2b-pair-drafter-a80.gguf", context=256) as m:
        yield m


def walk(table, start, n):
    out = []
    for _ in range(n):
        start = int(table[start])
        out.append(start)
    return out


def predicted(successor, draft, start, new, depth):
    """(passes, drafted, accepted by position) of a request: the prompt gives the first token, then rounds of up to `depth`
    drafts, never more than could be emitted besides the round's own token."""
    pending, emitted, passes, drafted, accepted = int(successor[start]), 1, 0, 0, [0] * 16
    while emitted < new:
        passes += 1
        k = min(depth, new - emitted - 1)
        drafted += k
        guesses, truth = walk(draft, pending, k), walk(successor, pending, k + 1)
        n = next((i for i in range(k) if guesses[i] != truth[i]), k)
        for i in range(n):
            accepted[i] += 1
        emitted += n + 1
        pending = truth[n]
    return passes, drafted, accepted


def starts(successor):
    return np.random.default_rng(1).choice(np.flatnonzero(successor != np.arange(len(successor))), STARTS, replace=False).tolist()


def test_tables(pair):
    """The cycle visits every token of its range once, and the drafter knows about 80 % of the successors."""
    _, successor, draft = pair
    cycle = np.arange(1000, 255000)
    assert sorted(successor[cycle]) == cycle.tolist() and (successor[:1000] == np.arange(1000)).all()
    known = (successor == draft)[cycle].mean()
    assert abs(known - 0.8) < 5 * (0.8 * 0.2 / len(cycle)) ** 0.5  # binomial


def test_plain_output_follows_the_table(pair, model):
    _, successor, _ = pair
    for start in starts(successor):
        done = model.complete([2, start], temperature=0, max_tokens=NEW, draft=0)
        assert list(done.tokens) == walk(successor, start, NEW)
        assert done.stats.passes == NEW - 1 and done.stats.drafted == 0


def test_each_draft_hits_or_misses_as_the_table_says(pair, model):
    _, successor, draft = pair
    seen = 0
    for start in starts(successor):
        done = model.complete([2, start], temperature=0, max_tokens=NEW, draft=DEPTH)
        assert list(done.tokens) == walk(successor, start, NEW)
        passes, drafted, accepted = predicted(successor, draft, start, NEW, DEPTH)
        assert (done.stats.passes, done.stats.drafted, done.stats.accepted) == (passes, drafted, sum(accepted))
        by_position = list(done.stats.accepted_by_position)
        assert by_position == accepted[: len(by_position)] and not any(accepted[len(by_position) :])
        seen += sum(accepted)
    assert seen > 0


def test_single_drafts(pair, model):
    """Session.draft after the target has seen [bos, t] and t' is pending: the chain through the drafter's table."""
    _, successor, draft = pair
    with model.session() as s:
        for start in starts(successor):
            s.forward([2, start], logits="none")
            pending = int(successor[start])
            assert s.draft(8, pending) == walk(draft, pending, 8)
            s.rewind(0)


def test_auto_depth(pair, model):
    _, successor, _ = pair
    start = starts(successor)[0]
    assert list(model.complete([2, start], temperature=0, max_tokens=NEW, draft="auto").tokens) == walk(successor, start, NEW)
