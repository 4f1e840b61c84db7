"""The tokenizer on the real vocabulary: published vectors, an independent implementation, round trips, streaming."""
import functools
import struct

import gguf
import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings, strategies as st

import pymtp

SPACE = "\u2581"


@pytest.fixture(scope="module")
def real(vocab_gguf):
    return pymtp.Tokenizer(vocab_gguf)


NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


@functools.cache
def read_vocabulary(path):
    """Pieces, merges and types of a file, read apart from pymtp. (The gguf package takes 20 s for the real one.)"""
    raw, at, found = path.read_bytes(), 24, {}

    def take(kind, n=1):
        nonlocal at
        at += struct.calcsize(f"<{n}{kind}")
        return struct.unpack_from(f"<{n}{kind}", raw, at - struct.calcsize(f"<{n}{kind}"))

    def text():
        nonlocal at
        n, = take("Q")
        at += n
        return raw[at - n:at].decode()

    for _ in range(struct.unpack_from("<Q", raw, 16)[0]):
        key, kind, n = text(), take("I")[0], 1
        if kind == 9:
            kind, n = take("I")[0], take("Q")[0]
        found[key] = [text() for _ in range(n)] if kind == 8 else take(NUMBERS[kind], n)
    return tuple(found[f"tokenizer.ggml.{key}"] for key in ("tokens", "merges", "token_type"))


@functools.cache
def reference(path):
    """The same vocabulary in the `tokenizers` package: BPE with byte fallback on text whose spaces are U+2581. Special
    tokens are not told to it, so it agrees with tokenize(text, special=False)."""
    tokens, merges, _ = read_vocabulary(path)
    model = tokenizers.models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=[tuple(m.split(" ")) for m in merges],
                                  byte_fallback=True, unk_token="<unk>", fuse_unk=False, ignore_merges=False)
    made = tokenizers.Tokenizer(model)
    made.normalizer = tokenizers.normalizers.Replace(" ", SPACE)
    return made


@pytest.fixture(scope="module", params=["gemma4-vocab", "trained-py"])
def pair(request, vocab_gguf, data):
    """A tokenizer, its reference, and texts to give them."""
    path = vocab_gguf if request.param == "gemma4-vocab" else data / "trained-py.gguf"
    tokens = read_vocabulary(path)[0]
    return pymtp.Tokenizer(path), reference(path), random_text([t.replace(SPACE, " ") for t in tokens if len(t) < 32])


def decode_slowly(path, ids):
    """detokenize as the definition has it: bytes joined, control tokens left out, CPython's U+FFFD (one for each maximal part)."""
    tokens, _, types = read_vocabulary(path)
    out = b""
    for id in ids:
        if types[id] == 6:
            out += bytes([int(tokens[id][3:5], 16)])
        elif types[id] != 3:
            out += tokens[id].replace(SPACE, " ").encode()
    return out.decode("utf-8", "replace")


# ---- published vectors ----

