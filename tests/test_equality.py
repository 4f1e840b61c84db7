"""The first promise: tokens, log-probabilities, text, hidden row, K/V bytes and what follows are the same, byte for byte,
whatever is drafted, by whatever threads, prompt chunks and batch mates.

The plain run (no drafts, one thread, chunks of 16, alone) of the same model, cache type and sampling is the reference. With
chunks of 16 a ring holds 128 positions, of the goldens (window 64) and of the small quantized models (window 32): half of
the requests are longer, so they wrap both the windows and the rings.
"""
import functools
import random

import pytest

import driver
import make_models

NEW = 40
GOLDENS = ("tiny-e2b", "tiny-26b", "tiny-31b")
SAMPLING = {"greedy": dict(temperature=0.0), "0.7": dict(temperature=0.7, top_k=64, top_p=0.95), "1.5": dict(temperature=1.5, top_k=0, top_p=1.0)}
SCRIPTS = ("right", "wrong", "until 5", "random")


@pytest.fixture(scope="module")
def models(data, tmp_path_factory):
    """name -> (target, drafter): the goldens and one small quantized target of each structure and mix."""
    out = {name: (data / f"{name}.gguf", data / f"{name}-drafter.gguf") for name in GOLDENS}
    folder = tmp_path_factory.mktemp("equality")
    for variant in make_models.VARIANTS:
        for mix in make_models.MIXES:
            out[f"{variant}-{mix}"] = make_models.build(variant, mix, folder)
    return out


def prompt_of(vocab, index):
    """Prompts of 3 to 140 tokens that share no prefix, BOS first."""
    rng = random.Random(index)
    return [2] + [rng.randrange(10, vocab) for _ in range((110, 3, 140, 97, 11, 120, 5, 37)[index % 8])]


class Bench:
    """Plain runs, computed once per (model, cache type, sampling, prompt)."""

    def __init__(self, models):
        self.models = models
        self.plain = functools.cache(self._plain)

    def options(self, sampling, index):
        return dict(SAMPLING[sampling], seed=1000 + index, max_tokens=NEW, ignore_eos=1)

    def _plain(self, name, kv, sampling, index):
        with driver.opened(*self.models[name], kv=kv, chunk=16) as model:
            return driver.complete(model, prompt_of(driver.info(model).vocab, index), draft=0, **self.options(sampling, index))[0]

    def script(self, kind, name, kv, sampling, index):
        with driver.opened(self.models[name][0]) as model:
            vocab = driver.info(model).vocab
        right = self.plain(name, kv, sampling, index)[0]
        wrong = [(t + 1) % vocab for t in right]
        rng = random.Random(index)
        return {"right": right, "wrong": wrong, "until 5": [t if i % 6 else w for i, (t, w) in enumerate(zip(right, wrong))],
                "random": [rng.randrange(vocab) for _ in right]}[kind]

    def check(self, name, kv="f16", sampling="greedy", draft=4, threads=1, chunk=16, sessions=1, script=None):
        """Runs `sessions` requests together and compares each with its plain run; returns their stats."""
        with driver.opened(*self.models[name], kv=kv, threads=threads, chunk=chunk) as model:
            vocab = driver.info(model).vocab
            runs = []
            try:
                for index in range(sessions):
                    tokens = None if script is None else self.script(script, name, kv, sampling, index)
                    runs.append(driver.Run(model, prompt_of(vocab, index), draft=draft, script=tokens, **self.options(sampling, index)))
                driver.drive(runs)
                for index, run in enumerate(runs):
                    got, expected = run.result(), self.plain(name, kv, sampling, index)
                    for what, a, b in zip(("tokens", "logprobs", "text", "finish", "length", "state", "next logits"), got, expected):
                        assert a == b, f"{what} differ in session {index}"
                return [run.stats() for run in runs]
            finally:
                for run in runs:
                    run.close()


@pytest.fixture(scope="module")
def bench(models):
    return Bench(models)


NAMES = list(GOLDENS) + [f"{v}-{m}" for v in make_models.VARIANTS for m in make_models.MIXES]
each_model = pytest.mark.parametrize("name", NAMES)


@each_model
def test_every_draft_depth(bench, name):
    for draft in (*range(1, 9), 16, -1):
        bench.check(name, draft=draft)


@each_model
@pytest.mark.parametrize("sampling", SAMPLING)
@pytest.mark.parametrize("script", SCRIPTS)
def test_scripted_drafters(bench, name, sampling, script):
    stats = bench.check(name, sampling=sampling, draft=5, script=script)[0]
    if script == "right":
        assert stats.accepted == stats.drafted > 0 and stats.passes == -(-(NEW - 1) // 6)
    if script == "wrong":
        assert stats.accepted == 0 and stats.drafted > 0 and stats.passes == NEW - 1


@each_model
@pytest.mark.parametrize("sampling", SAMPLING)
def test_network_drafts_sampled(bench, name, sampling):
    for kv in ("f16", "q8_0"):
        bench.check(name, kv=kv, sampling=sampling, draft=3)


@each_model
def test_threads(bench, name):
    for threads in (2, 3, 4):
        bench.check(name, threads=threads, draft=2)


@each_model
def test_prompt_chunks(bench, name):
    for chunk in (1, 7, 64, 512):
        bench.check(name, chunk=chunk, draft=2)


@each_model
def test_sessions_share_passes(bench, name):
    for sessions in (2, 5, 8):
        bench.check(name, sessions=sessions, draft=3)


def test_random_combinations(bench):
    rng = random.Random(20261123)
    for _ in range(200):
        bench.check(rng.choice(NAMES), kv=rng.choice(("f16", "q8_0", "f32")), sampling=rng.choice(list(SAMPLING)), draft=rng.choice((*range(9), -1)),
                    threads=rng.randint(1, 4), chunk=rng.choice((1, 7, 64, 512)), sessions=rng.choice((1, 1, 2, 2, 3, 5, 8)), script=rng.choice((None, None, *SCRIPTS)))
