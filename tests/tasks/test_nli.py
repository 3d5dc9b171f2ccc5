# SPDX-License-Identifier: Apache-2.0
"""The guide's fourth chapter: pairs with token types, the decoder's prompt, the guide's prediction."""

import numpy as np
import pytest

from t5tasks import tasks
from t5tasks.data.features import features

TASK = tasks.get("nli")
OPTIONS = {**TASK.options, "labels": ("Entailment", "Neutral", "Contradiction")}
RECORD = {"premise": "A man eats.", "hypothesis": "He sleeps.", "label": "Contradiction"}


def test_the_guides_example():
    """Its first pair and its label; its second as an encoder reads it."""
    form = TASK.form("encoder")
    first = {"premise": "A man in a blue shirt is riding a horse through a field.",
             "hypothesis": "A person is outdoors.", "label": "Entailment"}
    assert form.preprocess(first, OPTIONS).label == 0
    second = {"premise": "The event is scheduled for Tuesday.", "hypothesis": "The event is on the weekend."}
    assert [piece.text or f"[{piece.special.upper()}]" for piece in form.preprocess(second, OPTIONS).pieces] == [
        "[CLS]", "The event is scheduled for Tuesday.", "[BETWEEN]", "The event is on the weekend.", "[SEP]"]


def test_a_pair_has_two_token_types(letters):
    form = TASK.form("encoder")
    arrays, tokens, _ = features(form.preprocess(RECORD, OPTIONS), letters, form.loss_mask, 99)
    assert [int(id) for id in tokens.ids if id < 5] == [3, 4, 4]  # [CLS] … [SEP] … [SEP]
    assert arrays["token_types"].tolist() == [0] * (1 + 11 + 1) + [1] * (10 + 1)
    assert arrays["targets"] == 2 and arrays["weights"] == 1


def test_the_longer_sentence_is_cut(letters):
    form = TASK.form("encoder")
    long = {**RECORD, "premise": "p" * 90}
    arrays, tokens, _ = features(form.preprocess(long, OPTIONS), letters, form.loss_mask, 40)
    assert len(arrays["tokens"]) == 40 and tokens.lost == {"premise": 90 - (40 - 13)}


def test_the_decoders_prompt_is_the_guides():
    form = TASK.form("decoder")
    pieces = form.preprocess(RECORD, OPTIONS).pieces
    assert "".join(piece.text or f"<{piece.special}>" for piece in pieces) == (
        "<bos>Based on the Premise, determine if the Hypothesis is an entailment, contradiction, or neutral.\n\n"
        "Premise: A man eats.\nHypothesis: He sleeps.\n\nThe logical relationship is: Contradiction<eos>")
    assert [piece.role for piece in pieces if form.loss_mask([piece.role])[0]] == ["target", "target"]
    assert form.label_texts(OPTIONS) == [" Entailment", " Neutral", " Contradiction"]


def test_the_guides_prediction():
    """Its logits; the score that it prints, 0.998, is the sigmoid of 6.2 alone: the softmax is nearer to 1."""
    logits = np.asarray([-4.6, 6.2, -3.1])
    options = {**TASK.options, "labels": ("Entailment", "Contradiction", "Neutral")}
    probabilities = np.exp(logits) / np.exp(logits).sum()
    found = TASK.postprocess(RECORD, probabilities, options)
    assert {"label": found["label"], "score": round(found["score"], 4)} == {"label": "Contradiction", "score": 0.9999}
    assert round(1 / (1 + np.exp(-6.2)), 3) == 0.998
    assert sum(found["probabilities"].values()) == pytest.approx(1)
    assert TASK.postprocess(RECORD, probabilities[[1, 0, 2]], options)["label"] == "Entailment"


def test_the_metrics_are_accuracy_and_f1_of_each_class():
    records = [{**RECORD, "label": label} for label in ("Neutral", "Neutral", "Contradiction", "Entailment")]
    answers = np.eye(3)[[1, 2, 2, 0]]
    total = {}
    for record, answer in zip(records, answers, strict=True):
        each = TASK.count(record, TASK.postprocess(record, answer, OPTIONS), OPTIONS)
        total = {name: total.get(name, 0) + value for name, value in each.items()}
    figures = TASK.figures(total, OPTIONS)
    assert figures["accuracy"] == 0.75
    assert [figures[f"f1/{name}"] for name in OPTIONS["labels"]] == pytest.approx([1, 2 / 3, 2 / 3])


def test_an_unknown_label_is_told_with_its_premise():
    with pytest.raises(ValueError, match="unknown label '-' of premise 'A man eats.'; valid labels are entailment, ne"):
        TASK.form("encoder").preprocess({**RECORD, "label": "-"}, TASK.options)
