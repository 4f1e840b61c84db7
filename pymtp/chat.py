"""The Gemma 4 chat format: messages and tools to token ids.

Built in; a template that a file carries is never executed, only looked at to tell the two published wordings apart.
The renderer makes segments: control tokens by piece, and text. Text is tokenized with special tokens and markers off, so
nothing a message says can end a turn, call a tool or open a thought. As a special token separates any two texts, the ids
equal those of the rendered string tokenized with special parsing, as long as the texts hold no markers themselves.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterable, Mapping, Sequence

from ._text import fits, shown
from .errors import ArgumentError, UnsupportedError
from .tokenizer import Tokenizer

QUOTE = '<|"|>'
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "model", "model": "model", "tool": "tool"}
MOST_TEXT = 2**24  # of a tool, of arguments, of a result: more than any context, little for a machine
SCHEMA_WORDS = ("description", "type", "properties", "required", "nullable")


@dataclass(frozen=True)
class Style:
    """Which wording. empty_thought: the large family opens an answer without thinking by an empty thought; the small
    one (per-layer embeddings) does not. first: the first published template instead of the revision of July 2026, which
    keeps reasoning after the last user message and corrected commas and nulls in tool texts."""

    empty_thought: bool = True
    first: bool = False

    @classmethod
    def of(cls, small: bool, template: str | None) -> "Style":
        """By family, and by the template of the file, if it has one."""
        revised = template is None or "OpenAI Chat Completions:" in template or "'<|think|>\\n'" in template
        return cls(not small, not revised)


class Rendered:
    """A rendered chat. segments: (is_special, text); snapshot: segments before the answer's own opening; in_thought: whether
    the answer begins inside a thought."""

    def __init__(self) -> None:
        self._segments: list[tuple[bool, str]] = []
        self._texts: list[str] = []  # of the segment at the end, which more may join
        self.snapshot = 0
        self.in_thought = False

    @property
    def segments(self) -> list[tuple[bool, str]]:
        if self._texts:
            before = self._segments.pop()[1] if self._segments and not self._segments[-1][0] else ""
            self._segments.append((False, before + "".join(self._texts)))
            self._texts.clear()
        return self._segments

    def mark(self, piece: str) -> None:
        self.segments.append((True, piece))

    def text(self, text: str) -> None:
        if text:
            self._texts.append(text)

    def quoted(self, text: str) -> None:
        self.mark(QUOTE)
        self.text(text)
        self.mark(QUOTE)

    def __str__(self) -> str:
        return "".join(text for _, text in self.segments)

    def encode(self, tokenizer: Tokenizer) -> tuple[list[int], int]:
        """The ids, and how many of them come before the answer's own opening: where the next turn will branch off."""
        ids: list[int] = []
        at = 0
        for i, (special, text) in enumerate(self.segments):
            at = len(ids) if i == self.snapshot else at
            if not special:
                ids += tokenizer.tokenize(text)
                continue
            found = tokenizer.find(text)
            if found is None:
                raise UnsupportedError(f"the vocabulary has no {text}, which the chat format needs here")
            ids.append(found)
        return ids, at if self.snapshot < len(self.segments) else len(ids)


def render(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None, thinking: bool = False,
           style: Style = Style()) -> Rendered:
    """Renders messages up to the opening of the model's answer. ArgumentError names what is wrong with them.

    A message is a dict with `role` (system, developer, user, assistant, model, tool) and `content` (a string, or a list
    of {"type": "text", "text": ...}). An assistant's may have `tool_calls` ({"function": {"name", "arguments"}}),
    `tool_responses` ({"name", "response"}) and `reasoning`; thoughts in its content are removed. A tool's message answers
    the assistant before it and has `tool_call_id` or `name`. tools: {"function": {"name", "description", "parameters"}}.
    """
    turns, tools, out = _turns(messages), _tools(tools), Rendered()
    out.mark("<bos>")
    system = turns.pop(0) if turns[0].role == "system" else None
    if thinking or tools or system:
        _system(out, style, system, tools, thinking)
    last_user = max((i for i, turn in enumerate(turns) if turn.role == "user"), default=-1)
    open_turn = ""
    for i, turn in enumerate(turns):
        out.mark("<|turn>")
        out.text(turn.role + "\n")
        for part in turn.parts:
            open_turn = _part(out, style, part, i > last_user)
        if not open_turn:
            _end_turn(out)
    _opening(out, style, thinking, open_turn)
    return out


