#!/usr/bin/env python3
"""pymtp against llama.cpp on one GGUF in one run: two processes that stay loaded and take turns, one computing at a time.

  side_by_side.py MODEL.gguf [--drafter D.gguf] [--threads 2] [--contexts 0,4096] [--rows 1,2,4,8] [--prompt 512] [--reps 5]
                  [--pair-start ID --pair-tokens 96 --depths auto,4] [--apart] [--write docs/SPEED.md] [--label NAME] [--json]

Needs llama-cpp-python, which pymtp itself does not:
  CMAKE_ARGS=-DGGML_NATIVE=ON pip install llama-cpp-python==0.3.36     # compiles llama.cpp, 5-10 minutes on 2 cores

Both get the same tokens, f16 keys and values, flash attention, and every measurement of a round follows the other's directly. Shown
are medians of the rounds and the median ratio of times within a round (above 1: pymtp is faster). "of limit" is the least time that
the bytes or multiply-adds of the call could take on this machine (pymtp.bench, measured anew in every round) by the time taken;
for prompts it is shown for pymtp only, which leaves out work that llama.cpp does. "tile" is what tile_probe.c needs, relative to
one row. --apart loads one of the two at a time, for models that do not fit in memory twice: then whole processes take turns.
--write puts the table between markers into a file, in place of the last one with the same label.
"""
import argparse
import json
import os
import pathlib
import platform
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
SIDES = ("pymtp", "llama.cpp")
LEAD, DECODED = 16, 8  # tokens in the cache at context 0; tokens of one round's decoding
PAUSE = 0.03           # seconds between turns: waiting threads of the other side stop spinning


# ---- the two sides: each runs in a process of its own -------------------------------------------------------------------


def random_ids(seed, n, vocab):
    return np.random.default_rng(seed).integers(0, vocab, n, dtype=np.int32)


class Pymtp:
    def __init__(self, o):
        import pymtp
        from pymtp import bench

        self.pymtp, self.bench = pymtp, bench
        self.model = pymtp.Model(o.model, drafter=o.drafter, threads=o.threads)
        self.vocab, self.threads, self.session = self.model.info.vocab, o.threads, None

    def about(self):
        return {"name": self.model.info.name, "cpu": self.model.info.cpu, "version": self.pymtp.__version__}

    def machine(self):
        self.measured = self.bench.measure(self.threads)
        return vars(self.measured)

    def timed(self, call, parts=1):
        before, start = self.model.counters, time.perf_counter()
        call()
        seconds, work = time.perf_counter() - start, self.model.counters - before
        return {"seconds": seconds / parts, "limit": self.measured.limit(work) / parts,
                "arithmetic": self.measured.arithmetic_limit(work) / parts}

    def fill(self, n, seed):
        if self.session:
            self.session.close()
        self.session, self.filled = self.model.session(), n
        return self.timed(lambda: self.session.forward(random_ids(seed, n, self.vocab), logits="none", hidden=False))

    def rows(self, n, seed):
        out = self.timed(lambda: self.session.forward(random_ids(seed, n, self.vocab), logits="all", hidden=False))
        self.session.rewind(self.filled)
        return out

    def decode(self, n, seed):
        ids = np.append(np.array(self.session.tokens, np.int32), random_ids(seed, 1, self.vocab))
        self.session.start(ids, temperature=0, max_tokens=n + 1, draft=0, ignore_eos=True)
        self.pymtp.step([self.session])  # the last token of the prompt
        out = self.timed(lambda: [self.pymtp.step([self.session]) for _ in range(n)], n)
        self.session.rewind(self.filled)
        return out

    def prompt(self, n, seed):
        with self.model.session() as session:
            return self.timed(lambda: session.forward(random_ids(seed, n, self.vocab), logits="last", hidden=False))

    def generate(self, start, tokens, draft):
        done = self.model.complete([2, start], temperature=0, max_tokens=tokens, draft=draft, ignore_eos=True, cache=False)
        s = done.stats
        return {"seconds": (s.seconds_draft + s.seconds_target + s.seconds_sample) / (tokens - 1), "tokens": done.tokens,
                "drafted": s.drafted_by_position, "accepted": s.accepted_by_position}


