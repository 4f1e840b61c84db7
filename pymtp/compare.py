"""Compares two GGUF files: keys, tensors (types, bytes, errors) and, with a text, what their models predict.

Tensors are decoded slice by slice. Predictions: one model is in memory at a time. The first one's logits go to an unnamed temporary
file, tokens * vocabulary * 4 bytes, and come back in the same chunks when the second has computed its own. Sums are float64.
"""
from __future__ import annotations

import math
import os
import tempfile
from dataclasses import dataclass
from typing import BinaryIO, Callable, Iterator, Sequence

import numpy as np

from . import codec
from ._lib import empty
from ._text import shown
from .errors import ArgumentError, MismatchError, UnsupportedError, WriteError
from .gguf_file import File, Tensor, values_by_key
from .gguf_write import LONGEST_ROW, SLICE_BYTES
from .model import Model

PLAIN = {"I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64, "F64": np.float64}
SLICE_VALUES = SLICE_BYTES // 16  # with both tensors' values as float64 about SLICE_BYTES
CHUNK_LOGITS = SLICE_BYTES // 8   # logits of a pass


@dataclass(frozen=True)
class KeyDifference:
    """A key whose values differ, as JSON text with the first items of arrays; None: the file has no such key."""

    key: str
    a: str | None
    b: str | None


@dataclass(frozen=True)
class TensorDifference:
    """A tensor that both files have. relative_rms: root of the sum of squared differences over that of a's squares. Errors are None
    where shapes differ or a type cannot be decoded; relative_rms also where a is all zero and b is not."""

    name: str
    dims_a: list[int]
    dims_b: list[int]
    type_a: str
    type_b: str
    bytes_a: int
    bytes_b: int
    relative_rms: float | None
    max_abs: float | None


@dataclass(frozen=True)
class Predictions:
    """Of two models on one text. kl: mean of KL(A || B) in nats; top1: share of positions with the same first choice; positions: how
    many tokens were predicted."""

    positions: int
    perplexity_a: float
    perplexity_b: float
    kl: float
    top1: float


# ---- keys ----

def compare_keys(a: File, b: File, names: tuple[str, str] = ("a", "b")) -> list[KeyDifference]:
    """FormatError, which names the file by names, where a key is no UTF-8: its value cannot be asked for."""
    values_a, values_b = values_by_key(a, names[0]), values_by_key(b, names[1])
    return [KeyDifference(k, a.value_json(k, 3), b.value_json(k, 3)) for k in values_a | values_b if values_a.get(k) != values_b.get(k)]


# ---- tensors ----

def names_only_in(a: File, b: File) -> list[str]:
    """Tensors of a that b does not have."""
    other = {t.name for t in b.tensors()}
    return [t.name for t in a.tensors() if t.name not in other]


def compare_tensors(a: File, b: File, progress: Callable[[int, str], None] = lambda n, name: None) -> list[TensorDifference]:
    """Tensors that both have, in a's order. progress(bytes of a's tensor, its name) is called after each."""
    places = {t.name: (i, t) for i, t in enumerate(b.tensors())}
    out = []
    for i, t in enumerate(a.tensors()):
        if t.name not in places:
            continue
        j, other = places[t.name]
        rms, largest = _errors(a, i, t, b, j, other)
        out.append(TensorDifference(t.name, t.dims, other.dims, t.type, other.type, t.bytes, other.bytes, rms, largest))
        progress(t.bytes, t.name)
    return out


def _errors(a: File, i: int, t: Tensor, b: File, j: int, u: Tensor) -> tuple[float | None, float | None]:
    if t.dims != u.dims or not (_decodable(t) and _decodable(u)):
        return None, None
    squares = total = largest = 0.0
    for x, y in zip(_values(a, i, t), _values(b, j, u)):
        with np.errstate(invalid="ignore", over="ignore"):  # infinities and NaN show in the sums
            difference = x - y
            squares += float(difference @ difference)
            total += float(x @ x)
            largest = max(largest, float(np.abs(difference).max()))
    if not math.isfinite(squares) or not math.isfinite(total):
        return None, None
    return (math.sqrt(squares / total) if total else None if squares else 0.0), largest


def _decodable(t: Tensor) -> bool:
    return t.type in PLAIN or (t.bytes > 0 and t.type in codec.types())


def _values(file: File, index: int, t: Tensor) -> Iterator[np.ndarray]:
    """A tensor's values in slices of whole rows: float64."""
    rows = math.prod(t.dims[1:])
    each = t.bytes // rows
    if t.dims[0] > LONGEST_ROW:
        raise UnsupportedError(f"tensor {shown(t.name)}: expected rows of at most {LONGEST_ROW} values, found {t.dims[0]}")
    step = max(1, SLICE_VALUES // t.dims[0])
    for first in range(0, rows, step):
        raw = empty((min(step, rows - first) * each,), np.uint8)
        file.read(index, first * each, raw)
        values = raw.view(PLAIN[t.type]) if t.type in PLAIN else codec.decode(t.type, raw)
        yield values.reshape(-1).astype(np.float64)


# ---- predictions ----

def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Of every row, in float64."""
    x = logits.astype(np.float64)
    x -= x.max(1, keepdims=True)
    x -= np.log(np.exp(x).sum(1, keepdims=True))
    return x


def _chunks(model: Model, ids: Sequence[int], rows: int) -> Iterator[tuple[int, np.ndarray]]:
    """(first position, logits of the positions from there on) for all tokens but the last."""
    with model.session() as session:
        for first in range(0, len(ids) - 1, rows):
            yield first, session.forward(ids[first:min(first + rows, len(ids) - 1)], hidden=False)


def _nll(log_p: np.ndarray, ids: Sequence[int], first: int) -> float:
    """Sum of -log p of the tokens after those at `first` and on."""
    return -float(log_p[np.arange(len(log_p)), ids[first + 1:first + 1 + len(log_p)]].sum())


def _open(path: str | os.PathLike[str], threads: int | None) -> Model:
    return Model(path, None, threads=threads)


def _record(path: str | os.PathLike[str], text: str, tokens: int, threads: int | None, store: BinaryIO,
            progress: Callable[[int], None]) -> tuple[list[int], int, float]:
    """Runs the first model: (ids, vocabulary, sum of -log p); its logits are in the store."""
    nll = 0.0
    with _open(path, threads) as model:
        ids = list(model.tokenize(text, bos=True))[:min(tokens, model.info.context)]
        if len(ids) < 2:
            raise ArgumentError("text: expected at least two tokens")
        for first, logits in _chunks(model, ids, max(1, CHUNK_LOGITS // model.info.vocab)):
            nll += _nll(log_softmax(logits), ids, first)
            try:
                store.write(memoryview(logits).cast("B"))
            except OSError as error:
                raise WriteError(f"temporary file for logits in {tempfile.gettempdir()}: {error.strerror or error}") from None
            progress(len(logits))
        return ids, model.info.vocab, nll


def compare_predictions(a: str | os.PathLike[str], b: str | os.PathLike[str], text: str, tokens: int = 512, threads: int | None = None,
                        progress: Callable[[int], None] = lambda n: None) -> Predictions:
    """Both models on the first `tokens` tokens of a text after one BOS. progress(rows) is called after every pass, of both."""
    if tokens < 2:
        raise ArgumentError(f"tokens: expected at least 2, found {tokens}")
    with tempfile.TemporaryFile(prefix="pymtp-logits-") as store:
        ids, vocab, nll_a = _record(a, text, tokens, threads, store, progress)
        positions, nll_b, kl, same = len(ids) - 1, 0.0, 0.0, 0
        store.seek(0)
        with _open(b, threads) as model:
            if model.info.vocab != vocab or list(model.tokenize(text, bos=True))[:len(ids)] != ids:
                raise MismatchError(f"{os.fspath(a)} and {os.fspath(b)}: their tokenizers give different tokens for the text")
            if model.info.context < len(ids):
                raise MismatchError(f"{os.fspath(b)}: its context holds {model.info.context} tokens, {len(ids)} are compared")
            for first, logits in _chunks(model, ids, max(1, CHUNK_LOGITS // vocab)):
                before = np.frombuffer(store.read(logits.nbytes), np.float32).reshape(logits.shape)
                log_a, log_b = log_softmax(before), log_softmax(logits)
                nll_b += _nll(log_b, ids, first)
                kl += float((np.exp(log_a) * (log_a - log_b)).sum())
                same += int((before.argmax(1) == logits.argmax(1)).sum())
                progress(len(logits))
    return Predictions(positions, _perplexity(nll_a / positions), _perplexity(nll_b / positions), kl / positions, same / positions)


def _perplexity(nll: float) -> float:
    return math.exp(nll) if nll < 700 else math.inf
