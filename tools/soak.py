"""Mixed sessions for a long time, memory flat: `make soak SECONDS=1800`.

    python tools/soak.py [--seconds 1800] [--target T.gguf --drafter D.gguf] [--seed 1]

A round is the same work each time in another order: requests alone and in company, greedy, sampled, with penalties, stop strings and
log-probabilities, at every draft depth, some cancelled by another thread, some left in the middle, chats, snapshots, rewinding, a second model
opened and closed, a damaged file refused, a tokenizer. Every request that ran to its end must give what it gave in the first round, byte for byte;
a cancelled one, a beginning of it.

Memory is read between rounds, when no request runs, all sessions are closed and the C library has given back what it can. It may not grow after
the first third: the least of the last third is compared with the least of the middle third, and may exceed it by SLACK."""
import argparse
import ctypes
import gc
import os
import pathlib
import random
import sys
import tempfile
import threading
import time

import pymtp

DATA = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data"
# The interpreter takes memory in arenas of 1 MiB, the C library keeps up to 128 KiB at the top of each of its heaps (one a thread that was
# ever alive at once: 8 here): one step of each may fall between two readings. In half an hour (a thousand rounds of 60 requests, a third of
# them between the readings) that shows a leak of 100 bytes a request.
SLACK = 2 << 20
TOKENS = 48
THREADS = 4


def resident():
    """Bytes of memory of this process, after giving back what can be given back."""
    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def requests():
    """(prompt, options) of every kind."""
    kinds = [{}, {"temperature": 1}, {"temperature": 0.7, "top_k": 5, "min_p": 0.01}, {"repetition_penalty": 1.3, "presence_penalty": 0.2},
             {"logprobs": 5}, {"stop": ["a", "\n\n"]}, {"logit_bias": {50: 3.0, 60: float("-inf")}}, {"draft": 0}, {"draft": 16}, {"draft": 3}]
    out = []
    for i, kind in enumerate(kinds):
        prompt = [2] + [20 + (i * 37 + j * j * 11) % 500 for j in range(5 + 17 * (i % 5))]
        out.append((prompt, {"temperature": 0, "max_tokens": TOKENS, "ignore_eos": True, "seed": i, **kind}))
    return out


class Soak:
    """The work of a round, and what each request gave the first time."""

    def __init__(self, target, drafter, seed, folder):
        self.target, self.drafter, self.random = target, drafter, random.Random(seed)
        self.known, self.failed, self.counts = {}, [], {}
        self.damaged = folder / "damaged.gguf"
        self.damaged.write_bytes(target.read_bytes()[:10000])

    def count(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1

    def check(self, index, tokens, text, cancelled):
        want_tokens, want_text = self.known.setdefault(index, (tokens, text))
        if cancelled:  # the text may end in half a character
            same = want_tokens[:len(tokens)] == tokens and want_text.startswith(text.rstrip("\ufffd"))
        else:
            same = (want_tokens, want_text) == (tokens, text)
        if not same:
            self.failed.append(f"request {index}: {tokens}, expected {want_tokens}")
        self.count("cancelled" if cancelled else "completed")

    def alone(self, model, index, rng):
        prompt, options = requests()[index]
        kind = rng.choice(["whole", "whole", "cancel", "leave"]) if index in self.known else "whole"
        stream = model.generate(prompt, **options)
        timer = threading.Timer(rng.random() * 0.05, stream.cancel) if kind == "cancel" else None
        if timer:
            timer.start()
        for i, _ in enumerate(stream):
            if kind == "leave" and i == index % 4:
                break
        stream.close()
        if timer:
            timer.join()
        done = stream.completion
        if kind == "leave":
            self.count("left")
        else:
            self.check(index, done.tokens, done.text, done.finish_reason == "cancelled")

    def together(self, model, indexes, rng):
        with_requests = [(model.session(), i) for i in indexes]
        for session, i in with_requests:
            prompt, options = requests()[i]
            session.start(prompt, **options)
        while running := [s for s, _ in with_requests if s.finish_reason is None]:
            if rng.random() < 0.02:
                rng.choice(running).cancel()
            pymtp.step(running)
        for session, i in with_requests:
            done = session.completion
            self.check(i, done.tokens, done.text, done.finish_reason == "cancelled")
            session.close()

    def back_and_forth(self, model):
        with model.session() as a, model.session() as b:
            ids = [2 + i % 300 for i in range(150)]
            a.forward(ids[:100], logits="none")
            snapshot = a.snapshot()
            last = a.forward(ids[100:], logits="last").tobytes()
            a.rewind(120)
            b.restore(snapshot)
            snapshot.close()
            if a.forward(ids[120:], logits="last").tobytes() != last or b.forward(ids[100:], logits="last").tobytes() != last:
                self.failed.append("other logits after going back")
        self.count("back and forth")

    def refusals(self, model):
        for wrong in (lambda: pymtp.Model(self.damaged), lambda: pymtp.Model(self.target, drafter=self.target), lambda: model.complete([-1]),
                      lambda: model.complete([2], top_k=-1)):
            try:
                wrong()
                self.failed.append("bad input was taken")
            except pymtp.Error:
                self.count("refused")

    def work(self, model, seed, jobs):
        rng = random.Random(seed)
        try:
            for job in jobs:
                job(model, rng)
        except Exception as error:  # the thread's failure is the soak's
            self.failed.append(repr(error))

    def round(self, number):
        n = len(requests())
        with pymtp.Model(self.target, drafter=self.drafter, threads=2, context=512) as model:
            if not self.known:
                for i in range(n):
                    self.alone(model, i, self.random)
            jobs = [lambda m, rng, i=i: self.alone(m, i, rng) for i in range(n)]
            jobs += [lambda m, rng, i=i: self.together(m, [i, (i + 3) % n, (i + 5) % n], rng) for i in range(0, n, 3)]
            jobs += [lambda m, rng: self.back_and_forth(m), lambda m, rng: self.refusals(m)] * 2
            jobs.append(lambda m, rng: self.check("text", [], m.detokenize(m.tokenize("Stra\u00dfe \U0001f98a \x00 text" * 20)), False))
            self.random.shuffle(jobs)
            threads = [threading.Thread(target=self.work, args=(model, self.random.random(), jobs[i::THREADS])) for i in range(THREADS)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--target", type=pathlib.Path, default=DATA / "tiny-e2b.gguf")
    parser.add_argument("--drafter", type=pathlib.Path, default=DATA / "tiny-e2b-drafter.gguf")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        soak, start, readings, spoken = Soak(options.target, options.drafter, options.seed, pathlib.Path(folder)), time.monotonic(), [], 0
        while (now := time.monotonic() - start) < options.seconds and not soak.failed:
            soak.round(len(readings))
            readings.append(resident())
            if now >= spoken:
                print(f"{now:6.0f} s, round {len(readings)}: {readings[-1] >> 10} KiB; {soak.counts}", flush=True)
                spoken += options.seconds / 30
    third = len(readings) // 3
    print(f"{len(readings)} rounds in {time.monotonic() - start:.0f} s: {soak.counts}")
    for line in soak.failed[:10]:
        print(line)
    if not third:
        print("fewer than three rounds: nothing can be said about memory")
        return 1
    middle, last = min(readings[third:2 * third]), min(readings[2 * third:])
    print(f"memory: {readings[0] >> 10} KiB after one round, least of the middle third {middle >> 10}, of the last third {last >> 10}")
    flat = last - middle <= SLACK
    print("memory is flat" if flat else f"memory grew by {(last - middle) >> 10} KiB")
    return 1 if soak.failed or not flat else 0


if __name__ == "__main__":
    sys.exit(main())
