"""Gives a drafter with a dense head a centroid head, as E2B and E4B drafters have: a draft step then multiplies the centroids and
the head rows of the best clusters, instead of all rows. Drafts are verified, so only their acceptance can change, never the output.

How clusters and centroids are made (docs/QUANTIZE.md has the reasons):

1. The mean of all head rows is taken off every row. That adds the same to all logits of a hidden row, so it changes no choice.
2. Balanced spherical k-means of the rows (pymtp_clustering_*).
3. A cluster's centroid should tell its best logit. It starts as the mean of its rows, which tells their mean logit, and is corrected by
   least squares on hidden rows whose best logit in each cluster is computed: rows of a stand-in distribution first, and then, with a
   target and a text, rows that the drafter's head sees on that text.

Memory: the head as float32 (rows * width * 4 bytes), half of that again while rows are clustered, and 64 MiB of logits at a time.
"""
from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any, Callable, Iterator, Sequence

import numpy as np

from . import codec
from ._lib import Call, empty, ffi, lib, path_bytes, pointer
from .errors import ArgumentError, FormatError, MismatchError, UnsupportedError
from .gguf_file import File, Tensor
from .gguf_write import SLICE_BYTES, Entry, encode, write
from .hub.pairs import parts
from .quantize import copied_keys

DRAFTERS = ("gemma4-assistant", "gemma4_assistant", "gemma4_mtp", "gemma4")  # the last where its keys say so
PARTS = re.compile(r"(nextn\.|mtp\.|mtp_|assistant\.)?(masked_embedding\.|masked_embd_)?(centroids|token_ordering|ordering)(\.weight)?")
KEYS = ("n_centroids", "centroid_top_k", "masked_embedding.top_k", "masked_embedding.n_centroids", "use_ordered_embeddings")
STORED = "F16"       # type of centroids; 8 bits would not make a step measurably faster
ITERATIONS = 10      # of k-means after the first grouping; the objective gains less than 0.1 % in each of the last ones
DRAFTS = 4           # drafts after every position of a text: the head sees chained rows too
RIDGE = 0.3          # weight of the centroids before a correction, in mean squares of the hidden rows
LOGITS = 1 << 24     # logits held at a time
LARGEST = 1e15       # of a head's values: their products with hidden rows and sums of these fit in float32
RECALL = 0.99        # of the dense head's first choices, which the top k written shall reach

# ---- the drafter's file ----

