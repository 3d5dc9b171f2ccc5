# SPDX-License-Identifier: Apache-2.0
"""Questions on texts: a random stream, a split and a kind in, a QA record out."""

import random
from collections.abc import Mapping
from typing import Any, NamedTuple

from t5tasks.data.world.combinations import (
    Visit,
    draw_amount,
    draw_other,
    draw_visits,
)
from t5tasks.data.world.facts import (
    COUNTS,
    DAYS,
    PEOPLE,
    THINGS,
    Thing,
)

Record = dict[str, Any]

# Past and base form of what people do with things.
DEEDS = {"bought": "buy", "sold": "sell", "found": "find", "painted": "paint"}
SPAN_KINDS = ("where", "when", "who", "what", "how many", "unanswerable", "unanswerable")
# Three shapes of a sentence; each brace is a possible answer.
EVENT_PATTERNS = (
    "{person} {deed} {count} {things} in {city} on {day}.",
    "On {day}, {person} {deed} {count} {things} in {city}.",
    "In {city}, {person} {deed} {count} {things} on {day}.",
)


class Event(NamedTuple):
    """What one sentence says: `text`, and in `starts` where each of its `words` begins there."""

    person: str
    deed: str
    thing: Thing
    text: str
    words: Mapping[str, str]
    starts: Mapping[str, int]


def _event(draw: random.Random, visit: Visit, thing: Thing, day: str) -> Event:
    person, place = visit
    deed = draw.choice(tuple(DEEDS))
    words = {
        "person": person,
        "deed": deed,
        "count": str(draw.choice(COUNTS)),
        "things": thing.plural,
        "city": place.city,
        "day": day,
    }
    pattern = draw.choice(EVENT_PATTERNS)
    # The pattern is filled from the left, so that a slot's start is what was written before it.
    starts: dict[str, int] = {}
    text = ""
    for piece in pattern.replace("}", "{").split("{"):
        if piece in words:
            starts[piece] = len(text)
        text += words.get(piece, piece)
    return Event(person, deed, thing, text, words, starts)


def extractive_qa(draw: random.Random, split: str, kind: str) -> Record:
    """Make a context of one to three events and a question on one of them (kind: SPAN_KINDS).

    An unanswerable question asks about a deed of somebody else, of whom the context mostly says nothing. The
    answer is `context[start : start + len(text)]`; `id` is filled in by `records`.
    """
    visits = draw_visits(draw, split, draw.choice((1, 2, 3)))
    things = draw.sample(THINGS, len(visits))
    days = draw.sample(DAYS, len(visits))
    events = [_event(draw, *each) for each in zip(visits, things, days, strict=True)]
    context = " ".join(event.text for event in events)
    asked = draw.randrange(len(events))
    event = events[asked]
    answerable = kind != "unanswerable"
    if not answerable:
        kind = draw.choice(("where", "when", "what", "how many"))
    person = event.person if answerable else draw_other(draw, PEOPLE, event.person)
    base, plural, words = DEEDS[event.deed], event.thing.plural, event.words
    if kind == "what" and not answerable:
        # Somebody of whom the context says nothing at all.
        person = draw_other(draw, PEOPLE, *(each.person for each in events))
    question, slot = {
        "where": (f"Where did {person} {base} {plural}?", "city"),
        "when": (f"When did {person} {base} {plural}?", "day"),
        "who": (f"Who {event.deed} {plural} in {words['city']}?", "person"),
        "what": (f"What did {person} {base} on {words['day']}?", "things"),
        "how many": (f"How many {plural} did {person} {base}?", "count"),
    }[kind]
    start = sum(len(each.text) + 1 for each in events[:asked]) + event.starts[slot]
    answers: dict[str, list[Any]] = {"text": [], "answer_start": []}
    if answerable:
        answers = {"text": [words[slot]], "answer_start": [start]}
    return {
        "id": "",
        "title": "The market",
        "context": context,
        "question": question,
        "answers": answers,
    }


FREE_KINDS = ("cost", "more", "together", "country", "kind")


def generative_qa(draw: random.Random, split: str, kind: str) -> Record:
    """Make a context on two people and a question whose answer must be found out (FREE_KINDS).

    The first answer is the whole sentence, the second the shortest right one.
    """
    (person, place), (other, other_place) = visits = draw_visits(draw, split, 2)
    count, thing = draw_amount(draw, split)
    fewer = draw_other(draw, COUNTS, count)
    other_thing = draw_other(draw, THINGS, thing)
    if kind in ("more", "together"):
        other_thing = thing
    context = (
        f"In {place.city}, {person} bought {count} {thing.plural} for {thing.price} coins each. "
        f"In {other_place.city}, {other} bought {fewer} {other_thing.plural}."
    )
    first, second = draw.sample((person, other), 2)
    winner = person if count > fewer else other
    home = dict(visits)[first]
    his = thing if first == person else other_thing
    total = count * thing.price
    question, long, short = {
        "cost": (
            f"How much did {person} pay for the {thing.plural}?",
            f"{person} paid {total} coins.",
            f"{total} coins",
        ),
        "more": (
            f"Who bought more {thing.plural}, {first} or {second}?",
            f"{winner} bought more {thing.plural}.",
            winner,
        ),
        "together": (
            f"How many {thing.plural} did {first} and {second} buy together?",
            f"They bought {count + fewer} {thing.plural}.",
            str(count + fewer),
        ),
        "country": (
            f"In which country was {first}?",
            f"{first} was in {home.country}.",
            home.country,
        ),
        "kind": (
            f"Did {first} buy fruits, toys, tools or garments?",
            f"{first} bought {his.kind}s.",
            f"{his.kind}s",
        ),
    }[kind]
    return {"context": context, "question": question, "answers": [long, short]}
