"""pymtp run: answer one prompt, or chat."""
from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from .base import chunks, coloured, command, echo_json, json_option, offline_option, setting, with_options
from .drafts import DraftView, legend
from .models import DRAFTER, LOADING, REFERENCE, find, opened

if TYPE_CHECKING:
    from ..generate import Completion
    from ..model import Model


class DraftType(click.ParamType):
    name = "auto|0..16"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if value == "auto":
            return value
        return click.IntRange(0, 16).convert(value, param, ctx)


NUMBER = click.FloatRange(0)
SAMPLING = [
    setting("--max-tokens", "-n", type=click.IntRange(0), help="New tokens at most."),
    setting("--temperature", "-t", type=NUMBER, help="0 is greedy. Default: the file's, else 1."),
    click.option("--top-k", type=click.IntRange(0), help="0 is off. Default: the file's, else 64."),
    click.option("--top-p", type=NUMBER, help="1 is off. Default: the file's, else 0.95."),
    click.option("--min-p", type=NUMBER, help="Default: 0, off."),
    click.option("--repetition-penalty", type=NUMBER, help="Default: 1, off."),
    click.option("--presence-penalty", type=float, help="Default: 0, off."),
    click.option("--frequency-penalty", type=float, help="Default: 0, off."),
    click.option("--seed", type=click.IntRange(0, 2**64 - 1), help="Default: a fresh one."),
    click.option("--stop", multiple=True, help="Ends the answer before this text. May be given several times."),
    setting("--draft", type=DraftType(), default="auto", show_default=True, help="Drafts in a round. Never changes the output."),
    click.option("--ignore-eos", is_flag=True, help="Go on after end tokens."),
]


@command(short_help="Answer a prompt, or chat.", examples="""
pymtp run demo "What is the capital of France?" --show-drafts
pymtp run gemma4-26b
pymtp run gemma4-e4b:q8_0 "Why is the sky blue?" --stats
pymtp run hf.co/user/repo:Q4_K_M --system "Answer in French."
pymtp run target.gguf --drafter mtp-drafter.gguf --temperature 0 "Hello"
git diff | pymtp run gemma4-12b --thinking --system "Review this change."
echo 'def fib(n):' | pymtp run gemma4-e2b --raw --max-tokens 100
""")
@REFERENCE
@click.argument("prompt", required=False)
@DRAFTER
@click.option("--system", help="System message.")
@click.option("--thinking/--no-thinking", default=False, help="Let the model think first; its thoughts go to stderr.")
@click.option("--raw", is_flag=True, help="Continue the prompt as it is, without the chat format.")
@with_options(SAMPLING)
@with_options(LOADING)
@click.option("--stats", is_flag=True, help="Speed and accepted drafts, on stderr.")
@click.option("--show-drafts", is_flag=True, help="Colour accepted drafts apart from the target's own tokens.")
@offline_option
@json_option
def run(target: str, prompt: str | None, drafter: str, system: str | None, thinking: bool, raw: bool, context: int | None, threads: int | None,
        kv: str, force: bool, stats: bool, show_drafts: bool, offline: bool, as_json: bool, **options: Any) -> None:
    """Answer PROMPT with MODEL. Without PROMPT: standard input, or a chat in a terminal.

    MODEL is a catalogue name (pymtp list --catalogue), demo for the small one inside the package, a repository of the Hub (hf.co/USER/REPO, USER/REPO:QUANT), a GGUF file or a folder
    with one. What is not on this machine yet is pulled first, with its drafter. The drafter never changes the answer.
    """
    if raw and (system or thinking):
        raise click.UsageError("--raw takes no --system or --thinking", click.get_current_context())
    interactive = prompt is None and sys.stdin.isatty()
    if interactive and as_json:
        raise click.UsageError("--json needs a PROMPT or standard input", click.get_current_context())
    if not interactive and prompt in (None, "-"):
        prompt = sys.stdin.buffer.read().decode("utf-8", "surrogateescape").encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    options["stop"] = list(options["stop"]) or None
    with opened(find(target, drafter, offline), context, threads, kv, force) as model:
        answerer = Answerer(model, system, thinking, raw, stats, show_drafts, options)
        if interactive:
            from .chat import interact

            interact(answerer)
        elif as_json:
            echo_json(as_object(answerer.silent(prompt or ""), raw))
        else:
            answerer.answer(prompt or "")


