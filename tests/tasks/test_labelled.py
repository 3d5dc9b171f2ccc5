# SPDX-License-Identifier: Apache-2.0
"""Examples before what is asked, and weights of classes, in both tasks that answer with a label."""

import itertools
from collections import Counter

import numpy as np
import pytest

from t5tasks import tasks
from t5tasks.data import world
from t5tasks.data.features import features, prompt
from t5tasks.tasks import prompts
from t5tasks.tasks.task import SHOT


@pytest.fixture(params=["classification", "nli"])
def task(request):
    """Each task."""
    return tasks.get(request.param)


@pytest.fixture
def records(task):
    """Forty records of it."""
    return world.records(task.name, "train", 40)


def _text(pieces):
    return "".join(piece.text for piece in pieces)


def _resolved(task, records, **options):
    return task.resolve({**task.options, **options}, lambda: records)


def _many(**counts):
    return [{"text": f"{label} {index}", "label": label} for label, count in counts.items() for index in range(count)]


def test_examples_are_answered_prompts_before_the_prompt():
    task = tasks.get("classification")
    options = {**task.options, "labels": ("Negative", "Positive"), "template": "Review: {text} {cue}",
               "cue": "Sentiment:", "examples": ({"text": "A bore.", "label": "Negative"},
                                                 {"text": "A joy.", "label": "Positive"})}
    record = {"text": "I love this product!", "label": "Positive"}
    pieces = task.form("decoder").preprocess(record, options).pieces
    assert _text(pieces) == ("Review: A bore. Sentiment: Negative\n\nReview: A joy. Sentiment: Positive\n\n"
                             "Review: I love this product! Sentiment: Positive")
    assert [piece.role for piece in pieces] == ["prompt", SHOT, SHOT, "prompt", "input", "prompt", "target", "target"]


def test_drawn_examples_repeat_and_are_of_the_training_records(task, records):
    drawn = _resolved(task, records, shots=6)["examples"]
    assert drawn == _resolved(task, records, shots=6)["examples"] != _resolved(task, records, shots=6, shots_seed=1)[
        "examples"]
    assert len(drawn) == 6 and all({name: record[name] for name in example} == example for example in drawn
                                   for record in records if all(record[name] == example[name] for name in task.fields))
    assert all(set(example) == {*task.fields, "label"} for example in drawn)


def test_a_resolved_run_keeps_its_examples_and_another_number_draws_anew(task, records):
    options = _resolved(task, records, shots=3)
    assert task.resolve(options, lambda: pytest.fail("loaded without need")) == options
    assert len(task.resolve({**options, "shots": 5}, lambda: records)["examples"]) == 5


@pytest.mark.parametrize(("count", "wanted"), [(3, [1, 1, 1]), (4, [1, 1, 2]), (7, [1, 3, 3]), (12, [1, 5, 6])])
def test_examples_are_balanced_over_labels_as_far_as_there_are(count, wanted):
    records = _many(a=20, b=1, c=6)
    for seed in range(5):
        drawn = prompts.draw(records, ["text"], count, seed)
        found = Counter(example["label"] for example in drawn)
        assert sorted(found.values()) == wanted and len({example["text"] for example in drawn}) == count


def test_more_examples_than_records_are_a_mistake():
    with pytest.raises(ValueError, match="config.task.shots is 4, but there are 3 different training records"):
        prompts.draw(_many(a=1, b=2) * 2, ["text"], 4, 0)


def test_no_record_sees_its_own_answer(task, records):
    options = _resolved(task, records, shots=len(records))
    form = task.form("decoder")
    for record in records:
        shown = [piece for piece in form.preprocess(record, options).pieces if piece.role == SHOT]
        own = _text(prompts.worded(options["template"], options["cue"], record, dict.fromkeys(task.fields, "")))
        assert len(shown) == len(records) - 1 and not any(piece.text.startswith(own) for piece in shown)


def test_only_the_last_label_is_graded(task, records, letters):
    options, form = _resolved(task, records, shots=4), task.form("decoder")
    for record in records[:5]:
        arrays, _, _ = features(form.preprocess(record, options), letters, form.loss_mask, 5000)
        graded = arrays["targets"][arrays["weights"] == 1]
        assert "".join(chr(id - 5) for id in graded[:-1]) == f" {record['label']}" and graded[-1] == 1
        opening = prompt(form.preprocess(form.asked(record), options).pieces, form.loss_mask)
        assert opening == prompt(form.preprocess(record, options).pieces, form.loss_mask)


def test_shortening_drops_the_first_examples_and_nothing_else(task, records):
    options, form = _resolved(task, records, shots=3), task.form("decoder")
    record, left = records[0], dict(options)
    texts = [_text(form.preprocess(record, left).pieces)]
    while (shorter := form.shorten(record, left)) is not None:
        record, left = shorter
        texts.append(_text(form.preprocess(record, left).pieces))
    assert record == records[0] and len(texts) == 4 and left == {**options, "examples": ()}
    assert all(before.endswith(after) and before != after for before, after in itertools.pairwise(texts))
    assert form.shorten(record, left) is None and texts[-1] == _text(
        form.preprocess(record, {**options, "examples": ()}).pieces)


def test_an_encoder_reads_no_examples(task, records, letters):
    options = _resolved(task, records, shots=2)
    assert task.bind(task.form("decoder"), options, letters) is task.form("decoder")
    with pytest.raises(ValueError, match="config.task.shots is 2 and .* but an encoder reads no examples"):
        task.bind(task.form("encoder"), options, letters)


def test_examples_given_by_hand_are_checked(task, records):
    example = {name: records[0][name] for name in (*task.fields, "label")}
    assert _resolved(task, records, examples=(example,))["examples"] == (example,)
    with pytest.raises(ValueError, match="an example of config.task.examples has no text 'label'"):
        _resolved(task, records, examples=({**example, "label": 1},))
    with pytest.raises(ValueError, match="unknown label '-'"):
        _resolved(task, records, examples=({**example, "label": "-"},))
    with pytest.raises(ValueError, match="config.task.shots is -1"):
        _resolved(task, records, shots=-1)


def test_balanced_weights_by_hand():
    task, records = tasks.get("classification"), _many(a=6, b=2, c=1)
    options = _resolved(task, records, balanced=True)
    assert options["class_weights"] == pytest.approx((9 / 18, 9 / 6, 9 / 3))
    # Each class counts the same, and all together as much as without weights.
    totals = Counter()
    for record in records:
        totals[record["label"]] += task.weight(record, options)
    assert list(totals.values()) == pytest.approx([3, 3, 3])
    assert task.resolve(options, lambda: pytest.fail("loaded without need")) == options
    with pytest.raises(ValueError, match="no training record has the label 'd'"):
        _resolved(task, records, balanced=True, labels=("a", "b", "c", "d"))


def test_weights_stand_in_the_labels_order(task, records):
    options = _resolved(task, records)
    assert {task.weight(record, options) for record in records} == {1.0}
    weights = tuple(float(np.sqrt(2 + index)) for index in range(len(options["labels"])))
    given = _resolved(task, records, class_weights=weights, balanced=True)
    assert given["class_weights"] == weights
    assert [task.weight(record, given) for record in records] == [
        weights[options["labels"].index(record["label"])] for record in records]


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 0.0), (1.0, -1.0), (1.0, float("nan")), (1.0, float("inf"))])
def test_weights_that_do_not_fit_are_a_mistake(weights):
    with pytest.raises(ValueError, match="config.task.class_weights is .*a number above 0 for each of a, b"):
        _resolved(tasks.get("classification"), _many(a=1, b=1), class_weights=weights)
