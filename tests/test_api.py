"""The Python API: names, shapes, options, errors, sessions kept for reuse, threads, asynchronous twins."""
import asyncio
import gc
import pathlib
import shutil
import subprocess
import sys
import threading

import gguf
import numpy as np
import pytest

import pymtp
from pymtp import codec
from pymtp._core import drafter_candidates, read_defaults

GREEDY = {"temperature": 0, "ignore_eos": True}
PROMPT = [2, 40, 41, 42, 43, 44, 45, 46]


@pytest.fixture(scope="module")
def model(data):
    with pymtp.Model(data / "tiny-26b.gguf", drafter=data / "tiny-26b-drafter.gguf", threads=1, kv="f32") as opened:
        yield opened


@pytest.fixture(scope="module")
def alone(data):
    """A target without a drafter."""
    with pymtp.Model(data / "tiny-31b.gguf", drafter=None, threads=1) as opened:
        yield opened


def python(*args, **env):
    import os
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, env={**os.environ, **env}, timeout=300)


# ---- loading ------------------------------------------------------------------------------------------------------------


def test_chunks_say_what_was_drafted(data):
    """A round gives its accepted drafts and one token of the target's; the sampler's choices are the plain run's."""
    with pymtp.Model(data / "trained-py.gguf", data / "trained-py-drafter.gguf", threads=1) as model:
        options = {"max_tokens": 60, "temperature": 0.8, "seed": 3, "ignore_eos": True}
        stream = model.generate("import os\n\ndef ", draft=4, **options)
        chunks = [chunk for chunk in stream if chunk.tokens]
        assert sum(chunk.drafted for chunk in chunks) == stream.completion.stats.accepted > 0
        assert all(chunk.drafted == len(chunk.tokens) - 1 for chunk in chunks[:-1])
        assert all(chunk.drafted == 0 for chunk in model.generate("import os\n\ndef ", draft=0, **options))


def test_import_is_light():
    """Packages of single commands are imported by these."""
    done = python("-c", "import sys, pymtp; print(sorted({'click', 'rich', 'gguf', 'huggingface_hub', 'jinja2'} & set(sys.modules)))")
    assert done.stdout.strip() == "[]", done.stderr


def test_library_that_is_missing_or_foreign(tmp_path):
    for content in (None, b"not a library"):
        path = tmp_path / "libpymtp.so"
        if content:
            path.write_bytes(content)
        done = python("-c", "import pymtp", PYMTP_LIB=str(path))
        assert "LibraryError" in done.stderr and str(path) in done.stderr


def test_library_with_another_layout(tmp_path):
    source = tmp_path / "fake.c"
    for body, word in (("return 99;", "ABI version"), ("return 1;", "struct")):
        source.write_text("#include <stddef.h>\nint pymtp_abi_version(void) { %s }\nsize_t pymtp_struct_size(const char *n) "
                          "{ (void)n; return 8; }\n" % body)
        fake = tmp_path / f"{word.split()[0]}.so"
        subprocess.run(["cc", "-shared", "-fPIC", str(source), "-o", str(fake)], check=True)
        done = python("-c", "import pymtp", PYMTP_LIB=str(fake))
        assert "LibraryError" in done.stderr and word in done.stderr


def test_info(model, data):
    info = model.info
    assert (info.vocab, info.width, info.layers, info.experts, info.drafter_layers) == (1280, 128, 6, 16, 4)
    assert info.kv == "f32" and info.threads == 1 and info.name == "Tiny 26b" and info.weight_bytes > 0
    assert model.drafter_path == str(data / "tiny-26b-drafter.gguf")


@pytest.mark.parametrize("options", [{"kv": "f8"}, {"threads": 0}, {"threads": "x"}, {"context": -1}, {"context": 10**9}, {"chunk": 10**6},
                                     {"drafter": 3}, {"drafter": "a\0b"}])
def test_bad_model_options(data, options):
    with pytest.raises(pymtp.ArgumentError):
        pymtp.Model(data / "tiny-26b.gguf", **{"drafter": None, **options})


@pytest.mark.parametrize("target", [3, None, "no\0name"])
def test_target_that_is_no_path(target):
    with pytest.raises(pymtp.ArgumentError):
        pymtp.Model(target)


def test_wrong_files(data, tmp_path):
    with pytest.raises(pymtp.ReadError, match="nope"):
        pymtp.Model(tmp_path / "nope.gguf")
    (tmp_path / "text.gguf").write_text("hello")
    with pytest.raises(pymtp.Error, match="text.gguf"):
        pymtp.Model(tmp_path / "text.gguf")
    with pytest.raises(pymtp.MismatchError):
        pymtp.Model(data / "trained-py.gguf", drafter=data / "tiny-26b-drafter.gguf")
    with pytest.raises(pymtp.Error):
        pymtp.Model(data / "tiny-26b-drafter.gguf", drafter=None)