class Llama:
    """Through llama-cpp-python's low-level API."""

    def __init__(self, o):
        import llama_cpp as L

        self.L = L
        L.llama_backend_init()
        params = L.llama_model_default_params()
        params.n_gpu_layers = 0
        self.llama = L.llama_model_load_from_file(o.model.encode(), params)
        assert self.llama, "llama.cpp cannot load the model"
        self.vocab = L.llama_vocab_n_tokens(L.llama_model_get_vocab(self.llama))
        params = L.llama_context_default_params()
        params.n_ctx = max(*o.contexts, o.prompt, o.pair_tokens) + 256
        params.flash_attn_type = 1
        params.n_batch = params.n_ubatch = 512
        params.n_threads = params.n_threads_batch = o.threads
        self.context = L.llama_init_from_model(self.llama, params)
        assert self.context, "llama.cpp cannot make a context"
        self.memory, self.batch = L.llama_get_memory(self.context), L.llama_batch_init(512, 0, 1)

    def about(self):
        import llama_cpp

        return {"version": llama_cpp.__version__}

    def forward(self, ids, first, logits):
        """logits: all or last. Passes of 512 rows."""
        for at in range(0, len(ids), 512):
            part = ids[at:at + 512]
            self.batch.n_tokens = len(part)
            for i, token in enumerate(part.tolist()):
                self.batch.token[i], self.batch.pos[i] = token, first + at + i
                self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, 0
                self.batch.logits[i] = int(logits == "all" or at + i == len(ids) - 1)
            assert self.L.llama_decode(self.context, self.batch) == 0, "llama_decode failed"
        self.L.llama_synchronize(self.context)

    def forget(self, length):
        self.L.llama_memory_seq_rm(self.memory, 0, length, -1)

    def timed(self, call, parts=1):
        start = time.perf_counter()
        call()
        return {"seconds": (time.perf_counter() - start) / parts}

    def fill(self, n, seed):
        self.L.llama_memory_clear(self.memory, True)
        self.filled = n
        return self.timed(lambda: self.forward(random_ids(seed, n, self.vocab), 0, "last"))

    def rows(self, n, seed):
        out = self.timed(lambda: self.forward(random_ids(seed, n, self.vocab), self.filled, "all"))
        self.forget(self.filled)
        return out

    def chain(self, token, first, n):
        """n greedy tokens after `token`, which gets position `first`."""
        out = []
        for i in range(n):
            self.forward(np.array([token], np.int32), first + i, "last")
            token = int(np.ctypeslib.as_array(self.L.llama_get_logits_ith(self.context, -1), (self.vocab,)).argmax())
            out.append(token)
        return out

    def decode(self, n, seed):
        token = self.chain(int(random_ids(seed, 1, self.vocab)[0]), self.filled, 1)[0]
        out = self.timed(lambda: self.chain(token, self.filled + 1, n), n)
        self.forget(self.filled)
        return out

    def prompt(self, n, seed):
        self.L.llama_memory_clear(self.memory, True)
        return self.timed(lambda: self.forward(random_ids(seed, n, self.vocab), 0, "last"))

    def generate(self, start, tokens, draft):
        assert draft == 0
        self.L.llama_memory_clear(self.memory, True)
        self.forward(np.array([2], np.int32), 0, "last")
        out = self.chain(start, 1, 1)
        result = self.timed(lambda: out.extend(self.chain(out[0], 2, tokens - 1)), tokens - 1)
        return {**result, "tokens": out}


