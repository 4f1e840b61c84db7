"""The fuzz target of chat rendering and of reading answers, both Python.

    python tests/fuzz/chat.py FILE_OR_FOLDER ...             runs every stored input once, as replay.c does
    make fuzz TARGET=chat                                    libFuzzer through atheris (pip install atheris)

Promises checked. Rendering: nothing but a pymtp.Error of one line comes out of messages and tools of any JSON values, text never
gives a special token, and what was rendered tells its own length. Reading: nothing is raised, whatever the tokens; the result does not
depend on how the answer is cut into chunks nor on text that lags behind or is cut off by a stop string; calls are JSON in valid
Unicode, and go back into a chat.
"""
import json
import pathlib
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import gguf_build  # noqa: E402

if "--fuzz" in sys.argv:
    import atheris  # noqa: E402

    with atheris.instrument_imports(include=["pymtp.chat", "pymtp.parse"]):
        import pymtp.chat

import pymtp  # noqa: E402
from pymtp import chat  # noqa: E402
from pymtp.parse import MARKERS, OutputParser  # noqa: E402

CONTROL = ["<pad>", "<eos>", "<bos>", "<unk>", "<|tool>", "<tool|>", "<|think|>", "<|turn>", "<turn|>"]
# Bytes 0x80 and up of an input; smaller ones are characters.
SNIPPETS = [*MARKERS, *CONTROL, "thought\n", "call:", "call:f{", "}", "{", "[", "]", ":", ",", "'", '"', "\\", "true", "null", "-1.5e3", "\n",
            "name", "é", "漢", "😀", "\u0662", "1e999", "properties", "type", "description", "x" * 40]
ROLES = [*chat.ROLES, "nobody", 7, None]
WORDS = ["content", "tool_calls", "tool_responses", "reasoning", "function", "name", "arguments", "id", "tool_call_id", "response", "type",
         "properties", "required", "items", "enum", "nullable", "description", "parameters", "text", "role", "string", "object", "array", "f"]


def make_tokenizer():
    """Bytes, the markers, the control tokens and U+2581."""
    pieces = [*CONTROL, *MARKERS, "\u2581", *(f"<0x{i:02X}>" for i in range(256))]
    file = gguf_build.Builder()
    file.kv("tokenizer.ggml.model", "str", "gemma4")
    file.kv("tokenizer.ggml.tokens", "[str]", pieces)
    file.kv("tokenizer.ggml.merges", "[str]", [])
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "tokenizer.gguf"
        file.write(path)
        return pymtp.Tokenizer(path)


TOKENIZER = make_tokenizer()
SPECIAL = {TOKENIZER.find(piece) for piece in [*CONTROL, *MARKERS]}


