"""Every stored input (seeds and found cases) of every fuzz target, once; those of C under AddressSanitizer and UBSan."""
import pathlib
import subprocess
import sys

import pytest

FUZZ = pathlib.Path(__file__).parent / "fuzz"
TARGETS = sorted(p.stem.removeprefix("fuzz_") for p in FUZZ.glob("fuzz_*.c"))


@pytest.mark.skipif(sys.platform != "linux", reason="the targets need memfd_create")
@pytest.mark.parametrize("target", TARGETS)
def test_replay(asan_build, target):
    stored = [p for p in (FUZZ / "corpus" / target).rglob("*") if p.is_file()]
    done = subprocess.run([str(asan_build / f"fuzz_{target}"), str(FUZZ / "corpus" / target)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    assert stored and done.stdout == f"{len(stored)} inputs\n"


def test_replay_chat():
    folder = FUZZ / "corpus" / "chat"
    done = subprocess.run([sys.executable, str(FUZZ / "chat.py"), str(folder)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout == f"{len(list(folder.iterdir()))} inputs\n" != "0 inputs\n"
