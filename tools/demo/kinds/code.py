"""Python: small functions, classes and scripts with consistent names, alone or asked for in a chat."""
from .common import Document

LISTS = ("numbers", "values", "items", "words", "names", "prices", "lines", "scores", "data", "results")
ONE = {"numbers": "number", "values": "value", "items": "item", "words": "word", "names": "name", "prices": "price", "lines": "line",
       "scores": "score", "data": "entry", "results": "result"}
NUMERIC = ("numbers", "values", "prices", "scores")
TEXTS = ("text", "line", "word", "name", "message", "title")

# (what it does, name, arguments, body); {l}: a list, {i}: its item, {t}: a string, {k}: a small number, {n}: a numeric list, {j}: its item
FUNCTIONS = (
    ("adds two numbers", "add", "a, b", "return a + b"),
    ("subtracts two numbers", "subtract", "a, b", "return a - b"),
    ("multiplies two numbers", "multiply", "a, b", "return a * b"),
    ("divides two numbers", "divide", "a, b", "if b == 0:\n    raise ValueError(\"division by zero\")\nreturn a / b"),
    ("returns the larger of two numbers", "larger", "a, b", "if a > b:\n    return a\nreturn b"),
    ("returns the smaller of two numbers", "smaller", "a, b", "if a < b:\n    return a\nreturn b"),
    ("checks if a number is even", "is_even", "n", "return n % 2 == 0"),
    ("checks if a number is odd", "is_odd", "n", "return n % 2 == 1"),
    ("checks if a number is prime", "is_prime", "n", "if n < 2:\n    return False\nfor i in range(2, int(n ** 0.5) + 1):\n    if n % i == 0:\n        return False\nreturn True"),
    ("returns the factorial of a number", "factorial", "n", "if n <= 1:\n    return 1\nreturn n * factorial(n - 1)"),
    ("returns the factorial of a number", "factorial", "n", "result = 1\nfor i in range(2, n + 1):\n    result *= i\nreturn result"),
    ("returns the n-th Fibonacci number", "fib", "n", "if n < 2:\n    return n\nreturn fib(n - 1) + fib(n - 2)"),
    ("returns the n-th Fibonacci number", "fibonacci", "n", "a, b = 0, 1\nfor _ in range(n):\n    a, b = b, a + b\nreturn a"),
    ("returns the greatest common divisor", "gcd", "a, b", "while b:\n    a, b = b, a % b\nreturn a"),
    ("returns the square of a number", "square", "x", "return x * x"),
    ("returns the cube of a number", "cube", "x", "return x * x * x"),
    ("returns the sum of the {n}", "sum_{n}", "{n}", "total = 0\nfor {j} in {n}:\n    total += {j}\nreturn total"),
    ("returns the average of the {n}", "average", "{n}", "if not {n}:\n    return 0\nreturn sum({n}) / len({n})"),
    ("returns the largest of the {n}", "find_max", "{n}", "best = {n}[0]\nfor {j} in {n}:\n    if {j} > best:\n        best = {j}\nreturn best"),
    ("returns the smallest of the {n}", "find_min", "{n}", "best = {n}[0]\nfor {j} in {n}:\n    if {j} < best:\n        best = {j}\nreturn best"),
    ("keeps the {n} above {k}", "filter_{n}", "{n}", "result = []\nfor {j} in {n}:\n    if {j} > {k}:\n        result.append({j})\nreturn result"),
    ("keeps the even {n}", "even_{n}", "{n}", "return [{j} for {j} in {n} if {j} % 2 == 0]"),
    ("doubles all {n}", "double_{n}", "{n}", "return [{j} * 2 for {j} in {n}]"),
    ("squares all {n}", "square_{n}", "{n}", "return [{j} * {j} for {j} in {n}]"),
    ("counts the {l}", "count_{l}", "{l}", "count = 0\nfor {i} in {l}:\n    count += 1\nreturn count"),
    ("counts how often each of the {l} occurs", "count_{l}", "{l}", "counts = {{}}\nfor {i} in {l}:\n    counts[{i}] = counts.get({i}, 0) + 1\nreturn counts"),
    ("prints all {l}", "print_{l}", "{l}", "for {i} in {l}:\n    print({i})"),
    ("prints all {l} with their index", "show_{l}", "{l}", "for i, {i} in enumerate({l}):\n    print(i, {i})"),
    ("removes duplicates from the {l}", "unique_{l}", "{l}", "seen = set()\nresult = []\nfor {i} in {l}:\n    if {i} not in seen:\n        seen.add({i})\n        result.append({i})\nreturn result"),
    ("reverses the {l}", "reverse_{l}", "{l}", "return {l}[::-1]"),
    ("sorts the {l}", "sort_{l}", "{l}", "return sorted({l})"),
    ("returns the first of the {l}", "first", "{l}", "if not {l}:\n    return None\nreturn {l}[0]"),
    ("returns the last of the {l}", "last", "{l}", "if not {l}:\n    return None\nreturn {l}[-1]"),
    ("checks if something is among the {l}", "contains", "{l}, {i}", "return {i} in {l}"),
    ("finds the index of something in the {l}", "find_{i}", "{l}, {i}", "for i in range(len({l})):\n    if {l}[i] == {i}:\n        return i\nreturn -1"),
    ("reverses a {t}", "reverse_{t}", "{t}", "return {t}[::-1]"),
    ("counts the vowels in a {t}", "count_vowels", "{t}", "count = 0\nfor letter in {t}.lower():\n    if letter in \"aeiou\":\n        count += 1\nreturn count"),
    ("counts the words in a {t}", "count_words", "{t}", "return len({t}.split())"),
    ("checks if a {t} is a palindrome", "is_palindrome", "{t}", "{t} = {t}.lower()\nreturn {t} == {t}[::-1]"),
    ("makes a {t} upper case", "shout", "{t}", "return {t}.upper() + \"!\""),
    ("prints a greeting", "greet", "name", "print(\"Hello, \" + name + \"!\")"),
    ("repeats a {t}", "repeat", "{t}, times", "result = \"\"\nfor _ in range(times):\n    result += {t}\nreturn result"),
    ("reads a file", "read_file", "path", "with open(path) as file:\n    return file.read()"),
    ("writes a {t} to a file", "write_file", "path, {t}", "with open(path, \"w\") as file:\n    file.write({t})"),
    ("counts the lines of a file", "count_lines", "path", "count = 0\nwith open(path) as file:\n    for line in file:\n        count += 1\nreturn count"),
    ("reads the lines of a file", "read_lines", "path", "lines = []\nwith open(path) as file:\n    for line in file:\n        lines.append(line.strip())\nreturn lines"),
    ("counts down from a number", "countdown", "n", "while n > 0:\n    print(n)\n    n -= 1\nprint(\"Go!\")"),
    ("prints the numbers from 1 to n", "print_numbers", "n", "for i in range(1, n + 1):\n    print(i)"),
    ("converts celsius to fahrenheit", "to_fahrenheit", "celsius", "return celsius * 9 / 5 + 32"),
    ("converts fahrenheit to celsius", "to_celsius", "fahrenheit", "return (fahrenheit - 32) * 5 / 9"),
    ("converts hours to minutes", "to_minutes", "hours", "return hours * 60"),
    ("returns the area of a rectangle", "area", "width, height", "return width * height"),
    ("returns the area of a circle", "circle_area", "radius", "return 3.14159 * radius ** 2"),
    ("merges two dictionaries", "merge", "first, second", "result = dict(first)\nresult.update(second)\nreturn result"),
    ("swaps the keys and values of a dictionary", "invert", "mapping", "return {{value: key for key, value in mapping.items()}}"),
    ("prints a fizz buzz up to n", "fizz_buzz", "n", "for i in range(1, n + 1):\n    if i % 15 == 0:\n        print(\"FizzBuzz\")\n    elif i % 3 == 0:\n        print(\"Fizz\")\n    elif i % 5 == 0:\n        print(\"Buzz\")\n    else:\n        print(i)"),
    ("searches sorted {n}", "binary_search", "{n}, wanted", "low, high = 0, len({n}) - 1\nwhile low <= high:\n    middle = (low + high) // 2\n    if {n}[middle] == wanted:\n        return middle\n    if {n}[middle] < wanted:\n        low = middle + 1\n    else:\n        high = middle - 1\nreturn -1"),
)
CLASSES = (("Account", "balance", "deposit", "amount", "+="), ("Counter", "count", "increase", "step", "+="), ("Player", "score", "add_points", "points", "+="),
           ("Tank", "level", "drain", "amount", "-="), ("Timer", "seconds", "wait", "duration", "+="), ("Robot", "position", "move", "steps", "+="),
           ("Car", "distance", "drive", "kilometers", "+="), ("Battery", "charge", "use", "energy", "-="))
