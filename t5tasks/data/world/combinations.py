# SPDX-License-Identifier: Apache-2.0
"""Which combinations of words belong to which split: a combination in, the name of its split out.

A hash decides, so that a combination stays in its split whatever the seed, the size or the machine:

    every text                   (person, city) said in one sentence
    text_generation, reasoning   also (count, thing)
    classification               (thing, word before, word now)
    nli                          (thing, colour of the premise, colour of the hypothesis)
    translation                  (doer, verb, tense)
    code                         (operation, number)
    multimodal                   (shape, colour, cell)
"""

import hashlib
import random
from collections.abc import Sequence
from functools import cache
from typing import TypeVar

from t5tasks.data.world.facts import COUNTS, PEOPLE, PLACES, THINGS, Place, Thing

SPLITS = ("train", "validation", "test")
# The first salt with which every person, city and count and every operation of `code` has a
# combination in every split, and every product of a count and a price is met in train.
SALT = 19397
Visit = tuple[str, Place]
Choice = TypeVar("Choice")


def split_of(*combination: object) -> str:
    """Say which split a combination belongs to: 70 % train, 15 % validation, 15 % test.

    Only the words count (their `str`), so the answer is the same in every process and version.
    """
    digest = hashlib.sha256("|".join(map(str, (SALT, *combination))).encode()).digest()
    share = int.from_bytes(digest[:4], "big") % 20
    return "validation" if share < 3 else "test" if share < 6 else "train"


@cache
def visits_of(split: str) -> tuple[Visit, ...]:
    """List the (person, place) pairs of a split, in the order of the tables."""
    return tuple((person, place) for person in PEOPLE for place in PLACES if split_of(person, place.city) == split)


@cache
def places_of(person: str, split: str) -> tuple[Place, ...]:
    """List the places a person visits in a split."""
    return tuple(place for visitor, place in visits_of(split) if visitor == person)


def draw_visits(draw: random.Random, split: str, number: int) -> list[Visit]:
    """Draw visits of a split by `number` different people to as many different places."""
    while True:
        visits = draw.sample(visits_of(split), number)
        if len({visit[0] for visit in visits}) == len({visit[1] for visit in visits}) == number:
            return visits


def draw_visit(draw: random.Random, split: str) -> Visit:
    """Draw one (person, place) of a split."""
    return draw.choice(visits_of(split))


def draw_two_places(draw: random.Random, split: str) -> tuple[str, Place, Place]:
    """Draw a person and two different places which that person visits in the split."""
    while True:
        person = draw.choice(PEOPLE)
        places = places_of(person, split)
        if len(places) > 1:
            first, second = draw.sample(places, 2)
            return person, first, second


def draw_amount(draw: random.Random, split: str, counts: Sequence[int] = COUNTS) -> tuple[int, Thing]:
    """Draw a (count, thing) of a split. `counts` must hold enough numbers to meet the split."""
    while True:
        count, thing = draw.choice(counts), draw.choice(THINGS)
        if split_of(count, thing.name) == split:
            return count, thing


def draw_other(draw: random.Random, choices: Sequence[Choice], *taken: Choice) -> Choice:
    """Draw one of `choices` that is not among `taken`."""
    return draw.choice([choice for choice in choices if choice not in taken])
