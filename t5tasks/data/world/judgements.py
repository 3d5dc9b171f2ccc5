# SPDX-License-Identifier: Apache-2.0
"""Labelled texts: a random stream, a split and a label in, a record with the right label out."""

import random
from typing import Any, NamedTuple

from t5tasks.data.world.combinations import (
    draw_other,
    draw_two_places,
    draw_visit,
    places_of,
    split_of,
    visits_of,
)
from t5tasks.data.world.facts import (
    ACTIONS,
    BLAME,
    COLOURS,
    DAYS,
    MONTHS,
    PARTS_OF_DAY,
    PEOPLE,
    PERSON_OR_CITY,
    PERSON_OR_MONTH,
    PLACES,
    PRAISE,
    SURNAMES,
    THINGS,
    Place,
    Thing,
    article,
    capital,
)

Record = dict[str, Any]

# What somebody thought before, and what they think now.
OPINIONS = {
    "positive": (True, True),
    "negative": (False, False),
    "improved": (False, True),
    "worsened": (True, False),
}
NLI_LABELS = ("entailment", "neutral", "contradiction")
ENTITIES = ("PERSON", "PLACE", "THING", "TIME")
TAGS = ("O", *(f"{mark}-{entity}" for entity in ENTITIES for mark in "BI"))


def _verdict(draw: random.Random, praises: bool) -> tuple[str, str]:
    """Say that something is good or bad: ("not ugly", "ugly") or ("lovely", "lovely")."""
    negated = draw.random() < 0.5
    word = draw.choice(PRAISE if praises != negated else BLAME)
    return (f"not {word}" if negated else word), word


def classification(draw: random.Random, split: str, label: str) -> Record:
    """Make one opinion that changed or did not; (thing, word before, word now) is one of the split.

    No single word tells the label: it takes what is negated, and which clause is about now.
    "In Oslo, Mia said that the hat is lovely now, but it was not good on Monday." → "improved"
    """
    person, place = draw_visit(draw, split)
    while True:
        thing = draw.choice(THINGS)
        (before, first_word), (now, second_word) = (_verdict(draw, x) for x in OPINIONS[label])
        if split_of(thing.name, first_word, second_word) == split:
            break
    was = f"was {before} {draw.choice((f'on {draw.choice(DAYS)}', 'before'))}"
    is_now = f"is {now} {draw.choice(('now', 'today'))}"
    first, second = draw.sample((was, is_now), 2)
    patterns: tuple[str, ...] = ("the {0} {1}, and it {2}",)
    if label in ("improved", "worsened"):
        patterns += ("the {0} {1}, but it {2}", "although the {0} {1}, it {2}")
    said = draw.choice(patterns).format(thing.name, first, second)
    opening = draw.choice((f"In {place.city}, {person} said", f"{person} wrote from {place.city}"))
    return {"text": f"{opening} that {said}.", "label": label}


def nli(draw: random.Random, split: str, label: str) -> Record:
    """Make a premise about two people and a hypothesis about one of them.

    The hypothesis is drawn before the label is looked at, so it alone says nothing about the label.
    A day in a city fills the whole day, and who buys "only" something buys nothing else.
    """
    person, place, elsewhere = draw_two_places(draw, split)
    day, negated = draw.choice(DAYS), draw.random() < 0.5
    # A sentence that denies is entailed by what contradicts the same sentence without "not".
    holds = (label == "entailment") != negated
    about_place = draw.random() < 0.5
    company = draw.choice([name for name, _ in visits_of(split) if name != person])
    if about_place:
        where = draw.choice((place.city, place.country))
        hypothesis = f"{person} {'was not' if negated else 'was'} in {where} on {day}."
        if label == "neutral":
            own = (
                _bought(draw, person, draw.choice(THINGS))
                if draw.random() < 0.5
                else _stayed(person, place, draw_other(draw, DAYS, day))
            )
            about_company = _stayed(company, _place_for(draw, split, company, place), day)
        else:
            own = _stayed(person, place if holds else elsewhere, day)
            about_company = _any_clause(draw, split, company, day)
    else:
        thing = draw.choice(THINGS)
        other = draw.choice([choice for choice in THINGS if choice.kind != thing.kind])
        what = article(draw.choice((thing.name, thing.kind)))
        hypothesis = f"{person} {'did not buy' if negated else 'bought'} {what}."
        if label == "neutral":
            own = _stayed(person, draw.choice((place, elsewhere)), day)
            about_company = _bought(draw, company, draw.choice((thing, other)))
        else:
            own = _bought(draw, person, thing if holds else other)
            about_company = _any_clause(draw, split, company, day)
    first, second = draw.sample((own, about_company), 2)
    return {"premise": f"{first}, and {second}.", "hypothesis": hypothesis, "label": label}