def vectors(data):
    texts = (data / "gemma4-vocab.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    ids = [[int(i) for i in line.split()] for line in (data / "gemma4-vocab.out").read_text().split("\n")[:len(texts)]]
    return list(zip(texts, ids, strict=True))


def test_vocabulary_vectors(real, data):
    cases = vectors(data)
    assert len(cases) == 46
    assert [(text, real.tokenize(text)) for text, _ in cases] == cases
    assert all(real.detokenize(ids) == text for text, ids in cases)


@pytest.mark.parametrize("text, ids", [
    ("Hello world", [9259, 1902]), (" Hello", [26352]), ("  Hello", [138, 9259]), ("\t\n", [255968, 107]),
    ("333", [236800] * 3), ("!!!!!!", [123947]), ("The capital of France is", [818, 5279, 529, 7001, 563]),
    ("user", [2364]), ("model", [4368]), ("system", [9731]), ("thought", [45518]), ("tool", [13205]), ("call", [6639])])
def test_short_vectors(real, text, ids):
    assert real.tokenize(text) == ids


def test_runs(real):
    """Runs of 1..31 newlines and of 2..31 spaces are one token; longer ones are filled from the left."""
    for n in range(1, 32):
        assert real.tokenize("\n" * n) == [106 + n]
        assert real.tokenize(" " * n) == ([136 + n] if n > 1 else [236743])
    assert real.tokenize("\n" * 70) == [137, 137, 114]
    assert real.tokenize(" " * 70) == [167, 167, 144]
    assert real.tokenize("a\n\nb") == [236746, 108, 236763]


# ---- special tokens ----

PROMPT = "<bos><|turn>user\nHi<turn|>\n<|turn>model\n"
PROMPT_IDS = [2, 105, 2364, 107, 10979, 106, 107, 105, 4368, 107]


def test_chat_prompt(real):
    assert real.tokenize(PROMPT, special=True) == PROMPT_IDS
    assert real.tokenize(PROMPT, special=True, bos=True) == PROMPT_IDS, "one BOS is enough"
    assert real.tokenize(PROMPT[5:], special=True, bos=True) == PROMPT_IDS
    assert real.detokenize(PROMPT_IDS) == "user\nHi\nmodel\n"
    assert real.detokenize(PROMPT_IDS, special=True) == PROMPT


def test_untrusted_text_makes_no_special_ids(real, vocab_gguf):
    tokens = read_vocabulary(vocab_gguf)[0]
    markers = {48, 49, 50, 51, 52, 100, 101}
    control = {0, 1, 2, 3, 4, 46, 47, 98, 105, 106, 255999, 256000, *range(258880, 258885)}
    text = "".join(tokens[i] + "x" for i in sorted(control | markers))
    assert not (control | markers) & set(real.tokenize(text))
    assert set(real.tokenize(text, markers=True)) & (control | markers) == markers
    assert set(real.tokenize(text, special=True)) >= control | markers
    assert real.detokenize(real.tokenize(text)) == text


def test_end_tokens(real):
    assert [i for i in range(len(real)) if real.is_eog(i)] == [1, 50, 106]
    assert (len(real), real.bos) == (262144, 2)


def test_tiny_vocabularies_go_by_piece(data):
    """These files store <turn|> as a normal token."""
    with pymtp.Tokenizer(data / "tiny-e2b.gguf") as t:
        turn = t.find("<turn|>")
        assert t.tokenize("a<turn|>", special=True)[-1] == turn and t.is_eog(turn)
        assert turn not in t.tokenize("a<turn|>")


# ---- against the tokenizers package ----

def random_text(pieces):
    """Any Unicode, bent towards what merges: pieces of the vocabulary, runs, repeated letters."""
    part = st.one_of(st.text(max_size=12), st.integers(0, len(pieces) - 1).map(pieces.__getitem__),
                     st.text("abcdefghijklmnopqrstuvwxyz ", max_size=20),
                     st.text("ab \n\t\r", max_size=12), st.integers(1, 70).map("\n".__mul__), st.integers(1, 70).map(" ".__mul__),
                     st.sampled_from(["\U0001f468\u200d\U0001f469", "e\u0301", "\u00e9", "\ufffd", "\0", "\U0010ffff", SPACE, "\u0b95\u0bcd"]))
    return st.lists(part, max_size=12).map("".join)


@settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_same_ids_as_the_tokenizers_package(pair, draw):
    tokenizer, peer, texts = pair
    text = draw.draw(texts)
    assert tokenizer.tokenize(text) == peer.encode(text).ids


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_round_trip(pair, draw):
    tokenizer, _, texts = pair
    text = draw.draw(texts).replace(SPACE, "")  # the one character that comes back as another, a space
    for flags in ({}, {"special": True}, {"markers": True}):
        ids = tokenizer.tokenize(text, **flags)
        assert tokenizer.detokenize(ids, special=True) == text
        assert len(ids) <= len(text.encode())


def test_long_text_as_the_tokenizers_package(real, vocab_gguf):
    """Tens of thousands of characters without a space: one run, one queue."""
    text = "".join(f"word{i % 97}\u00e9" + "ab" * (i % 13) for i in range(3000))
    assert real.tokenize(text) == reference(vocab_gguf).encode(text).ids


# ---- decoding ----

@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.one_of(st.integers(0, 4095), st.integers(3840, 4095)), max_size=30))
def test_decoding_and_streaming(data, ids):
    """trained-py.gguf, whose byte tokens are the last 256: any ids, in one go and one by one."""
    path = data / "trained-py.gguf"
    tokenizer = trained(path)
    whole = tokenizer.detokenize(ids)
    hidden = {i for i in ids if tokenizer.piece(i) in ("<|turn>", "<turn|>", "<|tool>", "<tool|>", "<|think|>")}
    assert whole == decode_slowly(path, [i for i in ids if i not in hidden]), "those are stored as normal, and control all the same"
    decoder = tokenizer.decoder()
    assert "".join([decoder.push(i) for i in ids] + [decoder.flush()]) == whole


@functools.cache
def trained(path):
    return pymtp.Tokenizer(path)


def test_streaming_waits_for_whole_characters(real):
    decoder, text = real.decoder(), "\u0b95\U0001fae8a"
    ids = [238 + b for b in text.encode()]  # <0x00> is 238
    assert [decoder.push(i) for i in ids] == ["", "", text[0], "", "", "", text[1], "a"]
    assert [decoder.push(i) for i in ids[:2]] == ["", ""] and decoder.flush() == "\ufffd" and decoder.flush() == ""


# ---- bad input ----

@pytest.mark.parametrize("raw, values", [
    (b"\xff", [0xff]), (b"\xc3(", [0xc3, "("]), (b"\xed\xa0\x80", [0xed, 0xa0, 0x80]), (b"\xc0\x80", [0xc0, 0x80]),
    (b"a\xe2\x82", ["a", 0xe2, 0x82]), (b"\xf5\x80", [0xf5, 0x80]), (b"\xe2\x82\xac\x80", ["\u20ac", 0x80])])
def test_malformed_utf8_becomes_byte_tokens(real, raw, values):
    ids = real.tokenize(raw)
    assert ids == [238 + v if isinstance(v, int) else real.find(v) for v in values]
    assert real.detokenize(ids) == raw.decode("utf-8", "replace")


def test_ids_outside_the_vocabulary(real):
    for bad in (-1, len(real)):
        with pytest.raises(pymtp.Error, match=r"ids\[1\]"):
            real.detokenize([2, bad])


def test_other_tokenizers_are_refused(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "gemma4")
    writer.add_tokenizer_model("gpt2")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(pymtp.UnsupportedError, match='tokenizer.ggml.model: expected "gemma4", found "gpt2"'):
        pymtp.Tokenizer(tmp_path / "x.gguf")
