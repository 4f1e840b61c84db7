"""Formats against the gguf package: same table, and dequantization equal to the last bit."""
import subprocess

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as T

FORMATS = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS",
           "MXFP4"]
# The formats gguf can quantize, and the largest error as a part of the block's largest value: half a step, or a whole one where
# one side is cut (the 0 formats lack the step +8 or +16); MXFP4's values end 2 units below the next power of two, a unit being
# at most a quarter of the largest.
QUANTIZABLE = {"BF16": 2**-8, "Q4_0": 1 / 8, "Q4_1": 1 / 15, "Q5_0": 1 / 16, "Q5_1": 1 / 31, "Q8_0": 0.5 / 127, "MXFP4": 2 / 4}
HALVES = np.arange(65536, dtype=np.uint16)
# byte offsets of the halves of a block
SCALES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "IQ4_NL": [0], "IQ4_XS": [0], "Q2_K": [80, 82],
          "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "MXFP4": []}


@pytest.fixture(scope="module")
def tool(c_build):
    return str(c_build / "tool_dequant")


def dequantize(tool, name, data):
    data = data.tobytes()
    done = subprocess.run([tool, str(int(T[name])), str(len(data))], input=data, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return np.frombuffer(done.stdout, np.float32)


def expected(name, rows):
    with np.errstate(all="ignore"):
        return np.ascontiguousarray(gguf.quants.dequantize(rows, T[name])).ravel()


def same(have, want):
    """Equal bits; of a NaN only that it is one."""
    assert have.size == want.size
    nan = np.isnan(want)
    assert np.array_equal(np.isnan(have), nan)
    wrong = np.flatnonzero((have.view(np.uint32) != want.view(np.uint32)) & ~nan)
    assert not wrong.size, (wrong.size, wrong[0], have[wrong[0]], want[wrong[0]])


def test_table(tool):
    lines = subprocess.run([tool], capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines == [f"{int(T[name])} {name} {gguf.GGML_QUANT_SIZES[T[name]][0]} {gguf.GGML_QUANT_SIZES[T[name]][1]}" for name in FORMATS]


def test_floats(tool):
    """Every half and bfloat16, every kind of float."""
    same(dequantize(tool, "F16", HALVES), HALVES.view(np.float16).astype(np.float32))
    same(dequantize(tool, "BF16", HALVES), (HALVES.astype(np.uint32) << 16).view(np.float32))
    bits = np.random.default_rng(1).integers(0, 2**32, 65536, dtype=np.uint32)
    assert np.array_equal(dequantize(tool, "F32", bits).view(np.uint32), bits)


@pytest.mark.parametrize("name", list(SCALES))
def test_random_blocks(tool, name):
    """Random bytes, with every bit pattern as a scale: negative, subnormal, zero, infinite, NaN."""
    rng = np.random.default_rng(int(T[name]))
    size = gguf.GGML_QUANT_SIZES[T[name]][1]
    blocks = rng.integers(0, 256, (65536 if size < 50 else 16384, size), dtype=np.uint8)
    if name == "MXFP4":
        blocks[:, 0] = np.arange(len(blocks))
    for i, at in enumerate(SCALES[name]):
        halves = np.resize(HALVES, 65536) if i == 0 else rng.permutation(HALVES)
        blocks[:, at:at + 2] = halves[::65536 // len(blocks)].reshape(-1, 1).view(np.uint8)
    same(dequantize(tool, name, blocks), expected(name, blocks))


@pytest.mark.parametrize("name", list(SCALES))
def test_sane_blocks(tool, name):
    """Random bytes with scales as models have them: nothing is NaN, infinite or zero by accident."""
    rng = np.random.default_rng(100 + int(T[name]))
    blocks = rng.integers(0, 256, (8192, gguf.GGML_QUANT_SIZES[T[name]][1]), dtype=np.uint8)
    if name == "MXFP4":
        blocks[:, 0] = rng.integers(100, 140, len(blocks))
    for at in SCALES[name]:
        blocks[:, at:at + 2] = rng.normal(size=(len(blocks), 1)).astype(np.float16).view(np.uint8)
    want = expected(name, blocks)
    assert np.isfinite(want).all() and np.unique(want).size > 100
    same(dequantize(tool, name, blocks), want)


@pytest.mark.parametrize("name", QUANTIZABLE)
def test_quantized_data(tool, name):
    x = np.random.default_rng(7).normal(size=(64, 512)).astype(np.float32)
    rows = gguf.quants.quantize(x, T[name])
    have = dequantize(tool, name, rows)
    same(have, expected(name, rows))
    largest = np.abs(x).reshape(-1, 32).max(axis=1, keepdims=True)
    rounding = 2 * 2**-11  # of the scale and the minimum to halves
    assert (np.abs(have.reshape(-1, 32) - x.reshape(-1, 32)) <= (QUANTIZABLE[name] + rounding) * largest).all()
