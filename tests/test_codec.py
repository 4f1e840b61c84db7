"""pymtp.codec: what is encoded comes back within bounds that follow from each type, and never worse than what `gguf` makes."""
import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as T
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as arrays

import pymtp
from pymtp import codec

NAMES = codec.types()
# Largest root of the mean squared error of a block, as a part of its largest magnitude: that of the plain fit, which is among those
# tried. Half a step of levels over the whole range (of twice the largest where there is a minimum), or a whole one where a side has
# a level less; 14/127 and 1/4 are what the tables of IQ4 and MXFP4 cut off. K types add half a step of the integer scale times the
# largest level, and of the minimum.
BOUND = {"F32": 0, "F16": 2**-11, "BF16": 2**-8, "Q4_0": 1 / 8, "Q4_1": 1 / 15, "Q5_0": 1 / 16, "Q5_1": 1 / 31, "Q8_0": 0.5 / 127,
         "Q2_K": 1 / 3 + 1.5 / 15, "Q3_K": 1 / 4 + 0.5 / 32, "Q4_K": 1 / 15 + 1.5 / 63, "Q5_K": 1 / 31 + 1.5 / 63, "Q6_K": 1 / 32 + 0.5 / 128,
         "IQ4_NL": 14 / 127, "IQ4_XS": 14 / 127 + 0.5 / 32, "MXFP4": 1 / 4}
GGUF = ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4"]  # what the gguf package can quantize


def test_every_type_has_a_bound():
    assert list(BOUND) == NAMES or sorted(BOUND) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_sizes(name):
    values, size = gguf.GGML_QUANT_SIZES[T[name]]
    assert codec.type_number(name) == codec.type_number(name.lower()) == codec.type_number(int(T[name])) == int(T[name])
    assert codec.block_values(name) == values and codec.row_bytes(name, 3 * values) == 3 * size and codec.type_name(int(T[name])) == name


rows = arrays.arrays(np.float32, st.tuples(st.integers(1, 3), st.sampled_from([256, 512])),
                     elements=st.floats(-60000, 60000, width=32) | st.floats(-1, 1, width=32) | st.just(0.0), fill=st.just(0.0))
weights = arrays.arrays(np.float32, 512, elements=st.floats(0, 1e6, width=32))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(x=rows, w=st.none() | weights)
def test_round_trip(name, x, w):
    """The error of a block, weighted as asked for, is within the bound; it decodes to what gguf decodes, to the bit."""
    columns, n = x.shape[1], codec.block_values(name)
    blocks = codec.encode(name, x, importance=None if w is None else w[:columns])
    back = codec.decode(name, blocks)
    assert back.shape == x.shape and np.array_equal(back, gguf.quants.dequantize(blocks, T[name]).reshape(x.shape))
    used = np.ones(columns) if w is None or not w[:columns].any() else np.maximum(w[:columns].astype(np.float64) / w[:columns].max(), 2.0**-20)
    used = np.broadcast_to(used, x.shape).reshape(-1, n)
    error = np.sqrt((used * (back.astype(np.float64) - x).reshape(-1, n) ** 2).sum(1) / used.sum(1))
    # halves add 2^-11 of scale and minimum, and 2^-25 times the largest product of integers (128 x 32) where they are subnormal
    halves = 0 if name == "F32" else 2 * 2.0**-11
    assert (error <= (BOUND[name] + halves) * np.abs(x).reshape(-1, n).max(1) + (0 if name == "F32" else 2.0**-13)).all()


@pytest.mark.parametrize("name", GGUF)
@pytest.mark.parametrize("kind", ["normal", "heavy"])
def test_no_worse_than_gguf(name, kind):
    """Rounding a scale to a half may cost what a better fit gains, where the fit is the same: 2^-10 of the error and no more."""
    rng = np.random.default_rng(3)
    x = (rng.normal(size=(64, 1024)) if kind == "normal" else rng.standard_t(3, size=(64, 1024))).astype(np.float32)
    ours = codec.decode(name, codec.encode(name, x))
    theirs = gguf.quants.dequantize(gguf.quants.quantize(x, T[name]), T[name])
    assert ((ours - x) ** 2).mean(dtype=np.float64) <= (1 + 2.0**-10) * ((theirs - x) ** 2).mean(dtype=np.float64)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("F32", "F16", "BF16")])
def test_importance_lowers_the_weighted_error(name):
    rng = np.random.default_rng(4)
    x, w = rng.normal(size=(64, 512)).astype(np.float32), rng.gamma(0.5, size=512).astype(np.float32)
    with_w, without = (codec.decode(name, codec.encode(name, x, importance=i)) for i in (w, None))
    error = [(w * (y - x).astype(np.float64) ** 2).sum() for y in (with_w, without)]
    assert error[0] < error[1]


