"""The open model that Model and its sessions share: handle, information, defaults. Freed after the last of them.

Also finds the drafter that lies beside a target.
"""
from __future__ import annotations

import contextlib
import math
import os
import pathlib
import weakref
from dataclasses import dataclass
from typing import Any

from ._arguments import INT32, integer
from ._lib import Call, Handle, ffi, lib, new_struct, path_bytes, text
from ._text import shown
from .chat import Style
from .errors import ArgumentError, FormatError, MismatchError, ReadError, UnsupportedError
from .generate import Defaults
from .gguf_file import File
from .tokenizer import Tokenizer

KV_TYPES = {"f16": lib.PYMTP_KV_F16, "f32": lib.PYMTP_KV_F32, "q8_0": lib.PYMTP_KV_Q8_0}


@dataclass(frozen=True)
class ModelInfo:
    """Shapes and sizes of an open model. Sizes in bytes; head_dim of sliding, head_dim_global of full layers."""

    name: str
    drafter_name: str
    cpu: str
    vocab: int
    width: int
    layers: int
    heads: int
    window: int
    context: int
    shared_kv_layers: int
    ple_width: int
    experts: int
    experts_used: int
    head_dim: int
    head_dim_global: int
    threads: int
    kv: str
    chunk: int
    drafter_layers: int
    drafter_width: int
    drafter_centroids: int
    drafter_centroid_top_k: int
    weight_bytes: int
    kv_bytes_per_position: int
    kv_bytes_fixed: int
    snapshot_bytes: int


@dataclass(frozen=True)
class Counters:
    """What the passes over a model have computed since it was opened, drafter included; differences tell what a call cost.
    Weights count once per pass, at their size in the file. experts: distinct ones of a layer and pass whose weights were read.
    kv_bytes: keys and values that rows could see. multiply_adds: in products with weights, not in attention."""

    weight_bytes: int
    kv_bytes: int
    multiply_adds_int8: int
    multiply_adds_f32: int
    experts: int

    def __sub__(self, before: "Counters") -> "Counters":
        return Counters(*(a - b for a, b in zip(vars(self).values(), vars(before).values())))


class Core:
    """One pymtp_model. Sessions hold it, so that it is closed after them."""

    def __init__(self, target: Any, drafter: Any, threads: int | None, context: int | None, kv: str, chunk: int | None):
        options, _keep = make_options(drafter, threads, context, kv, chunk)
        call = Call()
        ptr = call.handle(lib.pymtp_model_open(path_bytes(target), options, call.err))
        guests: weakref.WeakSet[Any] = weakref.WeakSet()  # open sessions and snapshots; they are added under the handle

        def free(ptr: Any) -> None:
            for guest in list(guests):
                guest.close()
            lib.pymtp_model_close(ptr, ffi.NULL)

        self.guests = guests
        self.handle = Handle("model", self, ptr, free)
        self.tokenizer = self.tokenizer_for(None)  # not to be kept beyond a call, as it does not keep the model
        self.drafter_path = None if drafter is None else os.fspath(drafter)
        self.info = self._read_info()
        with File(target) as file:
            self.defaults = read_defaults(file)
            self.style = Style.of(self.info.ple_width > 0, file.string("tokenizer.chat_template"))

    def tokenizer_for(self, keeper: Any) -> Tokenizer:
        """The model's tokenizer, as an object that keeps `keeper` alive."""
        with self.handle as ptr:
            return Tokenizer._of(lib.pymtp_model_tokenizer(ptr), self.handle, keeper)

    def _read_info(self) -> ModelInfo:
        raw = new_struct("pymtp_model_info")
        with self.handle as ptr:
            Call().check(lib.pymtp_model_get_info(ptr, raw))
        values = {name: getattr(raw, name) for name in ModelInfo.__dataclass_fields__}
        for name in ("name", "drafter_name", "cpu"):
            values[name] = text(values[name])
        values["kv"] = next(name for name, code in KV_TYPES.items() if code == raw.kv)
        return ModelInfo(**values)

    def counters(self) -> Counters:
        raw = new_struct("pymtp_counters")
        with self.handle as ptr:
            Call().check(lib.pymtp_model_get_counters(ptr, raw))
        return Counters(**{name: getattr(raw, name) for name in Counters.__dataclass_fields__})

    def close(self) -> None:
        """Frees sessions, snapshots and the model; waits for calls of other threads on its sessions. One that just uses the model
        itself finishes, and then the closing with it."""
        self.handle.close()


def make_options(drafter: Any, threads: int | None, context: int | None, kv: str, chunk: int | None) -> tuple[Any, Any]:
    """A filled pymtp_model_options, and what must live as long."""
    if not isinstance(kv, str) or kv not in KV_TYPES:
        raise ArgumentError(f"kv: expected one of {', '.join(KV_TYPES)}, found {shown(kv)}")
    options = new_struct("pymtp_model_options")
    options.threads = 0 if threads is None else integer("threads", threads, 1, INT32)
    options.context = 0 if context is None else integer("context", context, 1, 2**62)
    options.chunk = 0 if chunk is None else integer("chunk", chunk, 1, INT32)
    options.kv = KV_TYPES[kv]
    path = ffi.new("char[]", path_bytes(drafter)) if drafter is not None else ffi.NULL
    options.drafter = path
    return options, path


def read_defaults(file: File) -> Defaults:
    """general.sampling.* of the file where it holds usable numbers, else Google's values."""
    def number(key: str, default: float, low: float, high: float) -> float:
        value = file.scalar("general.sampling." + key)
        usable = isinstance(value, (int, float)) and math.isfinite(value) and low <= value <= high
        return value if usable else default

    plain = Defaults()
    return Defaults(float(number("temp", plain.temperature, 0, 100)), int(number("top_k", plain.top_k, 0, INT32)),
                    float(number("top_p", plain.top_p, 1e-9, 1)))


# ---- the drafter beside a target ----------------------------------------------------------------------------------------


def _listed(folder: pathlib.Path) -> list[pathlib.Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def drafter_candidates(target: str | os.PathLike[str]) -> list[pathlib.Path]:
    """Files beside the target, or in its folder MTP, that may be its drafter, likeliest first. The name only proposes;
    whether one fits is decided by opening it."""
    target = pathlib.Path(target)
    found = []
    for path in _listed(target.parent):
        name = path.name.lower()
        if name == "mtp" and os.path.isdir(path):
            found += [p for p in _listed(path) if p.name.lower().endswith(".gguf")]
        elif name.endswith(".gguf") and (name.startswith("mtp-") or any(w in name for w in ("drafter", "assistant", "-mtp"))):
            found.append(path)
    sizes = {}
    for path in found:
        if path.name != target.name:
            with contextlib.suppress(OSError):  # a link that leads nowhere says nothing about the others
                sizes[path] = path.stat().st_size

    def closeness(path: pathlib.Path) -> int:
        return len(os.path.commonprefix([path.name.lower().removeprefix("mtp-"), target.name.lower()]))

    return sorted(sizes, key=lambda path: (-closeness(path), sizes[path], path.name))


def open_core(target: Any, drafter: Any, **options: Any) -> Core:
    """drafter: a path, None, or "auto"."""
    if drafter == "auto":
        path_bytes(target)  # a target that is no path is refused as such
        for candidate in drafter_candidates(os.fsdecode(target)):
            try:
                return Core(target, candidate, **options)
            except (MismatchError, UnsupportedError, FormatError, ReadError):
                continue  # another model's, or the target itself is at fault, which the last line reports
        drafter = None
    return Core(target, drafter, **options)
