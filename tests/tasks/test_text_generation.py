# SPDX-License-Identifier: Apache-2.0
"""The guide's first chapter, templates of other records, and baselines by hand."""

import pytest

from t5tasks import tasks

TASK = tasks.get("text_generation")
RECORD = {"prompt": "The capital of France is", "completion": " Paris."}


def _said(pieces):
    return [(piece.text or f"<{piece.special}>", piece.role) for piece in pieces]


def test_the_guides_example():
    preprocess = TASK.form("decoder").preprocess
    opening = [("<bos>", "prompt"), ("The capital of France is", "prompt")]
    assert _said(preprocess(RECORD, TASK.options).pieces) == [*opening, (" Paris.", "target"), ("<eos>", "target")]
    assert _said(preprocess({"prompt": RECORD["prompt"]}, TASK.options).pieces) == opening
    assert TASK.postprocess(RECORD, " Paris.", TASK.options) == {"completion": " Paris."}


def test_a_template_words_other_records():
    record = {"instruction": "Add {x}.", "input": "2, 3", "completion": "5"}
    pieces = TASK.form("decoder").preprocess(record, {"template": "{instruction}\n{input}\n"}).pieces
    assert pieces[1].text == "Add {x}.\n2, 3\n"  # braces of a record are not filled in turn


@pytest.mark.parametrize("template", ["{question}", "{", "{0}"])
def test_a_template_that_cannot_be_filled_is_shown(template):
    with pytest.raises(ValueError, match="config.task.template '{.* cannot be filled: .*the record has prompt, comp"):
        TASK.form("decoder").preprocess(RECORD, {"template": template})


def test_baselines_by_hand():
    records = [{"prompt": prompt, "completion": completion} for prompt, completion in (
        ("a b", " b."), ("a c", " b."), ("a d", " e."), ("", " e"))]
    assert TASK.baselines(records, TASK.options) == {"majority": 0.5, "copy": 0.25}
