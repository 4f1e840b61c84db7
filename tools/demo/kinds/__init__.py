"""What the demo model is taught: one module per kind of text, each with `sample(rng)`, which draws one document."""
from . import arithmetic, builtins, capitals, code, drills, smalltalk, stdlib, steps, stories, units

# the share of documents (not of tokens) of each kind
KINDS = {
    "capitals": (capitals, 18), "arithmetic": (arithmetic, 30), "units": (units, 16), "builtins": (builtins, 22),
    "steps": (steps, 8), "stories": (stories, 9), "code": (code, 12), "smalltalk": (smalltalk, 5), "library": (stdlib, 2), "drills": (drills, 13),
}
