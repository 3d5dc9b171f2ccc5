# SPDX-License-Identifier: Apache-2.0
"""The guide's seventh chapter: its template, several references, and baselines by hand."""

import pytest

from t5tasks import tasks
from t5tasks.data.features import prompt

TASK = tasks.get("summarization")
RECORD = {"document": "Innovate Inc. today announced a chip. It is fast. It ships by Q4.",
          "summary": "Innovate Inc. has unveiled a fast chip."}


def _text(pieces):
    return "".join(piece.text or f"<{piece.special}>" for piece in pieces)


def test_the_guides_template():
    form = TASK.form("decoder")
    whole = form.preprocess(RECORD, TASK.options).pieces
    assert _text(whole) == ("<bos>Summarize the following article:\n\nInnovate Inc. today announced a chip. "
                            "It is fast. It ships by Q4.\n\nSummary:\nInnovate Inc. has unveiled a fast chip.<eos>")
    assert _text(prompt(whole, form.loss_mask)).endswith("\n\nSummary:")
    assert [piece.role for piece in whole if form.loss_mask([piece.role])[0]] == ["target", "target"]


def test_the_encoder_reads_the_document_and_the_decoder_the_summary():
    example = TASK.form("encoder_decoder").preprocess(RECORD, TASK.options)
    assert _text(example.source) == f"summarize: {RECORD['document']}<eos>"
    assert _text(example.pieces) == f"{RECORD['summary']}<eos>"
    bare = TASK.form("encoder_decoder").preprocess(RECORD, {**TASK.options, "prefix": ""})
    assert _text(bare.source) == f"{RECORD['document']}<eos>"


def test_of_several_summaries_the_best_counts():
    record = {**RECORD, "summaries": ["Nothing alike here", "A fast chip"]}
    counts = TASK.count(record, {"summary": "a fast chip"}, TASK.options)
    assert TASK.figures(counts, TASK.options)["rougeL"] == pytest.approx(100)


def test_baselines_by_hand():
    records = [{"document": "One fish swims. Two birds fly. Red cows eat. Blue.", "summary": "One fish swims."}]
    found = TASK.baselines(records, TASK.options)
    # Three words of three; three of nine, and the reference's three are all found; three of ten.
    assert found["first sentence"] == pytest.approx(100)
    assert found["first three sentences"] == pytest.approx(100 * 2 * (1 / 3) / (1 / 3 + 1))
    assert found["copy"] == pytest.approx(100 * 2 * 0.3 / 1.3)