CONTAINERS = (("Stack", "items", "push", "pop", "item"), ("Queue", "items", "put", "take", "item"), ("Basket", "fruits", "add", "remove", "fruit"),
              ("Library", "books", "add_book", "take_book", "book"), ("Team", "players", "join", "leave", "player"))
ASK = ("Write a Python function that {}.", "Write a function that {}.", "Show me a Python function that {}.", "How do I write a Python function that {}?",
       "Can you write a function that {}?", "Please write a Python function that {}.", "Give me Python code that {}.", "I need a Python function that {}.")


def indent(body: str) -> str:
    return "\n".join("    " + line if line else line for line in body.split("\n"))


def function(rng) -> tuple[str, str]:
    """What it does, and the source."""
    does, name, args, body = rng.choice(FUNCTIONS)
    l, n = rng.choice(LISTS), rng.choice(NUMERIC)
    fill = dict(l=l, i=ONE[l], n=n, j=ONE[n], t=rng.choice(TEXTS), k=rng.choice((0, 5, 10, 100)))
    does, name, args, body = (part.format(**fill) for part in (does, name, args, body))
    doc = "" if rng.random() < 0.4 else f'    """{does[0].upper() + does[1:]}."""\n'
    return does, f"def {name}({args}):\n{doc}{indent(body)}\n"


