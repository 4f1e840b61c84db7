"""The C tests on Arm: cross-compiled and run under user-mode emulation of a processor with dot products of bytes (the kernel set
"neon") and products of byte matrices ("i8mm"). Row equality is memcmp there too. In CI (CI=true) a missing tool is a failure."""
import os
import pathlib
import shutil
import subprocess

import pytest
from conftest import SANITIZER, build_c

pytestmark = pytest.mark.skipif(SANITIZER is not None, reason="what the emulator runs has no sanitizer in it")

COMPILER, EMULATOR, SYSROOT = "aarch64-linux-gnu-gcc", "qemu-aarch64", "/usr/aarch64-linux-gnu"

# What each program runs: with names, those sets and models only. An emulated vector instruction costs about a hundred real ones.
PROGRAMS = {
    "test_matmul": [],
    "test_quant": [],
    "test_encode": [],
    "test_elem": [],
    "test_probe": [],
    "test_attend": ["neon"],
    "test_head": ["neon"],
    "test_ops": ["neon", "i8mm"],
    "test_engine": ["none"],
}


@pytest.fixture(scope="module")
def arm_build(tmp_path_factory):
    missing = [tool for tool in (COMPILER, EMULATOR) if not shutil.which(tool)] + [SYSROOT] * (not pathlib.Path(SYSROOT).is_dir())
    if missing:
        message = f"not installed: {', '.join(missing)} (Debian: qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross)"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    return build_c(tmp_path_factory.mktemp("arm"), "-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
                   f"-DCMAKE_C_COMPILER={COMPILER}", targets=PROGRAMS)


def run(folder, program, *arguments, cpu="max"):
    return subprocess.run([EMULATOR, "-cpu", cpu, "-L", SYSROOT, str(folder / program), *arguments], capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize("name", PROGRAMS)
def test_arm(arm_build, name):
    done = run(arm_build, name, *PROGRAMS[name])
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_dot_products(arm_build):
    """A processor of the first generation runs the portable set: nothing else is compiled for more than the baseline."""
    done = run(arm_build, "test_quant", cpu="cortex-a53")
    assert done.returncode == 0, done.stdout + done.stderr


def test_named_sets_are_there(arm_build):
    """Naming a set that is not there would test nothing, which the programs report as a failure."""
    assert run(arm_build, "test_head", "sse9").returncode == 1
