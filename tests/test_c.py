"""Runs every C test program, one pytest case each, as compiled and under AddressSanitizer + UBSan."""
import pathlib
import subprocess

import pytest
from conftest import SANITIZER

NAMES = sorted(p.stem for p in (pathlib.Path(__file__).parent / "c").glob("test_*.c"))


def run(folder, name):
    done = subprocess.run([str(folder / name)], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_c(c_build, name):
    run(c_build, name)


@pytest.mark.skipif(SANITIZER is not None, reason="the build that test_c runs")
@pytest.mark.parametrize("name", NAMES)
def test_c_asan(asan_build, name):
    run(asan_build, name)