def _end_turn(out: Rendered) -> None:
    out.mark("<turn|>")
    out.text("\n")


def _opening(out: Rendered, style: Style, thinking: bool, open_turn: str) -> None:
    """The start of the answer. A turn that a tool's result left open goes on; one that waits for a result stays as it is."""
    if not open_turn:
        out.mark("<|turn>")
        out.text("model\n")
    out.snapshot = len(out.segments)
    if open_turn == "call":
        return
    if thinking and open_turn and not style.first:
        out.mark("<|channel>")
        out.text("thought\n")
        out.in_thought = True
    if not thinking and style.empty_thought and (style.first or not open_turn):
        out.mark("<|channel>")
        out.text("thought\n")
        out.mark("<channel|>")


# ---- messages -----------------------------------------------------------------------------------------------------------


@dataclass
class Part:
    """One message of a turn."""

    content: str
    calls: list[tuple[str, Any]]  # name, arguments
    names: dict[str, str]  # of the calls that have an id, by it
    responses: list[tuple[str, Any]]  # name, value
    reasoning: str
    is_model: bool


@dataclass
class Turn:
    """What lies between <|turn> and <turn|>: one message, or several of the model with tool results in between."""

    role: str
    parts: list[Part]


def _turns(messages: Any) -> list[Turn]:
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Iterable):
        raise ArgumentError(f"messages: expected a list of messages, found {type(messages).__name__}")
    turns: list[Turn] = []
    for i, message in enumerate(messages):
        where = f"messages[{i}]"
        if not isinstance(message, Mapping):
            raise ArgumentError(f"{where}: expected a mapping with role and content, found {type(message).__name__}")
        role = message.get("role")
        if not isinstance(role, str) or role not in ROLES:
            raise ArgumentError(f"{where}.role: expected one of {', '.join(ROLES)}, found {shown(role)}")
        if ROLES[role] == "tool":
            _answer(turns, message, where)
            continue
        part = _read_part(message, where, ROLES[role])
        if part.is_model and turns and turns[-1].role == "model" and _left_open(turns[-1].parts[-1]):
            turns[-1].parts.append(part)
        else:
            turns.append(Turn(ROLES[role], [part]))
    if not turns:
        raise ArgumentError("messages: expected at least one message")
    return turns


def _tools(tools: Any) -> list[Any]:
    if tools and (isinstance(tools, (str, bytes, Mapping)) or not isinstance(tools, Iterable)):
        raise ArgumentError(f"tools: expected a list of tools, found {type(tools).__name__}")
    return [_bounded(tool, f"tools[{i}]") for i, tool in enumerate(tools or ())]


def _bounded(value: Any, where: str) -> Any:
    """A value that is not too long to be written out."""
    if not fits(value, MOST_TEXT):
        raise ArgumentError(f"{where}: expected a value of at most {MOST_TEXT >> 20} MiB as text, found more")
    return value


def _left_open(part: Part) -> bool:
    return bool(part.responses) and not part.content


