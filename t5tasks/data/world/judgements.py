# SPDX-License-Identifier: Apache-2.0
"""Labelled texts: a random stream, a split and a label in, a record with the right label out."""

import random
from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import Any, NamedTuple

from t5tasks.data.world.combinations import (
    draw_other,
    draw_visit,
    split_of,
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
    Thing,
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
QUANTIFIERS = {"all": "all", "some": "some of", "none": "none of", "not all": "not all"}
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


class Claim(NamedTuple):
    """What is said of the things of one name, or of the whole kind that they belong to."""

    quantifier: str
    of_kind: bool

    def words(self, thing: Thing, where: str, colour: str) -> str:
        nouns = f"{thing.kind}s" if self.of_kind else thing.plural
        return f"{QUANTIFIERS[self.quantifier]} the {nouns}{where} were {colour}"

    def holds(self, things: Sequence[bool], others: Sequence[bool]) -> bool:
        """Whether it is true where these things, and these others of their kind, have its colour or not."""
        named = (*things, *others) if self.of_kind else things
        return {"all": all, "some": any, "none": lambda x: not any(x), "not all": lambda x: not all(x)}[
            self.quantifier](named)


@cache
def bearing(premise: Claim, hypothesis: Claim, one_colour: bool) -> str:
    """Tell how a premise bears on a hypothesis by looking at every small world: one or two of the things, up to two
    others of their kind, each of the premise's colour, the hypothesis's or a third."""
    verdicts = set()
    for number, others in product((1, 2), (0, 1, 2)):
        for colours in product(range(3), repeat=number + others):
            said = [colour == 0 for colour in colours]
            asked = said if one_colour else [colour == 1 for colour in colours]
            if premise.holds(said[:number], said[number:]):
                verdicts.add(hypothesis.holds(asked[:number], asked[number:]))
    return "neutral" if len(verdicts) > 1 else "entailment" if verdicts.pop() else "contradiction"


def nli(draw: random.Random, split: str, label: str) -> Record:
    """Make a premise and a hypothesis on the colours of things; (thing, their two colours) is one of the split.

    The hypothesis is drawn before the label is looked at, so it alone says nothing about the label. Of the things
    that are named there are some, and each has one colour; there may be others of their kind.
    "In Lima, Mia saw that all the hats were red." "Some of the garments in Lima were red." → "entailment"
    """
    person, place = draw_visit(draw, split)
    claims = [Claim(*each) for each in product(QUANTIFIERS, (False, True))]
    hypothesis = draw.choice(claims)
    fitting = [(claim, same) for claim in claims for same in (False, True) if bearing(claim, hypothesis, same) == label]
    while True:
        premise, same = draw.choice(fitting)
        thing, colour = draw.choice(THINGS), draw.choice(tuple(COLOURS))
        said = colour if same else draw_other(draw, tuple(COLOURS), colour)
        if split_of(thing.name, said, colour) == split:
            break
    return {
        "premise": f"In {place.city}, {person} saw that {premise.words(thing, '', said)}.",
        "hypothesis": capital(f"{hypothesis.words(thing, f' in {place.city}', colour)}."),
        "label": label,
    }


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