# ---- the drafter beside a target ------------------------------------------------------------------------------------------


def opened_with(target):
    with pymtp.Model(target, threads=1) as opened:
        return opened.drafter_path and pathlib.Path(opened.drafter_path).name


def test_auto_drafter_is_decided_by_shape(data, tmp_path):
    target = shutil.copy(data / "tiny-26b.gguf", tmp_path / "model.gguf")
    assert opened_with(target) is None
    shutil.copy(data / "trained-py-drafter.gguf", tmp_path / "mtp-model.gguf")  # the likeliest name, another model's shapes
    (tmp_path / "model-mtp.gguf").write_bytes(b"GGUF")
    assert opened_with(target) is None
    (tmp_path / "MTP").mkdir()
    shutil.copy(data / "tiny-26b-drafter.gguf", tmp_path / "MTP" / "any.gguf")
    assert opened_with(target) == "any.gguf"
    shutil.copy(data / "tiny-26b-drafter.gguf", tmp_path / "model-assistant.gguf")
    assert opened_with(target) == "model-assistant.gguf"
    assert drafter_candidates(target)[0].name in ("mtp-model.gguf", "model-mtp.gguf")
    (tmp_path / "mtp-gone.gguf").symlink_to("nowhere")
    (tmp_path / "mtp-loop.gguf").symlink_to("mtp-loop.gguf")
    assert opened_with(target) == "model-assistant.gguf"
    shutil.rmtree(tmp_path / "MTP")
    (tmp_path / "MTP").symlink_to("MTP")
    assert opened_with(target) == "model-assistant.gguf"


def test_auto_drafter_in_the_data_folder(data):
    for name in ("tiny-26b", "tiny-e2b", "tiny-31b", "trained-py"):
        assert opened_with(data / f"{name}.gguf") == f"{name}-drafter.gguf"


def test_auto_drafter_reports_the_targets_fault(tmp_path, data):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    shutil.copy(data / "tiny-26b-drafter.gguf", tmp_path / "mtp-model.gguf")
    with pytest.raises(pymtp.Error, match="model.gguf"):
        pymtp.Model(tmp_path / "model.gguf")


# ---- tokenizer --------------------------------------------------------------------------------------------------------------


def test_tokenizer(vocab_gguf):
    with pymtp.Tokenizer(vocab_gguf) as t:
        assert t.tokenize("Hello world") == [9259, 1902] and t.detokenize([9259, 1902]) == "Hello world"
        assert t.tokenize("<bos>Hi", special=True, bos=True) == t.tokenize("Hi", bos=True)
        assert t.tokenize("<|turn>", special=True) == [105] and 105 not in t.tokenize("<|turn>")
        assert t.detokenize(np.array([105, 9259]), special=True) == "<|turn>Hello" and t.detokenize([]) == ""
        assert len(t) == 262144 and t.bos == 2 and t.is_eog(106) and t.find("<|turn>") == 105 and t.find("no such") is None
        assert t.piece(1902) == "\u2581world" and t.tokenize("a\udc80b") == t.tokenize(b"a\xed\xb2\x80b")
        text = "naïve 🙂 " * 300
        ids, decoder = t.tokenize(text), t.decoder()
        assert "".join(decoder.push(i) for i in ids) + decoder.flush() == text
        for bad in ([-1], [2**31], [2**70], ["x"], [[1]], 5, [1.5], [10**6]):
            with pytest.raises(pymtp.ArgumentError):
                t.detokenize(bad)
        for bad in (-1, 10**6, 2**40, "x"):
            with pytest.raises(pymtp.ArgumentError):
                t.piece(bad)
        with pytest.raises(pymtp.ArgumentError):
            t.tokenize(5)
    with pytest.raises(pymtp.StateError):
        t.tokenize("x")


def test_model_tokenizer(data):
    opened = pymtp.Model(data / "tiny-31b.gguf", drafter=None, threads=1)
    t = opened.tokenizer
    assert opened.detokenize(opened.tokenize("a b c")) == "a b c" == t.detokenize(t.tokenize("a b c"))
    opened.close()
    with pytest.raises(pymtp.StateError):
        t.tokenize("x")
    with pytest.raises(pymtp.StateError):
        opened.complete("x")


# ---- generation ---------------------------------------------------------------------------------------------------------------