def _read_part(message: Mapping[str, Any], where: str, role: str) -> Part:
    is_model = role == "model"
    texts = _texts(message.get("content"), where + ".content")
    content = "".join(strip_thoughts(t) if is_model else t.strip() for t in texts)
    calls, names, responses, reasoning = [], {}, [], ""
    if is_model:
        for k, call in enumerate(_list(message, "tool_calls", where)):
            calls.append(_call(call, f"{where}.tool_calls[{k}]"))
            if isinstance(call.get("id"), str):
                names[call["id"]] = calls[-1][0]
        for k, response in enumerate(_list(message, "tool_responses", where)):
            if not isinstance(response, Mapping):
                raise ArgumentError(f"{where}.tool_responses[{k}]: expected a mapping, found {type(response).__name__}")
            responses.append((_name(response.get("name", "unknown"), f"{where}.tool_responses[{k}].name"),
                              _bounded(response.get("response"), f"{where}.tool_responses[{k}].response")))
        reasoning = next((message[k] for k in ("reasoning", "reasoning_content", "thinking") if message.get(k)), "")
        if not isinstance(reasoning, str):
            raise ArgumentError(f"{where}.reasoning: expected a string, found {type(reasoning).__name__}")
    return Part(content, calls, names, responses, reasoning, is_model)


def _texts(content: Any, where: str) -> list[str]:
    if content is None:
        return []
    if isinstance(content, str):
        return [content]
    if isinstance(content, Mapping) or not isinstance(content, Iterable):
        raise ArgumentError(f"{where}: expected a string or a list of text parts, found {type(content).__name__}")
    texts = []
    for item in content:
        kind = item.get("type") if isinstance(item, Mapping) else None
        if kind != "text" or not isinstance(item.get("text"), str):
            raise ArgumentError(f"{where}: expected parts of type text, found {shown(kind) if kind else type(item).__name__}; pymtp reads text only")
        texts.append(item["text"])
    return texts


def strip_thoughts(text: str) -> str:
    """Without the spans from <|channel> to the next <channel|>, trimmed."""
    return "".join(part.split("<|channel>")[0] for part in text.split("<channel|>")).strip()


def _list(message: Mapping[str, Any], key: str, where: str) -> list[Any]:
    value = message.get(key) or []
    if not isinstance(value, (list, tuple)):
        raise ArgumentError(f"{where}.{key}: expected a list, found {type(value).__name__}")
    return list(value)


