# SPDX-License-Identifier: Apache-2.0
"""Records as public data sets word them become what their tasks read, on the real files."""

import itertools
import pathlib

import pytest

from t5tasks.data import conversions, sources

DATA = pathlib.Path(__file__).parents[2].parent / "shared" / "data"
REAL = {
    "gsm8k/train.jsonl.gz?convert=gsm8k": 7473,
    "gsm8k/test.jsonl?convert=gsm8k": 678,
    "svamp/SVAMP.json?convert=svamp": 784,
    "taskmaster4/data_00.json.gz,{}taskmaster4/data_01.json.gz?convert=taskmaster": 1000,
    "schema_guided_dialogue/dev/dialogues_001.json.gz?convert=schema_guided": 128,
    "topical_chat/valid_freq.json.gz?convert=topical_chat": 539,
    "dialogsum/dialogsum.dev.jsonl.gz?convert=dialogsum": 500,
    "dialogsum/dialogsum.test.jsonl.gz?convert=dialogsum": 404,
    "scitldr/SciTLDR-A/test.jsonl.gz?convert=scitldr": 303,
    "pubmedqa/ori_pqal.json.gz?convert=pubmedqa": 798,
    "fetaqa/fetaQA-v1_dev.jsonl.gz?convert=fetaqa": 1001,
    "instruction_data_1100/instruction-data.json?convert=instruction": 1100,
    "easy_vqa/train/questions.json.gz?convert=easy_vqa": 38575,
    "easy_vqa/test/questions.json.gz?convert=easy_vqa": 7615,
}


def _records(spec):
    if not DATA.exists():
        pytest.skip(f"no {DATA}: the real data sets are not beside this checkout")
    return sources.load(f"file:{DATA}/{spec.format(f'{DATA}/')}")


@pytest.mark.parametrize(("spec", "count"), REAL.items(), ids=list(REAL))
def test_every_record_of_the_real_files_is_read(spec, count):
    records = _records(spec)
    assert len(records) == count
    for record in records:
        texts = [value for value in record.values() if isinstance(value, str)]
        assert all(text.strip() for text in texts)
        for turns in [record["turns"]] if "turns" in record else []:
            assert all(one["role"] != two["role"] for one, two in itertools.pairwise(turns))
            assert {turn["role"] for turn in turns} <= {"user", "assistant"}
            assert (turns[0]["role"], turns[-1]["role"]) == ("user", "assistant")


def test_gsm8k_loses_its_marks_and_keeps_its_answer():
    first = _records("gsm8k/train.jsonl.gz?convert=gsm8k")[0]
    assert first["reasoning"] == ("Natalia sold 48/2 = 24 clips in May.\n"
                                  "Natalia sold 48+24 = 72 clips altogether in April and May.")
    assert first["answer"] == "72"


def test_svamp_equations_come_out_right():
    """What the equation gives is the answer, in all but the few that the data set itself has wrong."""
    wrong = []
    for record in _records("svamp/SVAMP.json?convert=svamp"):
        equation, _, answer = record["reasoning"].rpartition("=")
        assert answer.strip() == record["answer"]
        if abs(eval(equation, {}) - float(answer)) > 0.01:
            wrong.append(record["question"])
    assert len(wrong) < 5, wrong


def test_the_example_of_the_module():
    record = {"Body": "Each pack costs 76 dollars", "Question": "What do 2 cost?", "Equation": "( 2.0 * 76.0 )",
              "Answer": 152.0}
    assert conversions.svamp(record) == {"question": "Each pack costs 76 dollars. What do 2 cost?",
                                         "reasoning": "2 * 76 = 152", "answer": "152"}


def test_easy_vqa_tells_what_is_asked_for():
    for answer, kind in {"no": "yes/no", "circle": "shape", "teal": "colour"}.items():
        assert conversions.easy_vqa({"0": "?", "1": answer, "2": 3})["kind"] == kind


def test_what_one_speaker_says_in_a_row_is_one_turn_and_a_last_word_without_a_reply_is_none():
    said = [("user", "Hello."), ("user", " A tea."), ("assistant", "Which?"), ("user", ""), ("user", "Bye.")]
    record = {"utterances": [{"speaker": speaker, "text": text} for speaker, text in said]}
    assert conversions.taskmaster(record) == {"turns": [{"role": "user", "text": "Hello. A tea."},
                                                        {"role": "assistant", "text": "Which?"}]}


def test_the_official_test_split_of_pubmedqa_is_a_list_of_ids():
    source, official = "pubmedqa/ori_pqal.json.gz?convert=pubmedqa", f"id:@{DATA}/pubmedqa/test_ground_truth.json"
    tested, rest = ({record["id"] for record in _records(f"{source}&{option}={official}")}
                    for option in ("where", "unless"))
    assert (len(tested), len(rest)) == (398, 400) and not tested & rest


def test_highlighted_rows_of_a_table_come_first():
    record = {"table_array": [["a", "b"], ["1", "2"], ["3", "4"]], "highlighted_cell_ids": [[2, 0]],
              "table_page_title": "T", "table_section_title": "S", "question": "?", "answer": "3"}
    assert conversions.fetaqa(record)["context"] == "T, S\na | b\n3 | 4\n1 | 2"


def test_a_record_of_another_data_set_is_refused_with_its_place(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "a", "answer": "#### 1"}\n{"question": "a"}\n')
    with pytest.raises(ValueError, match=r"a.jsonl:2: convert=gsm8k needs a field 'answer', which is not there"):
        list(sources.read(f"file:{path}?convert=gsm8k"))
    path.write_text('{"question": "a", "answer": "1"}\n')
    with pytest.raises(ValueError, match=r"a.jsonl:1: convert=gsm8k cannot read this record: the answer has no ####"):
        list(sources.read(f"file:{path}?convert=gsm8k"))
    with pytest.raises(ValueError, match=r"unknown convert=gsm8 in .*: did you mean gsm8k\?"):
        sources.read(f"file:{path}?convert=gsm8")