def test_chunks_sum_up(model):
    whole = model.complete(PROMPT, max_tokens=20, **GREEDY)
    stream = model.generate(PROMPT, max_tokens=20, **GREEDY)
    chunks = list(stream)
    assert sum((c.tokens for c in chunks), []) == whole.tokens and len(whole.tokens) == 20
    assert "".join(c.text for c in chunks) == whole.text == model.detokenize(whole.tokens)
    assert [c.finish_reason for c in chunks[:-1]] == [None] * (len(chunks) - 1) and chunks[-1].finish_reason == "length"
    assert stream.completion.tokens == whole.tokens and list(stream) == []


def test_prompt_text_and_ids_are_the_same(model):
    text = "def f(x):"
    ids = model.tokenize(text, special=True, bos=True)
    assert ids[0] == 2
    for prompt in (ids, np.array(ids), tuple(ids), np.array(ids, np.uint16)):
        assert model.complete(prompt, max_tokens=5, **GREEDY).tokens == model.complete(text, max_tokens=5, **GREEDY).tokens


def test_stats(model):
    plain = model.complete(PROMPT, max_tokens=16, cache=False, draft=0, **GREEDY)
    script = plain.tokens
    done = model.complete(PROMPT, max_tokens=16, cache=False, draft=4, _script=script, **GREEDY)
    assert done.tokens == plain.tokens
    s = done.stats
    assert s.tokens == 16 and s.prompt_tokens == len(PROMPT) and s.prompt_reused == 0
    assert s.accepted == s.drafted > 0 and s.passes < plain.stats.passes
    assert len(s.accepted_by_position) == 16 and sum(s.accepted_by_position) == s.accepted and sum(s.drafted_by_position) == s.drafted
    assert plain.stats.drafted == 0 and s.seconds_target > 0


def test_seed(model):
    first = model.complete(PROMPT, max_tokens=12, temperature=1.5)
    assert model.complete(PROMPT, max_tokens=12, temperature=1.5, seed=first.seed).tokens == first.tokens
    assert model.complete(PROMPT, max_tokens=1).seed != first.seed
    assert model.generate(PROMPT, max_tokens=1, seed=2**64 - 1).seed == 2**64 - 1


def test_logprobs(model):
    done = model.complete(PROMPT, max_tokens=6, logprobs=3, **GREEDY)
    assert [p.id for p in done.logprobs] == done.tokens
    for p in done.logprobs:
        assert p.top[0] == (p.id, p.logprob) and len(p.top) == 3 and p.top[0][1] >= p.top[1][1] >= p.top[2][1]
    assert [p.top for p in model.complete(PROMPT, max_tokens=2, logprobs=0, **GREEDY).logprobs] == [[], []]
    assert model.complete(PROMPT, max_tokens=2, **GREEDY).logprobs is None


def test_stop_strings(model):
    full = model.complete(PROMPT, max_tokens=40, **GREEDY)
    stop = full.text[10:13]
    done = model.complete(PROMPT, max_tokens=40, stop=stop, **GREEDY)
    assert done.finish_reason == "stop" and done.text == full.text[:full.text.index(stop)]
    assert done.tokens == full.tokens[:len(done.tokens)] and len(done.tokens) < 40
    assert model.complete(PROMPT, max_tokens=40, stop=["never here", stop], **GREEDY).text == done.text
    chunks = [c.text for c in model.generate(PROMPT, max_tokens=40, stop=[stop], **GREEDY)]
    assert "".join(chunks) == done.text


def test_logit_bias_and_end_tokens(model):
    assert model.complete(PROMPT, max_tokens=3, temperature=0, logit_bias={77: 1000.0}).tokens == [77] * 3
    done = model.complete(PROMPT, max_tokens=3, temperature=0, logit_bias={1: 1000})
    assert (done.tokens, done.finish_reason, done.stop_id, done.text) == ([], "stop", 1, "")
    assert model.complete(PROMPT, max_tokens=3, logit_bias={1: 1000}, **GREEDY).tokens == [1] * 3
    first = model.complete(PROMPT, max_tokens=1, **GREEDY).tokens[0]
    assert model.complete(PROMPT, max_tokens=1, logit_bias={first: float("-inf")}, **GREEDY).tokens != [first]


def test_max_tokens_zero(model):
    done = model.complete(PROMPT, max_tokens=0, **GREEDY)
    assert done.tokens == [] and done.finish_reason == "length"


def test_end_of_context(data):
    with pymtp.Model(data / "tiny-e2b.gguf", drafter=None, threads=1, context=40) as small:
        done = small.complete(PROMPT, **GREEDY)
        assert done.finish_reason == "context" and len(PROMPT) + len(done.tokens) in (40, 41)
        with pytest.raises(pymtp.ContextError):
            small.complete([2] + [40] * 50)


