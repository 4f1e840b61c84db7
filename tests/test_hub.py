"""Models by name: the catalogue, what references mean, which files are chosen, which pairs are refused or warned about, and what
removing deletes. Pulling itself: test_hub_pull.py."""
import errno
import json
import os
import pathlib
import sys
import unicodedata

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter

import pymtp.hub
from hub_server import noise
from model_files import rewrite
from pymtp import ArgumentError, Error, FormatError, HubError, MismatchError, UnsupportedError, convert, hub
from pymtp.gguf_file import File
from pymtp.hub import cache, known, pairs, pulling, select
from pymtp.hub.reference import parse


@pytest.fixture(scope="session")
def e2b(data, tmp_path_factory):
    """(target, drafter without centroids) as GGUF files, of the checkpoints in ckpt-e2b."""
    folder = tmp_path_factory.mktemp("e2b")
    for part in ("target", "drafter"):
        with convert.plan(data / "ckpt-e2b" / part, "F32", centroids=False) as plan:
            plan.write(folder / f"{part}.gguf")
    return [(folder / f"{part}.gguf").read_bytes() for part in ("target", "drafter")]


def checkpoint(data, name="ckpt-e2b"):
    return {p.name: p.read_bytes() for p in (data / name / "drafter").iterdir()}


# ---- the catalogue ----


def test_catalogue(home):
    models = hub.catalogue()
    assert [m.name for m in models] == ["gemma4-e2b", "gemma4-e4b", "gemma4-12b", "gemma4-26b", "gemma4-31b"]
    names = [n for m in models for n in (m.name, *m.aliases)]
    assert len(set(names)) == len(names) and "gemma4-26b-a4b" in names
    for m in models:
        assert {"q4_0", "q4_k_m", "q8_0", "qat"} <= set(m.tags) and m.tags[0] == m.default and m.licence == "apache-2.0"
        assert any(d.convert for d in m.drafters) and any(d.files for d in m.drafters)
        assert bool(m.drafters[0].convert) == (m.name in ("gemma4-e2b", "gemma4-e4b"))  # whose heads have centroids, which GGUF files lack
        size = m.title.split()[2].rstrip(",")
        assert all(f"gemma-4-{size}-it" in source.repo for source in [*m.targets, *m.drafters])


OWN = {"name": "mine", "default": "q8_0", "targets": [{"repo": "me/mine", "tags": {"q8_0": "Q8_0"}}]}


def test_own_catalogue(home, monkeypatch):
    path = home / "config" / "pymtp" / "catalogue.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps([OWN, OWN | {"name": "gemma4-12b", "title": "ours", "drafters": [{"repo": "me/d", "files": "*.gguf"}]}]))
    models = hub.catalogue()
    assert [m.name for m in models] == ["gemma4-e2b", "gemma4-e4b", "gemma4-12b", "gemma4-26b", "gemma4-31b", "mine"]
    assert models[2].title == "ours" and models[2].aliases == [] and models[2].drafters == [known.DrafterSource("me/d", "*.gguf")]
    assert models[5].title == "mine" and models[5].tags == ["q8_0"]
    monkeypatch.setenv("PYMTP_CATALOGUE", str(home / "other.json"))
    assert len(hub.catalogue()) == 5


BAD_CATALOGUES = [
    ("{", "expected JSON"), ("[" * 100_000, "expected JSON"), ("[" + "9" * 5000 + "]", "expected JSON"), ({}, "expected a list of models, found dict"), ([3], "model 0: expected an object, found 3"),
    ([{}], "model 0, name: expected text like"), ([OWN | {"name": "Mine"}], 'found "Mine"'), ([OWN | {"default": None}], "model 'mine', default: expected text"),
    ([OWN | {"default": "q4"}], "targets: expected a target with the default tag 'q4', found [\"q8_0\"]"), ([OWN | {"size": 3}], "size: expected no such key, found 3"),
    ([OWN | {"targets": [{"repo": "mine", "tags": {"q8_0": "Q8_0"}}]}], "targets 0, repo: expected text like"),
    ([OWN | {"targets": [{"repo": "me/mine", "tags": {}}]}], "targets 0, tags: expected an object of tags"),
    ([OWN | {"targets": "me/mine"}], "targets: expected a list of objects"), ([OWN | {"aliases": ["a/b"]}], "aliases: expected a list of names"),
    ([OWN | {"drafters": [{"repo": "me/d"}]}], "drafters 0: expected either 'files' or 'convert', found []"),
    ([OWN | {"drafters": [{"repo": "me/d", "files": "x", "convert": "Q8_0"}]}], "expected either"),
    ([OWN | {"drafters": [{"repo": "me/d", "files": "x", "qat": 1}]}], "qat: expected true or false, found 1"),
    ([OWN | {"\x1b[2J\x9b\ud800\n": 3}], r"model 'mine', \x1b[2J\x9b\ud800\n: expected no such key, found 3"), ([OWN | {"title": "\x1b[2J"}], 'title: expected text, found "\\u001b[2J"'),
    ([OWN | {"licence": "\ud800"}], "licence: expected text"), ([OWN | {"targets": [{"repo": "me/mine", "tags": {"q8_0": "\x9b"}}]}], "targets 0, tags: expected an object"),
]


