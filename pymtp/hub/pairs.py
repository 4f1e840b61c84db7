"""What files are, and whether target and drafter belong together: by metadata and shapes, as the C library reads them when it
opens them (pymtp_pair_check). Also the warnings about pairs that work but were not made for each other."""
from __future__ import annotations

import os
import pathlib
import re

from .._core import drafter_candidates
from .._lib import Call, ffi, lib, path_bytes
from .._text import several
from ..errors import Error, HubError, MismatchError
from ..gguf_file import File
from .select import PART, sets

Path = str | os.PathLike[str]


def check(target: Path, drafter: Path | None = None) -> None:
    """Raises what opening them would raise. Reads no weights."""
    call = Call()
    path = ffi.NULL if drafter is None else ffi.new("char[]", path_bytes(drafter))
    call.check(lib.pymtp_pair_check(path_bytes(target), path, call.err))


def is_target(path: Path) -> bool:
    """False for a drafter; an error for what is neither."""
    try:
        check(path)
        return True
    except MismatchError:
        return False


# ---- local files ----


def parts(path: Path) -> list[str]:
    """The files of a split set, of which path is one; else path alone."""
    path = pathlib.Path(path)
    part = PART.fullmatch(path.name)
    if not part:
        return [str(path)]
    try:
        others = [(p, PART.fullmatch(p.name)) for p in path.parent.iterdir()]
    except OSError as error:
        raise HubError(f"{path.parent}: {error.strerror}") from None
    return sorted(str(p) for p, other in others if other and other.groups()[::2] == part.groups()[::2])


def target_in(folder: pathlib.Path) -> str:
    """The one target in a folder."""
    try:
        groups = sets(str(p) for p in folder.iterdir() if p.is_file())
    except OSError as error:
        raise HubError(f"{folder}: {error.strerror}") from None
    found, reasons = [], []
    for group in groups:
        try:
            if is_target(group[0]):
                found.append(group[0])
        except Error as error:
            reasons.append(str(error))
    if len(found) == 1:
        return found[0]
    if not found:
        raise HubError(reasons[0] if reasons else f"{folder}: expected a GGUF file of a Gemma 4 model, found none")
    raise HubError(f"{folder}: expected one model, found {several(sorted(os.path.basename(f) for f in found))}: name one")


def drafter_beside(target: Path) -> tuple[str | None, list[str]]:
    """The drafter beside a target that fits, and warnings about those that do not when none does."""
    reasons = []
    for candidate in drafter_candidates(target):
        try:
            check(target, candidate)
            return str(candidate), []
        except Error as error:
            reasons.append(f"no drafter: {error}")
    return None, reasons[:1]


def main_type(path: Path) -> str:
    """The tensor type that most bytes of a file have."""
    totals: dict[str, int] = {}
    with File(path) as file:
        for tensor in file.tensors():
            totals[tensor.type] = totals.get(tensor.type, 0) + tensor.bytes
    return max(totals, key=lambda kind: totals[kind], default="")


# ---- warnings ----


def warnings(target: Path, drafter: Path, qat: tuple[bool | None, bool | None] = (None, None)) -> list[str]:
    """Where general.* keys, or the catalogue (qat), say that the two were trained apart. It works, with fewer accepted drafts."""
    said = [_said(path) for path in (target, drafter)]
    out = []
    if None not in (said[0][0], said[1][0]) and said[0][0] != said[1][0]:
        out.append(f"the target is {said[0][0]}, the drafter of {said[1][0]}: fewer drafts will be accepted")
    trained = [said[i][1] if qat[i] is None else qat[i] for i in range(2)]
    if None not in trained and trained[0] != trained[1]:
        words = [f"{'' if t else 'not '}trained for quantization (QAT)" for t in trained]
        out.append(f"the target is {words[0]}, the drafter's is {words[1]}: fewer drafts may be accepted")
    return out


def _said(path: Path) -> tuple[str | None, bool | None]:
    """("instruction-tuned" or "a base model", QAT), each None where the file does not say."""
    with File(path) as file:
        texts = [file.string(f"general.{key}") or "" for key in ("finetune", "name", "basename")]
    words = set(re.findall(r"[a-z0-9]+", " ".join(texts).lower()))
    tuned = "instruction-tuned" if words & {"it", "instruct"} else "a base model" if words & {"base", "pt", "pretrained"} else None
    return tuned, "qat" in words or (False if texts[1] else None)
