"""What `pymtp bench` measures: the machine, then a model beside what the machine could do with it.

Everything goes through Model and Session, as a user's calls do. Each number is a median over rounds in which all kinds of
measurement take turns; the memory bandwidth, which drifts with the neighbours of a shared machine, is measured anew in every
round, and shares of it are taken within the round. The limit of a call is the longer of two times: for reading the weights, keys
and values it needs, and for the multiply-adds of its products. Sessions are new or rewound, so that no call finds its tokens in
the cache.
"""
from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Sequence

import numpy as np

from ._arguments import INT32, integer, items
from ._core import Counters
from ._lib import Call, lib, new_struct, text
from .errors import ContextError, OutOfMemoryError

if TYPE_CHECKING:
    from .model import Model
    from .session import Session

SCHEMA = 1  # of report()
KINDS = ("passes", "prompt", "pairs")
LEAD = 16      # tokens in the cache at "context 0": there is no pass without any
DECODED = 8    # tokens of one round's decoding
DRAFTED = 4    # drafts of one round's chain

WORKLOADS: dict[str, tuple[bool, str]] = {  # name -> (as a chat?, prompt)
    "prose": (False, "The fog had not yet lifted from the harbour when the old ferry gave its first call of the day. On the quay"),
    "code": (False, 'def merge_sort(items):\n    """Returns a new sorted list. Stable; O(n log n) comparisons."""\n'),
    "chat": (True, "My bicycle squeaks when I pedal uphill, but not on flat roads. What should I check first, and why?"),
    "list": (True, "List twenty countries with their capitals, one per line, in the form: number. country - capital"),
}
SAMPLINGS: dict[str, dict[str, Any]] = {"greedy": {"temperature": 0}, "sampled": {}}


# ---- the machine --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Machine:
    """What a machine can do: see pymtp_measure in pymtp.h. Bytes and multiply-adds per second."""

    cpu: str
    threads: int
    read_bytes_per_second: float
    read_bytes_per_second_best: float
    int8_multiply_adds_per_second: float
    f32_multiply_adds_per_second: float

    def limit(self, work: Counters) -> float:
        """Seconds that this work takes at least."""
        return max((work.weight_bytes + work.kv_bytes) / self.read_bytes_per_second_best, self.arithmetic_limit(work))

    def arithmetic_limit(self, work: Counters) -> float:
        """Seconds that its multiply-adds take at least."""
        return work.multiply_adds_int8 / self.int8_multiply_adds_per_second + work.multiply_adds_f32 / self.f32_multiply_adds_per_second


def measure(threads: int | None = None) -> Machine:
    """Measures the machine with that many threads, default one per core. Takes about half a second and 512 MiB for a moment."""
    raw, call = new_struct("pymtp_machine"), Call()
    call.check(lib.pymtp_measure(0 if threads is None else integer("threads", threads, 1, INT32), raw, call.err))
    values = {name: getattr(raw, name) for name in Machine.__dataclass_fields__}
    return Machine(**{**values, "cpu": text(raw.cpu)})


# ---- samples --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """One call, or the mean of a few in a row: its time, its work, and the machine just before."""

    seconds: float
    work: Counters
    machine: Machine


def summary(samples: Sequence[Sample]) -> dict[str, Any]:
    """Medians. ms; bytes and multiply-adds; gb_per_second: bytes by time; limit_ms; share: limit by time;
    arithmetic_share: the same for the multiply-adds alone."""
    def median(of: Callable[[Sample], float]) -> float:
        return statistics.median(of(s) for s in samples)

    return {
        "ms": median(lambda s: s.seconds) * 1e3,
        **{name: int(median(lambda s: getattr(s.work, name))) for name in Counters.__dataclass_fields__},
        "gb_per_second": median(lambda s: (s.work.weight_bytes + s.work.kv_bytes) / s.seconds) / 1e9,
        "limit_ms": median(lambda s: s.machine.limit(s.work)) * 1e3,
        "share": median(lambda s: s.machine.limit(s.work) / s.seconds),
        "arithmetic_share": median(lambda s: s.machine.arithmetic_limit(s.work) / s.seconds),
    }


