"""What a request is made of: options in (make_params), chunks out (Chunk), and their sum (Completion with Stats)."""
from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Mapping, Sequence, TypedDict

import numpy as np

from ._arguments import INT32, flag, integer, number
from ._lib import ffi, lib, new_struct, pointer, text, text_bytes, token_array
from .errors import ArgumentError, Error, from_code

if TYPE_CHECKING:
    FinishReason = Literal["stop", "length", "context", "cancelled", "tool_calls", "error"]

FINISH: tuple[Any, ...] = (None, "stop", "length", "context", "cancelled", "error")


class Options(TypedDict, total=False):
    """Keyword arguments of generate, complete, chat and Session.start. None means the default.

    max_tokens: new tokens at most; default: until an end token or the end of the context.
    temperature, top_k, top_p: default: the file's general.sampling.*, else 1.0, 64, 0.95. temperature 0 is greedy;
        top_k 0 and top_p 1 are off.
    min_p, repetition_penalty, presence_penalty, frequency_penalty: default off (0, 1, 0, 0). Penalties count the tokens
        this request has emitted.
    logit_bias: {token id: value added to its logit}; -inf forbids it.
    seed: 0..2**64-1; None draws a fresh one, which the completion returns in `.seed`.
    stop: one string or several; generation ends before the first that appears.
    logprobs: 0..20: log-probability of each token and of that many best ones, before bias, penalties and temperature.
    draft: drafts in a round: "auto" or 0..16. Never changes the output.
    ignore_eos: end tokens are emitted like others.
    cache: reuse the longest common prefix of an idle session (Model.generate, complete, chat).
    """

    max_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    logit_bias: Mapping[int, float] | None
    seed: int | None
    stop: str | Sequence[str] | None
    logprobs: int | None
    draft: int | Literal["auto"]
    ignore_eos: bool
    cache: bool


@dataclass(frozen=True)
class Defaults:
    """Sampling of a model whose user says nothing."""

    temperature: float = 1.0
    top_k: int = 64
    top_p: float = 0.95


@dataclass(frozen=True)
class TokenLogprob:
    """Log-probability of a token and, best first, of the `top` ones at its place: (id, logprob)."""

    id: int
    logprob: float
    top: list[tuple[int, float]]


@dataclass(frozen=True)
class Chunk:
    """What one engine step gave. `text` may be empty, and may lag behind `tokens` while a stop string could still begin. The first
    `drafted` of the tokens were drafts, the others the target's own choices."""

    text: str
    tokens: list[int]
    logprobs: list[TokenLogprob] | None = None
    finish_reason: "FinishReason | None" = None
    stop_id: int | None = None
    error: Error | None = None
    drafted: int = 0


@dataclass(frozen=True)
class Stats:
    """Counters of one request. Lists have one entry for each draft position (16). Seconds are wall time of the passes the
    request took part in, by phase."""

    tokens: int = 0
    passes: int = 0
    prompt_tokens: int = 0
    prompt_reused: int = 0
    replayed: int = 0
    drafted: int = 0
    accepted: int = 0
    drafted_by_position: list[int] = field(default_factory=list)
    accepted_by_position: list[int] = field(default_factory=list)
    seconds_prompt: float = 0.0
    seconds_draft: float = 0.0
    seconds_target: float = 0.0
    seconds_sample: float = 0.0

    @classmethod
    def _of(cls, raw: Any) -> "Stats":
        values: dict[str, Any] = {}
        for name in cls.__dataclass_fields__:
            value = getattr(raw, name)
            values[name] = list(value) if name.endswith("_by_position") else value
        return cls(**values)


@dataclass(frozen=True)
class Completion:
    """The whole of a generation. `tokens`: new ids only, without an ending id. `text`: ends before a stop string."""

    text: str
    tokens: list[int]
    finish_reason: "FinishReason | None"
    seed: int
    logprobs: list[TokenLogprob] | None
    stats: Stats
    stop_id: int | None = None


# ---- options ----------------------------------------------------------------------------------------------------------


@dataclass
class Params:
    """A filled pymtp_params and what it points to."""

    raw: Any
    seed: int
    keep: list[Any]

    @property
    def top(self) -> int:
        """Best ids reported with each token; -1: no log-probabilities."""
        return self.raw.logprobs


FLOATS = ("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty")
KNOWN = {*Options.__annotations__, "_script", "_snapshot_at"}