def serve(o):
    """A side: reads one JSON command a line, answers with one. What the libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    side = {"pymtp": Pymtp, "llama.cpp": Llama}[o.serve](o)
    for line in sys.stdin:
        name, arguments = json.loads(line)
        print(json.dumps(getattr(side, name)(*arguments)), file=answers, flush=True)


class Side:
    """The other end of serve()."""

    def __init__(self, name):
        self.name, self.process = name, None

    def start(self):
        if self.process:
            return
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen([sys.executable, __file__, *sys.argv[1:], "--serve", self.name], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=self.log, text=True)

    def __call__(self, name, *arguments):
        time.sleep(PAUSE)
        if sys.stderr.isatty() and name != "about":
            print(f"\r\x1b[K{self.name}: {name} {arguments}", end="", file=sys.stderr, flush=True)
        try:
            self.process.stdin.write(json.dumps([name, arguments]) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:  # it ended before it could be asked
            answer = ""
        if not answer:
            self.process.wait()
            self.log.seek(0)
            sys.exit(f"{self.name} failed in {name}:\n" + "\n".join(self.log.read().decode("utf-8", "replace").splitlines()[-5:]))
        return json.loads(answer)

    def stop(self):
        if self.process:
            self.process.stdin.close()
            self.process.wait()
            self.process = None


# ---- the rounds ---------------------------------------------------------------------------------------------------------


def stages(o):
    """[(context or None, [(key, call...)])]: what is measured once the context is filled."""
    out = [(c, [(f"decode@{c}", "decode", DECODED)] + [(f"{n}@{c}", "rows", n) for n in o.rows]) for c in o.contexts]
    if o.prompt:
        out.append((None, [("prompt", "prompt", o.prompt)]))
    return out


class Results:
    """Answers by key and side, one a round; rounds before the first counted one are left out."""

    def __init__(self):
        self.by_key = {}

    def add(self, key, side, answer, counted=True):
        if counted:
            self.by_key.setdefault(key, {s: [] for s in SIDES})[side].append(answer)

    def median(self, key, side, name="seconds"):
        return statistics.median(a[name] for a in self.by_key[key][side])

    def ratio(self, key):
        """llama.cpp's time by pymtp's."""
        return statistics.median(b["seconds"] / a["seconds"] for a, b in zip(*(self.by_key[key][s] for s in SIDES)))

    def share(self, key, side, of="limit"):
        return statistics.median(a[of] / b["seconds"] for a, b in zip(self.by_key[key]["pymtp"], self.by_key[key][side]))

    def relative(self, key, one, side):
        return statistics.median(a["seconds"] / b["seconds"] for a, b in zip(self.by_key[key][side], self.by_key[one][side]))


def run_together(o, sides, results, machines):
    for side in sides:
        side.start()
    for context, calls in stages(o):
        machines.append(sides[0]("machine"))
        if context is not None:
            for side in sides:
                results.add(f"fill@{context}", side.name, side("fill", max(context, LEAD), 1))
        for rep in range(-1, o.reps):
            machines.append(sides[0]("machine"))
            for key, name, n in calls:
                for side in sides[::1 if rep % 2 else -1]:
                    results.add(key, side.name, side(name, n, 100 + rep), rep >= 0)
    run_pairs(o, sides, results, machines, o.reps)


def run_apart(o, sides, results, machines):
    for rep in range(o.reps):
        for side in sides[::1 if rep % 2 else -1]:
            side.start()
            for context, calls in stages(o):
                if side.name == "pymtp":
                    machines.append(side("machine"))
                if context is not None:
                    results.add(f"fill@{context}", side.name, side("fill", max(context, LEAD), 1))
                for key, name, n in calls:
                    side(name, n, 99)
                    results.add(key, side.name, side(name, n, 100 + rep))
            run_pairs(o, [side], results, machines, 1)
            side.stop()


def run_pairs(o, sides, results, machines, reps):
    """Plain generations of both, and pymtp's with drafts."""
    if o.pair_start is None:
        return
    for _ in range(reps):
        for side in sides:
            if side.name == "pymtp":
                machines.append(side("machine"))
            for depth in (0, *o.depths) if side.name == "pymtp" else (0,):
                results.add(f"generate {depth}", side.name, side("generate", o.pair_start, o.pair_tokens, depth))


