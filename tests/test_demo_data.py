"""The texts of the demo pair: nothing that it is judged by is taught, and what is taught is true."""
import json
import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "tools" / "demo"))
from kinds import KINDS, arithmetic, builtins, capitals, common, units  # noqa: E402

QUESTIONS = json.loads(common.QUESTIONS.read_text())
SUMS = ("add", "subtract", "multiply", "divide")


def drawn(kind, n=4000):
    rng = random.Random(f"test {kind}")
    return [KINDS[kind][0].sample(rng) for _ in range(n)]


def test_questions():
    """100, all different, 25 of each of four kinds, and their answers follow from kind and operands."""
    assert len({common.normalised(q["question"]) for q in QUESTIONS}) == 100
    counts = {}
    for q in QUESTIONS:
        kind, operands = q["kind"], q["operands"]
        counts["sums" if kind in SUMS else kind] = counts.get("sums" if kind in SUMS else kind, 0) + 1
        want = (capitals.answer(*operands) if kind == "capitals" else units.answer(*operands) if kind == "units" else
                builtins.answer(operands[0], tuple(operands[1])) if kind == "builtins" else arithmetic.answer(kind, *operands))
        assert q["answer"] == want
    assert counts == {"capitals": 25, "sums": 25, "units": 25, "builtins": 25}


@pytest.mark.parametrize("kind", KINDS)
def test_no_question_is_taught(kind):
    asked = {common.normalised(q["question"]) for q in QUESTIONS}
    held_out = common.held_out()
    assert len(held_out) == 75
    for document in drawn(kind):
        assert held_out.isdisjoint(document.facts)
        assert asked.isdisjoint(common.normalised(user) for user, _ in document.turns)


def test_the_rule_bites(monkeypatch):
    """Without the list the generators do draw what it holds out: the test above can fail."""
    held_out = common.held_out()
    for module in (arithmetic, builtins, units):
        monkeypatch.setattr(module, "held_out", frozenset)
    for kind, held in (("arithmetic", SUMS), ("units", ("units",)), ("builtins", ("builtins",))):
        facts = {fact for document in drawn(kind, 20000) for fact in document.facts}
        assert facts & {fact for fact in held_out if fact[0] in held}, kind


def test_phrasings_of_capitals_are_held_out():
    assert not set(capitals.WHAT_HELD_OUT) & set(capitals.WHAT)
    used = {q["question"].replace(q["operands"][0], "{}") for q in QUESTIONS if q["kind"] == "capitals"}
    assert used == set(capitals.WHAT_HELD_OUT)


def test_calls_are_what_python_says():
    for document in drawn("builtins"):
        (_, said), = document.turns
        if " returns " in said and document.facts:
            call, value = said.rstrip(".").split(" returns ")
            assert str(eval(call)) == value  # noqa: S307: our own text


def test_code_compiles():
    for document in drawn("code", 1000):
        source = document.raw or document.turns[0][1].removeprefix("```python\n").removesuffix("```")
        compile(source, "generated", "exec")


def test_stories_are_finished():
    """No placeholder is left, and every story names its hero more than once."""
    for document in drawn("stories", 1000):
        text = document.raw or document.turns[0][1]
        assert "{" not in text and "}" not in text
        assert len(text.split()) > 60
