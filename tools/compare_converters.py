"""Compares pymtp's converter with llama.cpp's, key by key and tensor by tensor, on the checkpoints of tests/data.

    python tools/compare_converters.py .../llama.cpp/convert_hf_to_gguf.py [CHECKPOINT_DIR...]

Needs what that script needs (torch, transformers). Every difference is printed with its reason from EXPECTED, which docs/CONVERT.md
repeats; the exit code is 1 when there is one without a reason.
"""
from __future__ import annotations

import fnmatch
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import gguf
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from pymtp import convert  # noqa: E402

# (pattern of the key or tensor, which side has it: "ours", "theirs" or "both" with other values, reason)
EXPECTED = (
    ("general.name", "both", "a title made of the folder's name; here the name itself"),
    ("general.size_label", "theirs", "a label such as 16x797K; nothing reads it"),
    ("general.basename", "theirs", "guessed from the folder's name"),
    ("general.finetune", "theirs", "guessed from the folder's name"),
    ("tokenizer.ggml.token_type", "both", "theirs makes a token of the vocabulary that was added as ordinary text a normal one, which text then never "
                                          "becomes; here it is user-defined, as the tokenizers package treats it"),
    ("tokenizer.ggml.eot_token_id", "ours", "the end of a turn, where generation_config.json lists it as an end"),
    ("tokenizer.ggml.suppress_tokens", "ours", "theirs writes them for \"unified\" targets only"),
    ("token_embd.weight", "both", "theirs cuts the embedding to the vocabulary plus the added tokens, counting those in both twice, so rows without a "
                                  "token stay"),
    ("*.use_ordered_embeddings", "ours", "theirs leaves out centroids"),
    ("*.n_centroids", "ours", "theirs leaves out centroids"),
    ("*.centroid_top_k", "ours", "theirs leaves out centroids"),
    ("masked_embd_centroids.weight", "ours", "theirs leaves out centroids"),
    ("masked_embd_ordering", "ours", "theirs leaves out centroids"),
)


def contents(path: pathlib.Path) -> tuple[dict, dict]:
    """({key: (kinds, value)}, {tensor: (type, array)})"""
    reader = gguf.GGUFReader(path)
    keys = {name: ([t.name for t in field.types], field.contents()) for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    return keys, {t.name: (t.tensor_type.name, np.array(t.data)) for t in reader.tensors}


def same(a: tuple, b: tuple) -> bool:
    if isinstance(a[1], np.ndarray):
        return a[0] == b[0] and a[1].shape == b[1].shape and a[1].tobytes() == b[1].tobytes()
    return bool(a == b)


def shown(value: tuple) -> str:
    return f"{value[0]} {list(value[1].shape)}" if isinstance(value[1], np.ndarray) else repr(value[1])[:60]


def with_moe_key(folder: pathlib.Path, made: pathlib.Path) -> pathlib.Path:
    """Theirs stops with a KeyError where config.json has no moe_intermediate_size, which transformers does not write for "unified"
    models: it gets a copy with that key, null as in other models without experts."""
    config = json.loads((folder / "config.json").read_text())
    text = config.get("text_config", config)
    if "moe_intermediate_size" in text:
        return folder
    print("  config.json has no moe_intermediate_size, without which theirs fails: it gets null")
    copy = pathlib.Path(shutil.copytree(folder, made / folder.name))
    text["moe_intermediate_size"] = None
    (copy / "config.json").write_text(json.dumps(config))
    return copy


def compare(script: pathlib.Path, folder: pathlib.Path, kind: str) -> tuple[int, int, int]:
    """(things compared, different for a reason, different without)"""
    total = known = unknown = 0
    with tempfile.TemporaryDirectory() as made:
        ours, theirs = pathlib.Path(made, "ours.gguf"), pathlib.Path(made, "theirs.gguf")
        with convert.plan(folder, kind.upper()) as plan:
            plan.write(ours)
        folder = with_moe_key(folder, pathlib.Path(made))
        environment = os.environ | {"PYTHONPATH": str(script.parent / "gguf-py")}
        done = subprocess.run([sys.executable, script, folder, "--outtype", kind, "--outfile", theirs], capture_output=True, text=True, env=environment)
        if done.returncode:
            sys.exit(f"{folder}: {done.stderr.strip().splitlines()[-1]}")
        for a, b in zip(contents(ours), contents(theirs)):
            for name in sorted(a.keys() | b.keys()):
                total += 1
                if name in a and name in b and same(a[name], b[name]):
                    continue
                side = "both" if name in a and name in b else "ours" if name in a else "theirs"
                reason = next((why for pattern, where, why in EXPECTED if where == side and fnmatch.fnmatchcase(name, pattern)), None)
                known, unknown = known + (reason is not None), unknown + (reason is None)
                values = " | ".join(shown(x[name]) for x in (a, b) if name in x)
                print(f"  {name}: {side}: {values}: {reason or 'NO REASON KNOWN'}")
    return total, known, unknown


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    script = pathlib.Path(sys.argv[1]).resolve()
    folders = [pathlib.Path(p) for p in sys.argv[2:]] or sorted((ROOT / "tests" / "data").glob("ckpt-*/[dt]*[rt]"))
    bad = 0
    for folder in folders:
        for kind in ("f32", "bf16"):
            print(f"{folder.parent.name}/{folder.name} {kind}")
            total, known, unknown = compare(script, folder, kind)
            print(f"  {total} keys and tensors, {total - known - unknown} equal, {known} different for a reason, {unknown} without")
            bad += unknown
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