class Drafter:
    """An open drafter file with a dense head; its rows are read by head(). With force, a centroid head that it has is replaced."""

    def __init__(self, path: str | os.PathLike[str], force: bool = False):
        self.path = os.fsdecode(path_bytes(path))
        self.file = File(path)
        try:
            self.tensors = list(self.file.tensors())
            self._check(force)
        except BaseException:
            self.file.close()
            raise

    def close(self) -> None:
        self.file.close()

    def __enter__(self) -> "Drafter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self, force: bool) -> None:
        names = {t.name: i for i, t in enumerate(self.tensors)}
        arch = self.file.string("general.architecture")
        projection = any(re.fullmatch(r"(nextn\.|mtp\.|mtp_|assistant\.)?pre_proj(ection)?(\.weight)?", name) for name in names)
        if arch not in DRAFTERS or not projection:
            raise UnsupportedError(f"{self.path}: expected an MTP drafter of Gemma 4, found architecture {arch!r}"
                                   + ("" if projection else " without a tensor 'nextn.pre_projection.weight'"))
        self.prefixes = ("gemma4.assistant.", "gemma4.") if arch == "gemma4" else (arch + ".",)
        if "token_embd.weight" not in names:
            raise FormatError(f"{self.path}: tensor 'token_embd.weight': missing")
        self.head_index = names["token_embd.weight"]
        t = self.tensors[self.head_index]
        if len(t.dims) != 2 or not t.bytes:
            raise FormatError(f"{self.path}: tensor '{t.name}': expected a matrix of a known type, found {t.type} of dimensions {t.dims}")
        self.width, self.rows = t.dims
        present = [name for name in names if PARTS.fullmatch(name)]
        if present and not force:
            raise ArgumentError(f"{self.path}: has a centroid head already (tensor '{present[0]}'); force replaces it")

    def head(self) -> np.ndarray:
        """The head's rows: float32 (rows, width)."""
        t = self.tensors[self.head_index]
        out = empty((self.rows, self.width))
        each = t.bytes // self.rows
        step = max(1, SLICE_BYTES // (4 * self.width))
        for first in range(0, self.rows, step):
            n = min(step, self.rows - first)
            raw = empty((n * each,), np.uint8)
            self.file.read(self.head_index, first * each, raw)
            out[first:first + n] = codec.decode(t.type, raw).reshape(n, self.width)
        if not np.abs(out).max() <= LARGEST:  # true of NaN as well
            raise FormatError(f"{self.path}: tensor '{t.name}': expected finite values up to {LARGEST:g}, found others")
        return out

    def _kept(self, index: int, t: Tensor) -> Entry:
        def pieces() -> Iterator[bytearray]:
            for offset in range(0, t.bytes, SLICE_BYTES):
                piece = bytearray(min(SLICE_BYTES, t.bytes - offset))
                self.file.read(index, offset, piece)
                yield piece
        if not t.bytes:
            raise UnsupportedError(f"{self.path}: tensor '{t.name}': type {t.type} has no known size, so it cannot be copied")
        return Entry(t.name, t.type, t.dims, pieces)

    def entries(self, centroids: np.ndarray, ordering: np.ndarray) -> list[Entry]:
        """The tensors of the new file."""
        new = [Entry("masked_embd_centroids.weight", STORED, [self.width, len(centroids)], lambda: [codec.encode(STORED, centroids)]),
               Entry("masked_embd_ordering", "I32", [self.rows], lambda: [np.ascontiguousarray(ordering, np.int32)])]
        return [self._kept(i, t) for i, t in enumerate(self.tensors) if not PARTS.fullmatch(t.name)] + new

    def keys(self, clusters: int, top: int) -> dict[str, bytes]:
        old = {prefix + name for prefix in self.prefixes for name in KEYS}
        out = {k: v for k, v in copied_keys(self.file, self.path).items() if k not in old}
        prefix = self.prefixes[0]
        return out | {prefix + "n_centroids": encode("u32", clusters), prefix + "centroid_top_k": encode("u32", top),
                      prefix + "use_ordered_embeddings": encode("bool", True)}

    def write(self, path: str | os.PathLike[str], head: "CentroidHead", top: int, overwrite: bool = False,
              progress: Callable[[Entry, int], None] | None = None, sources: Sequence[str] = ()) -> int:
        """Writes the drafter with that head and returns the size of the file, which replaces neither the drafter nor one of `sources`."""
        return write(path, self.keys(len(head.centroids), top), self.entries(head.centroids, head.ordering.ravel()), overwrite, progress,
                     [*parts(self.path), *sources])


def default_clusters(rows: int) -> int:
    """The largest divisor of the rows up to 4 sqrt(rows): 2048 of 262144. With 16 clusters chosen, centroids and members cost the same."""
    return max(n for n in range(1, int(4 * rows**0.5) + 1) if rows % n == 0)


# ---- clusters and centroids ----

@dataclass(frozen=True)
class CentroidHead:
    """ordering: int32 (clusters, members) row numbers; centroids: float32 (clusters, width); objective: mean cosine between rows and
    their cluster's sum, with the mean of all rows taken off."""

    ordering: np.ndarray
    centroids: np.ndarray
    objective: float


def cluster(rows: np.ndarray, clusters: int, threads: int = 0, iterations: int = ITERATIONS,
            progress: Callable[[], None] = lambda: None) -> CentroidHead:
    """Groups rows, float32 (n, width), around means of their own. progress() is called after every iteration, iterations + 1 times."""
    call, objective, best = Call(), ffi.new("double *"), -1.0
    rows = np.ascontiguousarray(rows, np.float32)
    n, width = rows.shape
    handle = ffi.gc(call.handle(lib.pymtp_clustering_new(n, width, clusters, threads, call.err)), lib.pymtp_clustering_free)
    call.check(lib.pymtp_clustering_add(handle, pointer(rows), n, call.err))
    for _ in range(iterations + 1):
        call.check(lib.pymtp_clustering_improve(handle, objective, call.err))
        best = max(best, objective[0])
        progress()
    ordering, centroids = empty((clusters, n // clusters), np.int32), empty((clusters, width))
    call.check(lib.pymtp_clustering_result(handle, pointer(ordering), pointer(centroids), call.err))
    return CentroidHead(ordering, centroids, best)


def best_logits(rows: np.ndarray, ordering: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Each cluster's largest logit for each hidden row: float32 (hidden rows, clusters)."""
    clusters, members = ordering.shape
    out = empty((len(hidden), clusters))
    step = max(1, LOGITS // (max(1, len(hidden)) * members))
    for first in range(0, clusters, step):
        part = ordering[first:first + step]
        out[:, first:first + step] = (hidden @ rows[part.ravel()].T).reshape(len(hidden), *part.shape).max(2)
    return out


def corrected(centroids: np.ndarray, hidden: np.ndarray, best: np.ndarray) -> np.ndarray:
    """Centroids moved so that their products with hidden rows tell the best logits: least squares with a ridge around what they were."""
    h = hidden.astype(np.float64)
    squares = h.T @ h
    if not squares.any():
        return centroids
    ridge = RIDGE * np.trace(squares) / len(squares) * np.eye(len(squares))
    change = np.linalg.solve(squares + ridge, h.T @ (best - h @ centroids.T.astype(np.float64)))
    return (centroids + change.T).astype(np.float32)


def rounded(centroids: np.ndarray) -> np.ndarray:
    """What a file holds of them."""
    return codec.decode(STORED, codec.encode(STORED, centroids))


def ranks(centroids: np.ndarray, hidden: np.ndarray, best: np.ndarray) -> np.ndarray:
    """For each hidden row, how many clusters come before the one with the dense head's first choice: chosen when fewer than top k.
    Equal scores go to the lower cluster."""
    scores, choice = hidden @ centroids.T, best.argmax(1)
    own = scores[np.arange(len(scores)), choice][:, None]
    return ((scores > own) | ((scores == own) & (np.arange(len(centroids)) < choice[:, None]))).sum(1)


@dataclass(frozen=True)
class Line:
    """A choice of top k: head rows multiplied in a step, centroids counted, and how often the dense head's first choice is found."""

    top: int
    rows: int
    recall: float


def table(rank: np.ndarray, clusters: int, members: int, tops: Sequence[int] = ()) -> list[Line]:
    """For powers of two, all clusters, and `tops`."""
    every = {1 << i for i in range(clusters.bit_length()) if 1 << i < clusters} | {clusters} | set(tops)
    return [Line(k, clusters + k * members, float((rank < k).mean())) for k in sorted(every)]


def choose(lines: Sequence[Line]) -> int:
    """The smallest top k of the table with a recall of RECALL: always there, all clusters hold everything."""
    return next(line.top for line in lines if line.recall >= RECALL)


# ---- hidden rows ----

def stand_in(rows: np.ndarray, n: int, seed: int) -> np.ndarray:
    """n hidden rows for want of real ones: the direction of a head row drawn at random, plus normal noise of the same length.
    The head row is not always the one with the largest logit then, as with real rows."""
    random = np.random.default_rng(seed)
    picked = rows[random.integers(0, len(rows), n)]
    length = np.maximum(np.linalg.norm(picked, axis=1, keepdims=True), np.float32(1e-30))
    noise = random.standard_normal(picked.shape, np.float32) / np.float32(rows.shape[1] ** 0.5)
    return (picked / length + noise).astype(np.float32)


def text_rows(model: Any, ids: Sequence[int], progress: Callable[[], None] = lambda: None) -> np.ndarray:
    """The rows that the drafter's head sees on a text, at every position DRAFTS chained ones: float32 (DRAFTS (len(ids) - 1), width).
    progress() is called after every position."""
    if len(ids) < 2:
        raise ArgumentError("text: expected at least two tokens")
    out = []
    with model.session() as session:
        for token, pending in zip(ids, ids[1:]):
            session.forward([token], logits="none", hidden=False)
            out.append(session.draft_hidden(DRAFTS, pending))
            progress()
    return np.concatenate(out)


@dataclass(frozen=True)
class Result:
    """A head with its table. hidden: the rows it was measured with, "text" or "stand-in"; measured: their number."""

    head: CentroidHead
    lines: list[Line]
    hidden: str
    measured: int


def add(drafter: Drafter, clusters: int, text: np.ndarray | None = None, tops: Sequence[int] = (), threads: int = 0,
        progress: Callable[[str], None] = lambda note: None) -> Result:
    """Makes a centroid head. text: what text_rows gave, of which the last quarter measures and is not learned from. progress(what) is
    called STEPS times."""
    if clusters < 1 or drafter.rows % clusters:
        raise ArgumentError(f"clusters: expected a divisor of the {drafter.rows} rows of the head, found {clusters}")
    members = drafter.rows // clusters
    if text is not None and text.shape[1] != drafter.width:
        raise MismatchError(f"hidden rows of width {text.shape[1]}, head rows of width {drafter.width}")
    rows = drafter.head()
    rows -= rows.mean(0, dtype=np.float64).astype(np.float32)
    head = cluster(rows, clusters, threads, progress=lambda: progress("clusters"))

    def learn(centroids: np.ndarray, hidden: np.ndarray) -> np.ndarray:
        out = corrected(centroids, hidden, best_logits(rows, head.ordering, hidden))
        progress("centroids")
        return out

    centroids = learn(head.centroids, stand_in(rows, 4 * drafter.width, seed=0))
    measure = stand_in(rows, 2048, seed=1) if text is None else text[len(text) - max(1, len(text) // 4):]
    if text is not None and len(text) > len(measure):
        centroids = learn(centroids, text[:len(text) - len(measure)])
    centroids = rounded(centroids)
    rank = ranks(centroids, measure, best_logits(rows, head.ordering, measure))
    progress("recall")
    return Result(CentroidHead(head.ordering, centroids, head.objective), table(rank, clusters, members, tops),
                  "stand-in" if text is None else "text", len(measure))


STEPS = ITERATIONS + 1 + 3  # calls of add()'s progress with a text, one less without
