"""Small sums: addition and subtraction below 100, the multiplication table, exact division, comparisons and word problems."""
from .common import Document, ask, held_out, key, loosely

SYMBOL = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}
WORD = {"add": "plus", "subtract": "minus", "multiply": "times", "divide": "divided by"}
ASK = ("What is {0} {w} {1}?", "What is {0} {s} {1}?", "How much is {0} {w} {1}?", "How much is {0} {s} {1}?", "Calculate {0} {s} {1}.",
       "{0} {s} {1} = ?", "{0} {s} {1}", "{0} {w} {1}?", "What's {0} {s} {1}?", "Please compute {0} {w} {1}.", "Tell me what {0} {w} {1} is.",
       "Can you calculate {0} {w} {1}?")
ORDERS = {"add": ("What is the sum of {0} and {1}?", "Add {0} and {1}."), "subtract": ("Subtract {1} from {0}.", "Take {1} away from {0}."),
          "multiply": ("What is the product of {0} and {1}?", "Multiply {0} by {1}."), "divide": ("Divide {0} by {1}.",)}
NAMES = ("Tom", "Anna", "Ben", "Lily", "Max", "Sara", "Leo", "Mia", "Sam", "Nina")
THINGS = ("apples", "books", "coins", "pencils", "stones", "cards", "eggs", "flowers", "shells", "stickers")


def value(operation: str, x: int, y: int) -> int:
    return {"add": x + y, "subtract": x - y, "multiply": x * y, "divide": x // y if y else 0}[operation]


def operands(rng) -> tuple[str, int, int]:
    r = rng.random()
    if r < 0.42:
        return "add", rng.randrange(100), rng.randrange(100)
    if r < 0.76:
        x, y = rng.randrange(100), rng.randrange(100)
        return "subtract", max(x, y), min(x, y)
    x, y = rng.randrange(13), rng.randrange(1, 21)
    if rng.random() < 0.5:
        x, y = y, x
    return ("multiply", x, y) if r < 0.9 else ("divide", x * y, y) if y else ("multiply", x, y)


def facts(operation: str, x: int, y: int) -> list[tuple]:
    """An addition counts in both orders."""
    return [key(operation, (x, y))] + ([key(operation, (y, x))] if operation == "add" else [])


def answer(operation: str, x: int, y: int) -> str:
    return f"{x} {WORD[operation]} {y} is {value(operation, x, y)}."


def allowed(rng, draw) -> tuple[str, int, int]:
    while True:
        found = draw(rng)
        if not held_out().intersection(facts(*found)):
            return found


def _small(rng) -> tuple[str, int, int]:
    x, y = rng.randrange(1, 30), rng.randrange(1, 30)
    return ("add", x, y) if rng.random() < 0.5 or x <= y else ("subtract", x, y)


def _problem(rng) -> Document:
    operation, x, y = allowed(rng, _small)
    name, things = rng.choice(NAMES), rng.choice(THINGS)
    if operation == "add":
        middle = rng.choice((f"buys {y} more", f"finds {y} more", f"gets {y} more from a friend"))
    else:
        middle = rng.choice((f"gives {y} away", f"loses {y} of them", f"sells {y} of them"))
    question = f"{name} has {x} {things} and {middle}. How many {things} does {name} have now?"
    return ask(question, f"{name} has {value(operation, x, y)} {things} now, because {answer(operation, x, y)}",
               *facts(operation, x, y))


def sample(rng) -> Document:
    r = rng.random()
    if r < 0.1:
        return _problem(rng)
    if r < 0.16:
        x, y = rng.sample(range(100), 2)
        which = rng.choice(("larger", "smaller"))
        best = max(x, y) if which == "larger" else min(x, y)
        return ask(loosely(rng, f"Which number is {which}, {x} or {y}?"), f"{best} is {which} than {x + y - best}.", key(which, (x, y)))
    operation, x, y = allowed(rng, operands)
    form = rng.choice(ORDERS[operation]) if rng.random() < 0.2 else rng.choice(ASK)
    return ask(loosely(rng, form.format(x, y, w=WORD[operation], s=SYMBOL[operation])), answer(operation, x, y), *facts(operation, x, y))
