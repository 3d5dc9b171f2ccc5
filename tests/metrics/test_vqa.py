# SPDX-License-Identifier: Apache-2.0
"""VQA accuracy is what the challenge's own code gives, and what its definition says, person by person."""

import itertools
import json
import pathlib

import pytest

from t5tasks.metrics import counts as counting
from t5tasks.metrics.vqa import CONTRACTIONS, accuracy, normalise, vqa_counts, vqa_figures

REFERENCE = json.loads((pathlib.Path(__file__).parent / "fixtures" / "visual.json").read_text("utf-8"))["vqa"]


def test_answers_are_normalised_as_the_challenge_does():
    """Our own table of contractions is the challenge's, but for what changes nothing."""
    assert {answer: normalise(answer) for answer in REFERENCE["normalised"]} == REFERENCE["normalised"]
    theirs = {short: word for short, word in REFERENCE["contractions"].items() if short.islower() and short != word}
    assert theirs == CONTRACTIONS


def test_accuracies_are_the_challenge_s():
    questions = REFERENCE["questions"]
    assert len(questions) > 200
    found = [accuracy(predicted, people) for predicted, people, _ in questions]
    assert found == pytest.approx([expected for *_, expected in questions], abs=1e-9)
    assert len({round(one, 6) for one in found}) > 8
    counts = vqa_counts([one for one, *_ in questions], [people for _, people, _ in questions])
    mean = sum(expected for *_, expected in questions) / len(questions)
    assert vqa_figures(counts)["vqa_accuracy"] == pytest.approx(mean)


@pytest.mark.parametrize("people", range(2, 11))
def test_the_mean_over_the_sets_with_one_left_out(people):
    """Of `people` answers, the first `same` are the predicted one."""
    for same in range(people + 1):
        answers = ["cat"] * same + ["dog"] * (people - same)
        sets = itertools.combinations(answers, people - 1)
        shares = [min(1, one.count("cat") / min(3, people - 1)) for one in sets]
        assert accuracy("a Cat.", answers) == pytest.approx(sum(shares) / people)


def test_the_picture_of_the_module():
    assert accuracy("yes", ["yes"] * 3 + ["no"] * 7) == pytest.approx(0.9)
    assert accuracy("Yes.", ["yes"]) == 1 and accuracy("no", ["yes"]) == 0


def test_counts_add_up_and_exact_match_needs_one_person():
    predictions, answers = ["two", "cat", "a cat"], [["2", "3"], ["dog"] * 10, ["Cat"] * 10]
    parts = [vqa_counts([one], [people]) for one, people in zip(predictions, answers, strict=True)]
    figures = vqa_figures(counting.total(parts))
    assert figures == vqa_figures(vqa_counts(predictions, answers))
    assert figures == {"vqa_accuracy": pytest.approx(1.5 / 3), "exact_match": pytest.approx(2 / 3)}


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(ValueError, match="expected a list of one text or more"):
        accuracy("yes", [])
    with pytest.raises(ValueError, match="expected a list of one text or more"):
        vqa_counts(["yes"], ["yes"])
    with pytest.raises(ValueError, match="2 predictions and 1 lists of answers"):
        vqa_counts(["yes", "no"], [["yes"]])
    with pytest.raises(ValueError, match="no example was counted"):
        vqa_figures(vqa_counts([], []))