def make_params(defaults: Defaults, options: Mapping[str, Any]) -> Params:
    """Checks types and fills the C struct; ranges of sampling values are the library's business. Raises ArgumentError."""
    if unknown := set(options) - KNOWN:
        raise ArgumentError(f"{sorted(unknown)[0]}: no such option; there are {', '.join(sorted(Options.__annotations__))}")
    given = {name: value for name, value in options.items() if value is not None}
    raw: Any = new_struct("pymtp_params")
    keep: list[Any] = []
    lib.pymtp_params_init(raw)
    raw.temperature, raw.top_k, raw.top_p = defaults.temperature, defaults.top_k, defaults.top_p
    for name in FLOATS:
        if name in given:
            setattr(raw, name, number(name, given[name]))
    raw.max_tokens = integer("max_tokens", given["max_tokens"], 0, INT32) if "max_tokens" in given else -1
    if "top_k" in given:
        raw.top_k = integer("top_k", given["top_k"], 0, INT32)
    raw.seed = integer("seed", given["seed"], 0, 2**64 - 1) if "seed" in given else secrets.randbits(63)
    raw.logprobs = integer("logprobs", given["logprobs"], 0, 20) if "logprobs" in given else -1
    draft = given.get("draft", "auto")
    raw.draft = lib.PYMTP_DRAFT_AUTO if isinstance(draft, str) and draft == "auto" else \
        integer("draft", draft, 0, lib.PYMTP_MAX_DRAFT)
    raw.ignore_eos = flag("ignore_eos", given.get("ignore_eos", False))
    raw.snapshot_at = given.get("_snapshot_at", -1)
    _set_bias(raw, keep, given.get("logit_bias"))
    _set_stop(raw, keep, given.get("stop"))
    if "_script" in given:
        script = token_array(given["_script"], "_script")
        keep.append(script)
        raw.script, raw.n_script = pointer(script), script.size
    return Params(raw, raw.seed, keep)


def _set_bias(raw: Any, keep: list[Any], bias: Any) -> None:
    if bias is None:
        return
    if not isinstance(bias, Mapping):
        raise ArgumentError(f"logit_bias: expected a mapping of token ids to numbers, found {type(bias).__name__}")
    if not bias:
        return
    ids = token_array(list(bias), "logit_bias")
    with np.errstate(over="ignore"):
        values = np.array([number("logit_bias", v) for v in bias.values()], np.float32)
    keep += [ids, values]
    raw.bias_ids, raw.bias_values, raw.n_bias = pointer(ids), pointer(values), ids.size


def _set_stop(raw: Any, keep: list[Any], stop: Any) -> None:
    if stop is None:
        return
    try:
        strings = [stop] if isinstance(stop, (str, bytes)) else list(stop)
    except TypeError:
        raise ArgumentError(f"stop: expected a string or several, found {type(stop).__name__}") from None
    if not strings:
        return
    texts = [text_bytes(s, "stop") for s in strings]
    buffers = [ffi.new("char[]", t) for t in texts]
    keep += [buffers, ffi.new("char *[]", buffers), ffi.new("size_t[]", [len(t) for t in texts])]
    raw.stop, raw.stop_bytes, raw.n_stop = ffi.cast("char **", keep[-2]), keep[-1], len(texts)


# ---- results ----------------------------------------------------------------------------------------------------------


def read_chunk(raw: Any, top: int) -> Chunk:
    """Copies a pymtp_output, whose pointers do not outlive the session's next call."""
    n = raw.n_tokens
    tokens = ffi.unpack(raw.tokens, n) if n else []
    decoded = ffi.buffer(raw.text, raw.n_text)[:].decode("utf-8", "replace") if raw.n_text else ""
    logprobs = None
    if top >= 0:
        flat, width = raw.logprobs, 1 + top
        logprobs = [TokenLogprob(flat[i * width].id, flat[i * width].logprob,
                                 [(flat[i * width + k].id, flat[i * width + k].logprob) for k in range(1, width)])
                    for i in range(n)] if flat else []
    finish = FINISH[raw.finish]
    error = from_code(raw.status, text(raw.error) or "the generation failed") if finish == "error" else None
    return Chunk(decoded, tokens, logprobs, finish, raw.stop_id if raw.stop_id >= 0 else None, error, raw.n_drafted)


class Request:
    """Sums up the chunks of one request."""

    def __init__(self, params: Params):
        self.params = params
        self.text: list[str] = []
        self.tokens: list[int] = []
        self.logprobs: list[TokenLogprob] | None = [] if params.top >= 0 else None
        self.finish: "FinishReason | None" = None
        self.stop_id: int | None = None

    def add(self, chunk: Chunk) -> None:
        self.text.append(chunk.text)
        self.tokens += chunk.tokens
        if self.logprobs is not None:
            self.logprobs += chunk.logprobs or []
        self.finish, self.stop_id = chunk.finish_reason, chunk.stop_id

    def completion(self, stats: Stats) -> Completion:
        return Completion("".join(self.text), list(self.tokens), self.finish, self.params.seed, self.logprobs, stats, self.stop_id)
