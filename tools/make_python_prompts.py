"""Cuts tests/data/python-prompts.json: twenty beginnings of functions from Python 3.11's standard library (PSF licence).

Each prompt starts at a `def` in the middle of a module and ends 500 characters later, at a line end.
"""
import importlib
import inspect
import json
import pathlib
import re

MODULES = ("argparse ast bisect calendar cmd codecs collections configparser copy csv dataclasses difflib fractions functools "
           "heapq inspect json.decoder logging random textwrap").split()


def cut(module):
    source = inspect.getsource(importlib.import_module(module))
    starts = [m.start() for m in re.finditer(r"^ *def ", source, re.M) if m.start() + 700 < len(source)]
    start = starts[len(starts) // 2]
    return source[start:source.index("\n", start + 500) + 1]


if __name__ == "__main__":
    out = pathlib.Path(__file__).parent.parent / "tests" / "data" / "python-prompts.json"
    out.write_text(json.dumps({"origin": "Python 3.11 standard library, PSF licence; cut by tools/make_python_prompts.py",
                               "prompts": {m: cut(m) for m in MODULES}}, indent=1) + "\n")
