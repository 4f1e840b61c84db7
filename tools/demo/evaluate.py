"""Judges a demo pair by what it claims: python tools/demo/evaluate.py TARGET.gguf DRAFTER.gguf --tokenizer tokenizer.json.

Needs pymtp, numpy and tokenizers; --llama needs llama-cpp-python too. Every section prints its numbers and adds them to the
JSON that --json names. It fails when training has seen a question, when drafts change an output, or when a claim is missed.
"""
import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

import check
import corpus
import pymtp
from kinds import common

SPOKEN = ("capitals", "arithmetic", "units", "builtins", "steps", "smalltalk", "stories", "code")
SAMPLED = dict(temperature=1.0, top_k=64, top_p=0.95)
DEPTH = 4
# the claims
RIGHT, ACCEPTED, ACCEPTED_STORIES, AGREEMENT, NEAR = 80, 1.8, 1.2, 0.98, 0.1


def group(kind: str) -> str:
    return "arithmetic" if kind in ("add", "subtract", "multiply", "divide") else kind


def questions(model) -> dict:
    """Greedy answers to the 100 questions; right is what equals the expected answer, normalised, as a whole."""
    right, wrong = {}, []
    for q in check.questions():
        said = model.chat([{"role": "user", "content": q["question"]}], temperature=0, max_tokens=60).content
        ok = common.normalised(said) == common.normalised(q["answer"])
        right[group(q["kind"])] = right.get(group(q["kind"]), 0) + ok
        if not ok:
            wrong.append((q["question"], said, q["answer"]))
    return {"right": sum(right.values()), "by kind": right, "wrong": wrong}


def prompts(tokenizer, seen, n: int) -> dict[str, list[list[int]]]:
    """n held-out prompts of each kind: a question up to the answer, or the first quarter of a text."""
    return {kind: [(e := corpus.encode(tokenizer, kind, d)).ids[:e.prompt] for d in check.held_out(kind, n, seen)] for kind in SPOKEN}


def drafts(model, by_kind, sampling) -> dict:
    """Accepted drafts a pass at DEPTH, by kind and by position; outputs with and without drafts must be equal."""
    out, total = {}, np.zeros(2 + 2 * DEPTH)
    for kind, some in by_kind.items():
        sums = np.zeros(2 + 2 * DEPTH)
        for i, ids in enumerate(some):
            fast = model.complete(ids, max_tokens=160, seed=i, draft=DEPTH, **sampling)
            plain = model.complete(ids, max_tokens=160, seed=i, draft=0, **sampling)
            if fast.tokens != plain.tokens or fast.text != plain.text:
                raise SystemExit(f"drafts changed the output of {kind} {i}")
            s = fast.stats
            sums += [s.passes, s.accepted, *s.drafted_by_position[:DEPTH], *s.accepted_by_position[:DEPTH]]
        total += sums
        out[kind] = _accepted(sums)
    return out | {"all": _accepted(total)}


def _accepted(sums) -> dict:
    passes, accepted, by = sums[0], sums[1], sums[2:]
    return {"accepted a pass": round(accepted / passes, 3), "passes": int(passes),
            "share accepted by position": [round(a / max(d, 1), 3) for d, a in zip(by[:DEPTH], by[DEPTH:])]}


def depths(model, by_kind) -> dict:
    """Every depth from 0 to 8 and automatic gives the same bytes, greedy and sampled."""
    compared = 0
    for sampling in (dict(temperature=0), SAMPLED):
        for kind, some in by_kind.items():
            want = None
            for draft in (*range(9), "auto"):
                got = model.complete(some[0], max_tokens=96, seed=11, draft=draft, **sampling)
                want = want or got
                if (got.tokens, got.text.encode(), got.finish_reason) != (want.tokens, want.text.encode(), want.finish_reason):
                    raise SystemExit(f"draft {draft} changed the output of {kind}")
                compared += 1
    return {"outputs compared": compared}


def _log_softmax(logits):
    logits = logits.astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def quantization(model, exact, encoded) -> dict:
    """Perplexity of both on the learned tokens of held-out documents, and the divergence of the shipped from the exact."""
    loss, kl, same, n = np.zeros(2), 0.0, 0, 0
    for one in encoded:
        ids, want = one.ids[:400], np.array(one.wanted[1:400])
        a, b = (_logits(m, ids)[:-1][want] for m in (exact, model))
        at = np.array(ids[1:])[want]
        a, b = _log_softmax(a), _log_softmax(b)
        loss -= [x[np.arange(len(at)), at].sum() for x in (a, b)]
        kl += (np.exp(a) * (a - b)).sum()
        same += int((a.argmax(-1) == b.argmax(-1)).sum())
        n += len(at)
    return {"tokens": n, "perplexity exact": round(float(np.exp(loss[0] / n)), 4), "perplexity shipped": round(float(np.exp(loss[1] / n)), 4),
            "KL": float(f"{kl / n:.3g}"), "same best token": round(same / n, 4)}


def _logits(model, ids):
    with model.session() as session:
        return session.forward(ids)


