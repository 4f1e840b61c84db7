"""Draws the 100 questions, 25 of each kind, that the demo model is judged by: python make_questions.py > questions.json.

Run once, before training; every kind then refuses to teach these operands (and, for capitals, these phrasings).
"""
import json
import random

from kinds import arithmetic, builtins, capitals, units

SEED = 20261124
# forms that training also uses, as only the operands are new
PLAN = ("add",) * 10 + ("subtract",) * 9 + ("multiply",) * 4 + ("divide",) * 2


def make() -> list[dict]:
    rng, out = random.Random(SEED), []
    for i, (country, city, _) in enumerate(rng.sample(capitals.COUNTRIES, 25)):
        form = capitals.WHAT_HELD_OUT[i % len(capitals.WHAT_HELD_OUT)]
        out.append(dict(kind="capitals", operands=[country], question=form.format(country), answer=capitals.answer(country)))
    taken = set()

    def fresh(draw):
        while True:
            found = draw(rng)
            if str(found) not in taken:
                taken.add(str(found))
                return found

    for operation in PLAN:
        found = fresh(lambda r: next(x for x in iter(lambda: arithmetic.operands(r), None) if x[0] == operation))
        form = rng.choice(arithmetic.ASK)
        out.append(dict(kind=operation, operands=list(found[1:]), answer=arithmetic.answer(*found),
                        question=form.format(*found[1:], w=arithmetic.WORD[operation], s=arithmetic.SYMBOL[operation])))
    for _ in range(25):
        found = fresh(units.operands)
        out.append(dict(kind="units", operands=list(found), question=units.question(rng.choice(units.ASK), *found), answer=units.answer(*found)))
    for _ in range(25):
        name, args = fresh(builtins.operands)
        out.append(dict(kind="builtins", operands=[name, list(args)], question=rng.choice(builtins.RETURNS).format(builtins.call(name, args)),
                        answer=builtins.answer(name, args)))
    return out


if __name__ == "__main__":
    print(json.dumps(make(), indent=1))
