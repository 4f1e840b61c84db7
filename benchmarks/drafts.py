#!/usr/bin/env python3
"""Plain decoding against drafting on one pair, interleaved in one process; prints one JSON object.

  drafts.py TARGET.gguf DRAFTER.gguf [--depths 0,2,4] [--tokens 96] [--reps 3] [--threads N] [--start ID] [--next TABLE.npy]

Medians of tokens per second by depth (0 is plain) and of the ratio to plain within a round (rounds alternate the order), and of the
last round acceptance by position. --next checks the output against the successor table of a synthetic pair (make_synthetic.py)
and fails when it differs.
"""
import argparse
import json
import statistics
import sys
import time

import pymtp


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target")
    parser.add_argument("drafter")
    parser.add_argument("--depths", default="0,auto,2,4", help="drafts a round: numbers, auto")
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--start", type=int, default=5000, help="the prompt is BOS and this id")
    parser.add_argument("--next", help="successor table that greedy output must follow")
    o = parser.parse_args()
    depths = [d if d == "auto" else int(d) for d in o.depths.split(",")]
    expected = None
    if o.next:
        import numpy as np
        table, expected, token = np.load(o.next), [], o.start
        for _ in range(o.tokens):
            token = int(table[token])
            expected.append(token)
    began = time.perf_counter()
    with pymtp.Model(o.target, drafter=o.drafter, threads=o.threads, context=o.tokens + 64) as model:
        opened = time.perf_counter() - began
        speed, last = {d: [] for d in depths}, {}
        for rep in range(o.reps):
            for d in depths if rep % 2 else depths[::-1]:
                done = model.complete([2, o.start], temperature=0, max_tokens=o.tokens, draft=d, ignore_eos=True, cache=False)
                if expected is not None and done.tokens != expected:
                    sys.exit(f"depth {d}: the output does not follow the successor table")
                s = done.stats
                speed[d].append((len(done.tokens) - 1) / (s.seconds_draft + s.seconds_target + s.seconds_sample))
                last[d] = s
    def of_plain(speeds):
        return round(statistics.median(s / plain for s, plain in zip(speeds, speed[0])), 3) if 0 in speed else None

    print(json.dumps({
        "target": o.target, "open_seconds": round(opened, 2), "tokens": o.tokens,
        "depths": {d: {"tok_s": round(statistics.median(v), 2), "of_plain": of_plain(v),
                       "passes": last[d].passes, "drafted": last[d].drafted, "accepted": last[d].accepted,
                       "accepted_by_position": list(last[d].accepted_by_position)[: 16 if d == "auto" else max(d, 1)]} for d, v in speed.items()}}))


if __name__ == "__main__":
    main()