class Source:
    """Takes decisions off the front of an input; an exhausted one gives zeros."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def byte(self):
        self.at += 1
        return self.data[self.at - 1] if self.at <= len(self.data) else 0

    def text(self):
        return "".join(SNIPPETS[b - 128] if 128 <= b < 128 + len(SNIPPETS) else "\udc80" if b >= 128 else chr(b)
                       for b in (self.byte() for _ in range(self.byte() % 16)))

    def value(self, depth=0):
        """A JSON value, or nearly one."""
        kind = self.byte() % 16
        if kind < 4 and depth < 6:
            return {self.word(): self.value(depth + 1) for _ in range(self.byte() % 6)}
        if kind < 6 and depth < 6:
            return [self.value(depth + 1) for _ in range(self.byte() % 6)]
        if kind == 6:  # nested as deep as a parser of JSON goes
            inner = self.value(5)
            lists = self.byte() % 2
            for _ in range(self.byte() * 3):
                inner = [inner] if lists else {"a": inner}
            return inner
        odd = [None, True, False, 0, -1.5, float("nan"), float("inf"), 10**5000, b"bytes", object()]
        return odd[self.byte() % len(odd)] if kind < 9 else self.word()

    def word(self):
        kind = self.byte()
        return WORDS[kind % len(WORDS)] if kind < 192 else self.text()

    def message(self):
        """A message: of the right shape with parts of any, or any value."""
        if self.byte() % 16 == 15:
            return self.value()
        role = ROLES[self.byte() % len(ROLES)]
        message = {"role": role, "content": self.text() if self.byte() % 2 else self.value()}
        for key in ("tool_calls", "tool_responses", "reasoning", "tool_call_id", "name"):
            choice = self.byte() % 4
            if choice == 3:
                message[key] = self.value()
            elif choice == 2:
                call = {"id": self.value(), "function": {"name": self.word(), "arguments": self.value()}}
                message[key] = [call if key == "tool_calls" else {"name": self.word(), "response": self.value()}] if key.startswith("tool_") else self.text()
        return message

    def tool(self):
        if self.byte() % 8 == 7:
            return self.value()
        schema = {"type": self.value(), "properties": {self.word(): self.value() for _ in range(self.byte() % 4)}, "required": self.value()}
        return {"function": {"name": self.word(), "description": self.value(), "parameters": schema, "response": self.value()}}


def render(messages, tools, thinking, style):
    """The ids, or None where the chat is refused."""
    try:
        rendered = chat.render(messages, tools, thinking, style)
        ids, snapshot = rendered.encode(TOKENIZER)
    except pymtp.Error as error:
        assert str(error) and "\n" not in str(error), error
        return None
    marks = [TOKENIZER.find(text) for special, text in rendered.segments if special]
    assert [i for i in ids if i in SPECIAL] == marks, "text gave a special token"
    assert 0 < snapshot <= len(ids) and ids[0] == TOKENIZER.bos
    return ids


def check_rendering(source):
    flags = source.byte()
    style = chat.Style(empty_thought=bool(flags & 1), first=bool(flags & 2))
    messages = [source.message() for _ in range(source.byte() % 6)]
    tools = [source.tool() for _ in range(source.byte() % 3)] if flags & 4 else source.value() if flags & 8 else None
    render(source.value() if flags & 16 else messages, tools, bool(flags & 32), style)


def parse(chunks, in_thought):
    parser = OutputParser(TOKENIZER, in_thought)
    given = [parser.push(tokens, text) for tokens, text in chunks]
    given.append(parser.finish())
    assert "".join(content for content, _, _ in given) == parser.content
    assert "".join(thinking for _, thinking, _ in given) == parser.thinking
    assert [call for _, _, calls in given for call in calls] == parser.tool_calls
    return parser.content, parser.thinking, parser.tool_calls


def check_reading(source):
    in_thought, size, lag, cut = bool(source.byte() % 2), 1 + source.byte() % 16, source.byte() % 16, source.byte()
    rest = source.data[source.at:]
    tokens = []
    for b in rest:
        piece = SNIPPETS[b - 128] if 128 <= b < 128 + len(SNIPPETS) else bytes([b])
        tokens += TOKENIZER.tokenize(piece, special=True)
    decoder = TOKENIZER.decoder()
    shown = [decoder.push(token) for token in tokens]
    text = "".join(shown) + decoder.flush()
    text = text[:len(text) - (cut - 128 if cut > 128 else 0)] if cut < 255 else text
    whole = parse([(tokens, text)], in_thought)
    chunks, at, known = [], 0, 0
    for i in range(0, len(tokens), size):
        known += sum(map(len, shown[i:i + size]))
        end = max(at, min(known - lag, len(text)))
        chunks.append((tokens[i:i + size], text[at:end]))
        at = end
    chunks.append(([], text[at:]))
    assert parse(chunks, in_thought) == whole, "the result depends on chunks"
    content, thinking, calls = whole
    assert len(content) + len(thinking) <= len(text)
    json.dumps([content, thinking, calls], ensure_ascii=False, allow_nan=False).encode()
    answer = {"role": "assistant", "content": content, "reasoning": thinking, "tool_calls": calls}
    assert render([{"role": "user", "content": "x"}, answer], None, False, chat.Style()) is not None, "an answer that cannot be sent back"


def run(data):
    """One input."""
    source = Source(data)
    (check_reading if source.byte() % 2 else check_rendering)(source)


def main():
    if "--fuzz" in sys.argv:
        sys.argv.remove("--fuzz")
        atheris.Setup(sys.argv, run)
        atheris.Fuzz()
    files = [f for given in map(pathlib.Path, sys.argv[1:]) for f in (sorted(p for p in given.rglob("*") if p.is_file()) if given.is_dir() else [given])]
    for file in files:
        print(file, file=sys.stderr)
        run(file.read_bytes())
    print(f"{len(files)} inputs")
    return 0 if files else 2


if __name__ == "__main__":
    sys.exit(main())