@dataclass(frozen=True)
class Settings:
    """contexts: tokens in the cache while passes are timed. rows: of these passes. tokens: of each generation of a pair.
    draft: drafts in a round of the pairs. only: the KINDS to measure."""

    contexts: tuple[int, ...] = (0, 4096)
    reps: int = 5
    rows: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)
    prompt: int = 512
    tokens: int = 64
    pairs: int = 2
    draft: int | str = "auto"
    only: tuple[str, ...] = KINDS

    def __post_init__(self) -> None:
        for name, low in (("reps", 1), ("prompt", 1), ("tokens", 0), ("pairs", 1)):
            integer(name, getattr(self, name), low, INT32)
        for n in items("contexts", self.contexts):  # what does not fit a model is skipped
            integer("contexts", n, 0, 2**64 - 1)
        for n in items("rows", self.rows, 1):
            integer("rows", n, 1, 2**62)
        items("only", self.only)

    def quick(self) -> "Settings":
        """The same in less time: an orientation."""
        return Settings((0,), min(self.reps, 2), (1, 2, 4, 8), 128, 16, 1, self.draft, self.only)


def report(model: "Model", settings: Settings, progress: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Measures everything and returns it as plain values: what `pymtp bench --json` prints. progress is told what runs."""
    bench = Bench(model, settings, progress)
    contexts = [bench.context(n) for n in settings.contexts] if "passes" in settings.only else []
    prompt = bench.prompt() if "prompt" in settings.only else None
    pairs = bench.pairs() if "pairs" in settings.only and model.info.drafter_layers else None
    if not bench.machines:
        bench.measure()
    return {"schema": SCHEMA, "machine": bench.machine(), "model": vars(model.info),
            "settings": {**vars(settings), "contexts": list(settings.contexts), "rows": list(settings.rows), "only": list(settings.only)},
            "contexts": contexts, "prompt": prompt, "pairs": pairs}


class Bench:
    """The measurements of one model."""

    def __init__(self, model: "Model", settings: Settings, progress: Callable[[str], None] = lambda _: None, seed: int = 1):
        self.model, self.settings, self.progress = model, settings, progress
        self.random = np.random.default_rng(seed)
        self.machines: list[Machine] = []

    def ids(self, n: int) -> np.ndarray:
        """n random tokens."""
        return self.random.integers(0, self.model.info.vocab, n, dtype=np.int32)

    def measure(self) -> Machine:
        self.machines.append(measure(self.model.info.threads))
        return self.machines[-1]

    def machine(self) -> dict[str, Any]:
        """Of all rounds: the median of the medians, and the largest of the others."""
        best = {name: max(getattr(m, name) for m in self.machines) for name in Machine.__dataclass_fields__}
        return {**best, "read_bytes_per_second": statistics.median(m.read_bytes_per_second for m in self.machines)}

    def timed(self, call: Callable[[], Any], parts: int = 1) -> Sample:
        """One call, which does a thing `parts` times."""
        before, start = self.model.counters, time.perf_counter()
        call()
        seconds, work = time.perf_counter() - start, self.model.counters - before
        return Sample(seconds / parts, Counters(*(v // parts for v in vars(work).values())), self.machines[-1])

    # ---- passes behind a context ----

    def context(self, n: int) -> dict[str, Any]:
        """Decoding, passes of several rows and draft steps behind n tokens; why not, where they do not fit."""
        filled, room = max(n, LEAD), max(DECODED + 2, *self.settings.rows)
        try:
            if filled + room > self.model.info.context:
                raise ContextError(f"{filled} tokens and {room} more do not fit the context of {self.model.info.context}")
            with self.model.session() as session:
                self.progress(f"context {n}: filling")
                start = time.perf_counter()
                session.forward(self.ids(filled), logits="none", hidden=False)
                fill = {"tokens": filled, "seconds": time.perf_counter() - start}
                return {"context": n, "skipped": None, "fill": fill, **self._rounds(session, filled)}
        except (ContextError, OutOfMemoryError) as error:
            return {"context": n, "skipped": str(error), "fill": None, "decode": None, "passes": [], "draft": None}

    def _rounds(self, session: "Session", filled: int) -> dict[str, Any]:
        decode: list[Sample] = []
        drafts: list[Sample] = []
        passes: dict[int, list[Sample]] = {n: [] for n in self.settings.rows}
        self._round(session, filled, [], {n: [] for n in self.settings.rows}, [])  # the first touches memory and starts threads
        for rep in range(self.settings.reps):
            self.progress(f"context {filled if filled > LEAD else 0}: round {rep + 1} of {self.settings.reps}")
            self._round(session, filled, decode, passes, drafts)
        rows = [{"rows": n, **summary(samples)} for n, samples in passes.items()]
        for row in rows:
            row["relative"] = statistics.median(s.seconds / one.seconds for s, one in zip(passes[row["rows"]], passes[self.settings.rows[0]]))
        decoded = summary(decode)
        return {"decode": {"tokens_per_second": 1e3 / decoded["ms"], **decoded}, "passes": rows, "draft": summary(drafts) if drafts else None}

    def _round(self, session: "Session", filled: int, decode: list[Sample], passes: dict[int, list[Sample]], drafts: list[Sample]) -> None:
        from .session import step

        self.measure()
        prompt = np.append(session._token_array(), self.ids(1))
        session.start(prompt, temperature=0, max_tokens=DECODED + 1, draft=0, ignore_eos=True, _snapshot_at=-2)
        step([session])  # the last token of the prompt
        decode.append(self.timed(lambda: [step([session]) for _ in range(DECODED)], DECODED))
        session.rewind(filled)
        for n, samples in passes.items():
            ids = self.ids(n)
            samples.append(self.timed(lambda: session.forward(ids, logits="all", hidden=False)))
            if n == 1 and self.model.info.drafter_layers:
                pending = int(self.ids(1)[0])
                drafts.append(self.timed(lambda: session.draft(DRAFTED, pending), DRAFTED))
            session.rewind(filled)

    # ---- prompt ----

    def prompt(self) -> dict[str, Any]:
        """A prompt in an empty session, the logits of its last token."""
        samples: list[Sample] = []
        n = min(self.settings.prompt, self.model.info.context)
        for rep in range(max(1, self.settings.reps // 2) + 1):
            self.progress(f"prompt of {n}: round {rep}")
            self.measure()
            with self.model.session() as session:
                ids = self.ids(n)
                samples.append(self.timed(lambda: session.forward(ids, logits="last", hidden=False)))
        done = summary(samples[1:])
        return {"tokens": n, "tokens_per_second": n / done["ms"] * 1e3, **done}

    # ---- drafts against none ----

    def pairs(self) -> dict[str, Any]:
        """Generations with and without drafts, in turns, of the same prompts with the same seeds."""
        runs: dict[tuple[str, str], list[tuple[Any, Any]]] = {(w, s): [] for w in WORKLOADS for s in SAMPLINGS}
        self._generate("prose", {"temperature": 0}, self.settings.draft, 0)  # shows automatic depth what passes cost
        for rep in range(self.settings.pairs):
            for turn, ((workload, sampling), pairs) in enumerate(runs.items()):
                self.progress(f"drafts against none: {workload}, {sampling}, {rep + 1} of {self.settings.pairs}")
                order = (0, self.settings.draft) if (rep + turn) % 2 else (self.settings.draft, 0)
                done = {draft: self._generate(workload, SAMPLINGS[sampling], draft, rep) for draft in order}
                pairs.append((done[0], done[self.settings.draft]))
        rows = [{"workload": w, "sampling": s, **_pair(pairs)} for (w, s), pairs in runs.items()]
        return {"tokens": self.settings.tokens, "speedup": statistics.median(row["speedup"] for row in rows),
                "same_output": all(row["same_output"] for row in rows), "runs": rows}

    def _generate(self, workload: str, sampling: dict[str, Any], draft: int | str, seed: int) -> Any:
        as_chat, prompt = WORKLOADS[workload]
        ids = self.model.render([{"role": "user", "content": prompt}]) if as_chat else self.model.tokenize(prompt, bos=True)
        return self.model.complete(ids, max_tokens=self.settings.tokens, draft=draft, seed=seed, ignore_eos=True, cache=False, **sampling)


def _seconds(done: Any) -> float:
    """Per token after the first, which belongs to the prompt."""
    s = done.stats
    return (s.seconds_draft + s.seconds_target + s.seconds_sample) / max(1, s.tokens - 1)


def _pair(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    """Medians of (plain, drafted) completions; sums of the drafts."""
    drafted = [d.stats for _, d in pairs]

    def total(name: str) -> list[int]:
        return [sum(column) for column in zip(*(getattr(s, name) for s in drafted))]

    return {
        "plain_tokens_per_second": statistics.median(1 / _seconds(p) for p, _ in pairs),
        "draft_tokens_per_second": statistics.median(1 / _seconds(d) for _, d in pairs),
        "speedup": statistics.median(_seconds(p) / _seconds(d) for p, d in pairs),
        "same_output": all(p.tokens == d.tokens for p, d in pairs),
        "tokens": sum(s.tokens for s in drafted), "passes": sum(s.passes for s in drafted),
        "drafted": sum(s.drafted for s in drafted), "accepted": sum(s.accepted for s in drafted),
        "drafted_by_position": total("drafted_by_position"), "accepted_by_position": total("accepted_by_position"),
        "prompt_reused": sum(s.prompt_reused for pair in pairs for s in (pair[0].stats, pair[1].stats)),
    }