@pytest.mark.parametrize("options", [
    {"max_tokens": -1}, {"max_tokens": "x"}, {"max_tokens": 2**40}, {"temperature": -1}, {"temperature": float("nan")}, {"temperature": "hot"},
    {"top_k": -1}, {"top_k": 1.5}, {"top_p": 2}, {"min_p": -0.1}, {"repetition_penalty": 0}, {"presence_penalty": float("inf")},
    {"seed": -1}, {"seed": 2**64}, {"stop": 3}, {"stop": [3]}, {"stop": [""]}, {"logprobs": 21}, {"draft": 17}, {"draft": "max"}, {"draft": -1},
    {"logit_bias": [1]}, {"logit_bias": {1: "x"}}, {"logit_bias": {-1: 1}}, {"logit_bias": {10**6: 1}}, {"logit_bias": {"x": 1}}, {"tempreature": 1},
    {"_script": [10**6]}, {"logit_bias": np.array([1, 2])}, {"logit_bias": np.array([])}, {"logit_bias": []}, {"ignore_eos": np.zeros((2, 2))},
    {"ignore_eos": np.array([1, 2])}, {"max_tokens": np.zeros((2, 2))}])
def test_bad_options(model, options):
    with pytest.raises(pymtp.ArgumentError) as caught:
        model.complete(PROMPT, **options)
    assert next(iter(options)).lstrip("_") in str(caught.value) and "\n" not in str(caught.value)
    assert len(model.complete(PROMPT, max_tokens=1, ignore_eos=True).tokens) == 1  # the model goes on


def nested(depth):
    out = []
    for _ in range(depth):
        out = [out]
    return out


@pytest.mark.parametrize("value", [10**5000, nested(100_000)], ids=["digits", "depth"])
def test_values_that_cannot_be_printed(model, data, value):
    """An error about a number of thousands of digits, or about a list of any depth, is an error like others."""
    with model.session() as session:
        session.forward(PROMPT)
        for name in ("max_tokens", "temperature", "seed", "draft", "top_k", "min_p", "logprobs"):
            with pytest.raises(pymtp.ArgumentError, match=f"^{name}: ") as caught:
                model.complete(PROMPT, **{name: value})
            assert len(str(caught.value)) < 200
        for call in (lambda: model.complete(PROMPT, logit_bias={1: value}), lambda: model.tokenizer.piece(value), lambda: session.rewind(value),
                     lambda: session.draft(1, value), lambda: session.forward(PROMPT, logits=value), lambda: codec.encode("q8_0", np.zeros((1, 32)), threads=value),
                     lambda: model.complete([value]), lambda: pymtp.Model(data / "tiny-e2b.gguf", kv=value),
                     lambda: pymtp.Model(data / "tiny-e2b.gguf", context=value), lambda: pymtp.Model(data / "tiny-e2b.gguf", threads=value)):
            with pytest.raises(pymtp.ArgumentError) as caught:
                call()
            assert len(str(caught.value)) < 300
        with pytest.raises(pymtp.Error):
            codec.type_name(value)


@pytest.mark.parametrize("prompt", [[], [5000], [-1], [2.5], None, 7, [[2]], ["x"], [2**40]])
def test_bad_prompts(model, prompt):
    with pytest.raises(pymtp.ArgumentError):
        model.complete(prompt, max_tokens=1)


def test_sampling_defaults_of_the_file(tmp_path):
    def defaults(**values):
        path = tmp_path / "defaults.gguf"
        writer = gguf.GGUFWriter(str(path), "gemma4")
        for key, value in values.items():
            writer.add_key_value("general.sampling." + key, value, gguf.GGUFValueType.get_type(value))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
        with pymtp.File(path) as file:
            d = read_defaults(file)
        return d.temperature, d.top_k, round(d.top_p, 6)

    assert defaults() == (1.0, 64, 0.95)
    assert defaults(temp=0.5, top_k=20, top_p=0.75) == (0.5, 20, 0.75)
    assert defaults(temp=-1.0, top_k="x", top_p=float("nan")) == (1.0, 64, 0.95)


# ---- ending early, and sessions kept for reuse -----------------------------------------------------------------------------------


def test_break_leaves_the_session_for_reuse(data):
    with pymtp.Model(data / "tiny-e2b.gguf", threads=1) as opened:
        for chunk in opened.generate(PROMPT, max_tokens=50, **GREEDY):
            if chunk.tokens:
                break
        gc.collect()
        again = opened.complete(PROMPT, max_tokens=8, **GREEDY)
        assert again.stats.prompt_reused == len(PROMPT) - 1
        assert again.tokens == opened.complete(PROMPT, max_tokens=8, cache=False, **GREEDY).tokens
        stream = opened.generate(PROMPT, max_tokens=50, **GREEDY)
        next(stream)
        stream.close()
        assert stream.completion.finish_reason == "cancelled" and list(stream) == []
        assert len(opened._idle) == 1


