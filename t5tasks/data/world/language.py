# SPDX-License-Identifier: Apache-2.0
"""Translation: a random stream, a split and a tense in, an English and an invented sentence out.

The invented language puts the verb last and the adjective after its noun, has no word for "the",
and marks with suffixes what English marks with order, small words and irregular forms:

    noun, adjective   stem + i (plural) + n (object) or sa (place)
    verb              stem + ke (present), ta (past) or vu (future) + r (plural doer)
    small words       mo (a), dva, tri, ketu (two to four), nel (not)

    On Monday the children did not sell a red hat in Oslo.
    luma osvesa bimboi mo hutan rozan nel drimtar.
"""

import random
from typing import Any, NamedTuple

from t5tasks.data.world.combinations import split_of
from t5tasks.data.world.facts import DAYS, PLACES, THINGS, article, capital

DOERS = {
    "farmer": ("farmers", "velko"),
    "teacher": ("teachers", "sanu"),
    "baker": ("bakers", "pirma"),
    "sailor": ("sailors", "okude"),
    "doctor": ("doctors", "yarno"),
    "singer": ("singers", "tilsa"),
    "nurse": ("nurses", "gemu"),
    "king": ("kings", "zorba"),
    "queen": ("queens", "zirbe"),
    "child": ("children", "bimbo"),
    "woman": ("women", "feula"),
    "man": ("men", "daugo"),
}
# English base, past, invented stem; the third person adds "s" to the base.
VERBS = {
    "buy": ("bought", "kupal"),
    "sell": ("sold", "drim"),
    "see": ("saw", "ovil"),
    "find": ("found", "rast"),
    "hold": ("held", "mokun"),
    "paint": ("painted", "lisk"),
    "clean": ("cleaned", "vafor"),
    "hide": ("hid", "jup"),
    "bring": ("brought", "torn"),
    "steal": ("stole", "shek"),
}
ADJECTIVES = {
    "red": "roza",
    "blue": "bliu",
    "old": "senta",
    "new": "nivo",
    "big": "grau",
    "small": "piku",
}
THING_STEMS = (
    "malu", "sitra", "perga", "dinho", "bolo", "pupe", "vlie", "tambu",
    "keru", "linde", "skovo", "marti", "kamo", "huta", "sjali", "manto",
)  # fmt: skip
PLACE_STEMS = (
    "osve", "rumi", "kahi", "lemo", "parshe", "toky", "madru", "atini",
    "kwito", "nairu", "dubla", "havo", "sofyu", "wini", "tiago", "varso",
)  # fmt: skip
DAY_WORDS = ("luma", "marsu", "mirko", "jovi", "venri", "sabo", "domi")
NUMERALS = {"two": "dva", "three": "tri", "four": "ketu"}
ENDINGS = {"present": "ke", "past": "ta", "future": "vu"}
NOT, A = "nel", "mo"


class Phrase(NamedTuple):
    """A noun phrase: the noun, "the", "a" or a numeral, and an adjective or ""."""

    noun: str
    determiner: str
    adjective: str
    plural: bool


class Clause(NamedTuple):
    """What a sentence says, before either language says it; `day` and `city` may be ""."""

    doer: Phrase
    verb: str
    tense: str
    negated: bool
    thing: Phrase
    day: str
    city: str


def translation(draw: random.Random, split: str, kind: str) -> dict[str, Any]:
    """Make one sentence pair in the given tense; (doer, verb, tense) is one of the split."""
    while True:
        doer, verb = draw.choice(tuple(DOERS)), draw.choice(tuple(VERBS))
        if split_of(doer, verb, kind) == split:
            break
    clause = Clause(
        doer=_phrase(draw, doer, adjectives=0.25, numerals=False),
        verb=verb,
        tense=kind,
        negated=draw.random() < 0.3,
        thing=_phrase(draw, draw.choice(THINGS).name, adjectives=0.5, numerals=True),
        day=draw.choice(DAYS) if draw.random() < 0.5 else "",
        city=draw.choice(PLACES).city if draw.random() < 0.5 else "",
    )
    return {"source": english(clause), "target": invented(clause)}


def _phrase(draw: random.Random, noun: str, adjectives: float, numerals: bool) -> Phrase:
    plural = draw.random() < 0.5
    if plural:
        determiner = draw.choice(("the", *NUMERALS)) if numerals else "the"
    else:
        determiner = draw.choice(("the", "a"))
    adjective = draw.choice(tuple(ADJECTIVES)) if draw.random() < adjectives else ""
    return Phrase(noun, determiner, adjective, plural)


def english(clause: Clause) -> str:
    """Say a clause in English."""
    past, _ = VERBS[clause.verb]
    plural = clause.doer.plural
    if clause.tense == "future":
        verb = f"will not {clause.verb}" if clause.negated else f"will {clause.verb}"
    elif clause.tense == "past":
        verb = f"did not {clause.verb}" if clause.negated else past
    elif clause.negated:
        verb = f"{'do' if plural else 'does'} not {clause.verb}"
    else:
        verb = clause.verb if plural else clause.verb + "s"
    words = [
        f"on {clause.day}" if clause.day else "",
        _english_phrase(clause.doer),
        verb,
        _english_phrase(clause.thing),
        f"in {clause.city}" if clause.city else "",
    ]
    return capital(" ".join(word for word in words if word)) + "."


def _english_phrase(phrase: Phrase) -> str:
    plurals = {thing.name: thing.plural for thing in THINGS}
    noun = phrase.noun
    if phrase.plural:
        noun = DOERS[noun][0] if noun in DOERS else plurals[noun]
    described = f"{phrase.adjective} {noun}".strip()
    return article(described) if phrase.determiner == "a" else f"{phrase.determiner} {described}"


def invented(clause: Clause) -> str:
    """Say a clause in the invented language: day, place, doer, thing, not, verb; no capitals."""
    _, stem = VERBS[clause.verb]
    cities = dict(zip((place.city for place in PLACES), PLACE_STEMS, strict=True))
    words = [
        dict(zip(DAYS, DAY_WORDS, strict=True))[clause.day] if clause.day else "",
        cities[clause.city] + "sa" if clause.city else "",
        _invented_phrase(clause.doer, ""),
        _invented_phrase(clause.thing, "n"),
        NOT if clause.negated else "",
        stem + ENDINGS[clause.tense] + ("r" if clause.doer.plural else ""),
    ]
    return " ".join(word for word in words if word) + "."


def _invented_phrase(phrase: Phrase, case: str) -> str:
    things = dict(zip((thing.name for thing in THINGS), THING_STEMS, strict=True))
    stem = DOERS[phrase.noun][1] if phrase.noun in DOERS else things[phrase.noun]
    ending = ("i" if phrase.plural else "") + case
    words = [
        A if phrase.determiner == "a" else NUMERALS.get(phrase.determiner, ""),
        stem + ending,
        ADJECTIVES[phrase.adjective] + ending if phrase.adjective else "",
    ]
    return " ".join(word for word in words if word)
