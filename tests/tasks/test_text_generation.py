# SPDX-License-Identifier: Apache-2.0
"""The guide's first chapter, templates of other records, and baselines by hand."""

import pytest

from t5tasks import tasks
from t5tasks.data.features import features

TASK = tasks.get("text_generation")
RECORD = {"prompt": "Write a short, optimistic phrase about the future.",
          "completion": " The horizon ahead is bright and full of promise."}


def _said(pieces):
    return [(piece.text or f"<{piece.special}>", piece.role) for piece in pieces]


def test_the_guides_example(tokenizer):
    """The completion alone is graded, with its EOS; asked, the prompt stands alone, and so does the guide's other."""
    form = TASK.form("decoder")
    opening = [("<bos>", "prompt"), ("Write a short, optimistic phrase about the future.", "prompt")]
    written = " The horizon ahead is bright and full of promise."
    assert _said(form.preprocess(RECORD, TASK.options).pieces) == [
        *opening, (written, "target"), ("<eos>", "target")]
    assert _said(form.preprocess({"prompt": RECORD["prompt"]}, TASK.options).pieces) == opening
    arrays, _, _ = features(form.preprocess(RECORD, TASK.options), tokenizer, form.loss_mask, 200)
    graded = arrays["targets"][arrays["weights"] == 1].tolist()
    assert tokenizer.decode(graded).strip() == written.strip() and graded[-1] == tokenizer.special["eos"]
    assert TASK.postprocess(RECORD, written, TASK.options) == {"completion": written}
    shop = {"prompt": "Give me a tagline for a new coffee shop."}
    assert _said(form.preprocess(shop, TASK.options).pieces)[1:] == [(shop["prompt"], "prompt")]
    assert TASK.postprocess(shop, "Your daily dose of happiness.", TASK.options) == {
        "completion": "Your daily dose of happiness."}


def test_a_template_words_other_records():
    record = {"instruction": "Add {x}.", "input": "2, 3", "completion": "5"}
    pieces = TASK.form("decoder").preprocess(record, {"template": "{instruction}\n{input}\n"}).pieces
    assert pieces[1].text == "Add {x}.\n2, 3\n"  # braces of a record are not filled in turn


@pytest.mark.parametrize("template", ["{question}", "{", "{0}"])
def test_a_template_that_cannot_be_filled_is_shown(template):
    with pytest.raises(ValueError, match="config.task.template '{.* cannot be filled: .*the record has prompt, comp"):
        TASK.form("decoder").preprocess(RECORD, {"template": template})


def test_a_line_of_plain_text_fills_the_one_field_of_a_template():
    assert TASK.lines.record("a {b}", {"template": "Say {it} and {it}:"}) == {"it": "a {b}"}
    for template in ("{instruction}\n{input}\n", "nothing", "{"):
        with pytest.raises(ValueError, match="config.task.template '.*(a line of plain text fills one|cannot be fill)"):
            TASK.lines.record("a", {"template": template})


def test_baselines_by_hand():
    records = [{"prompt": prompt, "completion": completion} for prompt, completion in (
        ("a b", " b."), ("a c", " b."), ("a d", " e."), ("", " e"))]
    assert TASK.baselines(records, TASK.options) == {"majority": 0.5, "copy": 0.25}
