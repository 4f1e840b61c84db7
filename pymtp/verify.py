"""Shows on the user's machine that drafts change nothing: the same prompts with drafts off and at several depths, greedy and sampled,
token ids compared. What `pymtp verify` prints."""
from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any, Callable, Sequence

from ._arguments import items
from .bench import SAMPLINGS, WORKLOADS
from .errors import StateError

if TYPE_CHECKING:
    from .generate import Completion
    from .model import Model

DEPTHS: tuple[int | str, ...] = (1, 3, 8, "auto")


def verify(model: "Model", tokens: int = 48, depths: Sequence[int | str] = DEPTHS, seed: int = 1,
           progress: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Compares generations of up to `tokens` tokens. The result, in plain values: same_output; speedup, the median over prompts of
    the last depth's speed by that without drafts; runs, one for each prompt and way of sampling, with one entry a depth."""
    if not model.info.drafter_layers:
        raise StateError("the model is open without a drafter: there are no drafts to compare with")
    depths = items("depths", depths, 1)
    _generate(model, "prose", "greedy", tokens, depths[-1], seed)  # touches memory, and shows automatic depth what passes cost
    runs = []
    for workload in WORKLOADS:
        for sampling in SAMPLINGS:
            progress(f"{workload}, {sampling}: without drafts")
            plain = _generate(model, workload, sampling, tokens, 0, seed)
            compared = []
            for depth in depths:
                progress(f"{workload}, {sampling}: depth {depth}")
                compared.append(_compare(plain, _generate(model, workload, sampling, tokens, depth, seed), depth))
            runs.append({"workload": workload, "sampling": sampling, "tokens": len(plain.tokens), "tokens_per_second": _speed(plain),
                         "depths": compared})
    return {"model": model.info.name, "drafter": model.info.drafter_name, "cpu": model.info.cpu, "threads": model.info.threads,
            "seed": seed, "same_output": all(d["same_output"] for run in runs for d in run["depths"]),
            "speedup": statistics.median(run["depths"][-1]["speedup"] for run in runs), "runs": runs}


def _generate(model: "Model", workload: str, sampling: str, tokens: int, draft: int | str, seed: int) -> "Completion":
    as_chat, prompt = WORKLOADS[workload]
    ids = model.render([{"role": "user", "content": prompt}]) if as_chat else model.tokenize(prompt, bos=True)
    return model.complete(ids, max_tokens=tokens, draft=draft, seed=seed, ignore_eos=True, cache=False, **SAMPLINGS[sampling])


def _speed(done: "Completion") -> float:
    """Tokens a second, but for the first, which belongs to the prompt."""
    s = done.stats
    return max(1, s.tokens - 1) / max(1e-9, s.seconds_draft + s.seconds_target + s.seconds_sample)


def _compare(plain: "Completion", drafted: "Completion", depth: int | str) -> dict[str, Any]:
    """first_difference: index of the first token that differs, None when all are the same."""
    a, b = plain.tokens, drafted.tokens
    differ = next((i for i in range(min(len(a), len(b))) if a[i] != b[i]), None if len(a) == len(b) else min(len(a), len(b)))
    return {"depth": depth, "same_output": differ is None and plain.text == drafted.text, "first_difference": differ,
            "tokens_per_second": _speed(drafted), "speedup": _speed(drafted) / _speed(plain),
            "drafted": drafted.stats.drafted, "accepted": drafted.stats.accepted}
