"""Short stories: a hero wants something, meets a difficulty, is helped, and the day ends well. Names, places and things keep
referring to the same ones throughout."""
from .common import Document, a

HEROES = ("fox", "rabbit", "bear", "mouse", "cat", "dog", "bird", "hedgehog", "squirrel", "frog", "duck", "horse", "owl", "turtle", "lamb", "goat",
          "penguin", "elephant", "monkey", "dragon", "boy", "girl", "robot", "king", "princess", "knight", "sailor", "baker", "farmer", "gardener")
NAMES = {"she": ("Mila", "Nora", "Lily", "Ella", "Ruby", "Clara", "Rosa", "Ida", "Tilda", "Zoe", "Emma", "Luna", "Olive", "Stella"),
         "he": ("Tim", "Oscar", "Felix", "Bruno", "Max", "Henry", "Theo", "Leo", "Jonas", "Emil", "Paul", "Anton", "Hugo", "Finn")}
OBJECT = {"she": "her", "he": "him"}
OWNER = {"she": "her", "he": "his"}
MALE, FEMALE = ("boy", "king"), ("girl", "princess")
TRAITS = ("little", "young", "brave", "shy", "curious", "clever", "kind", "lazy", "happy", "old", "small", "gentle")
HOMES = ("in a small house near the forest", "by a quiet river", "on a green hill", "in a village by the sea", "under an old oak tree",
         "in a tiny cottage", "at the edge of a big city", "in a warm valley", "on a little farm", "near a blue lake")
PLACES = ("the forest", "the river", "the market", "the beach", "the mountain", "the old castle", "the lake", "the garden", "the village", "the meadow")
TREASURES = ("red ball", "golden key", "silver bell", "blue kite", "wooden boat", "shiny coin", "music box", "green hat", "old map", "warm scarf",
             "glass star", "yellow umbrella", "magic lamp", "picture book", "small drum")
TIMES = ("One morning", "One day", "One sunny day", "One evening", "One winter morning", "On a rainy day", "Early in spring", "Late in autumn")
FEELINGS = ("sad", "worried", "afraid", "tired", "lonely")
GIFTS = ("cake", "song", "pie", "flower", "bowl of soup", "honey cookie", "drawing")
MORALS = ("From that day on, {n} and {f} were the best of friends.", "And {n} learned that a good friend is worth more than gold.",
          "That night {n} fell asleep with a smile.", "And they lived happily ever after.", "{n} never forgot that day.",
          "{n} knew now that it is good to ask for help.", "And {n} was never lonely again.")


class Cast:
    """Who and what a story is about."""

    def __init__(self, rng, hero=None):
        self.h = hero or rng.choice(HEROES)
        self.o = rng.choice([x for x in HEROES if x != self.h])
        self.s = "he" if self.h in MALE else "she" if self.h in FEMALE else rng.choice(("she", "he"))
        self.s2 = "he" if self.o in MALE else "she" if self.o in FEMALE else rng.choice(("she", "he"))
        self.n = rng.choice(NAMES[self.s])
        self.f = rng.choice([x for x in NAMES[self.s2] if x != self.n])
        self.t, self.p, self.x = rng.choice(TREASURES), rng.choice(PLACES), rng.choice(TRAITS)
        self.e, self.g = rng.choice(FEELINGS), rng.choice(GIFTS)

    def fill(self, text: str) -> str:
        return text.format(n=self.n, f=self.f, h=self.h, o=self.o, s=self.s, S=self.s.capitalize(), s2=self.s2, S2=self.s2.capitalize(),
                           w=OWNER[self.s], m=OBJECT[self.s], w2=OWNER[self.s2], m2=OBJECT[self.s2], t=self.t, p=self.p, e=self.e, g=self.g)


LOST = (("{n} had {at} that {s} loved more than anything else.", "{n} owned {at}, and {s} took it everywhere."),
        ("{time}, {n} went to {p} to play.", "{time}, {n} walked to {p} with the {t}."),
        ("But when {s} came home, the {t} was gone.", "There the wind blew so hard that the {t} flew away."),
        ("{n} looked everywhere, but {s} could not find it.", "{S} searched for a long time and was very {e}."),
        ("Then {n} met {ao} named {f}.", "On the way {s} met {ao} called {f}."),
        ('"Why are you so {e}?" asked {f}.', '"What is wrong?" asked {f}.'),
        ('"I have lost my {t}," said {n}.', '"I cannot find my {t}," {n} answered.'),
        ('"Do not worry," said {f}. "I will help you."', '"Let us look for it together," said {f}.'),
        ("They went back to {p} and looked behind every stone.", "Together they searched all over {p}."),
        ("At last {f} saw the {t} under a bush.", "Suddenly {f} found the {t} in the tall grass."),
        ("{n} was so happy that {s} hugged {f}.", '"Thank you, {f}!" said {n}, and {s} laughed.'))
