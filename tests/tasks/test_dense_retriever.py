# SPDX-License-Identifier: Apache-2.0
"""Chapter 11's retriever: which texts stand side by side, which passages are the same, rankings and figures."""

import numpy as np
import pytest

from t5tasks import tasks
from t5tasks.metrics import counts as counting

TASK = tasks.get("dense_retriever")
OPTIONS = {**TASK.options, "passages": 3, "hard_negatives": 1}
PASSAGES = [{"id": "leo", "title": "Leo", "text": "He sells hats."}, {"id": "mia", "title": None, "text": "Mia sells."},
            {"id": "tom", "text": "Tom sells kites."}, {"id": "mia", "text": "Mia again."}]
RECORD = {"question": "What does Mia sell?", "passages": PASSAGES, "passage_ids": ["mia"]}


def _texts(example):
    found = {}
    for piece, number in zip(example.pieces, example.several.texts, strict=True):
        found[number] = found.get(number, "") + (piece.text or f"<{piece.special}>")
    return [found[number] for number in sorted(found)]


def _example(record, **options):
    return TASK.form("encoder").preprocess(record, {**OPTIONS, **options})


def test_a_question_stands_beside_its_passage_and_the_first_wrong_ones():
    example = _example(RECORD, question_prefix="query: ")
    assert _texts(example) == ["<cls>query: What does Mia sell?<sep>", "<cls>Mia sells.<sep>",
                               "<cls>Leo\nHe sells hats.<sep>"]
    assert example.several.right and len(example.several.names) == 2 and min(example.several.names) > 0
    assert len(_texts(_example(RECORD, hard_negatives=2))) == 4
    alone = _example({**RECORD, "passages": PASSAGES[1:2]}, hard_negatives=2, passage_prefix="> ")
    assert _texts(alone)[1:] == ["<cls>> Mia sells.<sep>"] and alone.several.names[1:] == (0, 0)
    assert not _example({**RECORD, "passage_ids": []}).several.right
    assert not _example({**RECORD, "passage_ids": ["nobody"]}).several.right


def test_to_predict_all_passages_stand_there_in_their_order():
    example = _example({name: RECORD[name] for name in ("question", "passages")})
    assert [text[5:8] for text in _texts(example)[1:]] == ["Leo", "Mia", "Tom"] and not example.several.right


def test_passages_of_one_document_have_one_name_and_others_their_own():
    names = _example({name: RECORD[name] for name in ("question", "passages")}, passages=4).several.names
    assert names[1] == names[3] and len({*names}) == 3
    unnamed = [{"text": "a"}, {"text": "b"}, {"text": "a"}]
    first, second, third = _example({"question": "?", "passages": unnamed}).several.names
    assert first == third != second


def test_rankings_and_figures_by_hand():
    prediction = TASK.postprocess(RECORD, np.asarray([0.2, 0.9, 0.2]), OPTIONS)
    assert prediction == {"ranking": ["mia", "leo", "tom"], "scores": [0.9, 0.2, 0.2]}
    short = {**RECORD, "passages": PASSAGES[:2]}
    wrong = TASK.postprocess(short, np.asarray([0.5, 0.4, -1e9]), OPTIONS)
    assert wrong["ranking"] == ["leo", "mia"]
    nothing = {**RECORD, "passage_ids": []}
    counts = counting.total(TASK.count(record, given, OPTIONS) for record, given in (
        (RECORD, prediction), (short, wrong), (nothing, prediction)))
    figures = TASK.figures(counts, OPTIONS)
    assert figures["recall@1"] == 1 / 2 and figures["mrr@20"] == 3 / 4 and figures["recall@5"] == 1
    assert TASK.baselines([RECORD, short, nothing], OPTIONS) == {"chance": pytest.approx((1 / 3 + 1 / 2) / 2)}
    assert TASK.baselines([nothing], OPTIONS) == {}


@pytest.mark.parametrize(("name", "value"), [("passages", 0), ("hard_negatives", -1), ("length", 2)])
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"config.task.{name} is {value}, expected"):
        TASK.resolve({**OPTIONS, name: value}, list)
    with pytest.raises(ValueError, match="passage 1 of question 'What does Mia sell.' is 3"):
        _example({**RECORD, "passages": [3]})
