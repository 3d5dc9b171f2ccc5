# SPDX-License-Identifier: Apache-2.0
"""The guide's tenth chapter: its example, final answers, majorities, and baselines by hand."""

import pytest

from t5tasks import tasks

TASK = tasks.get("reasoning")
RECORD = {"question": "If John has 5 apples and gives 2 to Mary, how many does he have left?",
          "reasoning": "John starts with 5 apples. He gives away 2. So we need to subtract 2 from 5. 5 - 2 = 3.",
          "answer": "3"}


def _said(pieces):
    return [(piece.text or f"<{piece.special}>", piece.role) for piece in pieces]


def test_the_guides_example():
    """Reasoning and answer are graded; with `direct` the answer alone."""
    form = TASK.form("decoder")
    asked = [("<bos>", "prompt"), ("Question: ", "prompt"), (RECORD["question"], "question"), ("\nAnswer:", "prompt")]
    ending = [(" The answer is 3.", "target"), ("<eos>", "target")]
    assert _said(form.preprocess(RECORD, TASK.options).pieces) == [
        *asked, (f" {RECORD['reasoning']}", "reasoning"), *ending]
    assert _said(form.preprocess(RECORD, {"direct": True}).pieces) == [*asked, *ending]
    assert form.loss_mask(["prompt", "question", "reasoning", "target"]).tolist() == [0, 0, 1, 1]
    answer = f" {RECORD['reasoning']} The answer is 3."
    assert TASK.postprocess(RECORD, answer, TASK.options) == {"reasoning": RECORD["reasoning"], "answer": "3"}


def test_a_chain_of_thought_needs_one():
    record = {"question": "a", "answer": "3"}
    with pytest.raises(ValueError, match="no field 'reasoning' in the record of question 'a'; give it, or set"):
        TASK.form("decoder").preprocess(record, TASK.options)
    TASK.form("decoder").preprocess(record, {"direct": True})


def test_the_majority_of_the_samples_is_the_answer():
    answer = ("So 4. The answer is 4.", "Thus 3. The answer is 3.", "no idea", "Hm. The answer is 3.0.")
    found = TASK.postprocess(RECORD, answer, TASK.options)
    assert found == {"reasoning": "Thus 3.", "answer": "3", "answers": ["4", "3", "", "3.0"]}
    figures = TASK.figures(TASK.count(RECORD, found, TASK.options), TASK.options)
    assert figures == {"accuracy": 1, "answered": 1, "sample_accuracy": 0.5}


def test_an_answer_that_is_not_there_is_wrong():
    found = TASK.postprocess(RECORD, "well", TASK.options)
    assert TASK.figures(TASK.count(RECORD, found, TASK.options), TASK.options) == {
        "accuracy": 0, "answered": 0, "sample_accuracy": 0}


def test_baselines_by_hand():
    records = [{"question": "2 and 3", "answer": "3"}, {"question": "4 and 5", "answer": "3"},
               {"question": "none", "answer": "7"}, {"question": "1,000", "answer": "1000.0"}]
    assert TASK.baselines(records, TASK.options) == {"majority": 0.5, "last number": 0.5}
