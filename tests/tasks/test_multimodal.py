# SPDX-License-Identifier: Apache-2.0
"""The guide's chapter 12: its prompt with images in their places, and what is not graded."""

import numpy as np
import pytest

from t5tasks import tasks
from t5tasks.data.features import Piece, images, shown
from t5tasks.metrics import captions
from t5tasks.metrics import counts as counting

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


@pytest.mark.parametrize(("template", "said"), [
    ("{bos}USER: {images}\n{question} ASSISTANT:",
     "<bos>USER: <dog.jpg>\nWhat kind of dog is this? ASSISTANT: This is"),
    ("{images}{bos}answer en {question}\n", "<dog.jpg><bos>answer en What kind of dog is this?\nThis is"),
    ("{images}{{{question}}}", "<dog.jpg>{What kind of dog is this?} This is")])
def test_a_prompt_may_be_worded_as_a_checkpoint_knows_it(template, said):
    assert _text(_example(RECORD, template=template).pieces) == f"{said} a Golden Retriever.<eos>"


@pytest.mark.parametrize("template", ["{question}", "{images}", "{images}{images}{question}", "{images}{question!r}",
                                      "{images}{question", "{images}{question}{answer}"])
def test_a_template_without_its_fields_is_refused(template):
    with pytest.raises(ValueError, match="config.task.template is "):
        _example(RECORD, template=template)


CAPTIONS = tasks.get("multimodal", {"captions": True})
WRITTEN = [{"id": "1", "image": "a.jpg", "answers": ["A dog on a sofa.", "A brown dog on a red sofa.", "Dog, sofa."]},
           {"id": "2", "image": "b.jpg", "answers": ["Two men at a table.", "Men sit at a table."]},
           {"id": "3", "image": "c.jpg", "answers": ["A red bus in the street."]}]


def test_captions_need_no_question_and_are_scored_with_the_frequencies_of_all():
    """As pycocoevalcap scores the whole set at once; and each person against the others."""
    options = {**CAPTIONS.options, "captions": True}
    example = CAPTIONS.form("decoder").preprocess(WRITTEN[0], options)
    assert _text(example.pieces) == "<bos><a.jpg>Caption: A dog on a sofa.<eos>"
    CAPTIONS.check(WRITTEN[0], "record 0")
    known, told = CAPTIONS.known(WRITTEN, options), ["a dog on a sofa", "Men sit at a table!", "A bus."]
    counts = [CAPTIONS.count(record, CAPTIONS.postprocess(record, text, options), known)
              for record, text in zip(WRITTEN, told, strict=True)]
    figures = CAPTIONS.figures(counting.total(counts), options)
    references = [record["answers"] for record in WRITTEN]
    frequencies = captions.frequencies(references)

    def cider(*pairs):
        return captions.cider_figures(captions.cider_counts(*zip(*pairs, strict=True), frequencies))["cider"]

    assert figures["cider"] == pytest.approx(cider(*zip(told, references, strict=True)))
    assert figures["exact_match"] == pytest.approx(2 / 3)
    dogs, men = references[:2]
    each = [np.mean([cider((one, [other for other in people if other != one])) for one in people])
            for people in (dogs, men)]
    assert figures["people_cider"] == pytest.approx(np.mean(each))
    assert 0 <= CAPTIONS.baselines(WRITTEN, options)["majority"] < figures["cider"]
    assert CAPTIONS.notes({}, options)["cider"].startswith("cider:D|n:4")
    with pytest.raises(ValueError, match="field 'answers' of the record 1"):
        CAPTIONS.form("decoder").preprocess({**WRITTEN[0], "answers": []}, options)
