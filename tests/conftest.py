"""Shared fixtures: test data, the real vocabulary (stored compressed) and the C test programs, built once a session."""
import importlib.util
import lzma
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data"
SANITIZER = os.environ.get("PYMTP_TEST_SANITIZER")  # "address" or "undefined": tools/sanitize.py runs the suite under it


@pytest.fixture(scope="session", autouse=True)
def same_package(tmp_path_factory):
    """Programs that tests start import the package that the tests import, and not by accident the source tree they stand in."""
    spec = importlib.util.find_spec("pymtp")
    for name in ("PYMTP_LIB", "PYMTP_TEST_BUILD", "PYMTP_TEST_ASAN_BUILD"):
        if os.environ.get(name):
            os.environ[name] = os.path.abspath(os.environ[name])
    if spec and spec.origin:
        folders = [pathlib.Path(spec.origin).resolve().parent.parent] + [ROOT / "tests" / "sanitizers"] * (SANITIZER is not None)
        os.environ["PYTHONPATH"] = os.pathsep.join(map(str, folders))
    os.chdir(tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="session")
def data():
    """Folder of the golden models and tensors."""
    return DATA


@pytest.fixture
def server():
    """A server that speaks the Hub's protocol, with nothing on it."""
    from hub_server import HubServer

    with HubServer() as running:
        yield running


@pytest.fixture
def home(tmp_path, monkeypatch, server):
    """An empty machine whose Hub is the server, for this process and those it starts."""
    from pymtp.hub import download

    server.use(tmp_path, monkeypatch)
    monkeypatch.setattr(download, "PATIENCE", 0.01)
    return tmp_path


@pytest.fixture(scope="session")
def vocab_gguf(tmp_path_factory):
    """The real Gemma 4 tokenizer and metadata as a GGUF without tensors."""
    path = tmp_path_factory.mktemp("vocab") / "gemma4-vocab.gguf"
    path.write_bytes(lzma.decompress((DATA / "gemma4-vocab.gguf.xz").read_bytes()))
    return path


def build_c(folder, *options, targets=("all",)):
    """Configures and builds library and C tests into `folder`; returns it. PYMTP_TEST_BUILD reuses a given folder."""
    strict = [] if SANITIZER else ["-DPYMTP_WERROR=ON"]  # gcc takes some of a single sanitizer's checks for code that may go wrong
    args = ["cmake", "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", "-DPYMTP_TESTS=ON", *strict, *options]
    for command in (args, ["cmake", "--build", str(folder), "--target", *targets]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="session")
def c_build(tmp_path_factory):
    """Build folder with the C tests (test_*, tool_*), warnings as errors."""
    reuse = os.environ.get("PYMTP_TEST_BUILD")
    return build_c(pathlib.Path(reuse) if reuse else tmp_path_factory.mktemp("c"))


@pytest.fixture(scope="session")
def asan_build(tmp_path_factory, request):
    """The same under AddressSanitizer and UndefinedBehaviorSanitizer; where the whole suite runs under one of them, that build."""
    if SANITIZER:
        return request.getfixturevalue("c_build")
    reuse = os.environ.get("PYMTP_TEST_ASAN_BUILD")
    return build_c(pathlib.Path(reuse) if reuse else tmp_path_factory.mktemp("asan"), "-DPYMTP_SANITIZE=address,undefined")


@pytest.fixture(scope="session")
def small_models(tmp_path_factory):
    """small_models(variant, mix) -> (target, drafter): generated quantized pairs (make_models.py), each written once."""
    import make_models

    folder = tmp_path_factory.mktemp("small")
    return lambda variant, mix: make_models.build(variant, mix, folder)
