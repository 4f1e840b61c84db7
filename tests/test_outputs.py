"""Nothing that pymtp writes replaces a file that it is made from, under whatever name, not even when it may overwrite."""
import os
import shutil

import pytest
from gguf import GGUFReader

import checkpoint
import pymtp
from pymtp import convert, gguf_write, imatrix, quantize
from pymtp.gguf_write import Entry, encode
from test_cli import pymtp_cli, refused

SAME = "is the source itself"


@pytest.fixture
def source(data, tmp_path):
    return shutil.copy(data / "tiny-26b.gguf", tmp_path / "m.gguf")


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("the cat sat on the mat " * 5)
    return path


@pytest.fixture
def unchanged(tmp_path):
    """Call it with files: at the end they hold what they held."""
    before = {}
    yield lambda *paths: before.update((path, path.read_bytes()) for path in paths)
    assert before and all(path.read_bytes() == content for path, content in before.items())


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
@pytest.mark.parametrize("link", [None, os.link, os.symlink])
def test_convert(data, tmp_path, unchanged, name, link):
    """A file of a checkpoint, also where the folder has only a link to it, as in the Hub's cache."""
    folder = checkpoint.copy(data / "ckpt-31b" / "drafter", tmp_path / "c")
    target = folder / name
    if link:
        target.rename(tmp_path / "blob")
        target = tmp_path / "blob"
        link(target, folder / name)
    unchanged(target)
    with convert.plan(folder) as plan, pytest.raises(pymtp.ArgumentError, match=SAME):
        plan.write(target, overwrite=True)


def test_convert_over_a_file_of_before(data, tmp_path):
    """A GGUF file in the folder is no source."""
    folder = checkpoint.copy(data / "ckpt-31b" / "drafter", tmp_path / "c")
    for _ in range(2):
        with convert.plan(folder) as plan:
            plan.write(folder / "out.gguf", overwrite=True)
    pymtp.File(folder / "out.gguf").close()


def test_parts_of_a_set(data, tmp_path, unchanged):
    with pymtp.File(data / "tiny-26b.gguf") as f:
        keys = {k: f.value_bytes(k) for k in f.keys()}
    infos, paths = GGUFReader(data / "tiny-26b.gguf").tensors, [tmp_path / f"s-0000{n}-of-00002.gguf" for n in (1, 2)]
    for part, path in enumerate(paths):
        split = {"split.no": encode("u16", part), "split.count": encode("u16", 2), "split.tensors.count": encode("i32", len(infos))}
        gguf_write.write(path, {**(keys if not part else {}), **split},
                         [Entry(t.name, t.tensor_type.name, [int(n) for n in t.shape], lambda t=t: [bytes(t.data)]) for t in infos[part::2]])
    unchanged(*paths)
    with quantize.plan(os.fsencode(paths[0]), "Q8_0") as plan, pytest.raises(pymtp.ArgumentError, match=SAME):
        plan.write(os.fsencode(paths[1]), overwrite=True)
    for source in paths:
        for target in paths:
            refused(pymtp_cli("quantize", "requantize", source, target, "Q8_0", "--force"), 1, target.name, SAME)


def test_importance_matrix_and_what_it_comes_from(source, text, tmp_path, unchanged):
    matrix = tmp_path / "i.gguf"
    assert pymtp_cli("quantize", "imatrix", source, text, "-o", matrix).returncode == 0
    unchanged(source, text, matrix)
    with quantize.plan(source, "Q4_0", importance=imatrix.read(matrix)) as plan, pytest.raises(pymtp.ArgumentError, match=SAME):
        plan.write(matrix, overwrite=True)
    for target in (source, text):
        refused(pymtp_cli("quantize", "imatrix", source, text, "-o", target, "--force"), 1, target.name, SAME)


def test_add_centroids(data, text, tmp_path, unchanged):
    target, drafter = (shutil.copy(data / f"tiny-31b{end}.gguf", tmp_path / f"t{end}.gguf") for end in ("", "-drafter"))
    unchanged(target, drafter, text)
    for out in (target, drafter, text):
        refused(pymtp_cli("quantize", "add-centroids", drafter, out, "--target", target, "--text", text, "--force"), 1, out.name, SAME)


def test_a_source_that_comes_while_it_is_written(tmp_path, unchanged):
    """The name is looked at again before it is taken."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"a")
    unchanged(source)
    with pytest.raises(pymtp.ArgumentError, match=SAME), gguf_write.new_file(target, 1, True, [str(source)]) as f:
        f.write(b"b")
        os.link(source, target)
    assert sorted(os.listdir(tmp_path)) == ["source", "target"]
