# SPDX-License-Identifier: Apache-2.0
"""The guide's eighth chapter: a source with and without its prefix, a target and its score."""

import pytest

from t5tasks import tasks

TASK = tasks.get("translation")
RECORD = {"source": "The house is wonderful.", "target": "Das Haus ist wunderbar."}
NAMED = {**TASK.options, "source_language": "English", "target_language": "German"}


def _said(pieces):
    return [(piece.text or f"<{piece.special}>", piece.role) for piece in pieces]


def test_the_guides_example():
    example = TASK.form("encoder_decoder").preprocess(RECORD, NAMED)
    assert _said(example.source) == [("translate English to German: ", "prompt"),
                                     ("The house is wonderful.", "input"), ("<eos>", "input")]
    assert _said(example.pieces) == [("Das Haus ist wunderbar.", "target"), ("<eos>", "target")]
    assert TASK.postprocess(RECORD, " Das Haus ist wunderbar.", NAMED) == {"translation": RECORD["target"]}


def test_without_languages_there_is_no_prefix_and_without_a_target_no_decoder_side():
    example = TASK.form("encoder_decoder").preprocess({"source": "A b."}, TASK.options)
    assert _said(example.source) == [("A b.", "input"), ("<eos>", "input")]
    assert example.pieces == ()


def test_scores_are_quoted_with_their_signatures():
    records = [RECORD, {"source": "A dog runs fast.", "target": "Ein Hund rennt schnell."}]
    counts = TASK.count(records[0], {"translation": "Das Haus ist wunderbar."}, TASK.options)
    assert TASK.figures(counts, TASK.options)["bleu"] == pytest.approx(100)
    notes = TASK.notes(counts, TASK.options)
    assert "tok:13a" in notes["bleu"] and notes["chrf"].startswith("nrefs:1")
    assert TASK.baselines(records, TASK.options)["copy"] < 20