def test_an_exception_in_the_loop(model):
    with pytest.raises(KeyboardInterrupt):
        with model.generate(PROMPT, max_tokens=50, **GREEDY) as stream:
            for _ in stream:
                raise KeyboardInterrupt
    assert model.complete(PROMPT, max_tokens=3, **GREEDY).stats.prompt_reused > 0


def test_longest_common_prefix_is_reused(data):
    with pymtp.Model(data / "tiny-31b.gguf", drafter=None, threads=1) as opened:
        a, b = [2] + [50] * 20, [2] + [60] * 20
        opened.complete(a, max_tokens=4, **GREEDY)
        opened.complete(b, max_tokens=4, **GREEDY)  # shares a BOS only: another session
        assert len(opened._idle) == 2
        for prompt, reused in ((a + [70], 21), (b[:12] + [70, 71], 12), (a[:5] + [9], 5)):
            done = opened.complete(prompt, max_tokens=4, **GREEDY)
            assert done.stats.prompt_reused == reused
            assert done.tokens == opened.complete(prompt, max_tokens=4, cache=False, **GREEDY).tokens
        for i in range(100, 110):
            opened.complete([2, i, i], max_tokens=1)
        assert len(opened._idle) == 4


def test_cancel_from_another_thread(model):
    stream = model.generate(PROMPT, max_tokens=4000, **GREEDY)
    next(stream)
    threading.Timer(0.05, stream.cancel).start()
    done = [c.finish_reason for c in stream][-1]
    assert done == "cancelled" and len(stream.completion.tokens) < 3900
    stream.cancel()  # after the end: nothing
    assert model.complete(PROMPT, max_tokens=3, **GREEDY).finish_reason == "length"


def test_threads_share_a_model(model):
    prompts = [[2, 40 + i, 50, 60 + i] for i in range(6)]
    expected = [model.complete(p, max_tokens=10, cache=False, **GREEDY).tokens for p in prompts]
    got = [None] * 6

    def work(i):
        got[i] = model.complete(prompts[i], max_tokens=10, **GREEDY).tokens

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert got == expected


# ---- sessions -----------------------------------------------------------------------------------------------------------------


def test_forward(model):
    with model.session() as s:
        logits = s.forward(PROMPT)
        assert logits.shape == (8, 1280) and logits.dtype == np.float32 and s.hidden.shape == (8, 128) and s.length == 8
        hidden = s.hidden[-1:].copy()
        with model.session() as t:
            assert t.forward(PROMPT[:7], logits="none").shape == (0, 1280) and t.hidden.shape == (7, 128)
            last = t.forward(PROMPT[7:], logits="last", hidden=False)
            assert last.shape == (1, 1280) and np.array_equal(last[0], logits[-1]) and np.array_equal(t.hidden, hidden)
            assert t.tokens == PROMPT
        for bad in ([], [1280], [-1], "abc", [[1]]):
            with pytest.raises(pymtp.ArgumentError):
                s.forward(bad)
        with pytest.raises(pymtp.ArgumentError):
            s.forward([5], logits="some")
        assert s.length == 8 and np.array_equal(s.forward([9]), s.forward([9])) is False and s.length == 10
    with pytest.raises(pymtp.StateError):
        s.forward([5])
    s.close()


def test_drafting_changes_nothing(model):
    with model.session() as s:
        with pytest.raises(pymtp.Error):
            s.draft(2, 5)
        pending = int(s.forward(PROMPT)[-1].argmax())
        ids, logits = s.draft(4, pending), s.draft_logits(4, pending)
        assert len(ids) == 4 and logits.shape == (4, 1280) and [int(row.argmax()) for row in logits] == ids
        assert s.length == 8 and s.draft(4, pending) == ids and s.draft(2, pending) == ids[:2]
        for bad in ((-1, 5), (2, 5000), ("x", 5), (2, -1)):
            with pytest.raises(pymtp.ArgumentError):
                s.draft(*bad)
        for call in (s.draft, s.draft_logits, s.draft_hidden):  # one call that nothing ends: not for hours
            with pytest.raises(pymtp.ArgumentError, match=f"^n: expected 0..{model.info.context}, found {model.info.context + 1}$"):
                call(model.info.context + 1, 5)
        s.rewind(4)
        with pytest.raises(pymtp.StateError):
            s.draft(2, 5)


