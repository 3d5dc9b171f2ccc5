# SPDX-License-Identifier: Apache-2.0
"""The guide's third chapter in both forms, and labels that nobody has named."""

import numpy as np
import pytest

from t5tasks import tasks
from t5tasks.data.features import features, prompt

TASK = tasks.get("classification")
OPTIONS = {**TASK.options, "labels": ("negative", "positive"), "cue": "Sentiment:"}
RECORD = {"text": "I love this product! It works perfectly.", "label": "positive"}


def _said(pieces):
    return [(piece.text or f"<{piece.special}>", piece.role) for piece in pieces]


def test_the_guides_example_with_an_encoder():
    example = TASK.form("encoder").preprocess(RECORD, OPTIONS)
    assert _said(example.pieces) == [("<cls>", "input"), ("I love this product! It works perfectly.", "input"),
                                     ("<sep>", "input")]
    assert example.label == 1


def test_the_guides_example_in_its_own_words():
    form, text = TASK.form("decoder"), RECORD["text"]
    options = {**OPTIONS, "labels": ("Positive", "Negative", "Neutral"), "template": "Review: {text} {cue}"}
    example = form.preprocess({"text": text, "label": "Positive"}, options)
    assert _said(example.pieces) == [("<bos>", "prompt"), ("Review: ", "prompt"), (text, "input"),
                                     (" Sentiment:", "prompt"), (" Positive", "target"), ("<eos>", "target")]
    found = TASK.postprocess({}, np.asarray([0.01, 0.99, 0.0]), options)
    assert found["label"] == "Negative" and found["score"] == 0.99


@pytest.mark.parametrize("template", ["Review: {cue}", "{text} {text}", "{text} {label}", "{text", "{text!r}",
                                      "{text:9}"])
def test_a_template_holds_each_field_once(template):
    with pytest.raises(ValueError, match=r"config.task.template is '"):
        TASK.form("decoder").preprocess(RECORD, {**OPTIONS, "template": template})


def test_doubled_braces_are_braces():
    pieces = TASK.form("decoder").preprocess(RECORD, {**OPTIONS, "template": "{{{text}}}"}).pieces
    assert _said(pieces)[1:4] == [("{", "prompt"), (RECORD["text"], "input"), ("}", "prompt")]


def test_a_decoders_default_prompt():
    form = TASK.form("decoder")
    example = form.preprocess(RECORD, OPTIONS)
    assert _said(example.pieces) == [("<bos>", "prompt"), (RECORD["text"], "input"),
                                     ("\nSentiment:", "prompt"), (" positive", "target"), ("<eos>", "target")]
    assert example.label is None
    assert form.label_texts(OPTIONS) == [" negative", " positive"]
    unlabelled = form.preprocess({"text": RECORD["text"]}, OPTIONS)
    assert unlabelled.pieces == prompt(example.pieces, form.loss_mask) == example.pieces[:3]


def test_the_text_is_cut_and_never_the_label(tokenizer):
    form, long = TASK.form("decoder"), {**RECORD, "text": RECORD["text"] * 20}
    wanted = features(form.preprocess(RECORD, OPTIONS), tokenizer, form.loss_mask, 200)[0]
    arrays, tokens, _ = features(form.preprocess(long, OPTIONS), tokenizer, form.loss_mask, 40)
    assert len(arrays["tokens"]) == 40 and set(tokens.lost) == {"input"}
    answer = [array["targets"][array["weights"] == 1].tolist() for array in (wanted, arrays)]
    assert answer[0] == answer[1] and answer[1][-1] == tokenizer.special["eos"]
    cue = tokenizer.encode("\nSentiment:").ids
    assert np.asarray(arrays["tokens"])[-len(answer[1]):].tolist()[0] == cue[-1]


@pytest.mark.parametrize("architecture", ["encoder", "decoder"])
def test_an_unknown_label_lists_the_valid_ones(architecture):
    with pytest.raises(ValueError, match="unknown label 'great' of text 'I love this.*valid labels are negative, pos"):
        TASK.form(architecture).preprocess({**RECORD, "label": "great"}, OPTIONS)


def test_labels_come_from_the_training_records_where_none_are_set():
    def load(*labels):
        return lambda: [{"text": "x", "label": label} for label in labels]

    assert TASK.resolve(TASK.options, load("b", "a", "b"))["labels"] == ("a", "b")
    assert TASK.resolve(OPTIONS, lambda: pytest.fail("loaded without need")) == OPTIONS
    with pytest.raises(ValueError, match=r"1 label \(a\); at least two are needed"):
        TASK.resolve(TASK.options, load("a", "a"))


def test_a_prediction_has_the_guides_shape():
    assert TASK.postprocess(RECORD, np.asarray([0.25, 0.75]), OPTIONS) == {
        "label": "positive", "score": 0.75, "probabilities": {"negative": 0.25, "positive": 0.75}}


def test_baselines_by_hand():
    records = [{"text": "x", "label": label} for label in ("positive",) * 3 + ("negative",)]
    assert TASK.baselines(records, OPTIONS) == {"chance": 0.5, "majority": 0.75}
