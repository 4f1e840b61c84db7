"""Encoders against llama.cpp's (`ggml_quantize_chunk` of llama-cpp-python's libggml), one thread each, in turns.

    python benchmarks/encode.py [--types Q4_K,Q6_K] [--rows 1024] [--rounds 7] [--model trained.gguf]

For each type and kind of data: the sum of squared errors, weighted by the importance where there is one, as a part of llama.cpp's
(below 1: ours errs less), and the speed as a multiple of llama.cpp's (above 1: ours is faster; median of the rounds).
"""
from __future__ import annotations

import argparse
import ctypes
import pathlib
import statistics
import sys
import time

import gguf
import numpy as np

from pymtp import codec

TRAINED = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "trained-py.gguf"
COLUMNS = 4096
UNWEIGHTED = ("F16", "BF16", "Q8_0", "MXFP4")  # llama.cpp takes no importance for these


def load_ggml():
    """ggml_quantize_chunk(type, values, blocks, first value, rows, columns, importance or NULL)."""
    import llama_cpp

    folder = pathlib.Path(llama_cpp.__file__).parent / "lib"
    library = ctypes.CDLL(str(next(p for p in sorted(folder.iterdir()) if p.name.startswith("libggml-base."))))
    quantize = library.ggml_quantize_chunk
    quantize.restype = ctypes.c_size_t
    quantize.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
    return quantize


def trained_rows(path, rows):
    """Values of the matrices of a real model, cut into rows of COLUMNS."""
    reader = gguf.GGUFReader(path)
    parts = [gguf.quants.dequantize(t.data, t.tensor_type).ravel() for t in reader.tensors if len(t.shape) == 2 and t.shape[0] % 256 == 0]
    values = np.concatenate(parts).astype(np.float32)
    n = min(rows, values.size // COLUMNS)
    return np.ascontiguousarray(values[:n * COLUMNS].reshape(n, COLUMNS))


def compare(quantize, name, x, importance, rounds):
    """(error ratio, speed ratio, our million values a second)"""
    theirs = np.zeros((len(x), codec.row_bytes(name, COLUMNS)), np.uint8)
    pointer = None if importance is None else importance.ctypes.data
    seconds = {"ours": [], "theirs": []}
    for _ in range(rounds):
        start = time.perf_counter()
        quantize(codec.type_number(name), x.ctypes.data, theirs.ctypes.data, 0, len(x), COLUMNS, pointer)
        seconds["theirs"].append(time.perf_counter() - start)
        start = time.perf_counter()
        ours = codec.encode(name, x, importance=importance, threads=1)
        seconds["ours"].append(time.perf_counter() - start)

    def error(blocks):
        miss = codec.decode(name, blocks) - x
        return np.einsum("ij,ij,j->", miss, miss, np.ones(COLUMNS) if importance is None else importance, dtype=np.float64)

    ours_median, theirs_median = (statistics.median(seconds[k]) for k in ("ours", "theirs"))
    return error(ours) / error(theirs), theirs_median / ours_median, x.size / ours_median / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", default="F16,BF16,Q8_0,Q4_0,Q4_1,Q5_0,Q5_1,Q2_K,Q3_K,Q4_K,Q5_K,Q6_K,IQ4_NL,IQ4_XS,MXFP4")
    parser.add_argument("--rows", type=int, default=1024, help=f"rows of {COLUMNS} values")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--model", default=TRAINED, help="GGUF whose matrices are the trained data")
    args = parser.parse_args()
    quantize = load_ggml()
    rng = np.random.default_rng(1)
    data = {"normal": rng.normal(size=(args.rows, COLUMNS)).astype(np.float32) * np.float32(0.02),
            "student t": rng.standard_t(3, size=(args.rows, COLUMNS)).astype(np.float32) * np.float32(0.02),
            "trained": trained_rows(args.model, args.rows)}
    importance = rng.gamma(0.5, size=COLUMNS).astype(np.float32)
    print(f"| type | importance | {' | '.join(f'{kind}: error, speed' for kind in data)} | million values a second |\n|---|---|{'---|' * (len(data) + 1)}")
    worst_error, worst_speed = 0.0, float("inf")
    for name in args.types.split(","):
        for weights in (None,) if name in UNWEIGHTED else (None, importance):
            results = [compare(quantize, name, x, weights, args.rounds) for x in data.values()]
            worst_error, worst_speed = max(worst_error, *(r[0] for r in results)), min(worst_speed, *(r[1] for r in results))
            cells = " | ".join(f"{error:.3f}, {speed:.2f}" for error, speed, _ in results)
            print(f"| {name} | {'no' if weights is None else 'yes'} | {cells} | {results[0][2]:.0f} |", flush=True)
    print(f"\nlargest error ratio {worst_error:.3f}, smallest speed ratio {worst_speed:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
