# SPDX-License-Identifier: Apache-2.0
"""The guide's chapter 12: its prompt with images in their places, and what is not graded."""

import pytest

from t5tasks import tasks
from t5tasks.data.features import Piece, images, shown

TASK = tasks.get("multimodal")
RECORD = {"image": "dog.jpg", "question": "What kind of dog is this?", "answers": ["This is a Golden Retriever."]}


def _text(pieces):
    return "".join(piece.text or f"<{piece.special or piece.image}>" for piece in pieces)


def _example(record, **options):
    return TASK.form("decoder").preprocess(record, {**TASK.options, **options})


def test_the_guides_example():
    example = _example(RECORD)
    assert _text(example.pieces) == ("<bos><dog.jpg>Question: What kind of dog is this? Answer: "
                                     "This is a Golden Retriever.<eos>")
    graded = [piece for piece in example.pieces if TASK.form("decoder").loss_mask([piece.role])[0]]
    assert _text(graded) == " This is a Golden Retriever.<eos>"
    seen = shown(example, "<image>", 3)
    assert _text(seen.pieces) == _text(example.pieces).replace("<dog.jpg>", "<<image>>" * 3)
    assert {piece.role for piece in seen.pieces if piece.special == "<image>"} == {"image"}


def test_several_images_none_and_images_that_are_not_shown():
    record = {name: value for name, value in RECORD.items() if name != "image"}
    several = _example(record | {"images": ["a.png", b"b", {"bytes": b"c"}]})
    assert images(several) == ["a.png", b"b", {"bytes": b"c"}]
    assert several.pieces[1:4] == tuple(Piece("", "image", image=image) for image in images(several))
    for none in (_example(record), _example(record | {"images": []}), _example(RECORD, blind=True)):
        assert not images(none) and _text(none.pieces).startswith("<bos>Question: What")
    with pytest.raises(ValueError, match="question 'What kind.*has a field 'image' and a field 'images'"):
        _example(RECORD | {"images": ["a.png"]})


@pytest.mark.parametrize("answers", [[], [3]])
def test_answers_that_are_no_texts_are_refused(answers):
    with pytest.raises(ValueError, match="field 'answers' of question 'What kind of dog"):
        _example(RECORD | {"answers": answers})


def test_what_ten_people_say_counts():
    record = RECORD | {"answers": ["golden retriever"] * 2 + ["labrador"] * 8}
    counts = TASK.count(record, TASK.postprocess(record, " The golden-retriever! ", TASK.options), TASK.options)
    figures = TASK.figures(counts, TASK.options)
    assert figures == {"vqa_accuracy": pytest.approx((2 / 3 * 8 + 1 / 3 * 2) / 10), "exact_match": 1.0}
    assert TASK.baselines([record, RECORD], TASK.options) == {"majority": pytest.approx(0.3), "question": 0.0}