@pytest.mark.parametrize("content, text", BAD_CATALOGUES, ids=[f"{i} {ascii(t)}" for i, (_, t) in enumerate(BAD_CATALOGUES)])
def test_bad_catalogues(home, monkeypatch, content, text):
    path = home / "own.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    monkeypatch.setenv("PYMTP_CATALOGUE", str(path))
    with pytest.raises(FormatError) as error:
        hub.resolve("gemma4-e2b")
    assert str(error.value).startswith(str(path)) and text in str(error.value) and not any(c < " " or "\x7f" <= c < "\xa0" for c in str(error.value))


def test_a_nested_catalogue_at_every_depth(home, monkeypatch):
    """Nesting that can just be read, and then not be written into the message, is an error like any other."""
    path = home / "own.json"
    monkeypatch.setenv("PYMTP_CATALOGUE", str(path))
    for depth in range(sys.getrecursionlimit() - 150, sys.getrecursionlimit() + 10):
        path.write_text('[{"name": ' + "[" * depth + "]" * depth + "}]")
        with pytest.raises(FormatError, match="expected"):
            hub.catalogue()


# ---- references ----


REFERENCES = [
    ("gemma4-e2b", "gemma4-e2b:q4_k_m"), ("Gemma4-26B:Q8_0", "gemma4-26b:q8_0"), ("gemma-4-26b-a4b:qat", "gemma4-26b:qat"),
    ("hf.co/user/repo", "hf.co/user/repo"), ("hf.co/user/repo:q4_0", "hf.co/user/repo:Q4_0"), ("https://huggingface.co/user/repo/", "hf.co/user/repo"),
    ("hf:user/repo:UD-Q4_K_XL", "hf.co/user/repo:UD-Q4_K_XL"), ("user/repo:Q4_0", "hf.co/user/repo:Q4_0"), ("user/repo", "hf.co/user/repo"),
    ("hf:user/repo:sub/File-x.gguf", "hf.co/user/repo:sub/File-x.gguf"), ("./here.gguf", "./here.gguf"), ("here.gguf", "here.gguf"), ("folder/in", "folder/in"), (".", "."),
]


@pytest.mark.parametrize("text, name", REFERENCES)
def test_references(home, monkeypatch, text, name):
    (home / "folder" / "in").mkdir(parents=True)
    (home / "gemma4-e2b").mkdir()
    (home / "here.gguf").touch()
    monkeypatch.chdir(home)
    assert parse(text, hub.catalogue()).name == name


BAD_REFERENCES = [
    ("", ArgumentError, "expected a reference"), (5, ArgumentError, "expected a reference, found int"), ("gemma4-27b", HubError, "did you mean gemma4-"), ("llama3", HubError, "known are gemma4-e2b, "),
    ("gemma4-e2b:q9", HubError, "expected a tag of gemma4-e2b: q4_k_m, q8_0, "), ("missing.gguf", HubError, "missing.gguf: no such file or folder"),
    ("./missing", HubError, "no such file"), ("~/missing/x", HubError, "no such file"), ("hf:user", HubError, "expected user/repo"), ("user/repo:", HubError, "expected user/repo"),
    ("hf.co/a/b/c", HubError, "expected user/repo"), ("a b/c", HubError, "expected a name"), ("../x/y:Q4_0", HubError, "no such file"),
    ("~\0x", ArgumentError, r"model: expected a reference, found '~\x00x'"), ("./\ud800", ArgumentError, r"expected a reference, found './\ud800'"), ("a\0b", ArgumentError, "expected a reference"),
    ("hf.co/a/b:\ud800", ArgumentError, "expected a reference"), ("hf.co/a/b:\udcff", HubError, r"hf.co/a/b:\udcff: expected user/repo or user/repo:quantization"),
    ("a/b:\x1b[2J", HubError, r"a/b:\x1b[2J: expected user/repo"), ("./a\nb", HubError, r"./a\nb: no such file"), ("a\nb", HubError, r"'a\nb': expected a name"),
    ("x\x1b]0;t\x07.gguf", HubError, r"x\x1b]0;t\x07.gguf: no such file"), ("gemma4-e2b:\x1b[2J", HubError, r"found '\x1b[2j'"), ("~\n", HubError, r"~\n: no such file"), ("n" * 5000, HubError, "'nnn"),
    ("a\u2028b\u202ec", HubError, r"'a\u2028b\u202ec'"), ("./\udcff", HubError, r"./\udcff: no such file"),
]


@pytest.mark.parametrize("text, kind, part", BAD_REFERENCES, ids=[ascii(r) for r, _, _ in BAD_REFERENCES])
def test_bad_references(home, text, kind, part):
    with pytest.raises(kind) as error:
        hub.resolve(text)
    assert part in str(error.value) and len(str(error.value).splitlines()) == 1 and len(str(error.value)) < 2100
    assert not any(unicodedata.category(c) in ("Cc", "Cs") for c in str(error.value))
    with pytest.raises(Error):
        hub.remove(text)


