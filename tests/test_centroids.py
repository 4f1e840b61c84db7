"""Centroid heads made from dense ones: the file is the drafter it was plus a head, all clusters give the dense head's bits, fewer find
what the table says, and output never changes."""
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from gguf import GGUFReader

import pymtp
from model_files import rewrite, tensors
from pymtp import centroids
from pymtp.errors import ArgumentError, FormatError, MismatchError, UnsupportedError, WriteError
from test_refuse import DIALECTS, dialect_of

NEW_KEYS = {"n_centroids", "centroid_top_k", "use_ordered_embeddings"}


def make(drafter, out, clusters, top, **options):
    with centroids.Drafter(drafter, force=options.pop("force", False)) as opened:
        result = centroids.add(opened, clusters, **options)
        opened.write(out, result.head, top)
    return result


def text_of(data):
    return "\n".join(json.loads((data / "python-prompts.json").read_text())["prompts"].values())


@pytest.fixture(scope="module")
def trained(data):
    return data / "trained-py.gguf", data / "trained-py-drafter.gguf"


@pytest.fixture(scope="module")
def learned(data, trained, tmp_path_factory):
    """(path, Result) of a centroid head for the trained drafter, learned on Python code: 128 clusters of 32 rows."""
    with pymtp.Model(*trained) as model:
        rows = centroids.text_rows(model, model.tokenize(text_of(data), bos=True)[:400])
    out = tmp_path_factory.mktemp("learned") / "drafter.gguf"
    with centroids.Drafter(trained[1]) as opened:
        result = centroids.add(opened, 128, rows)
        opened.write(out, result.head, centroids.choose(result.lines))
    return out, result


# ---- pieces against plain computations ----

@pytest.fixture(scope="module")
def example():
    """(rows, ordering, hidden) of 60 rows in 12 clusters."""
    rng = np.random.default_rng(1)
    return rng.standard_normal((60, 16), np.float32), rng.permutation(60).reshape(12, 5).astype(np.int32), rng.standard_normal((50, 16), np.float32)


def test_best_logits(example, monkeypatch):
    """Each is one of the logits of its cluster, to the rounding of a product of 16 floats, whatever the slices."""
    rows, ordering, hidden = example
    exact = (hidden.astype(np.float64) @ rows.astype(np.float64).T)[:, ordering].max(2)
    bound = 16 * 2.0**-24 * np.abs(hidden).sum(1).max() * np.abs(rows).max()
    for logits in (1 << 24, 5 * 50 * 5, 1):
        monkeypatch.setattr(centroids, "LOGITS", logits)
        assert np.abs(centroids.best_logits(rows, ordering, hidden) - exact).max() <= bound


def test_corrected_is_the_ridge_solution(example):
    """At the minimum the gradient vanishes; to the rounding of the result to float32, 2^-24 of each centroid."""
    rows, ordering, hidden = example
    best = centroids.best_logits(rows, ordering, hidden)
    before = rows[ordering].mean(1)
    after = centroids.corrected(before, hidden, best).astype(np.float64)
    h = hidden.astype(np.float64)
    ridge = centroids.RIDGE * (h**2).sum() / 16
    gradient = h.T @ (h @ after.T - best) + ridge * (after - before).T
    assert np.abs(gradient).max() <= 2.0**-24 * np.abs(after).max() * 16 * (np.abs(h.T @ h).max() + ridge)
    assert ((h @ after.T - best)**2).sum() < ((h @ before.T - best)**2).sum()
    assert (centroids.corrected(before, np.zeros((3, 16), np.float32), best[:3]) == before).all()


def test_ranks_and_table(example):
    rows, ordering, hidden = example
    best, middle = centroids.best_logits(rows, ordering, hidden), rows[ordering].mean(1)
    middle[7] = middle[3]  # ties go to the lower cluster
    rank = centroids.ranks(middle, hidden, best)
    for i, h in enumerate(hidden):
        by_score = sorted(range(12), key=lambda c: (-float((hidden @ middle.T)[i, c]), c))
        assert rank[i] == by_score.index(int(best[i].argmax()))
    lines = centroids.table(rank, 12, 5, tops=(3,))
    assert [line.top for line in lines] == [1, 2, 3, 4, 8, 12]
    for line in lines:
        assert line.rows == 12 + 5 * line.top and line.recall == np.mean(rank < line.top)
    chosen = centroids.choose(lines)
    assert all((line.recall >= centroids.RECALL) == (line.top >= chosen) for line in lines) and lines[-1].recall == 1


