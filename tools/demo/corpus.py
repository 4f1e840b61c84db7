"""Documents to rows of token ids: conversations of one or more turns in Gemma 4's chat format, and raw text.

Everything is drawn from a seed and the number of a block, so that training can stop and go on anywhere. Rows hold whole
documents; `document` numbers them within a row (0 pads); `wanted` marks the tokens that are learned: all of a raw text, the
model's turns of a conversation.
"""
import random
from dataclasses import dataclass

import numpy as np

from kinds import KINDS, common
from kinds.stdlib import functions

BOS, EOS, TURN, END = 2, 1, 105, 106
SYSTEMS = ("You are a helpful assistant.", "Answer in complete sentences.", "You are a friendly teacher.", "Be brief and polite.")
SHORT = ("capitals", "arithmetic", "units", "builtins", "smalltalk")
DRILLS_FROM = 12  # block
TRAIN, HELD_OUT = "train", "held out"  # seeds


@dataclass
class Encoded:
    ids: list[int]
    wanted: list[bool]
    kind: str
    prompt: int  # how many ids come before the first answer; for raw text a quarter


def draw(rng, kind=None, drills=True) -> tuple[str, common.Document]:
    """A document of a kind, by default of any, by their shares."""
    kinds = [k for k in KINDS if drills or k != "drills"]
    kind = kind or rng.choices(kinds, [KINDS[k][1] for k in kinds])[0]
    return kind, KINDS[kind][0].sample(rng)


def conversation(rng, drills=True) -> tuple[str, common.Document]:
    """A document; one of three conversations goes on with more turns."""
    kind, first = draw(rng, drills=drills)
    if first.turns and rng.random() < 0.33:
        for _ in range(rng.choice((1, 1, 2, 2, 3, 4))):
            _, more = draw(rng, rng.choice(SHORT) if rng.random() < 0.85 else None, drills=False)
            first.turns += more.turns
            first.facts += more.facts
    return kind, first


def encode(tokenizer, kind, document, system=None) -> Encoded:
    ids, wanted, prompt = [BOS], [False], 0

    def text(s, want):
        new = tokenizer.encode(s, add_special_tokens=False).ids
        ids.extend(new)
        wanted.extend([want] * len(new))

    def mark(i, want):
        ids.append(i)
        wanted.append(want)

    if document.raw or document.lines:
        text(document.raw, True)
        for given, follows in document.lines:
            text(given, False)
            text(follows, True)
        mark(EOS, True)
        return Encoded(ids, wanted, kind, 1 + len(ids) // 4)
    turns = [("system", system)] if system else []
    for user, model in document.turns:
        turns += [("user", user), ("model", model)]
    for role, said in turns:
        mark(TURN, False)
        text(role + "\n", False)
        if role == "model":
            prompt = prompt or len(ids)
        text(said, role == "model")
        mark(END, role == "model")
        text("\n", False)
    return Encoded(ids, wanted, kind, prompt)


def one(rng, number: int) -> tuple[str, common.Document, str | None]:
    """(kind, document, system message) of a block: the first blocks teach the formats only, without drills."""
    kind, document = conversation(rng, number >= DRILLS_FROM)
    return kind, document, rng.choice(SYSTEMS) if rng.random() < 0.06 else None


def documents(tokenizer, rng, tokens: int, number: int = DRILLS_FROM):
    """Encoded documents of a block until they hold `tokens` tokens."""
    total = 0
    while total < tokens:
        encoded = encode(tokenizer, *one(rng, number))
        total += len(encoded.ids)
        yield encoded


def pack(encoded, length: int):
    """(ids, document, wanted), each (rows, length): whole documents, the longest first, each into the fullest row with room.
    What is longer than a row is cut."""
    room: list[list[int]] = [[] for _ in range(length + 1)]  # rows by free tokens
    rows: list[list[Encoded]] = []
    for one in sorted(encoded, key=lambda e: -len(e.ids)):
        n = min(len(one.ids), length)
        free = next((f for f in range(n, length + 1) if room[f]), None)
        if free is None:
            rows.append([one])
            room[length - n].append(len(rows) - 1)
        else:
            row = room[free].pop()
            rows[row].append(one)
            room[free - n].append(row)
    ids, document = np.zeros((len(rows), length), np.int64), np.zeros((len(rows), length), np.int64)
    wanted = np.zeros((len(rows), length), bool)
    for r, row in enumerate(rows):
        at = 0
        for number, one in enumerate(row, 1):
            n = min(len(one.ids), length - at)
            ids[r, at:at + n], document[r, at:at + n], wanted[r, at:at + n] = one.ids[:n], number, one.wanted[:n]
            at += n
    return ids, document, wanted


def pack_rows(encoded, length: int):
    """As pack, but one document a row, in order."""
    ids, document, wanted = (np.zeros((len(encoded), length), t) for t in (np.int64, np.int64, bool))
    for r, one in enumerate(encoded):
        n = len(one.ids)
        ids[r, :n], document[r, :n], wanted[r, :n] = one.ids, 1, one.wanted
    return ids, document, wanted


def block(tokenizer, number: int, length: int, tokens: int, seed=TRAIN):
    """The rows of one block, shuffled."""
    rng = random.Random(f"{seed} {number} {length}")
    ids, document, wanted = pack(list(documents(tokenizer, rng, tokens, number)), length)
    order = list(range(len(ids)))
    rng.shuffle(order)
    return ids[order], document[order], wanted[order]


def texts(n: int, seed="tokenizer", library=True):
    """Text for the tokenizer: generated documents, and the library's functions once."""
    rng = random.Random(seed)
    for _ in range(n):
        _, document = conversation(rng, drills=False)
        yield document.raw or "\n".join(f"user\n{user}\nmodel\n{model}" for user, model in document.turns)
    if library:
        yield from functions()
        yield from ["system", "thought"] * 100