def test_a_folder_whose_names_are_no_text(home, data):
    """Its errors are one line all the same."""
    folder = home / "g\n\x1b[2J"
    folder.mkdir()
    for i in range(12):
        os.symlink(data / "tiny-e2b.gguf", folder / f"{i:02d}\n\x9b.gguf")
    with pytest.raises(HubError, match=r"g\\n\\x1b\[2J: expected one model, found 00\\n\\x9b.gguf, 01.* and 4 more: name one$"):
        hub.resolve(str(folder))
    (folder / "x-00001-of-00003.gguf").touch()
    with pytest.raises(HubError, match=r"g\\n\\x1b\[2J/x-00001-of-00003.gguf: expected 3 parts of the split file, found 1$"):
        hub.resolve(str(folder))


@pytest.mark.parametrize("reference", [5, None, [], {}, pathlib.Path("gemma4-e2b"), b"gemma4-e2b"])
def test_what_is_no_text_is_no_name(home, reference):
    assert not hub.is_name(reference)


def test_a_path_that_is_no_text(home, data):
    """The system's names are bytes: one that is not UTF-8 is a path all the same."""
    path = os.fsdecode(bytes(home) + b"/\xff.gguf")
    os.symlink(data / "tiny-e2b.gguf", path)
    assert hub.resolve(path).target == path


def test_places_that_may_not_be_looked_at(home, data, monkeypatch):
    """A catalogue there is as good as none; a folder that may not be listed is named where its parts are needed."""
    monkeypatch.setenv("PYMTP_CATALOGUE", "/" + "a" * 300)  # as root no permission is refused: a name that is too long fails alike
    assert hub.resolve(str(data / "tiny-e2b.gguf")).quant
    path = home / "x-00001-of-00002.gguf"
    os.symlink(data / "tiny-e2b.gguf", path)

    def refuse(folder):
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr(pathlib.Path, "iterdir", refuse)
    with pytest.raises(HubError) as error:
        hub.resolve(str(path))
    assert str(error.value) == f"{home}: Permission denied"


@pytest.mark.parametrize("error, text", [(OSError(5, "Input/output error", "/x"), "/x: Input/output error"), (OSError(5, "Input/output error"), "demo: Input/output error"),
                                         (OSError("odd"), "demo: odd")])
def test_failures_of_the_system_are_errors_of_the_hub(home, monkeypatch, error, text):
    """One line that names the file, or what was asked for."""
    def fail(path):
        raise error

    monkeypatch.setattr(pulling.pairs, "check", fail)
    for ask in (hub.resolve, hub.pull):
        with pytest.raises(HubError) as found:
            ask("demo")
        assert str(found.value) == text


# ---- choosing files ----


QUANTS = {
    "gemma-4-E4B-it-Q4_K_M.gguf": "Q4_K_M", "gemma-4-E2B-it-UD-Q4_K_XL.gguf": "UD-Q4_K_XL", "gemma-4-E2B_q4_0-it.gguf": "Q4_0", "gemma-4-12b-it-qat-q4_0.gguf": "Q4_0",
    "mtp-gemma-4-E4B-it-Q8_0.gguf": "Q8_0", "MTP/gemma-4-26B-A4B-it-F16-MTP.gguf": "F16", "gemma-4-31B-it-bf16.gguf": "BF16", "BF16/g-00001-of-00002.gguf": "BF16",
    "gemma-4-26B-A4B-it-MXFP4_MOE.gguf": "MXFP4_MOE", "gemma-4-31B-it-IQ4_XS.gguf": "IQ4_XS", "mtp-gemma-4-12B-it.gguf": None, "Q6_K/x-Q6_K-00002-of-00003.gguf": "Q6_K",
}


def test_quantization_in_names():
    assert {name: select.quant_of(name) for name in QUANTS} == QUANTS


UNSLOTH = ["gemma-4-26B-A4B-it-Q4_K_M.gguf", "gemma-4-26B-A4B-it-UD-Q4_K_XL.gguf", "gemma-4-26B-A4B-it-Q8_0.gguf", "mmproj-BF16.gguf", "README.md", "config.json",
           "MTP/gemma-4-26B-A4B-it-Q8_0-MTP.gguf", "MTP/gemma-4-26B-A4B-it-Q4_0-MTP.gguf", "BF16/gemma-4-26B-A4B-it-BF16-00002-of-00002.gguf",
           "BF16/gemma-4-26B-A4B-it-BF16-00001-of-00002.gguf"]