def _name(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise ArgumentError(f"{where}: expected a name, found {shown(value)}")
    return value


def _function(value: Any, where: str) -> Mapping[str, Any]:
    inner = value.get("function", value) if isinstance(value, Mapping) else None
    if not isinstance(inner, Mapping):
        raise ArgumentError(f"{where}.function: expected a mapping, found {type(inner if inner is not None else value).__name__}")
    return inner


def _call(call: Any, where: str) -> tuple[str, Any]:
    function = _function(call, where)
    arguments = function.get("arguments", {})
    if not isinstance(arguments, (Mapping, str)):
        raise ArgumentError(f"{where}.function.arguments: expected a mapping or a string, found {type(arguments).__name__}")
    return _name(function.get("name"), where + ".function.name"), _bounded(arguments, where + ".function.arguments")


def _answer(turns: list[Turn], message: Mapping[str, Any], where: str) -> None:
    """A tool's message becomes a response of the model's message before it."""
    if not turns or turns[-1].role != "model" or not turns[-1].parts[-1].calls:
        raise ArgumentError(f"{where}: a tool's message must follow an assistant's message with tool_calls")
    part, call_id = turns[-1].parts[-1], message.get("tool_call_id")
    name = part.names.get(call_id) if isinstance(call_id, str) else None
    content = message.get("content")
    value = _bounded(content, where + ".content") if isinstance(content, Mapping) else "".join(_texts(content, where + ".content"))
    part.responses.append((_name(name or message.get("name") or "unknown", where + ".name"), value))


# ---- turns --------------------------------------------------------------------------------------------------------------


def _system(out: Rendered, style: Style, turn: Turn | None, tools: Sequence[Any], thinking: bool) -> None:
    out.mark("<|turn>")
    out.text("system\n")
    if thinking:
        out.mark("<|think|>")
        out.text("" if style.first else "\n")
    if turn:
        out.text(turn.parts[0].content)
    for i, tool in enumerate(tools):
        out.mark("<|tool>")
        _declaration(out, style, _function(tool, f"tools[{i}]"), f"tools[{i}]")
        out.mark("<tool|>")
    _end_turn(out)


def _part(out: Rendered, style: Style, part: Part, after_last_user: bool) -> str:
    """Renders one message; returns what it leaves the turn open for: "", "response" (the answer goes on) or "call"."""
    if part.reasoning and after_last_user and not style.first:
        out.mark("<|channel>")
        out.text(f"thought\n{part.reasoning}\n")
        out.mark("<channel|>")
    for name, arguments in part.calls:
        out.mark("<|tool_call>")
        out.text(f"call:{name}{{")
        if isinstance(arguments, str):
            out.text(arguments)
        else:
            _pairs(out, style, arguments, bare=True)
        out.text("}")
        out.mark("<tool_call|>")
    for name, value in part.responses:
        out.mark("<|tool_response>")
        out.text(f"response:{name}{{")
        _pairs(out, style, value if isinstance(value, Mapping) else {"value": value}, bare=True)
        out.text("}")
        out.mark("<tool_response|>")
    out.text(part.content)
    if _left_open(part):
        return "response"
    if part.calls and not part.responses and not style.first:
        out.mark("<|tool_response>")
        return "call"
    return ""


# ---- values and schemas -------------------------------------------------------------------------------------------------


def _str(value: Any) -> str:
    try:
        return str(value)
    except (ValueError, RecursionError):
        raise ArgumentError(f"messages and tools: a value of type {type(value).__name__} has too many digits or is nested too deep") from None


def _sorted(mapping: Mapping[Any, Any]) -> list[tuple[str, Any]]:
    """Items by key, case ignored."""
    return sorted(((_str(k), v) for k, v in mapping.items()), key=lambda item: item[0].lower())


def _pairs(out: Rendered, style: Style, mapping: Mapping[Any, Any], bare: bool, depth: int = 0) -> None:
    for i, (key, value) in enumerate(_sorted(mapping)):
        out.text("," if i else "")
        if bare:
            out.text(key)
        else:
            out.quoted(key)
        out.text(":")
        _value(out, style, value, bare, depth)


def _value(out: Rendered, style: Style, value: Any, bare: bool, depth: int = 0) -> None:
    """A JSON-like value; keys of mappings are bare (arguments) or quoted (schemas)."""
    if depth > 64:
        raise ArgumentError("tools: values are nested more than 64 deep")
    if isinstance(value, str):
        out.quoted(value)
    elif isinstance(value, bool):
        out.text("true" if value else "false")
    elif value is None:
        out.text("None" if style.first else "null")
    elif isinstance(value, Mapping):
        out.text("{")
        _pairs(out, style, value, bare, depth + 1)
        out.text("}")
    elif isinstance(value, (list, tuple)):
        out.text("[")
        for i, item in enumerate(value):
            out.text("," if i else "")
            _value(out, style, item, bare, depth + 1)
        out.text("]")
    elif isinstance(value, (int, float)):
        out.text(_str(value))
    else:
        raise ArgumentError(f"tools: expected JSON values, found {type(value).__name__}")


def _get(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, Mapping) else None


def _upper(kind: Any) -> str:
    return "" if kind is None else _str(kind).upper()


def _names(out: Rendered, names: Any) -> None:
    """required:[...]"""
    out.text("required:[")
    for i, name in enumerate(names if isinstance(names, (list, tuple)) else ()):
        out.text("," if i else "")
        out.quoted(_str(name))
    out.text("]")


def _declaration(out: Rendered, style: Style, function: Mapping[str, Any], where: str) -> None:
    """A tool. parameters without a type are an object."""
    out.text(f"declaration:{_name(function.get('name'), where + '.function.name')}{{description:")
    out.quoted(_str(function.get("description") or ""))
    parameters = function.get("parameters")
    if parameters:
        if not isinstance(parameters, Mapping):
            raise ArgumentError(f"{where}.function.parameters: expected a mapping, found {type(parameters).__name__}")
        out.text(",parameters:{")
        if parameters.get("properties"):
            out.text("properties:{")
            _properties(out, style, parameters["properties"], where)
            out.text("},")
        if parameters.get("required"):
            _names(out, parameters["required"])
            out.text(",")
        out.text("type:")
        out.quoted(_upper(parameters.get("type") or "object"))
        out.text("}")
    response = function.get("response")
    if isinstance(response, Mapping):
        out.text(",response:{")
        if response.get("description"):
            out.text("description:")
            out.quoted(_str(response["description"]))
            out.text(",")
        out.text("type:")
        out.quoted(_upper(response.get("type") or "object"))
        out.text("}")
    out.text("}")


def _properties(out: Rendered, style: Style, properties: Any, where: str, depth: int = 0) -> None:
    if not isinstance(properties, Mapping):
        raise ArgumentError(f"{where}: properties: expected a mapping, found {type(properties).__name__}")
    if depth > 64:
        raise ArgumentError(f"{where}: properties are nested more than 64 deep")
    first = True
    for key, value in _sorted(properties):
        if style.first and key in SCHEMA_WORDS:
            continue  # the first template takes them for parts of a schema
        out.text(("" if first else ",") + key + ":{")
        first = False
        _property(out, style, value, where, depth)


class _Commas:
    """Separates the parts of a property. The first template always writes one before properties and items, and forgets that
    it wrote them."""

    def __init__(self, out: Rendered, style: Style):
        self.out, self.style, self.any = out, style, False

    def before(self, nested: bool = False) -> None:
        if nested and self.style.first:
            self.out.text(",")
            return
        self.out.text("," if self.any else "")
        self.any = True


def _property(out: Rendered, style: Style, value: Any, where: str, depth: int) -> None:
    kind, comma = _upper(_get(value, "type")), _Commas(out, style)
    if _get(value, "description"):
        comma.before()
        out.text("description:")
        out.quoted(_str(value["description"]))
    if _get(value, "nullable"):
        comma.before()
        out.text("nullable:true")
    if kind == "STRING" and _get(value, "enum"):
        comma.before()
        out.text("enum:")
        _value(out, style, value["enum"], bare=False)
    elif kind == "OBJECT":
        nested = value.get("properties")
        if style.first or isinstance(nested, Mapping):
            comma.before(nested=True)
            out.text("properties:{")
            _properties(out, style, nested if isinstance(nested, Mapping) else value, where, depth + 1)
            out.text("}")
        if value.get("required"):
            comma.before(nested=True)
            _names(out, value["required"])
    elif kind == "ARRAY" and isinstance(_get(value, "items"), Mapping) and value["items"]:
        comma.before(nested=True)
        _items(out, style, value["items"], where, depth + 1)
    comma.before()
    out.text("type:")
    out.quoted(kind)
    out.text("}")


def _items(out: Rendered, style: Style, items: Mapping[Any, Any], where: str, depth: int) -> None:
    out.text("items:{")
    for i, (key, value) in enumerate((k, v) for k, v in _sorted(items) if v is not None):
        out.text("," if i else "")
        if key == "properties":
            out.text("properties:{")
            _properties(out, style, value if isinstance(value, Mapping) else {}, where, depth)
            out.text("}")
        elif key == "required":
            _names(out, value)
        elif key == "type":
            out.text("type:")
            _value(out, style, [_upper(v) for v in value] if isinstance(value, (list, tuple)) else _upper(value), bare=False)
        else:
            out.text(key + ":")
            _value(out, style, value, bare=False)
    out.text("}")
