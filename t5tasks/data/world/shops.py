# SPDX-License-Identifier: Apache-2.0
"""Passages about shops and questions on them: a random stream, a split and a kind in, a RAG record out."""

import random
from functools import cache
from typing import Any, NamedTuple

from t5tasks.data.world.combinations import Visit, visits_of
from t5tasks.data.world.facts import DAYS, PEOPLE, PLACES, THINGS, Place, Thing

Record = dict[str, Any]
RAG_KINDS = ("thing", "thing", "day", "day", "both", "nothing")
AT_MOST = 3  # passages of a record
EMPTY = 0.2  # share of people's places without a shop


class Shop(NamedTuple):
    """What one passage tells of the shop of one person in one city."""

    person: str
    place: Place
    thing: Thing
    day: str

    @property
    def id(self) -> str:
        return f"{self.person}-{self.place.city}".lower()

    @property
    def passage(self) -> Record:
        return {"id": self.id, "text": f"{self.sells} {self.opens}"}

    @property
    def sells(self) -> str:
        return f"The shop of {self.person} in {self.place.city} sells {self.thing.plural}."

    @property
    def opens(self) -> str:
        return f"The shop of {self.person} in {self.place.city} is open on {self.day}."


def _opened(draw: random.Random, visit: Visit) -> Shop:
    person, place = visit
    return Shop(person, place, draw.choice(THINGS), draw.choice(DAYS))


@cache
def shops(seed: int) -> dict[Visit, Shop]:
    """Open a shop for most people in most cities, with details drawn from the seed; a fifth have none."""
    draw = random.Random(f"shops/{seed}")
    found = {(person, place): _opened(draw, (person, place)) for person in PEOPLE for place in PLACES}
    return {visit: shop for visit, shop in found.items() if draw.random() > EMPTY}


def passages(seed: int = 0) -> list[Record]:
    """Write the passages that the questions of `records("rag", ..., seed)` outside of train are about.

    Returns one {"id", "text"} for every shop of all three splits: each is a distractor for the
    others, the nearest ones sharing its person or its city.
    """
    return [shop.passage for shop in shops(seed).values()]


def rag(draw: random.Random, split: str, kind: str, seed: int, least: int = 1) -> Record:
    """Make a question (kind: RAG_KINDS), `least` to three passages in any order, the answer and whose passages hold it.

    In train the shops are opened anew for every record, so that nothing can be learnt by heart; in the other
    splits they are those of `passages(seed)`. What nothing tells has neither answers nor passage_ids: the shop
    asked about is not there.
    """
    if split == "train":
        known: dict[Visit, Shop] = {}
        visits = list(visits_of(split))
    else:
        known = shops(seed)
        visits = [visit for visit in visits_of(split) if (visit in known) != (kind == "nothing")]
    visit = draw.choice(visits)
    asked = known.get(visit) or _opened(draw, visit)
    others = [other for other in visits_of(split) if other != visit and (split == "train" or other in known)]
    near = [other for other in others if other[0] == visit[0] or other[1] == visit[1]]
    number = draw.randrange(max(least - 1, int(kind == "both")), AT_MOST) + (kind == "nothing")
    chosen: list[Visit] = []
    while len(chosen) < number:
        pool = [other for other in (near if draw.random() < 0.3 else others) if other not in chosen]
        chosen.append(draw.choice(pool or [other for other in others if other not in chosen]))
    beside = [known.get(other) or _opened(draw, other) for other in chosen]
    question, answers, told = _asked(draw, kind, asked, beside)
    shown = [*beside, *([asked] if kind != "nothing" else [])]
    return {"question": question, "answers": answers, "passage_ids": [shop.id for shop in told],
            "passages": [shop.passage for shop in draw.sample(shown, len(shown))]}


def _asked(draw: random.Random, kind: str, shop: Shop, beside: list[Shop]) -> tuple[str, list[str], list[Shop]]:
    """A question on a shop, its answers, long and short, and the shops that tell them."""
    if kind == "nothing":
        return _asked(draw, draw.choice(("thing", "day")), shop, beside)[0], [], []
    wanted = shop.thing.plural
    if kind == "both":
        other = beside[0]
        return (f"What do {_named(draw, shop)} and {_named(draw, other)} sell?",
                [f"{shop.sells} {other.sells}", f"{wanted} and {other.thing.plural}"], [shop, other])
    if kind == "thing":
        return f"What does {_named(draw, shop)} sell?", [shop.sells, wanted], [shop]
    return f"On which day is {_named(draw, shop)} open?", [shop.opens, shop.day], [shop]


def _named(draw: random.Random, shop: Shop) -> str:
    city = shop.place.city
    return draw.choice((f"the shop of {shop.person} in {city}", f"the {city} shop of {shop.person}"))