CHOICES = [  # names, wanted, drafter, chosen
    (UNSLOTH, None, False, UNSLOTH[:1]), (UNSLOTH, "q8_0", False, UNSLOTH[2:3]), (UNSLOTH, "UD-Q4_K_XL", False, UNSLOTH[1:2]), (UNSLOTH, "Q4_K_XL", False, UNSLOTH[1:2]),
    (UNSLOTH, "BF16", False, UNSLOTH[:-3:-1]), (UNSLOTH, UNSLOTH[-2], False, UNSLOTH[:-3:-1]), (UNSLOTH, "MTP/*.gguf", True, UNSLOTH[6:7]), (UNSLOTH, None, True, UNSLOTH[6:7]),
    (UNSLOTH, "Q4_0", True, UNSLOTH[7:8]), (UNSLOTH, "mtp-*.gguf", True, UNSLOTH[6:7]), (["x-00001-of-00001.gguf"], None, False, ["x-00001-of-00001.gguf"]),
    (["gemma-4-E2B_q4_0-it.gguf", "mmproj-q4_0.gguf"], "*q4_0*.gguf", False, ["gemma-4-E2B_q4_0-it.gguf"]), (["renamed.gguf", "mtp-x.gguf"], "*q4_0*.gguf", False, ["renamed.gguf"]),
    (["MTP/a.gguf", "b.gguf"], "*.gguf", True, ["MTP/a.gguf"]), (["odd.gguf"], None, True, ["odd.gguf"]), (["a-Q4_0.gguf", "a-Q8_0.gguf"], None, True, ["a-Q8_0.gguf"]), (["a-Q4_0.gguf", "a-Q8_0.gguf"], "Q4_0", True, ["a-Q4_0.gguf"]),
]


@pytest.mark.parametrize("names, wanted, drafter, chosen", CHOICES)
def test_choices(names, wanted, drafter, chosen):
    assert select.choose(names, wanted, "user/repo", drafter) == chosen


NO_CHOICE = [(UNSLOTH, "Q5_K_M", "expected a model Q5_K_M, found BF16, Q4_K_M, Q8_0, UD-Q4_K_XL"), (["README.md"], None, "expected GGUF files, found none"),
             (["mtp-a.gguf"], None, "expected a model, found only drafters: mtp-a.gguf"), (["a-IQ2_M.gguf", "a-IQ3_M.gguf"], None, "of a usual quantization, found IQ2_M, IQ3_M"),
             (["a-00001-of-00003.gguf", "a-00003-of-00003.gguf"], None, "expected 3 parts of the split file, found 2"), (UNSLOTH, "no.gguf", "expected a model no.gguf")]


@pytest.mark.parametrize("names, wanted, text", NO_CHOICE)
def test_no_choice(names, wanted, text):
    with pytest.raises(HubError) as error:
        select.choose(names, wanted, "user/repo")
    assert text in str(error.value)


def test_a_model_is_never_taken_for_the_drafter_of_a_pattern():
    with pytest.raises(HubError, match="user/repo: expected a drafter, found only models: a-Q8_0.gguf"):
        select.choose(["a-Q8_0.gguf"], "mtp-*.gguf", "user/repo", True)


# ---- pairs ----


def changed_token(path):
    tokens = GGUFReader(path).fields["tokenizer.ggml.tokens"].contents()
    return [*tokens[:700], tokens[700] + "x", *tokens[701:]]


WRONG_PAIRS = [  # drafter from, changes, error, text
    ("tiny-e2b-drafter", {"arch": "llama"}, UnsupportedError, "key 'general.architecture': expected 'gemma4-assistant'"),
    ("tiny-31b", {}, MismatchError, "expected a drafter (with tensor 'nextn.pre_projection.weight'), found a target"),
    ("tiny-e2b", {}, MismatchError, "expected a drafter"),
    ("tiny-e2b-drafter", {"keys": {".embedding_length_out": 256}}, MismatchError, "expected 128, the target's width, found 256"),
    ("tiny-e2b-drafter", {"keys": {"tokenizer.ggml.tokens": changed_token}}, MismatchError, "token 700 is not the target's: another vocabulary"),
    ("tiny-e2b-drafter", {"keys": {".attention.key_length": 128}}, MismatchError, "expected 64, the target's head size, found 128"),
    ("tiny-26b-drafter", {}, MismatchError, "the target's KV heads, found 2"),
    ("tiny-e2b-drafter", {"keys": {".attention.sliding_window_pattern": [True, True, True, True]}}, MismatchError, "the target's head size, 32, found 64"),
    ("tiny-e2b-drafter", {"keys": {".attention.sliding_window": 65}}, MismatchError, "expected 64, the target's window, found 65"),
]


@pytest.mark.parametrize("source, changes, kind, text", WRONG_PAIRS, ids=[t for *_, t in WRONG_PAIRS])
def test_wrong_pairs(home, data, source, changes, kind, text):
    """Named, a drafter that does not fit is refused; found beside the target, it is passed over with a warning. No name helps it."""
    plain = data / f"{source}.gguf"
    keys = {k: v(plain) if callable(v) else v for k, v in changes.get("keys", {}).items()}
    (home / "a").mkdir()
    drafter = rewrite(plain, home / "a" / "mtp-right.gguf", **changes | {"keys": keys})
    target = home / "a" / "right.gguf"
    target.symlink_to(data / "tiny-e2b.gguf")
    with pytest.raises(kind) as error:
        hub.resolve(str(target), drafter=str(drafter))
    words = str(error.value)
    assert words.startswith(str(drafter)) and all(part in words for part in text.split(", 32, ")) and "\n" not in words
    passed = hub.resolve(str(target))
    assert passed.drafter is None and passed.warnings == [f"no drafter: {words}"]


def test_drafter_as_target(home, data):
    with pytest.raises(MismatchError, match="expected a target .* found a drafter"):
        hub.resolve(str(data / "tiny-e2b-drafter.gguf"))


