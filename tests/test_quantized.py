"""The quantised path is right, not only constant: generated quantised pairs against the numpy twin on dequantized weights.

Activations that meet a quantised matrix become int8 per block of 32, so the exact result is not what an engine gives. Two
comparisons take that apart:

1. Against the twin with the SAME int8 rounding. They differ by float32 noise, unless that carries an activation over a rounding
   border: then it moves by 1/127 of its block's largest, and the row's logits by 6e-3 or more. So errors fall in two groups
   with nothing between: the twin in float32 against itself in float64 gives at most 5e-5 in rows without a flip, and no
   flip in 0.75 (ple, Q4_0) to 0.98 of the rows of these short prompts. CLEAN = 2e-4, as for the goldens, lies between. An
   engine with twice the noise has twice the flips: 0.75^2 = 0.56, so at least half of the rows must be clean; an error in a
   format, kernel or formula leaves none. A draft needs its row, the two before it and the drafter clean: a quarter.
2. Against the EXACT twin, on a text that wraps the window. The engine's rounding errors are another sample of what the
   int8 twin shows, so root mean squares agree up to sampling: a factor of 1.25 (the errors of 100 rows of 1280 logits
   are correlated and heavy-tailed). Two independent samples of the same noise differ by sqrt(2) times one: at most 1.5.
"""
import numpy as np
import pytest

import make_models
import pymtp
from ref.gemma4_ref import Drafter, Target

CLEAN = 2e-4
OTHERS = [("moe", m) for m in ("Q2_K+Q3_K", "IQ4_XS+Q5_1", "Q4_1+Q5_0")] + [(v, "F16+BF16") for v in make_models.VARIANTS]
PAIRS = [(v, m) for v in make_models.VARIANTS for m in make_models.MIXES] + OTHERS


def rms(x):
    return float(np.sqrt((x**2).mean()))


@pytest.fixture(scope="module", params=PAIRS, ids=lambda p: "-".join(p))
def pair(request, small_models):
    """(engine, twin, drafter twin, 100 ids) with F32 caches."""
    target, drafter = small_models(*request.param)
    twin = Target(target)
    ids = [2] + np.random.default_rng(5).integers(300, make_models.VOCAB, 99).tolist()
    with pymtp.Model(target, drafter=drafter, kv="f32") as model:
        yield model, twin, Drafter(drafter, twin), ids


def test_short_prompts_agree_to_float32_noise(pair):
    model, twin, drafter, ids = pair
    twin.act8 = drafter.act8 = True
    rows, drafts = [], []
    with model.session() as s:
        for i in range(0, 96, 3):
            prompt = ids[i : i + 3]
            logits, hidden = twin.forward(prompt)
            rows += np.abs(s.forward(prompt, logits="all") - logits).max(1).tolist()
            _, expected = drafter.draft(ids[i + 3], hidden[-1], 3, 1)
            drafts.append(np.abs(s.draft_logits(1, ids[i + 3]) - expected).max())
            s.rewind(0)
    assert len(rows) == 96 and np.mean(np.array(rows) < CLEAN) >= 0.5
    assert np.mean(np.array(drafts) < CLEAN) >= 0.25


def test_long_text_within_activation_rounding(pair):
    model, twin, _, ids = pair
    twin.act8 = False
    exact, _ = twin.forward(ids)
    twin.act8 = True
    rounded, _ = twin.forward(ids)
    with model.session() as s:
        logits = s.forward(ids, logits="all")
    step = rms(rounded - exact)
    if step == 0:  # no quantised matrix: float32 noise only, of which the twin in float32 shows 5e-5
        assert np.abs(logits - exact).max() <= CLEAN
    else:
        assert rms(logits - exact) <= 1.25 * step
        assert rms(logits - rounded) <= 1.5 * step
    assert step < 0.5 * rms(exact)  # or the comparison would say nothing


def test_models_are_diverse(pair):
    """What the other tests assume of make_models: text does not collapse, rows tell tokens apart."""
    model, _, _, ids = pair
    done = model.complete(ids[:20], temperature=0, ignore_eos=True, max_tokens=40, draft=0)
    assert len(set(done.tokens)) >= 8
