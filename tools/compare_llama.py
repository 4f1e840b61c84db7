"""Loads converted checkpoints in llama.cpp and compares logits and first drafts: what pymtp's converter writes, others can read.

    python tools/compare_llama.py [NAME...]        # needs llama-cpp-python 0.3.36 and tests/data/ckpt-NAME

llama.cpp reads its GELU from a table of half floats, which moves logits of these models by up to 2e-2. So it is compared with the
twin (tests/ref/gemma4_ref.py) whose GELU is rounded in the same way. What is left are values at a rounding border, where float32
noise decides, each moving a GELU by a whole step of 2^-11 = 5e-4: the difference, as root mean square, is at most that.
A drafter with centroids is loaded too, in a process of its own; what happens is printed, not judged.
"""
from __future__ import annotations

import ctypes
import pathlib
import subprocess
import sys
import tempfile
from typing import Callable

import llama_cpp
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests"))
from pymtp import convert  # noqa: E402
from ref import gemma4_ref  # noqa: E402

TOLERANCE = 2.0**-11
F32, MTP, NO_FLASH = 0, 1, 0
QUIET = llama_cpp.llama_log_callback(lambda *_: None)


def load(path: pathlib.Path) -> llama_cpp.llama_model_p:
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        sys.exit(f"{path.name}: llama.cpp does not load it")
    return model


def context(model: llama_cpp.llama_model_p, target: llama_cpp.llama_context_p | None = None) -> llama_cpp.llama_context_p:
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch, params.n_threads, params.n_threads_batch = 256, 64, 64, 1, 1
    params.type_k = params.type_v = F32
    params.flash_attn_type = NO_FLASH
    params.swa_full = True
    if target is not None:
        params.ctx_other, params.ctx_type = target, MTP
    made = llama_cpp.llama_init_from_model(model, params)
    if not made:
        sys.exit("llama.cpp makes no context")
    return made


def decode(ctx: llama_cpp.llama_context_p, ids: list[int], first: int, vocab: int, hidden: np.ndarray | None = None) -> np.ndarray:
    """Logits (len(ids), vocab) of ids at positions from `first`; `hidden`: what a drafter reads beside its token."""
    batch = llama_cpp.llama_batch_init(len(ids), 0 if hidden is None else len(hidden), 1)
    tokens = (llama_cpp.llama_token * len(ids))(*ids)
    batch.token = ctypes.cast(tokens, type(batch.token))
    batch.n_tokens = len(ids)
    for i in range(len(ids)):
        batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = first + i, 1, 0, 1
    if hidden is not None:
        ctypes.memmove(batch.embd, np.ascontiguousarray(hidden, np.float32).ctypes.data, hidden.size * 4)
    if llama_cpp.llama_decode(ctx, batch):
        sys.exit("llama.cpp does not decode")
    rows = np.stack([np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(ctx, i), (vocab,)).copy() for i in range(len(ids))])
    assert np.isfinite(rows).all()
    return rows


def half(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float16).astype(x.dtype)


def table_gelu(x: np.ndarray, exact: Callable[[np.ndarray], np.ndarray] = gemma4_ref.gelu) -> np.ndarray:
    """As llama.cpp computes it: half floats in and out, exact outside of (-10, 10)."""
    return np.where(np.abs(x) < 10, half(exact(half(x))), exact(x))


def compare(name: str, folder: pathlib.Path) -> bool:
    data = ROOT / "tests" / "data" / f"ckpt-{name}"
    paths = {}
    for part, centroids in (("target", True), ("drafter", False)):
        paths[part] = folder / f"{name}-{part}.gguf"
        with convert.plan(data / part, "F32", centroids) as plan:
            plan.write(paths[part])
    expected = np.load(data / "expected.npz")
    ids, vocab = expected["ids"].tolist(), expected["logits"].shape[1]
    target, drafter = load(paths["target"]), load(paths["drafter"])
    ctx = context(target)
    draft = context(drafter, ctx)  # before the target computes: it views the target's cache as it is now
    logits = decode(ctx, ids, 0, vocab)
    errors, drafts = [logits - gemma4_ref.Target(paths["target"]).forward(ids)[0]], []
    for P in expected["draft_pos"].tolist():
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(ctx), True)
        decode(ctx, ids[:P], 0, vocab)
        twin = gemma4_ref.Target(paths["target"])
        twin.forward(ids[:P])
        hidden = expected["hidden"][P - 1]
        rows = gemma4_ref.Drafter(paths["drafter"], twin).draft(ids[P], hidden, P, 1)[1]
        drafts.append(decode(draft, ids[P:P + 1], P, vocab, hidden)[0] - rows[0])
    errors.append(np.stack(drafts))
    rms = [float(np.sqrt((e**2).mean())) for e in errors]
    print(f"{name}: logits {rms[0]:.1e} (largest {np.abs(errors[0]).max():.1e}; from transformers' {np.abs(logits - expected['logits']).max():.1e}), "
          f"first drafts {rms[1]:.1e} (largest {np.abs(errors[1]).max():.1e})")
    return max(rms) <= TOLERANCE


def centroids(folder: pathlib.Path) -> None:
    path = folder / "centroids.gguf"
    with convert.plan(ROOT / "tests" / "data" / "ckpt-e2b" / "drafter", "F32") as plan:
        plan.write(path)
    done = subprocess.run([sys.executable, __file__, "--load", str(path)], capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if "error loading" in line]
    print(f"drafter with centroids: exit code {done.returncode}: " + (" / ".join(said) or "loads"))


def main() -> None:
    if sys.argv[1:2] == ["--load"]:
        load(pathlib.Path(sys.argv[2]))
        return
    llama_cpp.llama_log_set(QUIET, None)
    gemma4_ref.gelu = table_gelu
    with tempfile.TemporaryDirectory() as made:
        good = [compare(name, pathlib.Path(made)) for name in sys.argv[1:] or ("e2b", "12b", "26b", "31b")]
        centroids(pathlib.Path(made))
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
