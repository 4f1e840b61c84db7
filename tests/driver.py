"""Drives the C API directly (chunk sizes, scripts, K/V bytes), for tests of equality."""
import contextlib
import hashlib

import numpy as np

from pymtp._lib import ffi, lib

KV = {"f16": 0, "f32": 1, "q8_0": 2}
FINISH = ("none", "stop", "length", "context", "cancelled", "error")


def struct(name):
    out = ffi.new(f"{name} *")
    if hasattr(out, "size"):
        out.size = ffi.sizeof(name)
    return out


def check(status, err):
    assert status == 0, ffi.string(err.text).decode()


@contextlib.contextmanager
def opened(target, drafter=None, threads=1, kv="f32", chunk=0, context=0):
    """An open pymtp_model *."""
    err, options, path = struct("pymtp_error"), struct("pymtp_model_options"), ffi.new("char[]", str(drafter).encode())
    options.threads, options.kv, options.chunk, options.context = threads, KV[kv], chunk, context
    options.drafter = path if drafter else ffi.NULL
    model = lib.pymtp_model_open(str(target).encode(), options, err)
    assert model, ffi.string(err.text).decode()
    try:
        yield model
    finally:
        check(lib.pymtp_model_close(model, err), err)


def info(model):
    out = struct("pymtp_model_info")
    assert lib.pymtp_model_get_info(model, out) == 0
    return out


class Run:
    """One request on a session: the tokens, log-probabilities (as bytes) and text it gives, and the state it leaves."""

    def __init__(self, model, prompt, session=None, script=None, stop=(), **options):
        self.err, self.model, self.vocab = struct("pymtp_error"), model, info(model).vocab
        self.session = session or lib.pymtp_session_new(model, self.err)
        assert self.session, ffi.string(self.err.text).decode()
        params = struct("pymtp_params")
        lib.pymtp_params_init(params)
        params.logprobs = 5
        for name, value in options.items():
            setattr(params, name, value)
        keep = [ffi.new("int32_t[]", prompt)]
        if script is not None:
            keep.append(ffi.new("int32_t[]", list(script)))
            params.script, params.n_script = keep[-1], len(script)
        texts = [ffi.new("char[]", s) for s in stop]
        if texts:
            keep += [texts, ffi.new("char *[]", texts), ffi.new("size_t[]", [len(s) for s in stop])]
            params.stop, params.stop_bytes, params.n_stop = keep[-2], keep[-1], len(texts)
        check(lib.pymtp_generate(self.session, keep[0], len(prompt), params, self.err), self.err)
        self.tokens, self.text, self.logprobs, self.finish, self.error = [], b"", b"", "none", ""
        self.width = 1 + params.logprobs

    def collect(self):
        out = struct("pymtp_output")
        assert lib.pymtp_session_output(self.session, out) == 0
        self.tokens += list(out.tokens[0:out.n_tokens])
        self.text += ffi.buffer(out.text, out.n_text)[:] if out.n_text else b""
        if out.n_tokens and out.logprobs:
            self.logprobs += ffi.buffer(out.logprobs, out.n_tokens * self.width * ffi.sizeof("pymtp_logprob"))[:]
        self.finish, self.error = FINISH[out.finish], ffi.string(out.error).decode() if out.error else ""

    def stats(self):
        out = struct("pymtp_stats")
        assert lib.pymtp_session_stats(self.session, out) == 0
        return out

    def state(self):
        """Digest of everything the request leaves: tokens, length, hidden row, readable K/V, next logits."""
        n = lib.pymtp_session_length(self.session)
        ids = ffi.new("int32_t[]", max(n, 1))
        lib.pymtp_session_tokens(self.session, ids, n)
        hidden = np.empty(info(self.model).width, np.float32)
        check(lib.pymtp_session_hidden(self.session, ffi.from_buffer("float[]", hidden), self.err), self.err)
        digest, buffer = hashlib.sha256(ffi.buffer(ids, 4 * n)[:] + hidden.tobytes()), ffi.new("uint8_t[]", 1 << 16)
        for layer in range(info(self.model).layers):
            for position in range(max(0, n - info(self.model).window + 1), n):
                size = lib.pymtp_session_kv_bytes(self.session, layer, position, buffer, 1 << 16)
                assert 0 <= size <= 1 << 16
                digest.update(ffi.buffer(buffer, size)[:])
        return n, digest.hexdigest()

    def next_logits(self):
        """Logits of the row that follows (the last token fed once more), to show that the cache goes on alike."""
        logits = np.empty(self.vocab, np.float32)
        check(lib.pymtp_session_forward(self.session, ffi.new("int32_t[]", [self.tokens[-1] if self.tokens else 5]), 1, 1,
                                        ffi.from_buffer("float[]", logits), ffi.NULL, self.err), self.err)
        return logits.tobytes()

    def result(self):
        return self.tokens, self.logprobs, self.text, self.finish, *self.state(), self.next_logits()

    def close(self):
        lib.pymtp_session_free(self.session)


def drive(runs):
    """Steps all runs together until each has finished."""
    err = struct("pymtp_error")
    while running := [r for r in runs if r.finish == "none"]:
        check(lib.pymtp_step(ffi.new("pymtp_session *[]", [r.session for r in running]), len(running), err), err)
        for r in running:
            r.collect()


def complete(model, prompt, **options):
    """One request alone, from start to result()."""
    run = Run(model, prompt, **options)
    try:
        drive([run])
        return run.result(), run.stats()
    finally:
        run.close()
