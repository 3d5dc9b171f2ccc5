# SPDX-License-Identifier: Apache-2.0
"""Told events: a random stream, a split and a kind in, a story, report or talk out (one record)."""

import random
from typing import Any

from t5tasks.data.world.combinations import (
    draw_amount,
    draw_other,
    draw_two_places,
    draw_visit,
    draw_visits,
)
from t5tasks.data.world.facts import DAYS, PEOPLE, THINGS, TIMES, article, capital, listing

Record = dict[str, Any]

CONTINUATIONS = (
    "place", "person", "moment", "thing", "total",
    "sum", "difference", "country", "price", "kind",
)  # fmt: skip


def text_generation(draw: random.Random, split: str, kind: str) -> Record:
    """Make a story that breaks off and the one way it can go on (kind: one of CONTINUATIONS).

    "In Oslo, Mia bought 3 apples for 2 coins each. In all, Mia paid" → " 6 coins."
    """
    story = _two_people if kind in ("place", "person", "thing") else _one_person
    prompt, answer = story(draw, split, kind)
    return {"prompt": prompt, "completion": f" {answer}."}


def _two_people(draw: random.Random, split: str, kind: str) -> tuple[str, str]:
    """Recall what was said of one of two people."""
    visits = draw_visits(draw, split, 2)
    things = draw.sample(THINGS, 2)
    times = draw.sample(TIMES, 2)
    events = [
        f"{person} bought {article(thing.name)} in {place.city} {time}."
        for (person, place), thing, time in zip(visits, things, times, strict=True)
    ]
    asked = draw.randrange(2)
    (person, place), thing = visits[asked], things[asked]
    ending, answer = {
        "place": (f"The city of {person} was", place.city),
        "person": (f"The visitor of {place.city} was", person),
        "thing": (f"{person} went home with the", thing.name),
    }[kind]
    return " ".join((*events, ending)), answer


def _one_person(draw: random.Random, split: str, kind: str) -> tuple[str, str]:
    """Recall, calculate or know something about one person."""
    person, place = draw_visit(draw, split)
    count, thing = draw_amount(draw, split)
    here = f"In {place.city}, {person}"
    if kind == "moment":
        person, place, elsewhere = draw_two_places(draw, split)
        first, second = draw.sample(TIMES, 2)
        asked, answer = draw.choice(((first, place), (second, elsewhere)))
        story = f"{person} was in {place.city} {first} and in {elsewhere.city} {second}."
        return f"{story} {capital(asked)}, {person} was in", answer.city
    if kind == "total":
        story = f"{here} bought {count} {thing.plural} for {thing.price} coins each."
        return f"{story} In all, {person} paid", f"{count * thing.price} coins"
    if kind == "sum":
        other, more = draw_other(draw, PEOPLE, person), draw.randint(2, 6)
        story = f"{here} had {count} {thing.plural}. {other} gave {person} {more} more."
        return f"{story} Then {person} had", str(count + more)
    if kind == "difference":
        had, thing = draw_amount(draw, split, counts=(4, 5, 6, 7, 8, 9))
        sold = draw.randint(1, had - 1)
        story = f"{here} had {had} {thing.plural} and sold {sold}."
        return f"{story} Then {person} had", str(had - sold)
    if kind == "country":
        since = f"Since {draw.choice(DAYS)}, {person} lives in {place.city}."
        return f"{since} The country of {person} is", place.country
    if kind == "price":
        return f"{here} bought {article(thing.name)}. {person} paid", f"{thing.price} coins"
    return f"{here} found {article(thing.name)}. That is a kind of", thing.kind


DEEDS = ("bought", "sold", "found", "painted")


def summarization(draw: random.Random, split: str, kind: str) -> Record:
    """Make a day's report in which one person does the same deed two or three times (kind: DEEDS).

    The summary names that person, all their things in order, the city and the day; what others did
    once is left out.
    """
    (person, place), *others = draw_visits(draw, split, 3)
    day = draw.choice(DAYS)
    times = list(TIMES[: draw.choice((3, 4))])
    things = draw.sample(THINGS, len(times) + len(others))
    number = draw.choice((2, 3))
    mine = sorted(draw.sample(range(len(times)), number))
    sentences = [f"It was {day}, and the market of {place.city} was open."]
    for position in mine:
        sentences.append(f"{capital(times[position])}, {person} {kind} {article(things[position].name)}.")
    for (other, home), thing in zip(others, things[len(times) :], strict=True):
        deed = draw.choice(DEEDS)
        aside = draw.choice(
            (
                f"{other}, who came from {home.city}, {deed} {article(thing.name)}.",
                f"{other} only talked about the {thing.plural} of {home.city}.",
            )
        )
        sentences.insert(draw.randint(1, len(sentences)), aside)
    bought = listing([article(things[position].name) for position in mine])
    return {
        "document": " ".join(sentences),
        "summary": f"On {day} in {place.city}, {person} {kind} {bought}.",
    }


TOPICS = ("name", "city", "country", "price", "total", "recall")


def dialogue(draw: random.Random, split: str, kind: str) -> Record:
    """Make a talk in a shop whose last question is of the given kind (one of TOPICS).

    The answers follow from the system's turn (the city, the style of the answers), from the user's
    earlier turns (the name, what was asked for) and from the price list of the world.
    """
    person, place = draw_visit(draw, split)
    count, thing = draw_amount(draw, split)
    brief = draw.random() < 0.5
    style = "Answer in a few words." if brief else "Answer in sentences and use the name of the guest."
    questions = {
        "name": ("Do you know my name?", f"{person}.", f"Your name is {person}."),
        "city": (
            draw.choice(("Where are we?", "In which city are we?")),
            f"{place.city}.",
            f"We are in {place.city}, {person}.",
        ),
        "country": (
            draw.choice(("In which country are we?", "What is this country?")),
            f"{place.country}.",
            f"We are in {place.country}, {person}.",
        ),
        "price": (
            f"What is the price of {article(thing.name)}?",
            f"{thing.price} coins.",
            f"The price is {thing.price} coins, {person}.",
        ),
        "total": (
            f"What do {count} {thing.plural} cost?",
            f"{count * thing.price} coins.",
            f"You pay {count * thing.price} coins, {person}.",
        ),
        "recall": (
            "What did I come for?",
            f"{count} {thing.plural}.",
            f"You came for {count} {thing.plural}, {person}.",
        ),
    }
    greeting = draw.choice(("Hello", "Good day"))
    turns = [
        ("system", f"You work in a shop in {place.city}. {style}"),
        ("user", f"{greeting}, I am {person} and I would like {count} {thing.plural}."),
        ("assistant", "Welcome." if brief else f"Welcome, {person}."),
    ]
    middle = draw.sample([topic for topic in TOPICS if topic != kind], draw.choice((0, 1, 1, 2)))
    for topic in (*middle, kind):
        question, short, long = questions[topic]
        turns += [("user", question), ("assistant", short if brief else long)]
    return {"turns": [{"role": role, "text": text} for role, text in turns]}
