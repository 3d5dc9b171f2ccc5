# SPDX-License-Identifier: Apache-2.0
"""The guide's eighth chapter: a source with and without its prefix, a target and its score."""

import pytest

from t5tasks import tasks

TASK = tasks.get("translation")
RECORD = {"source": "The weather today is sunny and warm.", "target": "El clima hoy está soleado y cálido."}
NAMED = {**TASK.options, "source_language": "English", "target_language": "Spanish"}


def _said(pieces):
    return [(piece.text or f"<{piece.special}>", piece.role) for piece in pieces]


def test_the_guides_example():
    example = TASK.form("encoder_decoder").preprocess(RECORD, NAMED)
    assert "".join(piece.text for piece in example.source) == (
        "translate English to Spanish: The weather today is sunny and warm.")
    assert _said(example.source) == [("translate English to Spanish: ", "prompt"), (RECORD["source"], "input"),
                                     ("<eos>", "input")]
    assert _said(example.pieces) == [("El clima hoy está soleado y cálido.", "target"), ("<eos>", "target")]
    assert TASK.postprocess(RECORD, " El clima hoy está soleado y cálido.", NAMED) == {"translation": RECORD["target"]}


@pytest.mark.parametrize(("record", "options", "before"), [
    ({}, {"target_language": ""}, None),
    ({"source_language": "French", "target_language": "German"}, {}, "translate French to German: "),
    ({"target_language": "French"}, {}, "translate English to French: "),
    ({"target_language": None}, {}, "translate English to Spanish: "),
    ({"target_language": "deu"}, {"source_language": "", "prefix": ">>{target_language}<< "}, ">>deu<< "),
    ({}, {"source_language": "", "target_language": "", "prefix": "Put this in {{Welsh}}: "}, "Put this in {Welsh}: "),
    ({}, {"prefix": ""}, None),
])
def test_a_record_may_name_its_own_languages_and_a_config_another_prefix(record, options, before):
    source = TASK.form("encoder_decoder").preprocess({**RECORD, **record}, {**NAMED, **options}).source
    assert _said(source)[:-2] == ([] if before is None else [(before, "prompt")])


@pytest.mark.parametrize("prefix", ["{language}: ", "{", "{}"])
def test_a_prefix_has_no_other_fields(prefix):
    with pytest.raises(ValueError, match="config.task.prefix '.* its fields are {source_language} and {target_langua"):
        TASK.form("encoder_decoder").preprocess(RECORD, {**NAMED, "prefix": prefix})


def test_without_languages_there_is_no_prefix_and_without_a_target_no_decoder_side():
    example = TASK.form("encoder_decoder").preprocess({"source": "A b."}, TASK.options)
    assert _said(example.source) == [("A b.", "input"), ("<eos>", "input")]
    assert example.pieces == ()


def test_scores_are_quoted_with_their_signatures():
    records = [RECORD, {"source": "A dog runs fast.", "target": "Ein Hund rennt schnell."}]
    counts = TASK.count(records[0], {"translation": RECORD["target"]}, TASK.options)
    assert TASK.figures(counts, TASK.options)["bleu"] == pytest.approx(100)
    notes = TASK.notes(counts, TASK.options)
    assert "tok:13a" in notes["bleu"] and notes["chrf"].startswith("nrefs:1")
    assert TASK.baselines(records, TASK.options)["copy"] < 20