def class_(rng) -> str:
    if rng.random() < 0.5:
        name, attribute, method, argument, operator = rng.choice(CLASSES)
        return (f"class {name}:\n    def __init__(self, name, {attribute}=0):\n        self.name = name\n        self.{attribute} = {attribute}\n\n"
                f"    def {method}(self, {argument}):\n        self.{attribute} {operator} {argument}\n        return self.{attribute}\n\n"
                f"    def __repr__(self):\n        return f\"{name}({{self.name}}, {{self.{attribute}}})\"\n")
    name, attribute, put, take, item = rng.choice(CONTAINERS)
    last = "self.{0}.pop()" if name != "Queue" else "self.{0}.pop(0)"
    return (f"class {name}:\n    def __init__(self):\n        self.{attribute} = []\n\n    def {put}(self, {item}):\n        self.{attribute}.append({item})\n\n"
            f"    def {take}(self):\n        if not self.{attribute}:\n            return None\n        return {last.format(attribute)}\n\n"
            f"    def __len__(self):\n        return len(self.{attribute})\n")


def script(rng) -> str:
    imports = "\n".join(f"import {m}" for m in sorted(rng.sample(("os", "sys", "json", "math", "random", "time", "re"), rng.randint(1, 3))))
    l, parts = rng.choice(LISTS), [function(rng)[1]]
    if rng.random() < 0.4:
        parts.append(function(rng)[1])
    main = rng.choice((f"def main(argv):\n    for name in argv:\n        if not os.path.exists(name):\n            print(\"no such file:\", name)\n            continue\n        print(name)\n",
                       f"def main():\n    {l} = []\n    for line in sys.stdin:\n        {l}.append(line.strip())\n    print(len({l}))\n",
                       f"def main():\n    path = sys.argv[1]\n    with open(path) as file:\n        data = json.load(file)\n    for key, value in data.items():\n        print(key, value)\n"))
    call = "main(sys.argv[1:])" if "argv)" in main else "main()"
    if "os." in main and "import os" not in imports:
        imports = "import os\n" + imports
    if "sys" not in imports:
        imports += "\nimport sys"
    if "json" in main and "import json" not in imports:
        imports = "import json\n" + imports
    return imports + "\n\n\n" + "\n\n".join(parts + [main]) + f"\n\nif __name__ == \"__main__\":\n    {call}\n"


def sample(rng) -> Document:
    r = rng.random()
    if r < 0.4:
        does, source = function(rng)
        return Document(turns=[(rng.choice(ASK).format(does), f"```python\n{source}```")])
    if r < 0.65:
        return Document(raw="\n\n".join(function(rng)[1] for _ in range(rng.randint(1, 3))))
    if r < 0.8:
        return Document(raw=class_(rng))
    return Document(raw=script(rng))