class Answerer:
    """Answers prompts on stdout with the options of the command line, and keeps the messages of the chat."""

    def __init__(self, model: "Model", system: str | None, thinking: bool, raw: bool, stats: bool, show_drafts: bool,
                 options: dict[str, Any]):
        self.model, self.thinking, self.raw, self.stats, self.show_drafts, self.options = model, thinking, raw, stats, show_drafts, options
        self.view: DraftView | None = None  # of the answer that runs
        self.system = system
        self.colour = coloured(sys.stderr)
        self.clear()

    def clear(self) -> None:
        """Forgets the chat."""
        self.messages: list[dict[str, Any]] = [{"role": "system", "content": self.system}] if self.system else []

    def _stream(self, prompt: str) -> Any:
        if self.raw:
            return self.model.generate(prompt, **self.options)
        messages = [*self.messages, {"role": "user", "content": prompt}]
        return self.model.chat(messages, thinking=self.thinking, stream=True, **self.options)

    def silent(self, prompt: str) -> "Completion":
        with self._stream(prompt) as stream:
            for _ in chunks(stream):
                pass
            return stream.completion

    def answer(self, prompt: str) -> None:
        """Streams the answer to stdout, thoughts to stderr. Ctrl-C ends it: what was said stays in the chat."""
        stream, shown = self._stream(prompt), ""
        self.view = DraftView(self.model.tokenizer) if self.show_drafts and coloured(sys.stdout) else None
        try:
            with stream:
                for chunk in chunks(stream):
                    shown += self._show(chunk)
        except BaseException:
            if shown:
                self._finish(prompt, stream, shown)
            raise
        self._finish(prompt, stream, shown)

    def _finish(self, prompt: str, stream: Any, shown: str) -> None:
        if not shown.endswith("\n"):
            click.echo()
        if not self.raw:
            self.messages += [{"role": "user", "content": prompt}, stream.completion.message]
        if self.show_drafts:
            click.echo(legend(stream.completion.stats, self.view is not None and self.colour), err=True)
        if self.stats:
            click.echo(self._dim(summary(stream.completion)), err=True)

    def _show(self, chunk: Any) -> str:
        """Returns what went to stdout, without its colours."""
        text = shown = chunk.text if self.raw else chunk.content
        if self.view:
            self.view.push(chunk.tokens, chunk.drafted)
            if not self.raw:
                self.view.skip(chunk.thinking)
            shown = self.view.colour(text)
        if not self.raw:
            if chunk.thinking:
                click.echo(self._dim(chunk.thinking), nl=False, err=True)
            calls = "".join(json.dumps(call["function"]) + "\n" for call in chunk.tool_calls)
            text, shown = text + calls, shown + calls
        if text:
            sys.stdout.write(shown)
            sys.stdout.flush()
        return text

    def _dim(self, text: str) -> str:
        return click.style(text, dim=True) if self.colour else text


def rate(n: int, seconds: float) -> str:
    return f"{n / seconds:.1f} tokens/s" if seconds > 0 else "-"


def summary(done: "Completion") -> str:
    """Two or three lines about a completion."""
    s = done.stats
    computed = s.prompt_tokens - s.prompt_reused
    seconds = s.seconds_draft + s.seconds_target + s.seconds_sample
    lines = [f"prompt: {s.prompt_tokens} tokens, {s.prompt_reused} reused, {rate(computed, s.seconds_prompt)}",
             f"answer: {s.tokens} tokens, {s.passes} passes, {rate(s.tokens, seconds)}; {done.finish_reason}, seed {done.seed}"]
    if s.drafted:
        positions = " ".join(f"{a}/{d}" for a, d in zip(s.accepted_by_position, s.drafted_by_position) if d)
        lines.append(f"drafts: {s.accepted} of {s.drafted} accepted; by position {positions}")
    return "\n".join(lines)


def as_object(done: Any, raw: bool) -> dict[str, Any]:
    out = {"text": done.text, "tokens": done.tokens, "finish_reason": done.finish_reason, "seed": done.seed, "stats": vars(done.stats)}
    if not raw:
        out |= {"content": done.content, "thinking": done.thinking, "tool_calls": list(done.tool_calls)}
    return out
