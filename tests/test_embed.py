"""Another program uses the library: examples/generate.c, built as the README says, both ways, gives what Python gives."""
import pathlib
import shutil
import subprocess
import sys

import pytest

import pymtp

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROMPT, TOKENS = "def f(x):", 24


def build(flags, out):
    subprocess.run(["cc", "-Wall", "-Wextra", "-Werror", str(ROOT / "examples" / "generate.c"), *flags, "-o", str(out)], check=True)
    return out


def check(program, data, env=None):
    target, drafter = data / "tiny-e2b.gguf", data / "tiny-e2b-drafter.gguf"
    with pymtp.Model(target, drafter=None, context=512) as model:
        expected = model.complete(PROMPT, temperature=0, max_tokens=TOKENS)
    for extra in ((), (drafter,)):
        done = subprocess.run([program, target, PROMPT, str(TOKENS), *extra], capture_output=True, env=env, timeout=300)
        assert done.returncode == 0, done.stderr
        assert done.stdout.decode() == expected.text + "\n" and f"{len(expected.tokens)} tokens" in done.stderr.decode()
    for args, code in ((["/nope", "x"], 1), ([], 2)):
        done = subprocess.run([program, *args], capture_output=True, text=True, env=env)
        assert done.returncode == code and done.stderr.count("\n") == 1


def test_example_is_short():
    assert len((ROOT / "examples" / "generate.c").read_text().splitlines()) < 100


def test_with_the_flags_of_the_package(data, tmp_path):
    done = subprocess.run([sys.executable, "-m", "pymtp", "config", "--cflags", "--libs"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    check(build(done.stdout.split(), tmp_path / "generate"), data)


@pytest.mark.skipif(not shutil.which("pkg-config"), reason="pkg-config is not installed")
def test_with_an_installed_prefix(data, tmp_path, c_build):
    prefix = tmp_path / "prefix"
    subprocess.run(["cmake", "--install", str(c_build), "--prefix", str(prefix)], check=True, capture_output=True)
    folder = next(prefix.rglob("pymtp.pc")).parent
    import os
    env = {**os.environ, "PKG_CONFIG_PATH": str(folder)}
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "pymtp"], check=True, capture_output=True, text=True, env=env).stdout.split()
    library = next(f[2:] for f in flags if f.startswith("-L"))
    assert str(prefix) in library and pathlib.Path(library).is_dir()
    check(build([*flags, f"-Wl,-rpath,{library}"], tmp_path / "generate"), data)
