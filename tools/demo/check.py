"""What training has seen, and that it has not seen what the model is judged by. Needs no torch: python check.py."""
import json
import random
from functools import cache

import corpus
from kinds import KINDS, common

QUOTA = 262144  # tokens in a block, as in training


class Seen:
    """Questions, documents and (kind, operands) of the training data."""

    def __init__(self):
        self.questions, self.texts, self.facts, self.documents = set(), set(), set(), 0

    def add(self, document: common.Document):
        self.documents += 1
        self.facts.update(document.facts)
        self.questions.update(common.normalised(user) for user, _ in document.turns)
        self.texts.update(common.normalised(model) for _, model in document.turns)
        if document.raw:
            self.texts.add(common.normalised(document.raw))


def training(tokenizer, blocks: int, length: int = 256, seen: Seen | None = None, seed: str = corpus.TRAIN) -> Seen:
    """Adds the documents of the first blocks, drawn as training draws them; the drafter's have the seed "drafter"."""
    seen = seen or Seen()
    for number in range(blocks):
        rng, tokens = random.Random(f"{seed} {number} {length}"), 0
        while tokens < QUOTA:
            kind, document, system = corpus.one(rng, number)
            tokens += len(corpus.encode(tokenizer, kind, document, system).ids)
            seen.add(document)
    return seen


@cache
def questions() -> list[dict]:
    return json.loads(common.QUESTIONS.read_text())


def overlaps(seen: Seen) -> list[str]:
    """The questions that training has seen: word for word, or by kind and operands."""
    found = []
    for q in questions():
        if common.normalised(q["question"]) in seen.questions:
            found.append(q["question"])
        elif q["kind"] != "capitals" and common.key(q["kind"], q["operands"]) in seen.facts:
            found.append(f"{q['kind']} {q['operands']}")
    return found


def held_out(kind: str, n: int, seen: Seen) -> list[common.Document]:
    """Documents of a kind that training has not seen: a question it was not asked, or a text it did not read."""
    rng, module, found = random.Random(f"{corpus.HELD_OUT} {kind}"), KINDS[kind][0], []
    draw = getattr(module, "unseen", module.sample)
    while len(found) < n:
        document = draw(rng)
        new = common.normalised(document.raw) not in seen.texts if document.raw else (
            common.normalised(document.turns[0][1]) not in seen.texts if kind == "stories" else
            common.normalised(document.turns[0][0]) not in seen.questions)
        if new and document not in found:
            found.append(document)
    return found
