"""A checkpoint as what a GGUF file is made of: keys, tensors and their rows. Opening it checks everything but the values."""
from __future__ import annotations

import os
import pathlib

import numpy as np

from .._lib import path_bytes
from ..errors import ReadError
from .config import read_shape
from .keys import Key, general_keys, network_keys
from .safetensors import Checkpoint
from .tensors import ORDERING, ROPE_FREQS, Planned, check_ordering, plan, rope_freqs
from .tokenizer import tokenizer_keys


class Source:
    """keys: (name, kind, value) in file order. tensors: what to write, in file order. notes: what is left out, for people. files: those
    of the folder, but for GGUF files, which are no source."""

    def __init__(self, folder: str | os.PathLike[str], centroids: bool = True):
        path = pathlib.Path(os.fsdecode(path_bytes(folder)))
        try:
            self.files = [str(p) for p in path.iterdir() if p.suffix.lower() != ".gguf"]
        except PermissionError:  # to enter a folder is enough
            self.files = []
        except OSError:
            raise ReadError(f"{path}: expected the folder of a checkpoint") from None
        self.shape = read_shape(path)
        rows = min(self.shape.vocab, self.shape.ple_vocab) if self.shape.ple else self.shape.vocab
        tokens, vocab = tokenizer_keys(path, rows)
        self.keys: list[Key] = general_keys(path, self.shape) + network_keys(self.shape, centroids) + tokens
        self.checkpoint = Checkpoint(path)
        try:
            self.tensors, self.notes = plan(self.shape, self.checkpoint, vocab, centroids)
        except BaseException:
            self.checkpoint.close()
            raise

    def rows(self, tensor: Planned, first: int, count: int) -> np.ndarray:
        """Rows of a tensor as float32 (count, row length); of the ordering of tokens as int32."""
        if tensor.name == ROPE_FREQS:
            return rope_freqs(self.shape)[None]
        assert tensor.source is not None
        if tensor.name == ORDERING:
            return check_ordering(self.checkpoint.rows(tensor.source, 0, 1)[0], tensor.source)[None]
        return self.checkpoint.rows(tensor.source, first, count)

    def close(self) -> None:
        self.checkpoint.close()

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
