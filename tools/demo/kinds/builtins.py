"""Python's built-in functions: what they do, and what a small call returns."""
from .common import Document, ask, held_out, key, loosely

DOES = {
    "abs": "returns the absolute value of a number, so abs(-5) is 5",
    "all": "returns True if every item of an iterable is true",
    "any": "returns True if at least one item of an iterable is true",
    "bin": "returns a whole number as a binary string that starts with 0b",
    "bool": "turns a value into True or False",
    "chr": "returns the character with a given code point",
    "dict": "makes a dictionary, which maps keys to values",
    "dir": "lists the names that an object or a module has",
    "divmod": "returns the quotient and the remainder of a division as a pair",
    "enumerate": "yields pairs of an index and an item while you loop over an iterable",
    "filter": "keeps the items of an iterable for which a function returns true",
    "float": "turns a number or a string into a floating point number",
    "getattr": "reads an attribute of an object by its name",
    "hash": "returns a number that dictionaries use to find an object quickly",
    "help": "shows the documentation of an object",
    "id": "returns a number that identifies an object while it lives",
    "input": "reads one line of text from the user",
    "int": "turns a number or a string into a whole number",
    "isinstance": "checks whether an object is of a given type",
    "iter": "returns an iterator over a container",
    "len": "returns the number of items in a container, so len([1, 2, 3]) is 3",
    "list": "makes a list from the items of an iterable",
    "map": "applies a function to every item of an iterable",
    "max": "returns the largest of its arguments, so max(2, 7) is 7",
    "min": "returns the smallest of its arguments, so min(2, 7) is 2",
    "next": "returns the next item of an iterator",
    "open": "opens a file and returns a file object",
    "ord": "returns the code point of a character",
    "pow": "raises a number to a power, so pow(2, 3) is 8",
    "print": "writes its arguments to the screen, followed by a new line",
    "range": "yields whole numbers from a start up to, but not including, an end",
    "repr": "returns a string that describes an object for a programmer",
    "reversed": "yields the items of a sequence from the last to the first",
    "round": "rounds a number to a given number of digits",
    "set": "makes a set, which holds every item only once",
    "sorted": "returns a new list with the items in ascending order",
    "str": "turns an object into a string",
    "sum": "adds up the items of an iterable, so sum([1, 2, 3]) is 6",
    "tuple": "makes a tuple, which is a list that cannot change",
    "type": "returns the type of an object",
    "zip": "pairs up the items of several iterables",
}
WHAT = ("What does {} do in Python?", "What does {}() do?", "Explain {} in Python.", "What is {} in Python?", "Explain the built-in function {}.",
        "What is the Python function {} for?", "How does {} work in Python?", "Tell me about {} in Python.", "What does the Python built-in {} do?",
        "Can you explain {}() to me?")
RETURNS = ("What does {} return?", "What does {} return in Python?", "What is {} in Python?", "What is the result of {}?", "Evaluate {}.",
           "What will {} return?", "In Python, what is {}?", "Tell me the value of {}.", "{} returns what?", "What do I get from {}?")


def call(name: str, args: tuple) -> str:
    inner = ", ".join(map(str, args))
    return f"{name}([{inner}])" if name in ("len", "sum", "sorted") else f"{name}({inner})"


def value(name: str, args: tuple):
    return {"max": max, "min": min, "len": len, "sum": sum, "sorted": sorted}[name](args) if name != "abs" else abs(args[0])


def operands(rng) -> tuple[str, tuple]:
    name = rng.choice(("max", "max", "min", "min", "len", "sum", "sorted", "abs"))
    if name in ("max", "min"):
        return name, tuple(rng.sample(range(100), rng.choice((2, 2, 3, 3, 4))))
    if name == "len":
        return name, tuple(rng.randrange(20) for _ in range(rng.randint(1, 8)))
    if name == "sum":
        return name, tuple(rng.randrange(10) for _ in range(rng.randint(2, 3)))
    if name == "sorted":
        return name, tuple(rng.sample(range(20), rng.choice((2, 3, 3, 4))))
    return name, (rng.randrange(-99, 100),)


def answer(name: str, args: tuple) -> str:
    return f"{call(name, args)} returns {value(name, args)}."


def sample(rng) -> Document:
    if rng.random() < 0.3:
        name = rng.choice(list(DOES))
        return ask(loosely(rng, rng.choice(WHAT).format(name)), f"The built-in function {name} {DOES[name]}.")
    while True:
        name, args = operands(rng)
        if key("builtins", (name, args)) not in held_out():
            return ask(rng.choice(RETURNS).format(call(name, args)), answer(name, args), key("builtins", (name, args)))
