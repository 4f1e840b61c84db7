"""Conversions between units with a whole factor."""
from .common import Document, ask, held_out, key, loosely

# larger unit, smaller unit, factor, largest number of the larger unit
UNITS = (("hour", "minute", 60, 20), ("minute", "second", 60, 20), ("day", "hour", 24, 12), ("week", "day", 7, 20), ("year", "month", 12, 20),
         ("foot", "inch", 12, 20), ("yard", "foot", 3, 40), ("meter", "centimeter", 100, 99), ("kilometer", "meter", 1000, 99),
         ("centimeter", "millimeter", 10, 99), ("kilogram", "gram", 1000, 99), ("liter", "milliliter", 1000, 99), ("ton", "kilogram", 1000, 99),
         ("euro", "cent", 100, 99), ("dollar", "cent", 100, 99), ("century", "year", 100, 40), ("decade", "year", 10, 60), ("dozen", "egg", 12, 15))
PLURAL = {"foot": "feet", "inch": "inches", "century": "centuries", "dozen": "dozen eggs"}
SINGLE = {"dozen": "dozen eggs"}
ASK = ("How many {to} are {n} {of}?", "How many {to} are there in {n} {of}?", "Convert {n} {of} to {to}.", "What is {n} {of} in {to}?",
       "{n} {of} in {to}?", "Please convert {n} {of} into {to}.", "I have {n} {of}. How many {to} is that?", "Express {n} {of} in {to}.",
       "How much is {n} {of} in {to}?", "{n} {of} are how many {to}?", "Tell me how many {to} make {n} {of}.")


def named(n: int, unit: str) -> str:
    return f"{n} {SINGLE.get(unit, unit) if n == 1 else plural(unit)}"


def plural(unit: str) -> str:
    return PLURAL.get(unit, unit + "s")


def operands(rng) -> tuple[str, str, int]:
    """(from, to, n): in the smaller unit more often, since the other way is division."""
    large, small, factor, most = rng.choice(UNITS)
    n = rng.randint(1, most)
    return (large, small, n) if rng.random() < 0.65 else (small, large, n * factor)


def convert(of: str, to: str, n: int) -> int:
    for large, small, factor, _ in UNITS:
        if (of, to) == (large, small):
            return n * factor
        if (of, to) == (small, large):
            return n // factor
    raise ValueError(f"no conversion from {of} to {to}")


def answer(of: str, to: str, n: int) -> str:
    result = convert(of, to, n)
    return f"{named(n, of)} {'is' if n == 1 else 'are'} {named(result, to)}."


def question(form: str, of: str, to: str, n: int) -> str:
    text = named(n, of)
    return form.format(n=n, of=text.split(" ", 1)[1], to="eggs" if to == "egg" else plural(to))


def sample(rng) -> Document:
    if rng.random() < 0.1:
        large, small, factor, _ = rng.choice(UNITS)
        if key("units", (large, small, 1)) not in held_out():
            one = SINGLE.get(large, large)
            asked = rng.choice(("How many {0} are in {2} {1}?", "How many {0} does {2} {1} have?")).format(
                plural(small), one, "an" if large == "hour" else "a")
            return ask(loosely(rng, asked), answer(large, small, 1), key("units", (large, small, 1)))
    while True:
        found = operands(rng)
        if key("units", found) not in held_out():
            return ask(loosely(rng, question(rng.choice(ASK), *found)), answer(*found), key("units", found))
