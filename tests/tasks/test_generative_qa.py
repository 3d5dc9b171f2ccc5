# SPDX-License-Identifier: Apache-2.0
"""The guide's chapter 5b: its prompt, contexts, several answers, and baselines by hand."""

import pytest

from t5tasks import tasks

TASK = tasks.get("generative_qa")
RECORD = {"question": "Why is the sky blue?", "answers": ["Because of Rayleigh scattering.", "Rayleigh scattering"]}


def _text(pieces):
    return "".join(piece.text or f"<{piece.special}>" for piece in pieces)


def test_the_guides_example():
    form = TASK.form("decoder")
    whole = form.preprocess(RECORD, TASK.options).pieces
    assert _text(whole) == "<bos>Question: Why is the sky blue? Answer: Because of Rayleigh scattering.<eos>"
    assert [piece.role for piece in whole if form.loss_mask([piece.role])[0]] == ["target", "target"]
    asked = form.preprocess({"question": RECORD["question"]}, TASK.options).pieces
    assert _text(asked) == "<bos>Question: Why is the sky blue? Answer:"


def test_a_context_stands_before_the_question_and_behind_it_for_an_encoder():
    record = {**RECORD, "context": "Air scatters blue light."}
    assert _text(TASK.form("decoder").preprocess(record, TASK.options).pieces).startswith(
        "<bos>Context: Air scatters blue light.\nQuestion: Why is the sky blue? Answer:")
    example = TASK.form("encoder_decoder").preprocess(record, TASK.options)
    assert _text(example.source) == "question: Why is the sky blue? context: Air scatters blue light.<eos>"
    assert _text(example.pieces) == "Because of Rayleigh scattering.<eos>"


def test_the_best_of_the_answers_counts():
    counts = TASK.count(RECORD, TASK.postprocess(RECORD, " the Rayleigh scattering!", TASK.options), TASK.options)
    figures = TASK.figures(counts, TASK.options)
    assert figures["exact_match"] == figures["f1"] == 1


@pytest.mark.parametrize("answers", [[], [3], "text"])
def test_answers_that_are_no_texts_are_refused(answers):
    with pytest.raises(ValueError, match="field 'answers' of question 'Why is the sky blue"):
        TASK.form("decoder").preprocess({**RECORD, "answers": answers if answers != "text" else [None]}, TASK.options)


def test_baselines_by_hand():
    records = [{"question": "who", "answers": ["Tom"]}, {"question": "x", "answers": ["Ann"]},
               {"question": "is it Tom", "answers": ["Tom"], "context": "Tom ran"}]
    found = TASK.baselines(records, TASK.options)
    assert found["majority"] == pytest.approx(2 / 3)
    assert found["question"] == pytest.approx((2 * (1 / 3) / (1 + 1 / 3)) / 3)
    assert found["context"] == found["first sentence"] == pytest.approx((2 * 0.5 / 1.5) / 3)
    longer = [*records[:2], {**records[2], "context": "Tom ran. He and Ann were late."}]
    assert TASK.baselines(longer, TASK.options)["first sentence"] == found["context"]
    assert TASK.baselines(longer, TASK.options)["context"] < found["context"]