def test_drafting_without_a_drafter(alone):
    with alone.session() as s:
        s.forward(PROMPT)
        with pytest.raises(pymtp.StateError):
            s.draft(1, 5)
    assert alone.complete(PROMPT, max_tokens=4, **GREEDY).stats.drafted == 0


@pytest.mark.parametrize("name", ["tiny-26b", "tiny-e2b"])
def test_rewind_and_snapshots(data, name):
    rng = np.random.default_rng(3)
    ids = rng.integers(20, 1000, 300).tolist()
    with pymtp.Model(data / f"{name}.gguf", drafter=None, threads=1, kv="f32") as opened, opened.session() as s:
        logits = s.forward(ids)
        for length in (299, 200, 100, 5, 0):  # beyond the rings the session replays
            s.rewind(length)
            assert s.length == length and s.tokens == ids[:length]
            assert np.array_equal(s.forward(ids[length:]), logits[length:])
        for bad in (-1, 301, "x"):
            with pytest.raises(pymtp.ArgumentError):
                s.rewind(bad)
        s.rewind(150)
        keep = s.snapshot()
        assert keep.length == 150
        s.forward(ids[:100])
        s.restore(keep)
        assert s.tokens == ids[:150] and np.array_equal(s.forward(ids[150:]), logits[150:])
        with opened.session() as other:
            other.restore(keep)
            assert np.array_equal(other.forward(ids[150:]), logits[150:])
            assert other.sync(ids[:100] + [7]) == 100 == other.length
        keep.close()
        for bad in (keep, None):
            with pytest.raises(pymtp.Error):
                s.restore(bad)


def test_sessions_stepped_together(model):
    prompts = [PROMPT, PROMPT[:3], [2] + [90] * 30]
    expected = [model.complete(p, max_tokens=n, cache=False, draft=0, **GREEDY) for p, n in zip(prompts, (5, 9, 14))]
    sessions = [model.session() for _ in prompts]
    for s, p, n in zip(sessions, prompts, (5, 9, 14)):
        s.start(p, max_tokens=n, draft=2, **GREEDY)
    got = [[] for _ in prompts]
    for _ in range(100):
        running = [i for i, s in enumerate(sessions) if s.finish_reason is None]
        if not running:
            break
        for i, chunk in zip(running, pymtp.step([sessions[i] for i in running])):
            got[i] += chunk.tokens
    assert got == [e.tokens for e in expected]
    assert [s.completion.text for s in sessions] == [e.text for e in expected]
    assert [s.stats.tokens for s in sessions] == [5, 9, 14]


def test_bad_steps(model, alone):
    a, b, c = model.session(), alone.session(), model.session()
    with pytest.raises(pymtp.StateError):
        a.completion
    a.start(PROMPT, max_tokens=5)
    b.start(PROMPT, max_tokens=5)
    for bad, kind in (([a, b], pymtp.MismatchError), ([a, c], pymtp.StateError), ([a, a], pymtp.Error), ([a, 3], pymtp.ArgumentError)):
        with pytest.raises(kind):
            pymtp.step(bad)
    for bad in (None, 5, a):
        with pytest.raises(pymtp.ArgumentError, match="^sessions: expected a sequence, found "):
            pymtp.step(bad)
    assert pymtp.step([]) == []
    a.cancel()
    assert pymtp.step([a])[0].finish_reason == "cancelled" == a.finish_reason
    with pytest.raises(pymtp.StateError):
        pymtp.step([a])
    c.start(PROMPT, max_tokens=5)
    c.rewind(0)  # ends the request
    assert c.finish_reason == "cancelled"
    for s in (a, b, c):
        s.close()


def test_what_outlives_what(data):
    opened = pymtp.Model(data / "tiny-31b.gguf", drafter=None, threads=1)
    kept = opened.session()
    expected = kept.forward(PROMPT)
    del opened
    gc.collect()
    kept.rewind(0)
    assert np.array_equal(kept.forward(PROMPT), expected)  # a session keeps its model
    del kept
    gc.collect()
    with pymtp.Model(data / "tiny-31b.gguf", drafter=None, threads=1) as opened:
        s, stream = opened.session(), opened.generate(PROMPT, max_tokens=5)
        s.forward(PROMPT)
        snap = s.snapshot()
    for use in (lambda: s.length, lambda: s.forward(PROMPT), lambda: s.restore(snap), lambda: opened.session(), lambda: next(stream),
                lambda: opened.tokenize("x"), lambda: opened.complete("x"), lambda: opened.chat([{"role": "user", "content": "x"}])):
        with pytest.raises(pymtp.StateError):
            use()
    opened.close()