def test_default_clusters():
    assert [centroids.default_clusters(n) for n in (262144, 4096, 1280, 1000, 7)] == [2048, 256, 128, 125, 7]


def test_clustering_does_not_depend_on_threads(trained):
    with centroids.Drafter(trained[1]) as opened:
        rows = opened.head()
    one, three = (centroids.cluster(rows, 128, threads) for threads in (1, 3))
    assert one.ordering.tobytes() == three.ordering.tobytes() and one.centroids.tobytes() == three.centroids.tobytes()
    assert sorted(one.ordering.ravel()) == list(range(4096)) and one.objective == three.objective


# ---- the file ----

def test_the_rest_of_the_file_stays(trained, learned):
    before, after = GGUFReader(trained[1]), GGUFReader(learned[0])
    keys = {n: f.contents() for n, f in before.fields.items() if not n.startswith("GGUF.")}
    found = {n: f.contents() for n, f in after.fields.items() if not n.startswith("GGUF.")}
    new = {"gemma4-assistant." + n for n in NEW_KEYS}
    assert {n: v for n, v in found.items() if n not in new} == keys and new <= set(found)
    assert found["gemma4-assistant.n_centroids"] == 128 and found["gemma4-assistant.use_ordered_embeddings"] is True
    old, made = ({t.name: t for t in r.tensors} for r in (before, after))
    assert set(made) - set(old) == {"masked_embd_centroids.weight", "masked_embd_ordering"}
    for name, t in old.items():
        assert made[name].data.tobytes() == t.data.tobytes() and made[name].tensor_type == t.tensor_type
    assert made["masked_embd_ordering"].data.tolist() == learned[1].head.ordering.ravel().tolist()
    with pymtp.Model(trained[0], learned[0]) as model:
        assert (model.info.drafter_centroids, model.info.drafter_centroid_top_k) == (128, centroids.choose(learned[1].lines))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_dialects_and_replacing(data, tmp_path, dialect):
    """In every dialect a centroid head that is there (32 clusters of 40) is refused, and with force replaced."""
    old = dialect_of(data / "tiny-e2b-drafter.gguf", tmp_path / "old.gguf", dialect)
    with pytest.raises(ArgumentError, match="has a centroid head already"):
        centroids.Drafter(old)
    make(old, tmp_path / "new.gguf", 64, 3, force=True)
    with pymtp.Model(data / "tiny-e2b.gguf", tmp_path / "new.gguf") as model:
        assert (model.info.drafter_centroids, model.info.drafter_centroid_top_k) == (64, 3)
    assert len(tensors(tmp_path / "new.gguf")) == len(tensors(old))


def test_a_flag_that_says_dense_is_replaced(data, tmp_path):
    old = rewrite(data / "tiny-26b-drafter.gguf", tmp_path / "old.gguf", keys={".use_ordered_embeddings": False})
    make(old, tmp_path / "new.gguf", 16, 4)
    with pymtp.Model(data / "tiny-26b.gguf", tmp_path / "new.gguf") as model:
        assert (model.info.drafter_centroids, model.info.drafter_centroid_top_k) == (16, 4)


# ---- drafts ----

def chains(target, drafter, ids, hidden=False):
    """Logits of four chained drafts at a few positions of a text."""
    out = []
    with pymtp.Model(target, drafter) as model, model.session() as session:
        for i in range(0, len(ids) - 8, 8):
            session.forward(ids[i:i + 8], logits="none")
            out.append((session.draft(4, ids[i + 8]), session.draft_logits(4, ids[i + 8]).tobytes(),
                        session.draft_hidden(4, ids[i + 8]).tobytes()))
    return out


@pytest.mark.parametrize("pair", ["tiny-26b", "tiny-31b", "trained-py", "keqv Q4_0", "keqv Q8_0", "moe Q4_K+Q6_K", "moe Q5_K+IQ4_NL"])
def test_all_clusters_are_the_dense_head(data, small_models, tmp_path, pair):
    """Ids, logits and hidden rows, bit by bit: a row's logit does not depend on where in the packed head it lies."""
    target, drafter = small_models(*pair.split()) if " " in pair else (data / f"{pair}.gguf", data / f"{pair}-drafter.gguf")
    with centroids.Drafter(drafter) as opened:
        clusters = centroids.default_clusters(opened.rows)
    result = make(drafter, tmp_path / "all.gguf", clusters, clusters)
    assert result.lines[-1].recall == 1
    ids = [2] + np.random.default_rng(0).integers(300, 1200, 40).tolist()
    assert chains(target, tmp_path / "all.gguf", ids) == chains(target, drafter, ids)


