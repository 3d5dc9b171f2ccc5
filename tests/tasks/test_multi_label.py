# SPDX-License-Identifier: Apache-2.0
"""Any number of labels for a text: targets, predictions, figures, and what is refused."""

import numpy as np
import pytest

from t5tasks import tasks
from t5tasks.data import batches
from t5tasks.data.features import features
from t5tasks.metrics import counts as counting
from t5tasks.metrics import labels as label_metrics

PLAIN = tasks.get("classification")
OPTIONS = {**PLAIN.options, "multi_label": True, "labels": ("cast", "music", "plot")}
TASK = tasks.get("classification", OPTIONS)
RECORDS = [{"text": "The plot drags, but what music!", "labels": ["plot", "music"]}, {"text": "Well.", "labels": []},
           {"text": "A cast!", "labels": ["cast"]}, {"text": "Plot, plot, plot.", "labels": ["plot"]}]


def test_the_option_makes_the_task():
    assert tasks.get("classification", PLAIN.options) is tasks.get("classification") is PLAIN
    assert TASK.name == PLAIN.name and set(TASK.options) == set(PLAIN.options)
    TASK.check(RECORDS[1], "file:1")
    with pytest.raises(ValueError, match="file:1: no field 'labels'"):
        TASK.check({"text": "x", "label": "plot"}, "file:1")
    with pytest.raises(ValueError, match="has no 'decoder' form; config.architecture may be encoder"):
        TASK.form("decoder")


def test_targets_say_of_each_label_whether_it_holds(letters):
    form = TASK.form("encoder")
    made = [features(form.preprocess(record, OPTIONS), letters, form.loss_mask, 40)[0] for record in RECORDS]
    assert [arrays["targets"].tolist() for arrays in made] == [[0, 1, 1], [0, 0, 0], [1, 0, 0], [0, 0, 1]]
    assert all(arrays["weights"] == 1 for arrays in made)
    with pytest.raises(ValueError, match="unknown label '-' of text 'A cast!'; valid labels are cast, music, plot"):
        form.preprocess({**RECORDS[2], "labels": ["cast", "-"]}, OPTIONS)


def test_as_many_labels_as_tokens_are_no_sequence(letters):
    """Batches are padded to a rung of the ladder, targets never."""
    form, options = TASK.form("encoder"), {**OPTIONS, "labels": tuple("abcdefghi")}
    row = features(form.preprocess({"text": "A cast!", "labels": ["b"]}, options), letters, form.loss_mask, 40)[0]
    assert len(row["tokens"]) == len(row["targets"]) == 9
    batch = batches.padded([row, row], batches.Shape(4, 40))
    assert batch["tokens"].shape == (4, 16) and batch["targets"].shape == (4, 9) and batch["weights"].shape == (4,)


def test_a_prediction_names_what_reaches_the_threshold():
    answer = np.asarray([0.2, 0.5, 0.9])
    assert TASK.postprocess(RECORDS[0], answer, OPTIONS) == {
        "labels": ["music", "plot"], "probabilities": {"cast": 0.2, "music": 0.5, "plot": 0.9}}
    assert TASK.postprocess(RECORDS[0], answer, {**OPTIONS, "threshold": 0.95})["labels"] == []


def _figures(answers):
    return TASK.figures(counting.total(
        TASK.count(record, TASK.postprocess(record, np.asarray(answer), OPTIONS), OPTIONS)
        for record, answer in zip(RECORDS, answers, strict=True)), OPTIONS)


def test_figures_by_hand():
    found = _figures([[0, 1, 0], [0, 0, 0], [1, 1, 0], [0, 0, 1]])
    # 3 hits, 1 false alarm (music), 1 miss (plot).
    assert found["micro_f1"] == pytest.approx(6 / 8) and found["subset_accuracy"] == 0.5
    assert [found[f"f1/{name}"] for name in OPTIONS["labels"]] == pytest.approx([1, 2 / 3, 2 / 3])
    assert found["macro_f1"] == pytest.approx(7 / 9)
    assert (found["precision/music"], found["recall/music"], found["recall/plot"]) == (0.5, 1, 0.5)


def test_the_right_answers_score_the_most_there_is():
    found = _figures([TASK.form("encoder").right(record, OPTIONS) for record in RECORDS])
    assert set(found.values()) == {1.0}
    # All of 4 * 3 decisions yes: 4 hits, 8 false alarms. Always plot: 2 hits, 2 false alarms, 2 misses.
    assert TASK.baselines(RECORDS, OPTIONS) == {"every label": pytest.approx(8 / 16), "majority": pytest.approx(4 / 8)}


def test_labels_come_from_the_training_records():
    options = {**OPTIONS, "labels": ()}
    assert TASK.resolve(options, lambda: RECORDS) == OPTIONS
    with pytest.raises(ValueError, match="the training records have no labels"):
        TASK.resolve(options, lambda: RECORDS[1:2])


@pytest.mark.parametrize(("name", "value"), [("shots", 2), ("balanced", True), ("class_weights", (1.0, 2.0, 3.0)),
                                             ("threshold", 1.5), ("threshold", 0.0)])
def test_what_is_for_single_labels_is_refused(name, value):
    with pytest.raises(ValueError, match=f"config.task.{name} is "):
        TASK.resolve({**OPTIONS, name: value}, lambda: RECORDS)


@pytest.mark.parametrize(("targets", "predictions", "match"), [
    ([[1, 0]], [[1]], r"shapes \(1, 2\) and \(1, 1\)"), ([1, 0], [1, 0], "expected .N, C. of both"),
    ([[2, 0]], [[1, 0]], "hold 0 and 1")])
def test_counts_of_what_is_no_set_are_refused(targets, predictions, match):
    with pytest.raises(ValueError, match=match):
        label_metrics.label_set_counts(targets, predictions)