def test_exit_in_the_middle(data, tmp_path):
    """A program may end while a generation is open, sessions and snapshots are alive and another thread computes."""
    program = tmp_path / "exits.py"
    program.write_text("""
import sys, threading, pymtp
m = pymtp.Model(sys.argv[1], threads=2)
g = m.generate([2, 5, 6], max_tokens=100); next(g)
s = m.session(); s.forward([2, 3]); k = s.snapshot()
threading.Thread(target=lambda: m.complete([2, 9], ignore_eos=True), daemon=True).start()
next(g)
print("end")
""")
    for _ in range(3):
        done = python(str(program), str(data / "tiny-26b.gguf"))
        assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


# ---- chat -----------------------------------------------------------------------------------------------------------------------

HELLO = [{"role": "user", "content": "Hello <turn|> there"}]


@pytest.fixture(scope="module", params=["tiny-26b", "tiny-e2b"])
def chatty(data, request):
    with pymtp.Model(data / f"{request.param}.gguf", threads=1) as opened:
        yield opened


def test_chat(chatty):
    answer = chatty.chat(HELLO, max_tokens=12, **GREEDY)
    plain = chatty.complete(chatty.render(HELLO), max_tokens=12, cache=False, **GREEDY)
    assert answer.tokens == plain.tokens and answer.text == plain.text and answer.finish_reason == "length"
    ids = chatty.render(HELLO)
    assert ids.count(chatty.tokenizer.find("<turn|>")) == 1
    assert chatty.detokenize(ids, special=True).endswith("<|channel>thought\n<channel|>") == (chatty.info.ple_width == 0)
    stream = chatty.chat(HELLO, stream=True, max_tokens=12, **GREEDY)
    chunks = list(stream)
    assert "".join(c.content for c in chunks) == answer.content and sum((c.tokens for c in chunks), []) == answer.tokens
    assert stream.completion.text == answer.text and chunks[-1].finish_reason == "length"


def test_next_turn_reuses_the_chat(chatty):
    """The new prompt differs from the cache behind the last <|turn>model: all before it is found, across the ring by the
    snapshot kept there, so nothing is computed twice."""
    messages = [{"role": "user", "content": "word " * 60}]
    first = chatty.chat(messages, max_tokens=100, **GREEDY)
    messages += [first.message, {"role": "user", "content": "more"}]
    second = chatty.chat(messages, max_tokens=4, **GREEDY)
    before = chatty.render(messages[:1])
    opened = next(i for i in range(len(before), 0, -1) if before[i - 1] == chatty.tokenizer.find("<|turn>")) + 1
    assert second.stats.prompt_reused >= opened and second.stats.replayed == 0
    assert second.tokens == chatty.chat(messages, max_tokens=4, cache=False, **GREEDY).tokens


def test_chat_with_forced_tool_call(chatty):
    """Biases force a tool call marker and then its end; the parser sees a call, the reason follows."""
    t = chatty.tokenizer
    text = "call:now{}"
    script = [t.find("<|tool_call>"), *t.tokenize(text), t.find("<tool_call|>"), t.find("<|tool_response>")]
    stream = chatty.chat(HELLO, stream=True, max_tokens=len(script), temperature=0)
    for token in script:  # one request per token, each forced, is a plain way to make a random model say something
        chunk = chatty.complete([2, 5], max_tokens=1, temperature=0, ignore_eos=True, logit_bias={token: 10000})
        assert chunk.tokens == [token]
        stream._parser.push(chunk.tokens, chunk.text)
    stream._parser.finish()
    assert [c["function"] for c in stream._parser.tool_calls] == [{"name": "now", "arguments": {}}]
    assert stream._reason("stop") == "tool_calls" and stream._reason("length") == "length"
    stream.close()


def test_bad_chats(chatty):
    for messages in ([], "Hi", [{"role": "x"}], None):
        with pytest.raises(pymtp.ArgumentError):
            chatty.chat(messages)
    with pytest.raises(pymtp.ArgumentError):
        chatty.chat(HELLO, max_token=3)


# ---- asynchronous twins -------------------------------------------------------------------------------------------------------------