def test_output_stays_and_drafts_are_accepted(data, trained, learned):
    """Acceptance may fall by what the clusters miss: at most one draft in fifty more than the dense head's, of about 1000."""
    prompts = list(json.loads((data / "python-prompts.json").read_text())["prompts"].values())
    accepted, drafted, outputs = {}, {}, {}
    for name, drafter in (("dense", trained[1]), ("centroids", learned[0])):
        accepted[name] = drafted[name] = 0
        outputs[name] = []
        with pymtp.Model(trained[0], drafter) as model:
            for i, prompt in enumerate(prompts):
                done = model.complete(prompt, max_tokens=64, temperature=0.8, seed=i, draft=4, ignore_eos=True)
                accepted[name] += done.stats.accepted
                drafted[name] += done.stats.drafted
                outputs[name].append(done.tokens)
    assert outputs["centroids"] == outputs["dense"]
    print({n: accepted[n] / drafted[n] for n in accepted})
    assert accepted["centroids"] / drafted["centroids"] >= accepted["dense"] / drafted["dense"] - 0.02


def test_the_table_tells_what_drafts_find(data, trained, learned, tmp_path):
    """On text that was not learned from, the first draft of the centroid head is the dense head's as often as the table says. The table's
    rows are the last quarter of 1596; 100 positions here. Both shares are binomial, so they differ by less than 4 standard deviations."""
    line = next(line for line in learned[1].lines if line.top == 4)
    with centroids.Drafter(trained[1]) as opened:
        opened.write(tmp_path / "four.gguf", learned[1].head, 4)
    first = {}
    for name, drafter in (("dense", trained[1]), ("four", tmp_path / "four.gguf")):
        with pymtp.Model(trained[0], drafter) as model, model.session() as session:
            ids = model.tokenize(text_of(data), bos=True)[300:401]
            first[name] = []
            for token, pending in zip(ids, ids[1:]):
                session.forward([token], logits="none")
                first[name] += session.draft(1, pending)
    found = np.mean([a == b for a, b in zip(first["dense"], first["four"])])
    deviation = (line.recall * (1 - line.recall) * (1 / 100 + 1 / 399)) ** 0.5
    assert 0.5 < line.recall < 0.99 and abs(found - line.recall) <= 4 * deviation


def test_learning_and_clusters_help(trained, learned):
    """Random clusters of the same size, and centroids that are plain means, find less."""
    with centroids.Drafter(trained[1]) as opened:
        rows = opened.head()
    with pymtp.Model(*trained) as model:
        hidden = centroids.text_rows(model, model.tokenize("import os\n\ndef main(args):\n    return [x for x in args if x]\n" * 2, bos=True))

    def recall(ordering, middle, top=8):
        return np.mean(centroids.ranks(middle, hidden, centroids.best_logits(rows - rows.mean(0), ordering, hidden)) < top)

    ordering = learned[1].head.ordering
    chance = np.random.default_rng(0).permutation(4096).reshape(128, 32)
    at_random, mean = (recall(o, (rows - rows.mean(0))[o].mean(1)) for o in (chance, ordering))
    assert at_random < 0.5 * mean and mean < recall(ordering, learned[1].head.centroids)


# ---- what is refused ----

