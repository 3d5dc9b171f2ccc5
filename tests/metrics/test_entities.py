# SPDX-License-Identifier: Apache-2.0
"""Tags scored by seqeval in both modes come in; ours agree, and entities are repaired as is said."""

import json
import pathlib

import pytest

from t5tasks.metrics import counts as counting
from t5tasks.metrics import entities

CASES = json.loads((pathlib.Path(__file__).parent / "fixtures" / "entities.json").read_text("utf-8"))
TYPES = ("LOC", "ORG", "PER")


@pytest.mark.parametrize("repair", entities.REPAIRS)
@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_the_figures_are_seqevals(case, repair):
    found = entities.entity_figures(counting.total(
        entities.entity_counts(entities.entities(gold, repair), entities.entities(predicted, repair), TYPES)
        for gold, predicted in zip(case["gold"], case["predicted"], strict=True)), TYPES)
    wanted = case[repair]
    for name in TYPES:
        for ours, theirs in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            assert found[f"{ours}/{name}"] == pytest.approx(wanted[name][theirs], abs=1e-6)
    assert [found[name] for name in ("precision", "recall", "f1")] == pytest.approx(
        [wanted["micro avg"][name] for name in ("precision", "recall", "f1-score")], abs=1e-6)
    assert found["macro_f1"] == pytest.approx(wanted["macro avg"]["f1-score"], abs=1e-6)


def test_the_modes_differ_on_these_tags():
    assert all(case["strict"]["micro avg"] != case["lenient"]["micro avg"] for case in CASES)


@pytest.mark.parametrize(("tags", "lenient", "strict"), [
    ("O I-PER I-PER", [("PER", 1, 3)], []),
    ("B-PER I-LOC I-LOC", [("PER", 0, 1), ("LOC", 1, 3)], [("PER", 0, 1)]),
    ("B-PER B-PER I-PER O", [("PER", 0, 1), ("PER", 1, 3)], [("PER", 0, 1), ("PER", 1, 3)]),
    ("I-A B-A I-A", [("A", 0, 1), ("A", 1, 3)], [("A", 1, 3)]),
    ("", [], []), ("O O", [], []), ("B-x-y I-x-y", [("x-y", 0, 2)], [("x-y", 0, 2)])])
def test_entities_by_hand(tags, lenient, strict):
    assert entities.entities(tags.split()) == lenient
    assert entities.entities(tags.split(), "strict") == strict


def test_an_entity_counts_by_type_and_both_ends():
    found = [("PER", 0, 2), ("ORG", 3, 4), ("LOC", 3, 5)]
    counts = entities.entity_counts([("PER", 0, 2), ("LOC", 3, 4)], found, TYPES)
    assert {name: value.tolist() for name, value in counts.items()} == {
        "entities_present": [1, 0, 1], "entities_found": [1, 1, 1], "entities_right": [0, 0, 1]}
    figures = entities.entity_figures(counts, TYPES)
    assert (figures["precision"], figures["recall"], figures["f1"]) == pytest.approx((1 / 3, 1 / 2, 2 / 5))
    assert entities.entity_figures(entities.entity_counts([], [], TYPES), TYPES)["f1"] == 0


def test_what_does_not_fit():
    for tag in ("PER", "E-PER", "B-", "B", ""):
        with pytest.raises(ValueError, match=f"tag {tag!r} is not IOB2: expected O, B-TYPE or I-TYPE"):
            entities.entities([tag])
    with pytest.raises(ValueError, match="repair is 'none', expected lenient or strict"):
        entities.entities(["O"], "none")
    with pytest.raises(ValueError, match="an entity has the type 'CAR'; the types are LOC, ORG, PER"):
        entities.entity_counts([("CAR", 0, 1)], [], TYPES)