def _stayed(person: str, place: Place, day: str) -> str:
    return f"{person} spent all {day} in {place.city}"


def _bought(draw: random.Random, person: str, thing: Thing) -> str:
    return f"{person} bought only {draw.choice((article(thing.name), f'some {thing.plural}'))}"


def _place_for(draw: random.Random, split: str, person: str, wanted: Place) -> Place:
    """Give the wanted place if the person visits it in this split, else one that they do visit."""
    visited = places_of(person, split)
    return wanted if wanted in visited else draw.choice(visited)


def _any_clause(draw: random.Random, split: str, person: str, day: str) -> str:
    """Say something of somebody the hypothesis is not about."""
    if draw.random() < 0.5:
        return _bought(draw, person, draw.choice(THINGS))
    return _stayed(person, _place_for(draw, split, person, draw.choice(PLACES)), day)


class _Words(NamedTuple):
    """Words beside each other and what they name: one of ENTITIES, or "O" for nothing."""

    words: str
    entity: str = "O"


def ner(draw: random.Random, split: str, kind: str) -> Record:
    """Make one tagged sentence of the given pattern (one of NER_PATTERNS).

    A dictionary cannot tag it: Paris may be a person, June a month, Stone a street and hammer a
    verb. Both people of the sentence go with its city in the split.
    """
    people = (*PEOPLE, *PERSON_OR_CITY * 3, *PERSON_OR_MONTH * 3)
    cities = (*(place.city for place in PLACES), *PERSON_OR_CITY * 2)
    while True:
        name, other, city = draw.choice(people), draw.choice(people), draw.choice(cities)
        pairs = {split_of(name, city), split_of(other, city)}
        if len({name, other, city}) == 3 and pairs == {split}:
            break
    street = f"{draw.choice(SURNAMES)} {draw.choice(('Street', 'Park'))}"
    slots = {
        "<person>": (_full_name(draw, name),),
        "<other>": (_full_name(draw, other),),
        "<city>": (_Words(city, "PLACE"),),
        "<street>": (_Words(street, "PLACE"),),
        "<thing>": (_described(draw, draw.choice(THINGS).name),),
        "<things>": (_described(draw, draw.choice(THINGS).plural),),
        "<when>": _when(draw),
        "<act>": (_Words(draw.choice(ACTIONS)),),
    }
    tokens: list[str] = []
    tags: list[str] = []
    for slot in NER_PATTERNS[kind].split():
        for words, entity in slots.get(slot, (_Words(slot),)):
            for position, token in enumerate(words.split()):
                tokens.append(token if tokens else capital(token))
                tags.append("O" if entity == "O" else f"{'I' if position else 'B'}-{entity}")
    return {"tokens": tokens, "tags": tags}


NER_PATTERNS = {
    "met": "<person> met <other> in <city> <when> .",
    "sent": "<person> sent a <thing> from <city> to <other> .",
    "likes": "<when> <person> and <other> like to <act> in <city> .",
    "sold": "near <street> in <city> , <person> sold <things> to <other> .",
    "saw": "<person> saw <city> <when> , but <other> stayed at home .",
    "asked": "did <person> walk along <street> with <other> in <city> ?",
    "lost": "the <thing> that <other> lost in <city> was found by <person> <when> .",
    "learned": "<city> is where <person> learned to <act> with <other> .",
}


def _full_name(draw: random.Random, name: str) -> _Words:
    return _Words(f"{name} {draw.choice(SURNAMES)}" if draw.random() < 0.4 else name, "PERSON")


def _described(draw: random.Random, thing: str) -> _Words:
    return _Words(f"{draw.choice(tuple(COLOURS))} {thing}" if draw.random() < 0.4 else thing, "THING")


def _when(draw: random.Random) -> tuple[_Words, _Words]:
    if draw.random() < 0.5:
        return _Words("in"), _Words(draw.choice(MONTHS), "TIME")
    part = draw.choice(("", *PARTS_OF_DAY))
    return _Words("on"), _Words(f"{draw.choice(DAYS)} {part}", "TIME")