def test_asynchronous_twins(model):
    async def work():
        chunks = [c async for c in model.agenerate(PROMPT, max_tokens=8, **GREEDY)]
        done = await asyncio.gather(*(model.acomplete(PROMPT, max_tokens=8, **GREEDY) for _ in range(3)))
        chat = await model.achat(HELLO, max_tokens=8, **GREEDY)
        streamed = [c async for c in await model.achat(HELLO, stream=True, max_tokens=8, **GREEDY)]
        with pytest.raises(pymtp.ArgumentError):
            await model.acomplete(PROMPT, temperature=-1)
        return chunks, done, chat, streamed

    chunks, done, chat, streamed = asyncio.run(work())
    expected = model.complete(PROMPT, max_tokens=8, **GREEDY).tokens
    assert [d.tokens for d in done] == [expected] * 3 == [sum((c.tokens for c in chunks), [])] * 3
    assert "".join(c.content for c in streamed) == chat.content == model.chat(HELLO, max_tokens=8, **GREEDY).content


def test_cancelling_a_task_stops_the_generation(model):
    async def work():
        task = asyncio.create_task(model.acomplete(PROMPT, max_tokens=4000, **GREEDY))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async for _ in model.agenerate(PROMPT, max_tokens=4000, **GREEDY):
            break

    asyncio.run(work())
    gc.collect()
    assert all(s.finish_reason is not None for s in model._idle)
    assert model.complete(PROMPT, max_tokens=2, **GREEDY).stats.prompt_reused > 0


def test_keys_of_any_text(data):
    """A key that no file can have is a key that is not there."""
    with pymtp.File(data / "tiny-e2b.gguf") as file:
        for key in ("", "none", "\ud800", "general.\udcff", "x" * 100_000):
            assert file.value(key, 7) == 7 and file.value_json(key) is None and file.value_bytes(key) is None and file.string(key) is None


# ---- objects that outlive what they use ----

DROPPED = """
import gc, sys, pymtp
model = pymtp.Model(sys.argv[1], drafter=None, context=64, threads=1)
class Node: pass
for _ in range(20):
    node = Node()
    node.me, node.session, node.stream = node, model.session(), model.generate([5, 6, 7], max_tokens=40)
    next(node.stream)
    del node
    gc.collect()
assert model.complete([5, 6, 7], max_tokens=4).tokens  # the model is as good as before
print("fine")
"""


def test_dropped_in_a_reference_cycle(data):
    """Python frees C objects of a cycle before it runs the finalizers in it: a running stream's must not use its session then."""
    done = subprocess.run([sys.executable, "-X", "faulthandler", "-c", DROPPED, str(data / "tiny-e2b.gguf")], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


CLOSED_MEANWHILE = """
import sys, threading, pymtp
path, kind = sys.argv[1:]
text = "a cat sat " * 3000
class Held:
    "What the users of one round share."
def open_all():
    held = Held()
    if kind == "tokenizer":
        held.closed = pymtp.Tokenizer(path)
        held.use = lambda: held.closed.tokenize(text)
    elif kind == "file":
        held.closed = pymtp.File(path)
        held.use = lambda: (held.closed.value_json("tokenizer.ggml.tokens", 5000), list(held.closed.tensors()))
    else:
        held.closed = pymtp.Model(path, drafter=None, context=64, threads=1)
        uses = {"model": lambda: held.closed.tokenize(text), "decoder": lambda: held.closed.tokenizer.decoder().push(5),
                "sessions": lambda: held.closed.session().snapshot(), "closers": held.closed.close}
        held.use = uses[kind]
    return held
wanted = open_all().use()
for _ in range(15):
    held, begun, wrong = open_all(), threading.Barrier(4), []
    def work():
        begun.wait()
        try:
            for _ in range(50):
                found = held.use()
                if kind != "sessions" and found != wanted:
                    wrong.append(found)
        except pymtp.StateError:
            pass
        except BaseException as error:
            wrong.append(error)
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads: thread.start()
    begun.wait()
    held.closed.close()
    for thread in threads: thread.join()
    assert not wrong, wrong[0]
print("fine")
"""


@pytest.mark.parametrize("kind", ["tokenizer", "file", "model", "decoder", "sessions", "closers"])
def test_closed_while_other_threads_use_it(data, kind):
    """The C object lives until the last call is out of it; later ones are refused."""
    done = subprocess.run([sys.executable, "-X", "faulthandler", "-c", CLOSED_MEANWHILE, str(data / "tiny-e2b.gguf"), kind], capture_output=True,
                          text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


def test_decoder_of_a_closed_model(data):
    """A decoder, like the tokenizer, ends with the model: an error, no read of freed memory."""
    model = pymtp.Model(data / "tiny-e2b.gguf", drafter=None, threads=1)
    tokenizer = model.tokenizer
    decoder = tokenizer.decoder()
    decoder.push(100)
    model.close()
    for call in (lambda: decoder.push(101), decoder.flush, lambda: tokenizer.tokenize("a"), lambda: model.tokenize("a")):
        with pytest.raises(pymtp.StateError):
            call()