def tile_probe():
    """(first line of tile_probe.c, {rows: time relative to one row}); None where it does not build or run."""
    with tempfile.TemporaryDirectory() as folder:
        program = pathlib.Path(folder, "tile_probe")
        build = ["cc", "-O3", "-march=native", str(HERE / "tile_probe.c"), "-o", str(program), "-lpthread"]
        if subprocess.run(build, capture_output=True).returncode:
            return None
        done = subprocess.run([program], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    return (lines[0], {int(m[1]): float(m[2]) for m in (re.match(r"(\d+) rows:.* ([\d.]+) of one row", x) for x in lines) if m}) if lines else None


# ---- the table ----------------------------------------------------------------------------------------------------------


def percent(x):
    return f"{100 * x:.0f} %"


def line(name, results, key, show, limits, note=""):
    cells = [show(results.median(key, side)) for side in SIDES] + [f"{results.ratio(key):.2f}", *limits]
    return [name, *cells, note]


def rate(tokens=1):
    return lambda seconds: f"{tokens / seconds:.1f} tok/s"


def milliseconds(seconds):
    return f"{seconds * 1e3:.1f} ms"


def table(o, results, tile):
    lines = []
    for context in o.contexts:
        behind = f" behind {context}" if context else ""
        key = f"decode@{context}"
        lines.append(line("decode" + behind, results, key, rate(), [percent(results.share(key, s)) for s in SIDES]))
        if context:
            key = f"fill@{context}"
            lines.append(line(f"fill to {context}", results, key, rate(context), [percent(results.share(key, SIDES[0])), ""]))
        for n in o.rows:
            key, one = f"{n}@{context}", f"{o.rows[0]}@{context}"
            note = " / ".join(f"{results.relative(key, one, s):.2f}" for s in SIDES)
            if tile and n in tile[1]:
                note += f" / {tile[1][n] / tile[1][o.rows[0]]:.2f}" if o.rows[0] in tile[1] else ""
            lines.append(line(f"{n} row{'s' if n > 1 else ''}{behind}, all logits", results, key, milliseconds,
                              [percent(results.share(key, s)) for s in SIDES], note))
    if o.prompt:
        note = f"{percent(results.share('prompt', SIDES[0], 'arithmetic'))} of the arithmetic peak"
        lines.append(line(f"prompt of {o.prompt}", results, "prompt", rate(o.prompt), [percent(results.share("prompt", SIDES[0])), ""], note))
    if o.pair_start is not None:
        lines += pair_lines(o, results)
    return lines


def pair_lines(o, results):
    """Everything against llama.cpp's plain run; all outputs must agree."""
    runs = results.by_key
    theirs = statistics.median(a["seconds"] for a in runs["generate 0"][SIDES[1]])
    plain = runs["generate 0"][SIDES[0]]
    expected, lines = plain[0]["tokens"], []

    def faster(than, ours):
        return statistics.median(b["seconds"] / a["seconds"] for a, b in zip(ours, than))

    same = all(a["tokens"] == expected for a in runs["generate 0"][SIDES[1]])
    for depth in (0, *o.depths):
        ours = runs[f"generate {depth}"][SIDES[0]]
        if any(a["tokens"] != expected for a in ours):
            sys.exit(f"pymtp's output with drafts ({depth}) differs from its plain output")
        seconds, last = statistics.median(a["seconds"] for a in ours), ours[-1]
        accepted = " ".join(percent(a / d) for a, d in zip(last["accepted"], last["drafted"]) if d)
        note = f"{faster(plain, ours):.2f} of plain; accepted by position {accepted}" if depth else "same output" if same else "outputs differ"
        name = f"{o.pair_tokens} tokens, " + (f"drafts: {depth}" if depth else "no drafts")
        lines.append([name, rate()(seconds), rate()(theirs) + ("" if depth == 0 else " (plain)"), f"{faster(runs['generate 0'][SIDES[1]], ours):.2f}", "", "", note])
    return lines


HEADER = ["work", "pymtp", "llama.cpp", "times faster", "of limit: pymtp", "of limit: llama.cpp", "of one row: pymtp / llama.cpp / tile; notes"]


def markdown(lines):
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [HEADER, ["---"] * len(HEADER), *lines])


def processor():
    try:
        match = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    except OSError:
        match = None
    return match[1] if match else platform.machine()


