"""Files that are cut anywhere, and files that shrink, grow, change or are replaced while a model that was opened from them is in use."""
import os
import pathlib
import random
import shutil

import numpy as np
import pytest

import gguf_build as G
import pymtp
from pymtp.errors import FormatError, ReadError

DEMO = pathlib.Path(pymtp.__file__).parent / "demo"
IDS = [2, 100, 200, 300, 301, 302, 303, 304]


@pytest.mark.parametrize("name", ["demo.gguf", "mtp-demo.gguf"])
def test_cut_anywhere(tmp_path, name):
    """Each of a pair cut at every boundary of its structure and at 100 random places, from its end to its start: an error that names it,
    as a file where its directory is not whole, and as a model or a drafter always."""
    path = tmp_path / name
    shutil.copy(DEMO / name, path)
    marks, size = G.boundaries(path)
    rng = random.Random(3)
    cuts = sorted({*marks, *(rng.randrange(marks[-1]) for _ in range(50)), *(rng.randrange(marks[len(marks) // 2]) for _ in range(50))}, reverse=True)
    assert len(marks) > 100 and cuts[0] < size
    for cut in cuts:
        os.truncate(path, cut)
        with pytest.raises((ReadError, FormatError)) as error:
            pymtp.Model(*((path, None) if name == "demo.gguf" else (DEMO / "demo.gguf", path)), threads=1)
        assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
        with pytest.raises((ReadError, FormatError)):
            pymtp.File(path)


class Opened:
    """A copy of a target, a model opened from it, and a session that holds a few tokens."""

    def __init__(self, data, path):
        self.path = path
        shutil.copy(data / "tiny-26b.gguf", path)
        os.utime(path, (1_000_000_000, 1_000_000_000))
        self.content = path.read_bytes()
        self.model = pymtp.Model(path, None, threads=1)
        self.session = self.model.session()
        self.session.forward(IDS)
        with self.model.session() as other:
            self.expected = other.forward(IDS + [400])[-1:]

    def check_refused(self, text):
        """The session is refused, stays as it is, and generation ends in the same error."""
        with pytest.raises(ReadError) as error:
            self.session.forward([400])
        assert str(error.value).startswith(f"{self.path}: ") and text in str(error.value) and "\n" not in str(error.value)
        assert self.session.tokens == IDS
        with pytest.raises(ReadError, match=text):
            self.model.complete([2, 5, 6], max_tokens=4, temperature=0)

    def check_goes_on(self):
        assert self.session.forward([400]).tobytes() == np.ascontiguousarray(self.expected).tobytes()

    def repair(self):
        """The bytes and the time that the file had."""
        self.path.write_bytes(self.content)
        os.utime(self.path, (1_000_000_000, 1_000_000_000))


@pytest.fixture
def opened(data, tmp_path):
    made = Opened(data, tmp_path / "model.gguf")
    yield made
    made.model.close()


@pytest.mark.parametrize("part", [0, 0.5, 1])
def test_shrinks_while_open(opened, part):
    """To nothing, to its half, by its last byte."""
    os.truncate(opened.path, min(int(part * len(opened.content)), len(opened.content) - 1))
    opened.check_refused("truncated" if part < 0.5 else "changed since it was opened")
    opened.repair()
    opened.check_goes_on()


def change(path):
    with open(path, "r+b") as f:
        f.seek(-100, os.SEEK_END)
        f.write(b"\xff")


def grow(path):
    with open(path, "ab") as f:
        f.write(b"more")


@pytest.mark.parametrize("how", [change, grow, os.utime], ids=["a byte", "more bytes", "its time"])
def test_changes_while_open(opened, how):
    how(opened.path)
    opened.check_refused("changed since it was opened")
    with pymtp.File(opened.path) as again:  # as it is now, it can be opened
        assert again.tensors()
    opened.repair()
    opened.check_goes_on()


def test_replaced_or_removed_while_open(opened):
    """What was opened stays: a new file under the same name is another file."""
    new = opened.path.with_name("new")
    new.write_bytes(b"another file")
    os.replace(new, opened.path)
    opened.path.unlink()
    opened.check_goes_on()


def test_a_drafter_that_changes(data, tmp_path):
    """Its embeddings are the target's: drafts need nothing of its file any more, and the output is the same."""
    path = tmp_path / "d.gguf"
    shutil.copy(data / "tiny-26b-drafter.gguf", path)
    with pymtp.Model(data / "tiny-26b.gguf", path, threads=1) as model:
        before = model.complete(IDS, max_tokens=8, temperature=0, ignore_eos=True, draft=3)
        os.truncate(path, 100)
        after = model.complete(IDS, max_tokens=8, temperature=0, ignore_eos=True, draft=3)
    assert before.tokens == after.tokens and after.stats.drafted > 0
