"""pymtp bench and the counters behind it: schema, counts against the tensors of the file, refusals. Never times."""
import argparse
import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest

import pymtp
from conftest import ROOT
from pymtp import bench, verify
from pymtp._lib import lib, text
from test_cli import pymtp_cli, refused

TABLES = ("per_layer_token_embd.weight",)  # rows of these are read, never multiplied
QUANTIZED = {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4"}
SAMPLE = {"ms", "weight_bytes", "kv_bytes", "multiply_adds_int8", "multiply_adds_f32", "experts", "gb_per_second", "limit_ms", "share",
          "arithmetic_share"}
RUN = {"workload", "sampling", "plain_tokens_per_second", "draft_tokens_per_second", "speedup", "same_output", "tokens", "passes", "drafted",
       "accepted", "drafted_by_position", "accepted_by_position", "prompt_reused"}


def matrices(path, shared_kv):
    """(dense tensors, expert tensors) that a pass of one row with logits multiplies."""
    with pymtp.File(path) as file:
        tensors = [t for t in file.tensors() if t.name not in TABLES and len(t.dims) > 1]
        layers = file.value("gemma4.block_count", 0)
    own = [f"blk.{i}.attn_{kv}.weight" for i in range(layers - shared_kv, layers) for kv in "kv"]
    return [t for t in tensors if len(t.dims) == 2 and t.name not in own], [t for t in tensors if len(t.dims) == 3]


def expected_work(path, info, experts, rows=1):
    """weight_bytes and multiply-adds (int8, f32) of a pass in which `experts` experts were read, by one row each if rows is 1."""
    dense, expert = matrices(path, info.shared_kv_layers)
    sizes = [(t, 1, rows) for t in dense]
    if expert:
        per_layer = {t.name.split(".")[2] for t in expert}
        of_one = [next(t for t in expert if t.name.split(".")[2] == kind) for kind in sorted(per_layer)]  # layers are alike
        assert all(t.bytes == o.bytes for o in of_one for t in expert if t.name.split(".")[2] == o.name.split(".")[2])
        sizes += [(t, experts / t.dims[2], info.layers * info.experts_used * rows / experts) for t in of_one]
    out = {"weight_bytes": sum(t.bytes * part for t, part, _ in sizes), "multiply_adds_int8": 0, "multiply_adds_f32": 0}
    for t, part, meets in sizes:
        if t.type in QUANTIZED and t.name.startswith("blk.") and t.name.endswith(".proj.weight"):
            meets *= 2  # activations of this matrix are two planes of 8 bits
        out["multiply_adds_int8" if t.type in QUANTIZED else "multiply_adds_f32"] += math.prod(t.dims) * part * meets
    return out


def work_of(model, call):
    before = model.counters
    call()
    return model.counters - before


def check_pass(path):
    with pymtp.Model(path, drafter=None, threads=1) as model, model.session() as session:
        info = model.info
        session.forward([2, 3, 4])
        one = work_of(model, lambda: session.forward([5]))
        assert one.experts == info.layers * info.experts_used
        want = expected_work(path, info, one.experts)
        assert {name: getattr(one, name) for name in want} == want
        many = work_of(model, lambda: session.forward(np.arange(7) * 37 % info.vocab))
        assert one.experts <= many.experts <= min(7 * one.experts, info.layers * info.experts)
        want = expected_work(path, info, many.experts, rows=7)
        assert {name: getattr(many, name) for name in want} == pytest.approx(want, rel=1e-12)
        if not info.experts:
            assert many.weight_bytes == one.weight_bytes


@pytest.mark.parametrize("name", ["tiny-e2b", "tiny-26b", "tiny-31b"])
def test_a_pass_counts_the_tensors_it_multiplies(data, name):
    check_pass(data / f"{name}.gguf")


@pytest.mark.parametrize("variant, mix", [("ple", "Q4_0"), ("moe", "Q4_K+Q6_K")])
def test_a_pass_over_quantized_weights_is_counted(small_models, variant, mix):
    check_pass(small_models(variant, mix)[0])


def test_keys_and_values_are_counted(data):
    """Each layer reads the positions its rows see: of sliding layers a window, of full ones all."""
    with pymtp.Model(data / "tiny-31b.gguf", drafter=None, threads=1, kv="f16") as model, model.session() as session:
        window, length = model.info.window, 150
        session.forward([7] * length, logits="none")
        heads, dims = [4, 4, 4, 4, 4, 2], [model.info.head_dim] * 5 + [model.info.head_dim_global]
        for rows in (1, 5):
            spans = [window + rows - 1] * 5 + [length + rows]
            want = sum(2 * 2 * h * d * n for h, d, n in zip(heads, dims, spans))
            assert work_of(model, lambda: session.forward([7] * rows)).kv_bytes == want
            session.rewind(length)


def test_a_draft_is_counted(data):
    """The dense head multiplies every matrix of the drafter; the centroid head all centroids and the members of the best."""
    for name, top in (("tiny-26b-drafter", None), ("tiny-e2b-drafter", 8)):
        drafter = data / f"{name}.gguf"
        with pymtp.File(drafter) as file:
            tensors = {t.name: t for t in file.tensors() if len(t.dims) == 2}
        want = sum(t.bytes for t in tensors.values())
        if top:
            head = tensors["token_embd.weight"]
            want -= head.bytes - top * (head.dims[1] // 32) * (head.bytes // head.dims[1])
        with pymtp.Model(data / f"{name.removesuffix('-drafter')}.gguf", drafter, threads=1) as model, model.session() as session:
            session.forward([2, 3])
            assert work_of(model, lambda: session.draft(3, 9)).weight_bytes == 3 * want


def test_measure():
    machine = bench.measure(1)
    assert machine.threads == 1 and machine.cpu in text(lib.pymtp_cpu_names()).split(",")
    for name, value in vars(machine).items():
        assert isinstance(value, str) or (math.isfinite(value) and value > 0), name
    assert bench.measure().threads >= 1
    with pytest.raises(pymtp.ArgumentError, match="threads"):
        bench.measure(0)
    with pytest.raises(pymtp.ArgumentError, match="threads: expected 0..256, found 1000"):
        bench.measure(1000)


def test_limit():
    machine = bench.Machine("x", 1, 8e9, 10e9, 100e9, 50e9)
    work = bench.Counters(weight_bytes=10**9, kv_bytes=10**9, multiply_adds_int8=10**10, multiply_adds_f32=10**9, experts=0)
    assert machine.limit(work) == pytest.approx(0.2) and machine.arithmetic_limit(work) == pytest.approx(0.12)
    assert machine.limit(bench.Counters(0, 0, 10**11, 0, 0)) == pytest.approx(1)


def check_sample(sample):
    assert SAMPLE <= set(sample)
    assert all(math.isfinite(sample[name]) and sample[name] >= 0 for name in SAMPLE)
    assert sample["ms"] > 0 and sample["weight_bytes"] > 0 and sample["limit_ms"] > 0


def test_json_report(data):
    target = data / "tiny-e2b.gguf"
    done = pymtp_cli("bench", target, "--quick", "--json", "--threads", 1, "--draft", 3)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    out = json.loads(done.stdout)
    assert list(out) == ["schema", "machine", "model", "settings", "contexts", "prompt", "pairs"] and out["schema"] == 1
    assert set(out["machine"]) == set(bench.Machine.__dataclass_fields__) and out["machine"]["threads"] == 1
    assert set(out["model"]) == set(pymtp.ModelInfo.__dataclass_fields__) and out["model"]["name"] == "Tiny E2B"
    assert set(out["settings"]) == set(bench.Settings.__dataclass_fields__)
    [context] = out["contexts"]
    assert context["context"] == 0 and context["skipped"] is None and context["fill"]["tokens"] == bench.LEAD
    assert [p["rows"] for p in context["passes"]] == [1, 2, 4, 8] and context["passes"][0]["relative"] == 1
    for sample in (context["decode"], *context["passes"], context["draft"], out["prompt"]):
        check_sample(sample)
    with pymtp.Model(target, drafter=None) as model:
        want = expected_work(target, model.info, 0)
    assert context["decode"]["weight_bytes"] == want["weight_bytes"]
    assert {p["weight_bytes"] for p in context["passes"]} == {want["weight_bytes"]}
    assert [p["multiply_adds_f32"] for p in context["passes"]] == [n * want["multiply_adds_f32"] for n in (1, 2, 4, 8)]
    assert out["prompt"]["tokens"] == 128
    pairs = out["pairs"]
    assert pairs["same_output"] is True and len(pairs["runs"]) == len(bench.WORKLOADS) * len(bench.SAMPLINGS)
    for run in pairs["runs"]:
        assert set(run) == RUN and run["same_output"] is True and run["prompt_reused"] == 0
        assert run["tokens"] == 16 and run["drafted"] == sum(run["drafted_by_position"]) > 0
        assert run["accepted"] == sum(run["accepted_by_position"]) and run["accepted"] + run["passes"] >= run["tokens"] - 1


def test_contexts_that_do_not_fit_are_skipped(data):
    done = pymtp_cli("bench", data / "tiny-26b.gguf", "--only", "passes", "--reps", 1, "--context", "0,100,100,1000000", "--json", "--drafter", "none")
    assert done.returncode == 0, done.stderr
    out = json.loads(done.stdout)
    assert [c["context"] for c in out["contexts"]] == [0, 100, 1000000] and out["prompt"] is None and out["pairs"] is None
    assert [c["skipped"] is None for c in out["contexts"]] == [True, True, False] and "4096" in out["contexts"][2]["skipped"]
    assert out["contexts"][1]["fill"]["tokens"] == 100 and out["contexts"][1]["draft"] is None
    assert [len(c["passes"]) for c in out["contexts"]] == [8, 8, 0]
    layers, used = out["model"]["layers"], out["model"]["experts_used"]
    assert out["contexts"][0]["decode"]["experts"] == layers * used
    assert out["contexts"][1]["decode"]["kv_bytes"] > out["contexts"][0]["decode"]["kv_bytes"]


def test_table(data):
    done = pymtp_cli("bench", data / "tiny-e2b.gguf", "--quick", "--context", "0", "--draft", 2, NO_COLOR="1")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    for line in (r"machine  \w+, \d+ threads: reads [\d.]+ GB/s", "model    Tiny E2B: .*drafter: Tiny E2B Assistant", "context 0 +ms",
                 r"  decode +[\d.]+ +[\d.]+ +[\d.]+ +\d+ %", r"  8 rows, all logits +[\d.]+ +[\d.]+ +[\d.]+ +\d+ %", "  draft step",
                 r"  128 tokens", r"  code, sampled +[\d.]+ +[\d.]+ +[\d.]+   \d+ %", r"  median +[\d.]+   same output"):
        assert re.search("^" + line, done.stdout, re.M), line
    assert "\x1b" not in done.stdout
    skipped = pymtp_cli("bench", data / "tiny-e2b.gguf", "--only", "passes", "--context", "5000", "--drafter", "none")
    assert re.search(r"^context 5000\n  skipped: .*4096", skipped.stdout, re.M) and "drafter: none" in skipped.stdout


def test_drafts_that_change_the_output_are_reported(data, monkeypatch, capsys):
    """Cannot happen, so the comparison is made to fail."""
    from pymtp.cli import main

    monkeypatch.setattr(bench, "_pair", lambda pairs, real=bench._pair: {**real(pairs), "same_output": False})
    with pytest.raises(SystemExit) as ended:
        main(["bench", str(data / "tiny-e2b.gguf"), "--only", "pairs", "--quick", "--threads", "1"])
    out = capsys.readouterr()
    assert ended.value.code == 1 and "OUTPUT DIFFERS" in out.out and out.err.startswith("pymtp: drafts changed the output")


def test_refusals(data, tmp_path):
    target = data / "tiny-26b.gguf"
    refused(pymtp_cli("bench"), 2, "MODEL")
    refused(pymtp_cli("bench", target, "--context", "0,x"), 2, "--context", "0,x")
    refused(pymtp_cli("bench", target, "--context", ""), 2, "--context")
    refused(pymtp_cli("bench", target, "--reps", 0), 2, "--reps")
    refused(pymtp_cli("bench", target, "--only", "everything"), 2, "--only")
    refused(pymtp_cli("bench", target, "--draft", 17), 2, "--draft")
    refused(pymtp_cli("bench", tmp_path / "none.gguf"), 1, "none.gguf")
    refused(pymtp_cli("bench", target, "--drafter", target), 1, "tiny-26b.gguf")


@pytest.mark.parametrize("name, value", [("contexts", (-5,)), ("contexts", 5), ("contexts", None), ("reps", 0), ("reps", None), ("rows", ()), ("rows", (0,)),
                                         ("rows", None), ("rows", (1, "x")), ("prompt", 0), ("prompt", -1), ("tokens", -1), ("pairs", 0), ("only", None)])
def test_settings_that_measure_nothing(name, value):
    with pytest.raises(pymtp.ArgumentError, match=f"^{name}: expected "):
        bench.Settings(**{name: value})


def test_verify_needs_depths(data):
    with pymtp.Model(data / "tiny-e2b.gguf", data / "tiny-e2b-drafter.gguf", threads=1, context=128) as model:
        for depths in ((), [], None, 5):
            with pytest.raises(pymtp.ArgumentError, match="^depths: expected "):
                verify.verify(model, 2, depths)
        for depth in (99, "x"):
            with pytest.raises(pymtp.ArgumentError, match="^draft: expected "):
                verify.verify(model, 2, (depth,))


# ---- benchmarks/side_by_side.py: all but llama.cpp's side -----------------------------------------------------------------


@pytest.fixture(scope="module")
def side_by_side():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import side_by_side
    finally:
        sys.path.pop(0)
    return side_by_side


def test_the_side_of_pymtp_answers(data):
    commands = [["about", []], ["machine", []], ["fill", [20, 1]], ["rows", [3, 1]], ["decode", [4, 1]], ["prompt", [30, 1]], ["rows", [1, 2]],
                ["generate", [9, 12, 0]], ["generate", [9, 12, 2]]]
    done = subprocess.run([sys.executable, ROOT / "benchmarks" / "side_by_side.py", data / "tiny-e2b.gguf", "--drafter",
                           data / "tiny-e2b-drafter.gguf", "--serve", "pymtp"], input="".join(json.dumps(c) + "\n" for c in commands),
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(answer) for answer in done.stdout.splitlines()]
    assert len(answers) == len(commands) and answers[0]["name"] == "Tiny E2B" and answers[1]["read_bytes_per_second"] > 0
    for answer in answers[2:7]:
        assert answer["seconds"] > 0 and answer["limit"] >= answer["arithmetic"] > 0
    assert answers[7]["tokens"] == answers[8]["tokens"] and len(answers[8]["tokens"]) == 12 and sum(answers[8]["drafted"]) > 0


def test_the_table_compares_within_rounds(side_by_side):
    o = argparse.Namespace(contexts=[0], rows=[1, 2], prompt=0, pair_start=5, pair_tokens=4, depths=[2])
    results = side_by_side.Results()
    for ours, theirs in ((0.1, 0.3), (0.2, 0.4), (0.4, 0.4)):  # ratios 3, 2 and 1; medians would give 2
        for key in ("decode@0", "1@0", "2@0"):
            results.add(key, "pymtp", {"seconds": ours * (2 if key == "2@0" else 1), "limit": 0.05})
            results.add(key, "llama.cpp", {"seconds": theirs})
    for depth, seconds in ((0, 0.2), (2, 0.1)):
        results.add(f"generate {depth}", "pymtp", {"seconds": seconds, "tokens": [1, 2], "drafted": [4, 4], "accepted": [3, 1]})
    results.add("generate 0", "llama.cpp", {"seconds": 0.25, "tokens": [1, 2]})
    lines = side_by_side.table(o, results, ("probe", {1: 1.0, 2: 1.1}))
    assert lines[0][:6] == ["decode", "5.0 tok/s", "2.5 tok/s", "2.00", "25 %", "12 %"]
    assert lines[2][:4] == ["2 rows, all logits", "400.0 ms", "400.0 ms", "1.00"] and lines[2][6] == "2.00 / 1.00 / 1.10"
    assert lines[3][:4] == ["4 tokens, no drafts", "5.0 tok/s", "4.0 tok/s", "1.25"] and lines[3][6] == "same output"
    assert lines[4][:4] == ["4 tokens, drafts: 2", "10.0 tok/s", "4.0 tok/s (plain)", "2.50"]
    assert lines[4][6] == "2.00 of plain; accepted by position 75 % 25 %"
    results.add("generate 2", "pymtp", {"seconds": 0.1, "tokens": [1, 3], "drafted": [4, 4], "accepted": [3, 1]})
    with pytest.raises(SystemExit, match="differs"):
        side_by_side.table(o, results, None)


def test_a_table_replaces_the_last_one_of_its_label(side_by_side, tmp_path):
    path = tmp_path / "SPEED.md"
    path.write_text("# Speed\n\nText.\n\n## Log\n\nOld.\n")
    for label, text in (("a", "first"), ("b", "second"), ("a", "third")):
        side_by_side.write(path, label, text)
    out = path.read_text()
    assert "first" not in out and out.index("third") < out.index("second") < out.index("## Log") and out.endswith("Old.\n")
    assert out.count("<!-- side_by_side: a -->") == out.count("<!-- end of a -->") == 1 and out.startswith("# Speed\n\nText.\n")