def test_refused(data, trained, learned, tmp_path):
    with pytest.raises(UnsupportedError, match="expected an MTP drafter of Gemma 4, found architecture 'gemma4'"):
        centroids.Drafter(trained[0])
    with pytest.raises(ArgumentError, match=r"tensor 'masked_embd_centroids.weight'\); force replaces it"):
        centroids.Drafter(learned[0])
    with pytest.raises(FormatError, match="'token_embd.weight': missing"):
        centroids.Drafter(rewrite(trained[1], tmp_path / "headless.gguf", drop=("token_embd.weight",)))
    with pytest.raises(FormatError, match="expected a matrix"):
        centroids.Drafter(rewrite(trained[1], tmp_path / "flat.gguf", replace={"token_embd.weight": np.ones(64, np.float32)}))
    head = tensors(trained[1])["token_embd.weight"].copy()
    for bad in (np.nan, np.inf, -1e20):
        head[70, 3] = bad
        with centroids.Drafter(rewrite(trained[1], tmp_path / "bad.gguf", replace={"token_embd.weight": head})) as opened:
            with pytest.raises(FormatError, match="'token_embd.weight': expected finite values up to"):
                centroids.add(opened, 64)
    with centroids.Drafter(trained[1]) as opened:
        for clusters in (0, -1, 3, 8192):
            with pytest.raises(ArgumentError, match="clusters: expected a divisor of the 4096 rows"):
                centroids.add(opened, clusters)
        with pytest.raises(MismatchError, match="width 7"):
            centroids.add(opened, 64, np.zeros((10, 7), np.float32))
        with pytest.raises(WriteError, match="exists already"):
            opened.write(learned[0], learned[1].head, 4)
        with pytest.raises(ArgumentError, match="is the source itself"):
            opened.write(trained[1], learned[1].head, 4, overwrite=True)


@pytest.mark.parametrize("kind", ["zeros", "equal rows", "tiny"])
def test_heads_that_teach_nothing(trained, tmp_path, kind):
    """A head without structure, or without size, still gives a valid file."""
    shape = tensors(trained[1])["token_embd.weight"].shape
    head = {"zeros": np.zeros(shape, np.float32), "equal rows": np.ones(shape, np.float32),
            "tiny": np.random.default_rng(0).standard_normal(shape).astype(np.float32) * np.float32(1e-40)}[kind]
    make(rewrite(trained[1], tmp_path / "old.gguf", replace={"token_embd.weight": head}), tmp_path / "new.gguf", 64, 4)
    with pymtp.Model(trained[0], tmp_path / "new.gguf") as model, model.session() as session:
        assert model.info.drafter_centroids == 64
        session.forward([2], logits="none")
        assert len(session.draft(4, 700)) == 4


# ---- the command ----

def command(*args):
    return subprocess.run([sys.executable, "-m", "pymtp", "quantize", "add-centroids", *map(str, args)], capture_output=True, text=True,
                          timeout=300, env={**os.environ})


def test_command(data, trained, tmp_path):
    text, out = tmp_path / "text.py", tmp_path / "out.gguf"
    text.write_text(text_of(data))
    done = command(trained[1], out, "--clusters", 64, "--dry-run")
    assert done.returncode == 0 and "64 clusters of 64 rows" in done.stdout and not out.exists(), done.stderr
    done = command(trained[1], out, "--clusters", 64, "--target", trained[0], "--text", text, "--tokens", 100, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["hidden"] == "text" and result["measured"] == 99 and result["written"] and result["bytes"] == out.stat().st_size
    assert result["top_k"] == next(line["top"] for line in result["table"] if line["recall"] >= 0.99)
    with pymtp.Model(trained[0], out) as model:
        assert (model.info.drafter_centroids, model.info.drafter_centroid_top_k) == (64, result["top_k"])
    done = command(trained[1], out, "--clusters", 64, "--top-k", 5, "--force")
    assert done.returncode == 0 and "stand-ins for hidden rows" in done.stdout, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines() if "<- written" in line] == [["5", str(64 + 5 * 64)]]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.gguf", "text.py"]


def test_command_refuses(trained, tmp_path):
    out, text = tmp_path / "out.gguf", tmp_path / "text"
    text.write_text("")
    for args, code, words in [
        ((trained[1], out, "--clusters", 5), 2, "divisor of the 4096 rows"),
        ((trained[1], out, "--clusters", 1), 2, "--clusters"),
        ((trained[1], out, "--clusters", 64, "--top-k", 65), 2, "at most the 64 clusters"),
        ((trained[1], out, "--target", trained[0]), 2, "need each other"),
        ((trained[1], out, "--target", trained[0], "--text", tmp_path / "none"), 1, "none"),
        ((trained[1], out, "--target", trained[0], "--text", text), 1, "at least two tokens"),
        ((trained[1], out, "--target", trained[1], "--text", text), 1, "expected a target"),
        ((trained[0], out), 1, "expected an MTP drafter"),
        ((tmp_path / "none.gguf", out), 1, "none.gguf"),
        ((trained[1], tmp_path / "no" / "out.gguf"), 1, "No such file"),
    ]:
        done = command(*args)
        assert done.returncode == code and words in done.stderr, done.stderr
        assert done.stdout == "" and done.stderr.startswith("pymtp: ") and done.stderr.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["text"]