def test_pair_check_reads_no_weights(data, tmp_path):
    """A pair whose tensor data is missing at the end is malformed, but one with other values in it is a pair."""
    target = data / "tiny-e2b.gguf"
    for path in (target, data / "tiny-e2b-drafter.gguf"):
        raw = bytearray(path.read_bytes())
        raw[-200_000:] = b"\xff" * 200_000
        (tmp_path / path.name).write_bytes(raw)
    pairs.check(tmp_path / target.name, tmp_path / "tiny-e2b-drafter.gguf")
    (tmp_path / target.name).write_bytes(target.read_bytes()[:-1000])
    with pytest.raises(Error, match="tiny-e2b.gguf"):
        pairs.check(tmp_path / target.name)


def named(data, folder, which, name, **keys):
    return rewrite(data / f"tiny-e2b{which}.gguf", folder / f"{len(list(folder.iterdir()))}.gguf", keys={"general.name": name, **keys})


WARNINGS = [  # target's general.name, drafter's, catalogue, parts of the warnings
    ("Gemma 4 E2B It", "Gemma 4 E2B It Assistant", (None, None), []), ("Gemma 4 E2B", "Gemma 4 E2B It Assistant", (None, None), []),
    (None, "anything it", (None, None), []), ("Gemma 4 E2B Base", "Gemma 4 E2B It Assistant", (None, None), ["the target is a base model, the drafter of instruction-tuned"]),
    ("Gemma 4 E2B It Qat", "Gemma 4 E2B It Assistant", (None, None), ["the target is trained for quantization (QAT), the drafter's is not"]),
    ("Gemma 4 E2B It Qat", "Gemma 4 E2B It Assistant", (True, True), []), ("a", "b", (False, True), ["the target is not trained for quantization (QAT), the drafter's is trained"]),
]


@pytest.mark.parametrize("target, drafter, qat, parts", WARNINGS)
def test_warnings(data, tmp_path, target, drafter, qat, parts):
    found = pairs.warnings(named(data, tmp_path, "", target), named(data, tmp_path, "-drafter", drafter), qat)
    assert len(found) == len(parts) and all(part in text for part, text in zip(parts, found))


# ---- files and folders ----


def test_local_files(home, data):
    got = hub.resolve(str(data / "trained-py.gguf"))
    assert (got.target, got.drafter, got.quant, got.repo) == (str(data / "trained-py.gguf"), str(data / "trained-py-drafter.gguf"), "Q8_0", None)
    alone = hub.resolve(str(data / "trained-py.gguf"), drafter=None)
    assert alone.drafter is None and alone.files == [got.target] and alone.bytes == os.path.getsize(got.target)
    assert not hub.installed()


def split(src, folder, stem, n):
    """A model in n files."""
    reader = GGUFReader(src)
    for part in range(n):
        writer = GGUFWriter(folder / f"{stem}-{part + 1:05d}-of-{n:05d}.gguf", "gemma4")
        for name, field in reader.fields.items():
            if part == 0 and not name.startswith(("GGUF.", "general.architecture")):
                writer.add_key_value(name, field.contents(), field.types[0], field.types[-1] if len(field.types) > 1 else None)
        for key, value in (("split.no", part), ("split.count", n)):
            writer.add_uint16(key, value)
        writer.add_int32("split.tensors.count", len(reader.tensors))
        for t in reader.tensors[part::n]:
            writer.add_tensor(t.name, np.array(t.data))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def test_folders_and_split_files(home, data):
    folder = home / "models"
    folder.mkdir()
    with pytest.raises(HubError, match="expected a GGUF file of a Gemma 4 model, found none"):
        hub.resolve(str(folder))
    split(data / "tiny-e2b.gguf", folder, "e2b", 3)
    (folder / "MTP").mkdir()
    (folder / "MTP" / "small.gguf").symlink_to(data / "tiny-e2b-drafter.gguf")
    parts = [str(folder / f"e2b-0000{i}-of-00003.gguf") for i in (1, 2, 3)]
    for reference in (folder, parts[0]):
        got = hub.resolve(str(reference))
        assert (got.target, got.drafter) == (parts[0], str(folder / "MTP" / "small.gguf")) and got.files == [*parts, got.drafter]
    rewrite(data / "tiny-e2b.gguf", folder / "drafter.gguf")  # a target, whatever it is called
    with pytest.raises(HubError, match="expected one model, found drafter.gguf, e2b-00001-of-00003.gguf: name one"):
        hub.resolve(str(folder))
    rewrite(data / "tiny-e2b-drafter.gguf", folder / "drafter.gguf")
    assert hub.resolve(str(folder)).target == parts[0]
    os.unlink(parts[1])
    with pytest.raises(HubError, match="expected 3 parts of the split file, found 2"):
        hub.resolve(str(folder))