def heads(target, drafter, dense, by_kind, encoded) -> dict:
    """The centroid head against the dense one: how often the dense best token is among the rows it looks at, time of a step,
    accepted drafts."""
    out, found, n = {}, 0, 0
    models = {"centroids": pymtp.Model(target, drafter=drafter), "dense": pymtp.Model(target, drafter=dense)}
    for one in encoded[:40]:
        first = one.prompt
        with models["centroids"].session() as c, models["dense"].session() as d:
            c.forward(one.ids[:first], logits="none"), d.forward(one.ids[:first], logits="none")
            for i in range(first, min(len(one.ids), first + 40)):
                few, all_ = c.draft_logits(1, one.ids[i])[0], d.draft_logits(1, one.ids[i])[0]
                found += few[all_.argmax()] > few.min()
                n += 1
                c.forward([one.ids[i]], logits="none"), d.forward([one.ids[i]], logits="none")
    times = step_times(models, encoded[0].ids)
    for name, model in models.items():
        out[name] = {"microseconds a step": times[name],
                     "accepted a pass": {k: v["accepted a pass"] for k, v in drafts(model, by_kind, dict(temperature=0)).items()}}
        model.close()
    return out | {"recall": round(found / n, 4), "of": n}


def step_times(models, ids) -> dict:
    """Microseconds of a draft step by model: median of 300 rounds of 8 steps, the models taking turns."""
    times = {name: [] for name in models}
    sessions = {name: model.session() for name, model in models.items()}
    for session in sessions.values():
        session.forward(ids, logits="none")
    for _ in range(300):
        for name, session in sessions.items():
            started = time.perf_counter()
            session.draft(8, ids[-1])
            times[name].append((time.perf_counter() - started) / 8)
    for session in sessions.values():
        session.close()
    return {name: round(1e6 * float(np.median(t)), 1) for name, t in times.items()}


def llama(path, model, encoded, n=10, tokens=64) -> dict:
    """llama.cpp's best tokens, fed the same text."""
    from llama_cpp import Llama

    theirs = Llama(str(path), n_ctx=512, logits_all=True, verbose=False)
    same, gaps, total = 0, [], 0
    for one in [e for e in encoded if len(e.ids) >= tokens][:n]:
        ids = one.ids[:tokens]
        theirs.reset()
        theirs.eval(ids)
        a, b = np.array(theirs.scores[:tokens]), _logits(model, ids)
        for row_a, row_b in zip(a, b):
            total += 1
            if row_a.argmax() == row_b.argmax():
                same += 1
            else:
                top = np.sort(row_b)[-2:]
                gaps.append(float(top[1] - top[0]))
    return {"agreement": round(same / total, 4), "of": total, "gaps of the others": [round(g, 4) for g in gaps]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("target", type=Path)
    parser.add_argument("drafter", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json of the training")
    parser.add_argument("--exact", type=Path, help="the target in F32")
    parser.add_argument("--dense", type=Path, help="the drafter without centroids")
    parser.add_argument("--llama", action="store_true", help="compare with llama-cpp-python")
    parser.add_argument("--blocks", type=int, nargs=2, default=(41, 8), help="blocks of short and of long rows that training drew")
    parser.add_argument("--drafter-blocks", type=int, default=18, help="blocks that the drafter's training drew")
    parser.add_argument("--prompts", type=int, default=20, help="of each kind")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(args.tokenizer))
    seen = check.training(tokenizer, args.blocks[0])
    check.training(tokenizer, args.blocks[1], 512, seen)
    check.training(tokenizer, args.drafter_blocks, 256, seen, "drafter")
    if overlaps := check.overlaps(seen):
        raise SystemExit(f"training has seen {overlaps}")
    print(f"{seen.documents} documents of training: none of the questions, no (kind, operands) of theirs")
    results = {}

    def report(name, value):
        results[name] = value
        print(name, json.dumps(value, indent=1))

    by_kind = prompts(tokenizer, seen, args.prompts)
    encoded = [corpus.encode(tokenizer, k, d) for i in range(8) for k in SPOKEN for d in check.held_out(k, 8, seen)[i:i + 1]]
    with pymtp.Model(args.target, drafter=args.drafter) as model:
        report("questions", questions(model))
        report("greedy", drafts(model, by_kind, dict(temperature=0)))
        report("temperature 1", drafts(model, by_kind, SAMPLED))
        report("depths", depths(model, by_kind))
        if args.exact:
            with pymtp.Model(args.exact, drafter=None) as exact:
                report("quantization", quantization(model, exact, encoded))
        if args.llama:
            report("llama.cpp", llama(args.target, model, encoded))
    if args.dense:
        report("heads", heads(args.target, args.drafter, args.dense, by_kind, encoded))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))
    missed = [f"{r} right" for r in [results["questions"]["right"]] if r < RIGHT]
    missed += [f"{a} accepted" for a in [results["greedy"]["all"]["accepted a pass"]] if a < ACCEPTED]
    missed += [f"{a} accepted in stories" for a in [results["greedy"]["stories"]["accepted a pass"]] if a < ACCEPTED_STORIES]
    if args.llama:
        seen_by = results["llama.cpp"]
        missed += [f"{seen_by['agreement']} agreement"] if seen_by["agreement"] < AGREEMENT else []
        missed += [f"a gap of {g}" for g in seen_by["gaps of the others"] if g >= NEAR]
    if missed:
        sys.exit("missed: " + ", ".join(missed))


if __name__ == "__main__":
    main()
