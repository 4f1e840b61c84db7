"""Functions of Python's standard library (PSF licence), so that the model has seen code that nobody generated."""
import ast
import random
import sysconfig
from functools import cache
from pathlib import Path

from .common import Document

MODULES = ("abc", "argparse", "ast", "bisect", "calendar", "cmd", "code", "codecs", "collections/__init__", "configparser", "contextlib", "copy", "csv",
           "dataclasses", "difflib", "dis", "enum", "filecmp", "fileinput", "fnmatch", "fractions", "functools", "genericpath", "getopt", "glob",
           "graphlib", "gzip", "heapq", "html/parser", "http/client", "inspect", "io", "ipaddress", "json/decoder", "json/encoder", "keyword",
           "linecache", "locale", "logging/__init__", "mimetypes", "operator", "optparse", "os", "pathlib", "pickle", "posixpath", "pprint", "queue",
           "random", "reprlib", "sched", "selectors", "shelve", "shlex", "shutil", "socket", "statistics", "string", "subprocess", "tarfile", "tempfile",
           "textwrap", "threading", "timeit", "tokenize", "traceback", "types", "typing", "uuid", "warnings", "wave", "weakref", "zipfile")
HELD_OUT = ("ftplib", "netrc", "sndhdr", "smtplib", "colorsys", "cgi", "telnetlib")
LINES = range(4, 26)


@cache
def functions(modules=MODULES) -> list[str]:
    """The sources of the functions of a few lines, methods included."""
    found, root = [], Path(sysconfig.get_paths()["stdlib"])
    for name in modules:
        source = (root / f"{name}.py").read_text(encoding="utf-8")
        lines = source.splitlines()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno + 1 in LINES:
                text = "\n".join(line[node.col_offset:] for line in lines[node.lineno - 1:node.end_lineno]) + "\n"
                if text.isascii():
                    found.append(text)
    return found


def sample(rng: random.Random, modules=MODULES) -> Document:
    return Document(raw="\n\n".join(rng.sample(functions(modules), 2)))