def test_split_files_are_pulled_whole(home, server, data, tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    split(data / "tiny-e2b.gguf", folder, "x-BF16", 3)
    server.add("user/split", {f"BF16/{p.name}": p.read_bytes() for p in folder.iterdir()} | {"MTP/mtp.gguf": (data / "tiny-e2b-drafter.gguf").read_bytes()})
    got = hub.pull("user/split")
    assert [os.path.basename(f) for f in got.files] == [*sorted(p.name for p in folder.iterdir()), "mtp.gguf"] and got.quant == "BF16"
    with pymtp.Model(got.target, got.drafter) as model:
        assert len(model.complete([2, 30, 40], max_tokens=4, ignore_eos=True).tokens) == 4


# ---- names of the catalogue ----


def test_catalogue_name_with_converted_drafter(home, server, data, e2b):
    """From nothing to text: the target as GGUF, the official checkpoint converted, with its centroids; once."""
    server.add("ggml-org/gemma-4-E2B-it-GGUF", {"gemma-4-E2B-it-Q8_0.gguf": noise(5000), "gemma-4-E2B-it-Q4_K_M.gguf": e2b[0], "mtp-gemma-4-E2B-it.gguf": e2b[1]})
    repo = server.add("google/gemma-4-E2B-it-assistant", checkpoint(data) | {"model-card.pdf": noise(9000)})
    got = hub.resolve("gemma4-e2b")
    assert (got.name, got.quant, got.repo, got.drafter_repo, got.drafter_commit, got.warnings) == (
        "gemma4-e2b:q4_k_m", "q4_k_m", "ggml-org/gemma-4-E2B-it-GGUF", repo.name, repo.commit, [])
    with File(got.drafter) as file:
        assert "masked_embd_ordering" in {t.name for t in file.tensors()}
    assert "model-card.pdf" not in server.sent and pathlib.Path(got.drafter).is_relative_to(home / "pymtp" / "drafters")
    written = os.stat(got.drafter).st_mtime_ns
    server.sent.clear()
    assert hub.pull("gemma-4-e2b:q4_k_m") == got == hub.resolve("GEMMA4-E2B", offline=True)
    assert os.stat(got.drafter).st_mtime_ns == written and not server.sent
    assert hub.pull("hf.co/ggml-org/gemma-4-E2B-it-GGUF:Q4_K_M").drafter == got.drafter  # a repository that the catalogue knows
    with pymtp.Model(got.target, got.drafter) as model:
        drafted, plain = (model.complete([2, 30, 40, 50], max_tokens=12, seed=1, draft=n, ignore_eos=True) for n in (3, 0))
        assert drafted.tokens == plain.tokens and drafted.stats.drafted > 0


def test_next_candidates(home, server, data, e2b):
    """A gated or missing repository, or one without a drafter, is passed over, with a warning for drafters."""
    server.add("ggml-org/gemma-4-E2B-it-GGUF", {"gemma-4-E2B-it-Q4_K_M.gguf": e2b[0]}, gated=True)
    server.add("unsloth/gemma-4-E2B-it-GGUF", {"gemma-4-E2B-it-UD-Q4_K_M.gguf": e2b[0], "MTP/renamed.gguf": e2b[1]})
    server.add("google/gemma-4-E2B-it-assistant", checkpoint(data), gated=True)
    got = hub.pull("gemma4-e2b")
    assert got.repo == got.drafter_repo == "unsloth/gemma-4-E2B-it-GGUF" and os.path.basename(got.drafter) == "renamed.gguf"
    gated, nothing = got.warnings
    assert gated.startswith("drafter passed over: google/gemma-4-E2B-it-assistant: gated: accept its terms")
    assert nothing == "drafter passed over: ggml-org/gemma-4-E2B-it-GGUF: expected a drafter, found only models: gemma-4-E2B-it-Q4_K_M.gguf"


def test_wrong_checkpoint_is_passed_over(home, server, data, e2b):
    server.add("ggml-org/gemma-4-E2B-it-GGUF", {"gemma-4-E2B-it-Q4_K_M.gguf": e2b[0], "mtp-x.gguf": e2b[1]})
    server.add("google/gemma-4-E2B-it-assistant", checkpoint(data, "ckpt-31b"))
    got = hub.pull("gemma4-e2b")
    assert os.path.basename(got.drafter) == "mtp-x.gguf" and "drafter passed over: " in got.warnings[0] and "expected" in got.warnings[0]


def test_trained_for_quantization_goes_together(home, server, data, e2b):
    server.add("google/gemma-4-E2B-it-qat-q4_0-gguf", {"gemma-4-E2B_q4_0-it.gguf": e2b[0]})
    server.add("google/gemma-4-E2B-it-assistant", checkpoint(data))
    assert hub.pull("gemma4-e2b:qat").warnings[-1].startswith("the target is trained for quantization (QAT), the drafter's is not")
    server.add("google/gemma-4-E2B-it-qat-q4_0-unquantized-assistant", checkpoint(data))
    got = hub.pull("gemma4-e2b:qat")
    assert got.drafter_repo == "google/gemma-4-E2B-it-qat-q4_0-unquantized-assistant" and got.warnings == []


def test_no_candidate(home, server, data, e2b):
    with pytest.raises(HubError) as error:
        hub.pull("gemma4-31b:q5_k_m")
    words = str(error.value)
    assert words.startswith("gemma4-31b:q5_k_m: unsloth/gemma-4-31B-it-GGUF: no such repository at ") and "; bartowski/google_gemma-4-31B-it-GGUF: " in words
    server.add("unsloth/gemma-4-E2B-it-GGUF", {"gemma-4-E2B-it-Q5_K_M.gguf": e2b[0]})
    assert hub.pull("gemma4-e2b:q5_k_m").warnings[-1] == "no drafter: it will run without drafts"


def test_repository_with_something_else(home, server, data):
    server.add("user/llama", {"llama-Q8_0.gguf": rewrite(data / "tiny-e2b.gguf", home / "llama.gguf", arch="llama").read_bytes()})
    with pytest.raises(UnsupportedError, match="expected 'gemma4', found 'llama'"):
        hub.pull("user/llama")
    assert not hub.installed()


def test_drafter_from_the_hub(home, server, data):
    server.add("user/target", {"t-F32.gguf": (data / "tiny-e2b.gguf").read_bytes()})
    server.add("user/drafter", {"d-F32.gguf": (data / "tiny-e2b-drafter.gguf").read_bytes()})
    assert hub.pull("user/target").drafter is None
    got = hub.resolve("user/target", drafter="user/drafter")
    assert os.path.basename(got.drafter) == "d-F32.gguf" and got.drafter_repo == "user/drafter" and got.files == [got.target, got.drafter]
    with pytest.raises(MismatchError, match="expected a drafter"):
        hub.resolve("user/target", drafter="user/target")
    with pytest.raises(ArgumentError, match="expected a path or a repository"):
        hub.resolve("user/target", drafter="gemma4-e2b")


# ---- what is installed, and removing it ----


def test_installed_and_remove(home, server, data):
    target, drafter = (data / "tiny-e2b.gguf").read_bytes(), (data / "tiny-e2b-drafter.gguf").read_bytes()
    other = rewrite(data / "tiny-e2b.gguf", home / "other.gguf", keys={"general.name": "other"}).read_bytes()
    server.add("user/x", {"x-F32.gguf": target, "x-F16.gguf": other, "mtp-x.gguf": drafter})
    first, second = hub.pull("user/x:F32"), hub.pull("user/x:F16")
    listed = hub.installed()
    assert [e.name for e in listed] == ["hf.co/user/x:F16", "hf.co/user/x:F32"] and all(e.complete and e.last_used >= e.pulled - 1 for e in listed)
    assert listed[1].bytes == len(target) + len(drafter) and listed[1].target == first.target and listed[1].where == os.path.dirname(first.target)
    os.utime(home / "pymtp" / "models" / "hf.co%2Fuser%2Fx%3AF32.json", (1, 1))
    assert hub.installed()[1].last_used == 1
    hub.resolve("user/x:F32")
    assert hub.installed()[1].last_used > 1

    plan = hub.remove("hf:user/x:F32")
    assert plan.kept == [first.drafter] and plan.bytes == len(target) and plan.files[0] == first.target and len(plan.files) == 2
    assert os.path.exists(first.target)
    plan.execute()
    assert not os.path.lexists(first.target) and [e.name for e in hub.installed()] == ["hf.co/user/x:F16"]
    assert hub.resolve("user/x:F16", offline=True) == second
    with pytest.raises(HubError, match="not pulled"):
        hub.remove("user/x:F32")

    plan = hub.remove("hf.co/user/x:F16")
    assert plan.kept == [] and plan.bytes == len(other) + len(drafter)
    plan.execute()
    assert not hub.installed() and not list(cache.root().rglob("blobs/*")) and not list(cache.root().rglob("*.gguf"))
    server.sent.clear()
    assert hub.pull("user/x:F32") == first and sum(server.sent.values()) == len(target) + len(drafter)


def test_remove_keeps_blobs_of_other_snapshots(home, server, data):
    target = (data / "tiny-e2b.gguf").read_bytes()
    server.add("user/x", {"x-F32.gguf": target})
    old = hub.pull("user/x:F32")
    server.add("user/x", {"x-F32.gguf": target, "README.md": b"new"})
    hub.pull("user/x:F32")
    plan = hub.remove("user/x:F32")
    assert plan.bytes == 0 and len(plan.files) == 1
    plan.execute()
    assert pathlib.Path(old.target).read_bytes() == target


def test_converted_drafter_goes_with_its_model(home, server, data, e2b):
    server.add("ggml-org/gemma-4-E2B-it-GGUF", {"gemma-4-E2B-it-Q4_K_M.gguf": e2b[0]})
    server.add("google/gemma-4-E2B-it-assistant", checkpoint(data))
    got = hub.pull("gemma4-e2b")
    plan = hub.remove("gemma4-e2b")
    assert got.drafter in plan.files and any(f.endswith("model.safetensors") for f in plan.files)
    plan.execute()
    assert not os.path.exists(got.drafter) and not list(cache.root().rglob("blobs/*"))


def test_files_that_vanished(home, server, data):
    server.add("user/x", {"x-F32.gguf": (data / "tiny-e2b.gguf").read_bytes()})
    got = hub.pull("user/x")
    os.unlink(os.path.realpath(got.target))
    assert not hub.installed()[0].complete
    with pytest.raises(HubError, match="not on this machine, and offline"):
        hub.resolve("user/x", offline=True)
    assert hub.resolve("user/x") == got and hub.installed()[0].complete
    (home / "pymtp" / "models" / "hf.co%2Fuser%2Fx.json").write_text("{")
    assert not hub.installed() and hub.resolve("user/x") == got and hub.installed()


RECORD = {"name": "hf.co/a/b", "quant": "Q4_0", "target": "/nowhere/x.gguf", "drafter": None, "files": ["/nowhere/x.gguf"], "bytes": 1, "repo": "a/b", "commit": "0" * 40,
          "drafter_repo": None, "drafter_commit": None, "licence": None, "warnings": [], "pulled": 1.0, "drafter_sources": []}


def write_record(home, record, file="hf.co%2Fa%2Fb"):
    path = home / "pymtp" / "models" / f"{file}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(record if isinstance(record, str) else json.dumps(record))
    return path


@pytest.mark.parametrize("where", ["files", "drafter_sources"])
@pytest.mark.parametrize("way", ["plain", "dots", "a linked folder", "a folder of pymtp's"])
def test_removing_deletes_nothing_outside_the_cache(home, where, way):
    """A record is a file like any other: what it names may be anybody's. It is refused before anything goes."""
    precious = (home / "pymtp" if way == "a folder of pymtp's" else home) / "precious.gguf"
    own = cache.folder("a/b") / "snapshots" / "c" / "x.gguf"
    own.parent.mkdir(parents=True)
    (home / "pymtp").mkdir()
    (own.parent / "linked").symlink_to(home)
    for path in (precious, own):
        path.write_text("data")
    named = {"dots": f"{own.parent}/../../../../../precious.gguf", "a linked folder": f"{own.parent}/linked/precious.gguf"}.get(way, str(precious))
    assert os.path.samefile(named, precious)
    values = RECORD | {"target": str(own), "files": [str(own)]}
    record = write_record(home, values | {where: [*values[where], named]})
    with pytest.raises(HubError) as error:
        hub.remove("hf.co/a/b")
    assert str(error.value) == f"{record}: files: expected paths below {cache.root()} or {home / 'pymtp' / 'drafters'}, found {named}: nothing removed"
    assert precious.exists() and own.exists() and record.exists()


@pytest.mark.parametrize("outside", ["the file", "the blobs"])
def test_removing_a_link_leaves_what_it_leads_to(home, outside):
    """Of a link of the cache that leads out of it, the link goes."""
    folder = cache.folder("a/b")
    link, content = folder / "snapshots" / "c" / "x.gguf", home / "blobs" / "content"
    link.parent.mkdir(parents=True)
    content.parent.mkdir()
    content.write_text("data")
    if outside == "the blobs":
        (folder / "blobs").symlink_to(content.parent)
    link.symlink_to(content)
    write_record(home, RECORD | {"target": str(link), "files": [str(link)]})
    plan = hub.remove("hf.co/a/b")
    assert plan.files == [str(link)]
    plan.execute()
    assert content.read_text() == "data" and not os.path.lexists(link) and not hub.installed()


def test_a_cache_behind_a_link(home, monkeypatch, server, data):
    """The cache may itself be linked to from where it is looked for."""
    server.add("user/x", {"x-F32.gguf": (data / "tiny-e2b.gguf").read_bytes()})
    got = hub.pull("user/x")
    (home / "other").symlink_to(home / "hf")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "other" / "hub"))
    hub.remove("user/x").execute()
    assert not os.path.lexists(got.target)


