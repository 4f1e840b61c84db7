"""Greetings, who the model is, thanks, and what it does not know."""
from .common import Document, ask, loosely

ABOUT = ("I am a small demo model that comes with pymtp. I can answer simple questions about capitals, small sums, units and Python, list "
         "the steps of simple tasks, tell short stories and continue Python code.")
UNKNOWN = "I am sorry, I do not know that. I am only a small demo model. You can ask me about capitals, small sums, units or Python."
PAIRS = (
    (("Hello!", "Hi", "Hello", "Hi there!", "Hey", "Good morning!", "Good evening!", "Hey there", "Good day!"), "Hello! What would you like to know?"),
    (("How are you?", "How are you today?", "How do you do?", "How is it going?"), "I am fine, thank you. What would you like to know?"),
    (("Who are you?", "What are you?", "What is your name?", "Tell me about yourself.", "Who made you?", "Are you a human?", "Are you a robot?",
      "What model are you?", "Introduce yourself."), ABOUT),
    (("What can you do?", "What can I ask you?", "Can you help me?", "Help", "What do you know?", "How can you help me?", "What are you good at?"),
     ABOUT),
    (("Thanks!", "Thank you.", "Thank you very much!", "Thanks a lot", "Great, thank you!", "Nice, thanks."), "You are welcome!"),
    (("Bye!", "Goodbye.", "See you later!", "Good night!", "Bye bye"), "Goodbye!"),
)
THINGS = ("the sky", "the sea", "grass", "snow", "the moon", "the sun", "a mountain", "the ocean", "a rainbow", "fire", "ice", "music", "love", "water",
          "the wind", "a computer", "a telephone", "a car", "the universe", "a star", "gold", "coffee", "football", "chess", "a virus", "money",
          "history", "a black hole", "an atom", "electricity", "the internet", "a volcano", "a whale", "art")
QUALITIES = ("blue", "green", "white", "cold", "hot", "important", "beautiful", "expensive", "dangerous", "heavy", "bright", "famous", "so big", "loud")
ASK = ("Why is {0} {1}?", "Why is {0} so {1}?", "What is the meaning of {0}?", "How does {0} work?", "What do you think about {0}?",
       "Who invented {0}?", "When was {0} discovered?", "How old is {0}?", "What is the history of {0}?", "Explain {0}.", "Is {0} {1}?",
       "Write a poem about {0}.", "What is {0} made of?", "Can you explain why {0} is {1}?", "Where does {0} come from?")
OTHER = ("What is the weather like today?", "What time is it?", "Who won the football match?", "Who is the president?", "What is the latest news?",
         "What day is it today?", "Translate this sentence into French.", "Who wrote Hamlet?", "What is the best movie?", "How tall is the Eiffel Tower?",
         "Solve this equation.", "What should I eat today?", "Give me a joke.", "Tell me a joke.", "Sing a song.", "What is the speed of light?")


def sample(rng) -> Document:
    r = rng.random()
    if r < 0.4:
        asked, reply = rng.choice(PAIRS)
        return ask(loosely(rng, rng.choice(asked)), reply)
    question = rng.choice(OTHER) if r < 0.5 else rng.choice(ASK).format(rng.choice(THINGS), rng.choice(QUALITIES))
    return ask(loosely(rng, question), UNKNOWN)
