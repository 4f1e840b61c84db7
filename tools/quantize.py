#!/usr/bin/env python3
"""`pymtp quantize` as a program of its own: python tools/quantize.py requantize IN.gguf OUT.gguf Q4_K_M"""
import pathlib
import sys

try:
    import pymtp.cli as cli
except ImportError:  # not installed: the source tree, after `make dev`
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
    import pymtp.cli as cli

from pymtp.cli.quantize import quantize

if __name__ == "__main__":
    cli.run_command(quantize, "quantize.py")