def about(o, info, machines, tile):
    def git(*arguments):
        return subprocess.run(["git", *arguments], cwd=HERE.parent, capture_output=True, text=True).stdout.strip()

    commit = (git("rev-parse", "--short", "HEAD") or "unknown") + (" with changes" if git("status", "--short", "--", "csrc", "pymtp") else "")
    read = [m["read_bytes_per_second"] / 1e9 for m in machines]
    arguments = [os.path.basename(a) if a.endswith(".gguf") else a for a in sys.argv[1:]]
    if "--write" in arguments:
        at = arguments.index("--write")
        del arguments[at:at + 2]
    out = (f"{time.strftime('%Y-%m-%d')}, pymtp {info['pymtp']['version']} at {commit} ({info['pymtp']['cpu']}), llama-cpp-python "
           f"{info['llama.cpp']['version']}, {processor()}, {o.threads} threads. The machine: reads {statistics.median(read):.1f} GB/s "
           f"({min(read):.1f} to {max(read):.1f} in the course of the run), {max(m['int8_multiply_adds_per_second'] for m in machines) / 1e9:.0f} G "
           f"int8 and {max(m['f32_multiply_adds_per_second'] for m in machines) / 1e9:.0f} G f32 multiply-adds/s.")
    if tile:
        out += f" tile_probe.c: {' '.join(tile[0].split())}."
    return out + f"\n\n    python benchmarks/side_by_side.py {shlex.join(arguments)}\n"


def write(path, label, text):
    """The section between its markers, which are put before the log, or at the end, when they are new."""
    begin, end = f"<!-- side_by_side: {label} -->", f"<!-- end of {label} -->"
    section, old = f"{begin}\n### {label}\n\n{text}\n{end}", path.read_text() if path.exists() else "# Speed\n"
    if begin in old:
        new = old[:old.index(begin)] + section + old[old.index(end) + len(end):]
    elif "\n## Log" in old:
        new = old.replace("\n## Log", f"\n{section}\n\n## Log", 1)
    else:
        new = old.rstrip("\n") + f"\n\n{section}\n"
    path.write_text(new)


def numbers(text):
    return [int(part) for part in text.split(",") if part]


def depths(text):
    return [part if part == "auto" else int(part) for part in text.split(",") if part]


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--drafter")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--contexts", type=numbers, default=[0])
    parser.add_argument("--rows", type=numbers, default=[1, 2, 4, 8])
    parser.add_argument("--prompt", type=int, default=512, help="0: none")
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--pair-start", type=int, help="first token of generations with and without drafts; needs --drafter")
    parser.add_argument("--pair-tokens", type=int, default=96)
    parser.add_argument("--depths", type=depths, default=["auto", 4], help="drafts a round: numbers, auto")
    parser.add_argument("--apart", action="store_true")
    parser.add_argument("--write", type=pathlib.Path)
    parser.add_argument("--label", help="default: the file's name")
    parser.add_argument("--json", action="store_true", help="the raw answers instead of the table")
    parser.add_argument("--serve", choices=SIDES, help=argparse.SUPPRESS)
    o = parser.parse_args()
    if not (o.contexts or o.prompt or o.pair_start is not None):
        parser.error("nothing to measure")
    if o.pair_start is not None and not o.drafter:
        parser.error("--pair-start needs --drafter")
    return o


def main():
    o = options()
    if o.serve:
        serve(o)
        return
    sides, results, machines = [Side(name) for name in SIDES], Results(), []
    tile = tile_probe()
    (run_apart if o.apart else run_together)(o, sides, results, machines)
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    info = {}
    for side in sides:
        side.start()
        info[side.name] = side("about")
        side.stop()
    if o.json:
        print(json.dumps({"machines": machines, "about": info, "tile": tile, "results": results.by_key}))
        return
    text = about(o, info, machines, tile) + "\n" + markdown(table(o, results, tile))
    print(text)
    if o.write:
        write(o.write, o.label or pathlib.Path(o.model).stem, text)


if __name__ == "__main__":
    main()