DAMAGED = {
    "nested": "[" * 100_000, "digits": '{"bytes": ' + "9" * 5000 + "}", "list": [RECORD], "empty": {}, "unpulled": {k: v for k, v in RECORD.items() if k != "pulled"},
    **{f"{key} {ascii(value)[:20]}": RECORD | {key: value} for key, values in {
        "name": [[], 5, None, "\ud800", "hf.co/other", "hf.co/a/b\x1b[2J"], "target": [None, 5, "\0", "/not/in/files"], "drafter": [5, "/not/in/files"], "files": [None, "x", [5], ["\ud800"], []],
        "bytes": ["x", None, 1.5, -1, True, 10**400], "quant": [None, 5, "\x1b[2J"], "repo": [None, "a\x9bb"], "commit": [None, []], "licence": [5, "\x1b]0;x\x07"],
        "drafter_repo": [5], "drafter_commit": [{}], "warnings": [None, "x", [5], ["\n"]], "pulled": [None, "x", float("nan"), 10**400, True], "drafter_sources": [None, [5], "x"],
    }.items() for value in values},
}


@pytest.mark.parametrize("record", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_record_counts_as_absent(home, record):
    """Whatever it holds: the others are listed, and removed, all the same."""
    write_record(home, record)
    write_record(home, RECORD | {"name": "hf.co/good"}, "hf.co%2Fgood")
    assert [entry.name for entry in hub.installed()] == ["hf.co/good"]
    with pytest.raises(HubError, match="hf.co/a/b: not on this machine, and offline"):
        hub.resolve("hf.co/a/b", offline=True)
    with pytest.raises(HubError, match="hf.co/a/b: not pulled"):
        hub.remove("hf.co/a/b")
    with pytest.raises(HubError, match="expected paths below"):
        hub.remove("hf.co/good")
