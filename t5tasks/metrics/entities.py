# SPDX-License-Identifier: Apache-2.0
"""Tags of words (IOB2) come in, the entities they spell go out; found and right ones in, P, R and F1 out.

    Tim    Cook   is  at  Apple
    B-PER  I-PER  O   O   B-ORG    →   (PER, 0, 2), (ORG, 4, 5)

Tags can be ill-formed: an inside tag with nothing of its type before it. Two ways to repair them:

    lenient   it begins an entity                        O  I-PER I-PER  →  (PER, 1, 3)
    strict    it belongs to none, nor does what          O  I-PER I-PER  →  none
              goes on with it

These are seqeval's default mode, which is that of the CoNLL-2000 evaluation (aclanthology.org/W00-0726), and
its strict mode under IOB2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from t5tasks.metrics.counts import Counts

Entity = tuple[str, int, int]  # type, first word, the word after its last
REPAIRS = ("lenient", "strict")


def split(tag: str) -> tuple[str, str]:
    """A tag's mark (B, I or O) and type; ValueError for what is no IOB2 tag."""
    mark, dash, kind = tag.partition("-")
    if tag != "O" and not (mark in ("B", "I") and dash and kind):
        raise ValueError(f"tag {tag!r} is not IOB2: expected O, B-TYPE or I-TYPE")
    return mark, kind


def entities(tags: Sequence[str], repair: str = "lenient") -> list[Entity]:
    """The entities in order, repaired as the module's first lines say.

    Raises:
      ValueError: an unknown repair, or a tag that is not IOB2.
    """
    if repair not in REPAIRS:
        raise ValueError(f"repair is {repair!r}, expected {' or '.join(REPAIRS)}")
    found: list[Entity] = []
    open_type, start = "", 0
    for index, tag in enumerate([*tags, "O"]):
        mark, kind = split(tag)
        if mark == "I" and kind == open_type:
            continue
        if open_type:
            found.append((open_type, start, index))
        begins = mark == "B" or (mark == "I" and repair == "lenient")
        open_type, start = (kind, index) if begins else ("", 0)
    return found


def types(tags: Iterable[str]) -> tuple[str, ...]:
    """The types of these tags, sorted."""
    return tuple(sorted({kind for _, kind in map(split, tags) if kind}))


def entity_counts(right: Iterable[Entity], found: Iterable[Entity], types: Sequence[str]) -> Counts:
    """Counts the entities of one text: those there are, those found, those found rightly (type and both ends).

    Args:
      right, found: entities; their ends may count words or characters, the same in both.
      types: K names.

    Returns:
      {"entities_present", "entities_found", "entities_right"}: int64[K].

    Raises:
      ValueError: an entity of another type.
    """
    places = {name: index for index, name in enumerate(types)}
    wanted, given = set(right), set(found)
    counts = {}
    for name, some in (("present", wanted), ("found", given), ("right", wanted & given)):
        counts[f"entities_{name}"] = np.zeros(len(types), np.int64)
        for kind, _, _ in some:
            if kind not in places:
                raise ValueError(f"an entity has the type {kind!r}; the types are {', '.join(types)}")
            counts[f"entities_{name}"][places[kind]] += 1
    return counts


def entity_figures(counts: Counts, types: Sequence[str]) -> dict[str, float]:
    """precision, recall and f1 over all entities, macro_f1 over the types that occur, and those of each type.

    From 0 to 1; a ratio without a denominator is 0.
    """
    present, found, right = (counts[f"entities_{name}"] for name in ("present", "found", "right"))
    figures = dict(zip(("precision", "recall", "f1"), _ratios(present.sum(), found.sum(), right.sum()), strict=True))
    scores = [_ratios(*each) for each in zip(present, found, right, strict=True)]
    occurring = [f1 for (_, _, f1), some in zip(scores, present + found, strict=True) if some]
    figures["macro_f1"] = float(np.mean(occurring)) if occurring else 0.0
    for name, each in zip(types, scores, strict=True):
        figures |= dict(zip((f"precision/{name}", f"recall/{name}", f"f1/{name}"), each, strict=True))
    return figures


def _ratios(present: int, found: int, right: int) -> tuple[float, float, float]:
    """Precision, recall, F1."""
    return (float(right / max(found, 1)), float(right / max(present, 1)), float(2 * right / max(present + found, 1)))