LEARN = (("{n} wanted to learn how to {v}.", "More than anything, {n} wished to {v}."),
         ("{time}, {s} tried it for the first time at {p}.", "{time}, {s} went to {p} to practice."),
         ("But it was hard, and {n} failed again and again.", "But every time {s} tried, it went wrong."),
         ("{n} was {e} and wanted to give up.", "{S} sat down on a stone and felt {e}."),
         ("{Ao} named {f} saw {m} and came closer.", "Then {ao} called {f} came by."),
         ('"I was like you once," said {f}. "Try it slowly."', '"You must be patient," said {f}. "Try it once more."'),
         ("So {n} tried once more, slowly and carefully.", "{n} took a deep breath and tried again."),
         ("This time it worked!", "And suddenly {s} could do it!"),
         ('"I can {v}!" {n} cried with joy.', '"Look, I can {v}!" shouted {n}.'),
         ("{f} clapped and laughed.", "{f} was very proud of {m}."))
HELP = (("{time}, {n} was walking through {p}.", "{time}, {n} went for a walk to {p}."),
        ("There {s} heard a quiet voice.", "Suddenly {s} heard somebody crying."),
        ("It was {ao} named {f}, who was {e}.", "Behind a tree sat {ao} called {f}, who looked {e}."),
        ('"What happened to you?" asked {n}.', '"Can I help you?" asked {n}.'),
        ('"I hurt my foot and cannot go home," said {f}.', '"I do not know the way home," said {f}.'),
        ("{n} gave {m2} some water and took {w2} hand.", '"Come with me," said {n}. "I know the way."'),
        ("They walked slowly, and {n} told funny stories on the way.", "They walked together until the sun went down."),
        ("When they arrived, {f} was happy again.", "At last they saw the lights of the house where {f} lived."),
        ("To say thank you, {f} gave {n} {ag}.", "{f} thanked {n} and gave {m} {at}."))
SHARE = (("{time}, {n} made {ag}.", "{time}, {n} wanted to make {ag} for the party."),
         ("{S} wanted to keep it all for {m}self.", "It was the best one {s} had ever made."),
         ("Then {ao} named {f} knocked at the door.", "Just then {ao} called {f} came to visit."),
         ('"I am so {e} today," said {f}.', '"Nobody wants to play with me, and I feel {e}," said {f}.'),
         ("{n} thought about it for a moment.", "{n} looked at {f} and felt sorry for {m2}."),
         ('"Come in," said {n}. "We will share."', '"Stay with me," said {n}. "There is enough for two."'),
         ("They sat by the fire and talked all evening.", "They laughed and played until it was dark."),
         ("{f} brought {at} the next day as a present.", "The next day {f} came back and brought {at}."))
PLOTS = (LOST, LEARN, HELP, SHARE)
SKILLS = ("swim", "fly", "sing", "dance", "read", "climb a tree", "ride a bike", "play the flute", "catch a fish", "jump over the fence", "paint", "cook soup")
OPENINGS = ("Once upon a time there was {ah} named {n}.", "Once upon a time, {ah} named {n} lived {home}.", "There once was {ah} called {n}.",
            "Long ago, {ah} named {n} lived {home}.", "{n} was {ah} who lived {home}.")
ASK = ("Tell me a short story about {}.", "Tell me a story about {}.", "Write a short story about {}.", "Can you tell me a story about {}?",
       "I would like to hear a story about {}.", "Please tell me a short story about {}.", "Make up a story about {}.", "A story about {}, please.")
ASK_ANY = ("Tell me a story.", "Tell me a short story.", "Write a story.", "Can you tell me a story?", "Tell me a bedtime story.", "I want to hear a story.")


def story(rng, hero=None) -> tuple[str, Cast]:
    c = Cast(rng, hero)
    more = dict(ah=a(f"{c.x} {c.h}"), ao=a(c.o), Ao=a(c.o).capitalize(), at=a(c.t), ag=a(c.g), v=rng.choice(SKILLS),
                home=rng.choice(HOMES), time=rng.choice(TIMES))
    lines = [rng.choice(OPENINGS)] + [rng.choice(options) for options in rng.choice(PLOTS)] + [rng.choice(MORALS)]
    text = " ".join(lines)
    for name, value in more.items():
        text = text.replace("{" + name + "}", value)
    return c.fill(text), c


def sample(rng) -> Document:
    text, c = story(rng)
    r = rng.random()
    if r < 0.3:
        return Document(raw=text + "\n")
    asked = rng.choice(ASK_ANY) if r < 0.45 else rng.choice(ASK).format(rng.choice((a(c.h), a(c.h), a(f"{c.x} {c.h}"), f"{a(c.h)} named {c.n}")))
    return Document(turns=[(asked, text)])
