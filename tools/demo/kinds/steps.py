"""Simple tasks as numbered steps."""
from .common import Document, a, ask, loosely

# task with a slot -> (what fills it, the steps); {0} is the filling, {1} with an article
TASKS = (
    ("make a cup of {0}", ("tea", "green tea", "mint tea", "black tea"),
     ("Boil some water in a kettle.", "Put a bag of {0} into a cup.", "Pour the hot water into the cup.", "Wait for about 4 minutes.", "Take the bag out and enjoy your {0}.")),
    ("make coffee", ("",), ("Boil some water.", "Put ground coffee into a filter.", "Pour the hot water slowly over the coffee.", "Wait until the water has run through.", "Pour the coffee into a cup.")),
    ("make {1} sandwich", ("cheese", "tomato", "jam", "ham", "egg", "honey"),
     ("Take two slices of bread.", "Spread some butter on the bread.", "Put the {0} on one slice.", "Cover it with the other slice.", "Cut the sandwich in half and serve it.")),
    ("cook {0}", ("rice", "pasta", "noodles", "potatoes"),
     ("Fill a pot with water and add some salt.", "Bring the water to a boil.", "Put the {0} into the pot.", "Cook the {0} until soft.", "Drain the water and serve the {0}.")),
    ("boil an egg", ("",), ("Fill a small pot with water.", "Bring the water to a boil.", "Put the egg into the water with a spoon.", "Wait for about 7 minutes.", "Cool the egg under cold water.")),
    ("bake {1} cake", ("chocolate", "lemon", "carrot", "apple"),
     ("Heat the oven to 180 degrees.", "Mix flour, sugar, butter and eggs in a bowl.", "Add the {0} and stir well.", "Pour the mixture into a baking tin.", "Bake the cake for about 40 minutes.", "Let the cake cool before you cut it.")),
    ("make {1} salad", ("tomato", "potato", "fruit", "green"),
     ("Wash everything for the {0} salad.", "Cut it into small pieces.", "Put the pieces into a large bowl.", "Add a little oil and lemon juice.", "Mix everything well and serve the {0} salad.")),
    ("plant {1}", ("tree", "flower", "rose", "tomato", "bean", "sunflower"),
     ("Find a sunny place in the garden.", "Dig a hole in the ground.", "Put the {0} into the hole.", "Fill the hole with soil.", "Water the {0} every day.")),
    ("wash {1}", ("car", "bike", "window", "dog"),
     ("Fill a bucket with warm water.", "Add a little soap to the water.", "Wash the {0} with a soft sponge.", "Rinse off the soap with clean water.", "Dry the {0} with a towel.")),
    ("wash the dishes", ("",), ("Fill the sink with warm water.", "Add a little soap.", "Wash the glasses first and then the plates.", "Rinse everything with clean water.", "Let the dishes dry.")),
    ("send a letter to {0}", ("a friend", "my mother", "my uncle", "my teacher", "a company"),
     ("Write the letter on a sheet of paper.", "Fold the letter and put it into an envelope.", "Write the address of {0} on the envelope.", "Put a stamp on the envelope.", "Drop the letter into a mailbox.")),
    ("learn to play {0}", ("the piano", "the guitar", "the violin", "chess", "the flute"),
     ("Find a good teacher or a good book about {0}.", "Start with easy exercises.", "Practice for 30 minutes every day.", "Try something a little harder every week.", "Have fun and be patient with {0}.")),
    ("brush my teeth", ("",), ("Put some toothpaste on your toothbrush.", "Brush all your teeth for 2 minutes.", "Spit out the toothpaste.", "Rinse your mouth with water.", "Clean your toothbrush.")),
    ("fix a flat tire on {1}", ("bike", "car"),
     ("Stop the {0} in a safe place.", "Take off the wheel with the flat tire.", "Find the hole and repair the tire, or take a new one.", "Put the wheel back on the {0}.", "Check the air before you go on.")),
    ("paint {1}", ("wall", "door", "fence", "chair", "room"),
     ("Clean the {0} and let it dry.", "Cover everything that should not get paint on it.", "Stir the paint well.", "Paint the {0} from the top to the bottom.", "Let the paint dry and add a second coat.")),
    ("pack for a trip to {0}", ("the beach", "the mountains", "the city", "the forest"),
     ("Make a list of what you need for {0}.", "Check the weather for {0}.", "Choose clothes that fit the weather.", "Put the heavy things at the bottom of the bag.", "Check the list again before you leave.")),
    ("write a Python program", ("",), ("Think about what the program should do.", "Open a text editor and make a new file.", "Write the code in small functions.", "Save the file with the ending .py.", "Run the program with python and fix its mistakes.")),
    ("install a Python package", ("",), ("Open a terminal.", "Create a virtual environment with python -m venv env.", "Activate the environment.", "Run pip install with the name of the package.", "Import the package to check that it works.")),
    ("find a bug in {0}", ("my program", "my code", "a script", "a function"),
     ("Run {0} and read the error message.", "Find the line that the message names.", "Print the values that this line uses.", "Change one thing at a time.", "Run {0} again until the error is gone.")),
    ("clean {0}", ("my room", "the kitchen", "the bathroom", "the garage"),
     ("Open a window to let fresh air in.", "Put everything in {0} back in its place.", "Wipe the dust off with a wet cloth.", "Sweep the floor of {0}.", "Take out the trash.")),
)
ASK = ("How do I {}?", "How can I {}?", "List the steps to {}.", "Explain how to {}.", "What are the steps to {}?", "Tell me how to {}.", "Give me the steps to {}.",
       "I want to {}. What should I do?", "Please list the steps to {}.", "Show me step by step how to {}.")

ASK_HELD_OUT = ("Could you explain to me how to {}?", "I would like to know how to {}.", "What do I do to {}?")


def task(rng) -> tuple[str, str]:
    """What to do, and the numbered list."""
    name, fillings, lines = rng.choice(TASKS)
    filling = rng.choice(fillings)
    with_article = a(filling) if filling else ""
    what = name.format(filling, with_article)
    theirs = filling.replace("my ", "your ")
    listed = "\n".join(f"{i}. {line.format(theirs, with_article)}" for i, line in enumerate(lines, 1))
    return what, f"Here is how to {what.replace('my ', 'your ')}:\n{listed}"


def unseen(rng) -> Document:
    """In a phrasing that training never uses."""
    what, text = task(rng)
    return ask(rng.choice(ASK_HELD_OUT).format(what), text)


def sample(rng) -> Document:
    what, text = task(rng)
    return ask(loosely(rng, rng.choice(ASK).format(what)), text)