@pytest.mark.parametrize("name", NAMES)
def test_threads_and_shapes(name):
    """Any thread count, layout and slicing of the array gives the same bytes."""
    x = np.random.default_rng(5).normal(size=(3, 70, 512)).astype(np.float32)
    one = codec.encode(name, x, threads=1)
    assert one.shape == (3, 70, codec.row_bytes(name, 512)) and one.dtype == np.uint8
    assert all(np.array_equal(one, codec.encode(name, x, threads=n)) for n in (0, 2, 3))
    assert np.array_equal(one, codec.encode(name, np.asfortranarray(x))) and np.array_equal(one[2, 5], codec.encode(name, x[2, 5]))
    assert np.array_equal(one[:, ::7], codec.encode(name, x[:, ::7]))
    values = codec.decode(name, one, threads=2)
    assert np.array_equal(values[1, 3], codec.decode(name, one[1, 3].tobytes())) and np.array_equal(values[:, ::7], codec.decode(name, one[:, ::7]))
    assert codec.encode(name, np.empty((0, 512), np.float32)).shape == (0, codec.row_bytes(name, 512))
    assert codec.decode(name, np.empty((0, one.shape[-1]), np.uint8)).shape == (0, 512)


def test_other_dtypes():
    x = np.arange(512).reshape(2, 256)
    assert np.array_equal(codec.encode("Q6_K", x), codec.encode("Q6_K", x.astype(np.float64)))
    assert np.array_equal(codec.encode("Q6_K", x.tolist()), codec.encode("Q6_K", x.astype(np.float16)))


X = np.ones((4, 256), np.float32)


def bad(value):
    x = X.copy()
    x[2, 17] = value
    return x


@pytest.mark.parametrize("call, error, text", [
    (lambda: codec.encode("Q9_K", X), pymtp.UnsupportedError, "'Q9_K'"),
    (lambda: codec.encode(4, X), pymtp.UnsupportedError, "4"),
    (lambda: codec.encode(-1, X), pymtp.UnsupportedError, "-1"),
    (lambda: codec.encode(2**40, X), pymtp.UnsupportedError, "expected one of F32, "),
    (lambda: codec.encode(None, X), pymtp.ArgumentError, "type"),
    (lambda: codec.encode("Q4_K", X[:, :100]), pymtp.ArgumentError, "expected a multiple of 256 for Q4_K, found 100"),
    (lambda: codec.encode("Q4_K", X[:, :0]), pymtp.ArgumentError, "found 0"),
    (lambda: codec.encode("Q4_K", np.float32(1)), pymtp.ArgumentError, "array"),
    (lambda: codec.encode("Q4_K", "text"), pymtp.ArgumentError, "array: expected real numbers"),
    (lambda: codec.encode("Q4_K", [[1.0], [1.0, 2.0]]), pymtp.ArgumentError, "array"),
    (lambda: codec.encode("Q4_K", X.astype(complex)), pymtp.ArgumentError, "complex"),
    (lambda: codec.encode("Q4_K", bad(np.nan)), pymtp.ArgumentError, "row 2, column 17: .* found nan"),
    (lambda: codec.encode("F32", bad(np.inf)), pymtp.ArgumentError, "row 2, column 17"),
    (lambda: codec.encode("F16", bad(65520)), pymtp.ArgumentError, "row 2, column 17"),
    (lambda: codec.encode("F32", bad(1).astype(np.float64) * 1e300), pymtp.ArgumentError, "row 0, column 0"),
    (lambda: codec.encode("Q4_K", X, importance=np.ones(255)), pymtp.ArgumentError, r"importance: expected shape \(256,\)"),
    (lambda: codec.encode("Q4_K", X, importance=-np.ones(256)), pymtp.ArgumentError, "importance of column 0"),
    (lambda: codec.encode("Q4_K", X, threads=-1), pymtp.ArgumentError, "threads"),
    (lambda: codec.encode("Q4_K", X, threads=1.5), pymtp.ArgumentError, "threads"),
    (lambda: codec.decode("Q4_K", b"\0" * 143), pymtp.ArgumentError, "multiple of 144 bytes"),
    (lambda: codec.decode("Q4_K", b""), pymtp.ArgumentError, "multiple of 144 bytes"),
    (lambda: codec.decode("Q4_K", X), pymtp.ArgumentError, "uint8"),
    (lambda: codec.decode("Q4_K", memoryview(bytes(288))[::2]), pymtp.ArgumentError, "blocks: expected .*, found memoryview"),
    (lambda: codec.decode("Q4_K", [[1], [2, 3]]), pymtp.ArgumentError, "blocks: expected .*, found list"),
    (lambda: codec.row_bytes("Q4_K", 12), pymtp.ArgumentError, "12"),
    (lambda: codec.row_bytes("Q4_K", None), pymtp.ArgumentError, "columns: expected an integer, found None"),
    (lambda: codec.row_bytes("Q4_K", "x"), pymtp.ArgumentError, "columns: expected an integer, found 'x'"),
    (lambda: codec.row_bytes("Q4_K", 256.0), pymtp.ArgumentError, "columns: expected an integer, found 256.0"),
    (lambda: codec.row_bytes("Q4_K", -256), pymtp.ArgumentError, "columns: .* found -256"),
    (lambda: codec.row_bytes("Q4_K", 2**70), pymtp.ArgumentError, "columns: expected"),
    (lambda: codec.type_name("F32\0x"), pymtp.UnsupportedError, r"type 'F32\\x00x'"),
])
def test_refused(call, error, text):
    with pytest.raises(error, match=text) as caught:
        call()
    assert "\n" not in str(caught.value)
