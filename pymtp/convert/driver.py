"""Converts: a checkpoint folder becomes one GGUF file, quantized on the way if wanted.

`plan` decides and checks everything but the values of tensors, `Plan.write` does it. A tensor is read, encoded and written in
slices of rows, so memory holds one slice and not a tensor. Types follow the mixes of `pymtp quantize` (mixes.py), as if the
checkpoint were a GGUF file of its own types.
"""
from __future__ import annotations

import os
from typing import Any, Callable, Iterator, Sequence

import numpy as np
from gguf import GGML_QUANT_VERSION

from .. import codec, mixes
from ..errors import Error, UnsupportedError
from ..gguf_file import Tensor
from ..gguf_write import LONGEST_ROW, SLICE_VALUES, Entry, encode, file_bytes, write
from .source import Source
from .tensors import ORDERING, Planned

class Plan:
    """An open checkpoint and the file it becomes. Close it, or leave its `with` block."""

    def __init__(self, source: Source, mix: str, overrides: Sequence[tuple[str, str]], threads: int):
        self.source, self.threads = source, threads
        described = [Tensor(t.name, self.type_of(t), list(reversed(t.dims)), 0) for t in source.tensors]
        self.types = mixes.types_of(mix, described, overrides)
        for t in source.tensors:
            if t.dims[-1] > LONGEST_ROW:
                raise UnsupportedError(f"tensor '{t.source}': expected rows of at most {LONGEST_ROW} values, found {t.dims[-1]}")
        self.keys = {key: encode(kind, value) for key, kind, value in source.keys}
        self.keys["general.quantization_version"] = encode("u32", GGML_QUANT_VERSION)
        self.keys["general.file_type"] = encode("u32", mixes.file_type(mix))

    def type_of(self, t: Planned) -> str:
        """What a tensor is in the checkpoint, as GGUF calls it."""
        if t.source is None:
            return "F32"
        return "I32" if t.name == ORDERING else self.source.checkpoint.tensors[t.source].type

    @property
    def entries(self) -> list[Entry]:
        return [Entry(t.name, kind, list(reversed(t.dims)), lambda t=t, kind=kind: self.slices(t, kind))
                for t, kind in zip(self.source.tensors, self.types)]

    @property
    def bytes(self) -> int:
        """Size of the file to come."""
        return file_bytes(self.keys, self.entries)

    def slices(self, t: Planned, kind: str) -> Iterator[Any]:
        """The bytes of a tensor, slice by slice."""
        step = max(1, SLICE_VALUES // t.dims[-1])
        for first in range(0, t.rows, step):
            values = self.source.rows(t, first, min(step, t.rows - first))
            if kind == "I32":
                yield values.view(np.uint8)
                continue
            try:
                yield codec.encode(kind, values, threads=self.threads)
            except Error as error:
                raise type(error)(f"tensor '{t.source}': {error}") from None

    def write(self, path: str | os.PathLike[str], overwrite: bool = False, progress: Callable[[Entry, int], None] | None = None) -> int:
        """Writes the file and returns its size."""
        return write(path, self.keys, self.entries, overwrite, progress, self.source.files)

    def close(self) -> None:
        self.source.close()

    def __enter__(self) -> "Plan":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def plan(folder: str | os.PathLike[str], mix: str = "BF16", centroids: bool = True, overrides: Sequence[tuple[str, str]] = (),
         threads: int = 0) -> Plan:
    """Decides what converting a checkpoint to a mix (a name of mixes.MIXES) does. `centroids`: keep those of a drafter. Reads no
    tensor data."""
    mixes.check(mix)
    source = Source(folder, centroids)
    try:
        return Plan(source, mix, overrides, threads)
    except BaseException:
        source.close()
        raise
