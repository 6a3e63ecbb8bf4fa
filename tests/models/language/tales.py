"""The text that the small language model is trained on: tales by a seeded grammar.

Run as a script, it writes the text that is shipped:

    python tests/models/language/tales.py > tests/data/tales/tales.txt

What comes late in a tale follows from what came early: names and pronouns, what a person of that craft carries, sums
and differences, a list told again in order and backwards, and the answers at its end.

Choices lean: of each list the first is drawn three times as often as the second, and most words of a list differ in
their first letter. So every character that is open has one clear favourite, which arithmetic in bfloat16 leaves alone.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence

SEED = 4
TALES = 620

WOMEN = ("Mara", "Ida", "Petra", "Vera", "Nora", "Greta", "Sunniva", "Freya")
MEN = ("Tomas", "Anton", "Ruben", "Lars", "Emil", "Jonas", "Bruno", "Henrik")
PETS = ("Biscuit", "Pepper", "Moss", "Thimble", "Cricket", "Raven", "Snowball", "Dumpling")
ANIMALS = ("goat", "dog", "hen", "cat", "mule", "raven", "pig", "tortoise")
PLACES = ("village", "harbour", "mill", "castle", "tower", "lighthouse", "farm", "inn")
WATERS = ("river", "sea", "lake", "canal", "pond", "marsh", "waterfall", "bay")
SEASONS = ("spring", "autumn", "winter", "midsummer")
THINGS = ("coins", "apples", "keys", "feathers", "lanterns", "buttons", "shells", "nails")
SPOTS = ("bridge", "old oak", "well", "chapel", "granary", "stairs", "hedge", "market stall")
STRANGERS = ("traveller", "piper", "knight", "merchant", "shepherd", "beggar", "fisherman", "widow")
GOODS = ("bread", "salt", "rope", "cheese", "honey", "wool", "ink", "oil", "tea", "pitch", "glass", "flour")
NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip

# What a person of each craft carries, and what it is made of.
CRAFTS = {
    "baker": ("wooden", "peel"),
    "smith": ("iron", "hammer"),
    "weaver": ("bone", "shuttle"),
    "gardener": ("steel", "spade"),
    "carpenter": ("brass", "rule"),
    "tailor": ("silver", "needle"),
    "potter": ("copper", "wire"),
    "miller": ("granite", "stone"),
}


def leaning(generator: random.Random, words: Sequence[str], count: int = 1) -> list[str]:
    """`count` different words, the first of the list three times as often as the second, later ones less."""
    left, drawn = list(words), []
    for _ in range(count):
        weights = [1 / (rank + 1) ** 1.1 + (rank == 0) * 0.6 for rank in range(len(left))]
        drawn.append(generator.choices(left, weights)[0])
        left.remove(drawn[-1])
    return drawn


def tale(generator: random.Random) -> str:
    """One tale of some 520 characters, with an empty line at its end."""

    def one(words: Sequence[str]) -> str:
        return leaning(generator, words)[0]

    woman = generator.random() < 0.7
    name = one(WOMEN if woman else MEN)
    friend = one(MEN if woman else WOMEN)
    she, her = ("she", "her") if woman else ("he", "his")
    craft = one(list(CRAFTS))
    material, tool = CRAFTS[craft]
    pet, animal, place, water = one(PETS), one(ANIMALS), one(PLACES), one(WATERS)
    things, spot, stranger = one(THINGS), one(SPOTS), one(STRANGERS)
    goods = leaning(generator, GOODS, 3)
    found = int(one("42536"))
    more = int(one("31452"))
    total = found + more
    given = int(one("213"))
    kept = total - given

    met = one(["At the door of the {place} stood", "By the {water} sat", "On the way {she} met"])
    questions = {
        f"Who was the {craft}?": f"{name}.",
        f"What was the {animal} called?": f"{pet}.",
        f"How many {things} are left?": f"{NUMBERS[kept].capitalize()}.",
    }
    question = one(list(questions))
    lines = [
        f"The tale of {name} the {craft}.",
        f"In a {place} by the {water} lived {name} and a {animal} called {pet}.",
        f"One {one(SEASONS)} morning {name} took {her} {material} {tool} and went to the market.",
        f"There {she} bought {goods[0]}, {goods[1]} and {goods[2]}.",
        f"Under the {spot} {pet} the {animal} found {NUMBERS[found]} {things}.",
        f'"I have {NUMBERS[more]} too," said {friend}. '
        f"{NUMBERS[found].capitalize()} and {NUMBERS[more]} make {NUMBERS[total]} {things}.",
        f"{met.format(place=place, water=water, she=she)} a {stranger} who wept, and {name} gave "
        f"{NUMBERS[given]} away. "
        f"{NUMBERS[total].capitalize()} less {NUMBERS[given]} make {NUMBERS[kept]}.",
        f"At home {name} unpacked {goods[0]}, {goods[1]} and {goods[2]}.",
        f"Told backwards that is {goods[2]}, {goods[1]} and {goods[0]}.",
        f"{question} {questions[question]}",
    ]
    return "\n".join(lines) + "\n\n"


def text(seed: int = SEED, tales: int = TALES) -> str:
    """`tales` tales one after another, ASCII."""
    generator = random.Random(seed)
    return "".join(tale(generator) for _ in range(tales))


if __name__ == "__main__":
    sys.stdout.write(text())
