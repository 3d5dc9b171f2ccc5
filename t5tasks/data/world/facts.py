# SPDX-License-Identifier: Apache-2.0
"""The closed world: its people, cities, things, days, prices and shapes, as plain tables.

Every other file of this package only combines these words. The tables are small on purpose, so that
a tokenizer of 500 to 1000 pieces covers them, and every word is met in training; what evaluation
holds back are combinations of words (`combinations.py`).
"""

from typing import NamedTuple


class Place(NamedTuple):
    """A capital city and its country."""

    city: str
    country: str


class Thing(NamedTuple):
    """Something that is sold: its two forms, its price in coins and its kind."""

    name: str
    plural: str
    price: int
    kind: str


PEOPLE = (
    "Mia", "Leo", "Anna", "Omar", "Nina", "Paul", "Sara", "Ivan", "Lena", "Hugo",
    "Zoe", "Adam", "Ruth", "Kofi", "Yuki", "Tom", "Ada", "Ben", "Eva", "Max",
)  # fmt: skip

PLACES = (
    Place("Oslo", "Norway"),
    Place("Rome", "Italy"),
    Place("Cairo", "Egypt"),
    Place("Lima", "Peru"),
    Place("Paris", "France"),
    Place("Tokyo", "Japan"),
    Place("Madrid", "Spain"),
    Place("Athens", "Greece"),
    Place("Quito", "Ecuador"),
    Place("Nairobi", "Kenya"),
    Place("Dublin", "Ireland"),
    Place("Havana", "Cuba"),
    Place("Sofia", "Bulgaria"),
    Place("Vienna", "Austria"),
    Place("Santiago", "Chile"),
    Place("Warsaw", "Poland"),
)

# One thing of each kind at each price: neither can be guessed from the other.
THINGS = (
    Thing("apple", "apples", 2, "fruit"),
    Thing("lemon", "lemons", 3, "fruit"),
    Thing("pear", "pears", 4, "fruit"),
    Thing("melon", "melons", 5, "fruit"),
    Thing("ball", "balls", 2, "toy"),
    Thing("doll", "dolls", 3, "toy"),
    Thing("kite", "kites", 4, "toy"),
    Thing("drum", "drums", 5, "toy"),
    Thing("brush", "brushes", 2, "tool"),
    Thing("rope", "ropes", 3, "tool"),
    Thing("spade", "spades", 4, "tool"),
    Thing("hammer", "hammers", 5, "tool"),
    Thing("shirt", "shirts", 2, "garment"),
    Thing("hat", "hats", 3, "garment"),
    Thing("scarf", "scarves", 4, "garment"),
    Thing("coat", "coats", 5, "garment"),
)
KINDS = ("fruit", "toy", "tool", "garment")
COUNTS = (2, 3, 4, 5, 6)

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
TIMES = ("in the morning", "at noon", "in the evening", "at night")

PRAISE = ("good", "great", "nice", "lovely")
BLAME = ("bad", "poor", "awful", "ugly")

# Names that a dictionary cannot tell apart: a person or a city, a person or a month, and
# surnames that are also the names of streets.
PERSON_OR_CITY = ("Paris", "Sofia", "Vienna", "Santiago")
PERSON_OR_MONTH = ("April", "May", "June")
MONTHS = ("April", "May", "June", "March", "July")
SURNAMES = ("Stone", "Hill", "Brook", "Fields")
PARTS_OF_DAY = ("morning", "evening", "night")
# Things whose name is also something one can do.
ACTIONS = ("brush", "hammer", "drum")

SHAPES = ("circle", "square", "triangle", "cross")
COLOURS = {
    "red": (214, 40, 40),
    "green": (42, 157, 60),
    "blue": (29, 78, 216),
    "yellow": (244, 208, 36),
    "purple": (128, 40, 160),
    "black": (20, 20, 20),
}
CELLS = ("top left", "top right", "bottom left", "bottom right")


def article(noun: str) -> str:
    """Put the indefinite article before a noun: "apple" → "an apple", "hat" → "a hat"."""
    return ("an " if noun[0].lower() in "aeiou" else "a ") + noun


def capital(sentence: str) -> str:
    """Raise the first letter and leave the others: "in Oslo" → "In Oslo"."""
    return sentence[:1].upper() + sentence[1:]


def listing(words: list[str]) -> str:
    """Join words as English does: ["a", "b", "c"] → "a, b and c"."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
