#!/usr/bin/env python3
"""What each runtime's arithmetic costs: KL divergence from exact arithmetic on the same weights, pymtp and llama.cpp side by side.

  precision.py [--types Q8_0,Q4_0,Q4_K_M,Q6_K] [--kv f16,f32] [--tokens 512] [--rows 512] [--threads 2] [--folder DIR] [--json]

The trained model in tests/data is written as F32 and quantized by llama.cpp's own quantizer. Both runtimes then read the same file
and are given the same text: the 20 Python prompts of tests/data and the first --tokens tokens of eight modules of the running
Python's standard library. "Exact" is tests/ref/gemma4_ref.py: float64 on the dequantized weights, nothing rounded. So the
error of the quantized weights, equal for both, is not in the numbers; it is printed beside them for scale ("weights": exact
arithmetic on this file against exact arithmetic on the F32 file).

By row of the table: mean KL(exact || runtime) over all positions in nats, its standard error, the largest, and how often the most
likely token is the same. "of llama.cpp" is the mean KL of pymtp over llama.cpp's with the same KV type, the better of its flash
attention on and off, and the standard error of that ratio. "exact, int8 activations" is what any engine pays that rounds
activations to int8 per block of 32 and nothing else.

llama.cpp runs in calls of --rows tokens (1: as it decodes, with other kernels); pymtp's bits do not depend on that. Its flash
attention casts an F32 cache to F16, so that pair of rows is the same twice. Needs llama-cpp-python (see side_by_side.py).
"""
import argparse
import functools
import importlib
import inspect
import json
import pathlib
import sys
import tempfile

import gguf
import numpy as np

import pymtp

TESTS = pathlib.Path(__file__).resolve().parent.parent / "tests"
sys.path.insert(0, str(TESTS))
import model_files  # noqa: E402
from ref.gemma4_ref import Target  # noqa: E402

MODULES = "tarfile subprocess pathlib pickle statistics zipfile typing datetime".split()


@functools.lru_cache
def llama():
    """The llama_cpp module, started and silent. Imported late: the tests use this file without it."""
    import llama_cpp
    llama_cpp.quiet = llama_cpp.llama_log_callback(lambda *_: None)  # kept alive: llama.cpp calls it
    llama_cpp.llama_log_set(llama_cpp.quiet, None)
    llama_cpp.llama_backend_init()
    return llama_cpp


def write_f32(source, path):
    """A copy of the model with every tensor as float32."""
    floats = {t.name: gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32) for t in gguf.GGUFReader(source).tensors}
    return model_files.rewrite(source, path, keys={"general.file_type": 0}, replace=floats)


def quantize(source, path, kind):
    L = llama()
    params = L.llama_model_quantize_default_params()
    params.ftype = gguf.LlamaFileType[f"MOSTLY_{kind}"]
    if L.llama_model_quantize(str(source).encode(), str(path).encode(), params):
        raise SystemExit(f"llama.cpp did not quantize {source} to {path}")
    return path


def tensor_types(path):
    """What came out: type -> number of matrices. Rows that are no multiple of 256 fall back from K-quants."""
    counts = {}
    for t in gguf.GGUFReader(path).tensors:
        if len(t.shape) > 1:
            counts[t.tensor_type.name] = counts.get(t.tensor_type.name, 0) + 1
    return counts


def prompts(path):
    """The Python prompts as ids, each begun with BOS."""
    tokenizer = pymtp.Tokenizer(path)
    texts = json.loads((TESTS / "data" / "python-prompts.json").read_text())["prompts"].values()
    return [tokenizer.tokenize(text, bos=True) for text in texts]


def modules(path, tokens):
    """The first tokens of each module."""
    tokenizer = pymtp.Tokenizer(path)
    return [tokenizer.tokenize(inspect.getsource(importlib.import_module(name)), bos=True)[:tokens] for name in MODULES]


# ---- the runtimes: file, texts -> logits of each text, (tokens, vocab) --------------------------------------------


def run_exact(path, ids, act8=False, dtype=np.float64):
    """act8: all exact but the activations that meet a quantized matrix, which are int8 per block of 32."""
    twin = Target(path, act8=act8, dtype=dtype)
    return [twin.forward(i)[0] for i in ids]


def run_pymtp(path, ids, kv, threads):
    logits = []
    with pymtp.Model(path, drafter=None, kv=kv, threads=threads) as model, model.session() as session:
        for i in ids:
            logits.append(session.forward(i, logits="all"))
            session.rewind(0)
    return logits


