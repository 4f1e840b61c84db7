"""Picks files out of a list of names: split sets, quantizations, drafters beside a target.

Names only propose here: what a file is, is decided by its metadata when it is on this machine (pairs.py).
"""
from __future__ import annotations

import fnmatch
import re
from typing import Iterable

from .._text import several
from .types import Unavailable

PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})(\.gguf)", re.I | re.S)
QUANT = re.compile(r"(?<![a-z0-9])((?:UD-)?(?:I?Q\d(?:_[A-Z0-9]+)*|BF16|F16|F32|MXFP4(?:_MOE)?|NVFP4))(?![a-z0-9_])", re.I)
PREFERRED = ("Q4_K_M", "Q4_0", "UD-Q4_K_XL", "Q5_K_M", "Q6_K", "Q8_0", "BF16", "F16")  # of targets, where none is asked for
PREFERRED_DRAFTER = ("Q8_0", "F16", "BF16", "Q4_0")  # small anyway; accuracy is acceptance


def sets(names: Iterable[str]) -> list[list[str]]:
    """GGUF files, parts of a split set together and in order; projectors of images and sound are left out."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        base = name.rsplit("/", 1)[-1].lower()
        if base.endswith(".gguf") and "mmproj" not in base:
            part = PART.fullmatch(name)
            groups.setdefault(f"{part[1]}-of-{part[3]}{part[4]}" if part else name, []).append(name)
    for group in groups.values():
        part = PART.fullmatch(group[0])
        if part and len(group) != int(part[3]):
            raise Unavailable(f"{group[0]}: expected {int(part[3])} parts of the split file, found {len(group)}")
    return list(groups.values())


def is_sidecar(name: str) -> bool:
    """Named as drafters are."""
    folders, _, base = name.lower().rpartition("/")
    return base.startswith("mtp-") or "mtp" in folders.split("/") or any(word in base for word in ("-mtp", "assistant", "drafter"))


def quant_of(name: str) -> str | None:
    """The quantization a name tells, in upper case: the last one in it, as folders may tell it too."""
    found = QUANT.findall(name)
    return found[-1].upper() if found else None


def choose(names: Iterable[str], wanted: str | None, where: str, drafter: bool = False) -> list[str]:
    """The files of one model. wanted: a quantization, a pattern, a file's name, or None for the usual one; where: for the error."""
    groups = sets(names)
    found = _matching(groups, wanted, drafter) if wanted else _usual(_of_role(groups, drafter), drafter)
    if found:
        return min(found, key=lambda group: (len(group[0]), group[0]))
    kind = "drafter" if drafter else "model"
    offered = sorted({quant_of(g[0]) or g[0] for g in groups if is_sidecar(g[0]) == drafter})
    if not groups:
        raise Unavailable(f"{where}: expected GGUF files, found none")
    if not offered:
        raise Unavailable(f"{where}: expected a {kind}, found only {'models' if drafter else 'drafters'}: {several([g[0] for g in groups], 4)}")
    raise Unavailable(f"{where}: expected a {kind} {wanted or 'of a usual quantization'}, found {several(offered)}")


def _matching(groups: list[list[str]], wanted: str, drafter: bool) -> list[list[str]]:
    low = wanted.lower()
    if set(low) & set("*?["):
        return _of_pattern([g for g in groups if is_sidecar(g[0]) == drafter], low, drafter)
    if low.endswith(".gguf"):
        return [g for g in groups if any(name.lower() == low or name.lower().endswith("/" + low) for name in g)]
    return _of_quant(_of_role(groups, drafter), wanted)


def _of_pattern(groups: list[list[str]], pattern: str, drafter: bool) -> list[list[str]]:
    matching = [g for g in groups if fnmatch.fnmatchcase(g[0].lower(), pattern)]
    if not matching and (drafter or len(groups) == 1):  # renamed since the pattern was written
        matching = groups
    return _usual(matching, drafter)


def _of_role(groups: list[list[str]], drafter: bool) -> list[list[str]]:
    """Those named like drafters, or the others. Where a drafter was asked for and none is named like one, all: then the repository
    was named as a drafter's."""
    return [g for g in groups if is_sidecar(g[0]) == drafter] or (groups if drafter else [])


def _of_quant(groups: list[list[str]], quant: str) -> list[list[str]]:
    quants = [quant_of(g[0]) for g in groups]
    for name in (quant.upper(), "UD-" + quant.upper()):
        found = [g for g, q in zip(groups, quants) if q == name]
        if found:
            return found
    return []


def _usual(groups: list[list[str]], drafter: bool) -> list[list[str]]:
    """Those of the most usual quantization; the only file whatever it is; of drafters any."""
    if len(groups) == 1:
        return groups
    for quant in PREFERRED_DRAFTER if drafter else PREFERRED:
        found = [g for g in groups if quant_of(g[0]) == quant]
        if found:
            return found
    return groups if drafter else []