def run_llama(path, ids, kv, flash, rows, threads):
    L, longest = llama(), max(map(len, ids))
    mp, cp = L.llama_model_default_params(), L.llama_context_default_params()
    mp.n_gpu_layers = 0
    cp.n_ctx, cp.n_batch, cp.n_ubatch, cp.n_threads, cp.n_threads_batch = longest, rows, rows, threads, threads
    cp.type_k = cp.type_v = gguf.GGMLQuantizationType[kv.upper()]
    cp.flash_attn_type = int(flash)
    model = L.llama_model_load_from_file(str(path).encode(), mp)
    ctx = model and L.llama_init_from_model(model, cp)
    if not ctx:
        raise SystemExit(f"llama.cpp did not open {path} with kv {kv}, flash {flash}")
    vocab, batch, logits = L.llama_vocab_n_tokens(L.llama_model_get_vocab(model)), L.llama_batch_init(rows, 0, 1), []
    for text in ids:
        L.llama_memory_clear(L.llama_get_memory(ctx), True)
        out = np.empty((len(text), vocab), np.float32)
        for first in range(0, len(text), rows):
            part = text[first : first + rows]
            batch.n_tokens = len(part)
            for i, token in enumerate(part):
                batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, first + i, 1, 0, 1
            if L.llama_decode(ctx, batch):
                raise SystemExit(f"llama.cpp failed on {path}")
            for i in range(len(part)):
                out[first + i] = np.ctypeslib.as_array(L.llama_get_logits_ith(ctx, i), (vocab,))
        logits.append(out)
    L.llama_batch_free(batch)
    L.llama_free(ctx)
    L.llama_model_free(model)
    return logits


# ---- comparison ------------------------------------------------------------------------------------------------


def log_softmax(x):
    x = x.astype(np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def divergences(exact, logits):
    """KL(exact || runtime) of every position, text by text, and whether the most likely token is the same."""
    kl, same = [], []
    for e, x in zip(exact, logits):
        p, q = log_softmax(e), log_softmax(x)
        kl.append((np.exp(p) * (p - q)).sum(-1))
        same.append(p.argmax(-1) == q.argmax(-1))
    return kl, same


def ratio_error(a, b):
    """sum(a) / sum(b) of lists by text, and its standard error. Texts are the samples: positions of one depend on each other."""
    a, b = np.array([x.sum() for x in a]), np.array([x.sum() for x in b])
    ratio, n = a.sum() / b.sum(), len(a)
    return ratio, np.sqrt(n / (n - 1) * ((a - ratio * b) ** 2).sum()) / b.sum()


def summary(exact, logits):
    kl, same = divergences(exact, logits)
    mean, error = ratio_error(kl, [np.ones(len(k)) for k in kl])
    return kl, {"mean": mean, "error": error, "max": max(k.max() for k in kl), "top1": np.concatenate(same).mean()}


def measure(path, ids, exact, kv_types, rows, threads):
    """Every run on one file: name -> its numbers."""
    runs = {"exact, int8 activations": summary(exact, run_exact(path, ids, act8=True))[1]}
    for kv in kv_types:
        ours, runs[f"pymtp kv {kv}"] = summary(exact, run_pymtp(path, ids, kv, threads))
        peers = {}
        for flash in (True, False):
            name = f"llama.cpp kv {kv} flash {'on' if flash else 'off'}"
            peers[name], runs[name] = summary(exact, run_llama(path, ids, kv, flash, rows, threads))
        best = min(peers, key=lambda name: runs[name]["mean"])
        ratio, error = ratio_error(ours, peers[best])
        runs[f"pymtp kv {kv}"].update(of_llama=ratio, of_llama_error=error)
    return runs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", default="Q8_0,Q4_0,Q4_K_M,Q6_K")
    parser.add_argument("--kv", default="f16,f32")
    parser.add_argument("--tokens", type=int, default=512, help="of each module")
    parser.add_argument("--rows", type=int, default=512, help="of each llama.cpp call")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", help="keep the files here")
    parser.add_argument("--json", action="store_true")
    o = parser.parse_args()
    out = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(o.folder or scratch)
        folder.mkdir(parents=True, exist_ok=True)
        base = write_f32(TESTS / "data" / "trained-py.gguf", folder / "F32.gguf")
        ids = prompts(base) + modules(base, o.tokens)
        unquantized = run_exact(base, ids)
        for kind in o.types.split(","):
            path = quantize(base, folder / f"{kind}.gguf", kind)
            exact = run_exact(path, ids)
            _, weights = summary(unquantized, exact)
            out[kind] = {"matrices": tensor_types(path), "positions": sum(map(len, ids)), "weights": weights["mean"],
                         "runs": measure(path, ids, exact, o.kv.split(","), o.rows, o.threads)}
            if not o.json:
                show(kind, out[kind])
    if o.json:
        print(json.dumps(out))


def show(kind, result):
    matrices = ", ".join(f"{n} {t}" for t, n in result["matrices"].items())
    print(f"{kind}: {matrices}; {result['positions']} positions; weights: {result['weights']:.2e}")
    for name, r in result["runs"].items():
        ratio = f"  {r['of_llama']:.3f} +- {r['of_llama_error']:.3f} of llama.cpp" if "of_llama" in r else ""
        print(f"  {name:28} mean {r['mean']:.3e} +- {r['error']:.1e}  max {r['max']:.2e}  top-1 {r['top1']:.4f}{ratio}", flush=True)


if __name__ == "__main__":
    main()
