# SPDX-License-Identifier: Apache-2.0
"""What holds for every task of the registry, on the built-in world's records."""

import pathlib

import numpy as np
import pytest

from t5tasks import tasks
from t5tasks.data.features import features, prompt, tokenise
from t5tasks.metrics import counts as counting
from t5tasks.tasks.task import Window

LENGTH = 320  # no example of the built-in world is longer


def _features(case, record, tokenizer):
    example = case.form.preprocess(record, case.options)
    return example, *features(example, tokenizer, case.form.loss_mask, LENGTH, LENGTH)


def _asked(case, record):
    """The record without what is to be answered."""
    return {name: value for name, value in case.form.asked(record).items() if name not in case.task.targets}


def _graded(case, example):
    """The pieces that the loss mask grades."""
    weights = case.form.loss_mask([piece.role for piece in example.pieces])
    return [piece for piece, weight in zip(example.pieces, weights, strict=True) if weight]


def test_the_folder_is_the_registry():
    files = {path.stem for path in pathlib.Path(tasks.__file__).parent.glob("*.py") if "\nTASK = " in path.read_text()}
    assert set(tasks.names()) == files and tasks.names() == tuple(sorted(files))
    assert {"classification", "extractive_qa", "ner", "nli"} <= files and not {"task", "labelled"} & files
    for name in tasks.names():
        assert tasks.get(name).name == name


@pytest.mark.parametrize(("wrong", "nearest"), [("clasification", "classification"), ("translate", "translation"),
                                                ("text-generation", "text_generation")])
def test_an_unknown_task_is_answered_with_the_nearest(wrong, nearest):
    with pytest.raises(ValueError, match=f"unknown task '{wrong}'; did you mean '{nearest}'. tasks are .*translation"):
        tasks.get(wrong)
    with pytest.raises(ValueError, match="unknown task 'qqqq'; tasks are classification"):
        tasks.get("qqqq")


def test_an_unknown_form_lists_those_there_are(case):
    with pytest.raises(ValueError, match=f"task {case.task.name} has no 'recurrent' form; .*"
                                         f"{', '.join(case.task.forms)}"):
        case.task.form("recurrent")


def test_fields_and_targets_are_checked_by_record_and_name(case):
    task, record = case.task, case.records[0]
    task.check(record, "file.jsonl:7")
    for field, kind in {**task.fields, **task.targets}.items():
        missing = {name: value for name, value in record.items() if name != field}
        for broken in (missing, {**record, field: None}):
            with pytest.raises(ValueError, match=f"file.jsonl:7: no field '{field}'; a record of {task.name} needs"):
                task.check(broken, "file.jsonl:7")
        with pytest.raises(ValueError, match=f"file.jsonl:7: field '{field}' is .*, expected {kind.__name__}"):
            task.check({**record, field: object()}, "file.jsonl:7")
    task.check(_asked(case, record), "file.jsonl:7", targets=False)


def test_the_prompt_is_how_the_training_tokens_begin(language_case, tokenizer):
    """What is left of them is what the model has to write, and all of it is graded."""
    case = language_case
    for record in case.records:
        example, _, tokens, source = _features(case, record, tokenizer)
        asked = case.form.preprocess(_asked(case, record), case.options)
        opening = prompt(asked.pieces, case.form.loss_mask)
        assert opening == prompt(example.pieces, case.form.loss_mask)
        ids = tokenise(opening, tokenizer).ids
        assert list(tokens.ids[:len(ids)]) == list(ids)
        assert (case.form.loss_mask(tokens.roles[len(ids):]) == 1).all() and len(ids) < len(tokens.ids)
        assert asked.source == example.source
        if case.form.architecture == "encoder_decoder":
            assert list(tokenise(asked.source, tokenizer).ids) == list(source.ids) and not len(ids)


def test_the_answer_and_its_eos_are_graded_and_nothing_else(language_case, tokenizer):
    case = language_case
    for record in case.records:
        example, arrays, tokens, _ = _features(case, record, tokenizer)
        assert not tokens.lost
        graded = _graded(case, example)
        ids = [int(id) for id in arrays["targets"][arrays["weights"] == 1]]
        assert set(np.unique(arrays["weights"])) <= {0, 1}
        assert _letters(tokenizer.decode(ids)) == _letters("".join(piece.text for piece in graded))
        ends = [index for index, id in enumerate(ids) if id == tokenizer.special["eos"]]
        assert len(ends) == sum(piece.special == "eos" for piece in graded) and ends[-1] == len(ids) - 1
        rest = [int(id) for id in tokens.ids if int(id) not in tokenizer.special.values()]
        assert _letters(tokenizer.decode(rest)) == _letters("".join(piece.text for piece in example.pieces))


def _letters(text):
    """A text without its blanks: SentencePiece begins each stretch after a special token with one."""
    return text.replace(" ", "")


def test_a_labels_tokens_do_not_depend_on_the_text_before(label_case, tokenizer):
    found = {}
    for record in label_case.records:
        _, arrays, _, _ = _features(label_case, record, tokenizer)
        answer = tuple(arrays["targets"][arrays["weights"] == 1].tolist())
        assert found.setdefault(record["label"], answer) == answer
    assert len(found) == len(set(found.values())) == len(label_case.form.label_texts(label_case.options))


def _score(case, answers):
    """The task's main figure of (record, answer) pairs."""
    counts = counting.total(case.task.count(record, case.task.postprocess(record, answer, case.options), case.options)
                            for record, answer in answers)
    figures = case.task.figures(counts, case.options)
    return figures.get(case.task.metric, figures.get("exact_match"))  # perplexity is not told by answers


def test_the_right_answers_score_the_most_there_is(case):
    gold = [case.form.right(record, case.options) for record in case.records]
    wrong = gold[1:] + gold[:1]
    if case.form.windowed:  # another answer to this record's own text
        wrong = [[Window(window.tokens, np.roll(window.values, 2, axis=1)) for window in windows] for windows in gold]
    score = _score(case, zip(case.records, gold, strict=True))
    assert min(abs(score - 1), abs(score - 100)) < 1e-6
    shifted = _score(case, zip(case.records, wrong, strict=True))
    assert shifted < 0.6 * score
    baselines = case.task.baselines(case.records, case.options)
    told = bool(baselines) == case.task.higher_is_better  # a perplexity's baseline needs a tokenizer
    assert told and all(0 <= figure < 0.6 * score for figure in baselines.values()), baselines


def test_texts_cannot_forge_a_special_token(case, tokenizer, word_piece):
    """Texts that spell special tokens put none in their place, and what is graded stays."""
    tokenizer = word_piece if case.form.head != "lm" else tokenizer
    record = case.records[0]

    def forge(name, value):
        if isinstance(value, list) and isinstance(value[0], dict):  # a dialogue's turns
            return [{**value[0], "text": f"</s> [SEP] {value[0]['text']} </s><pad>"}, *value[1:]]
        if isinstance(value, list):
            return ["</s>", *value[1:-1], "[SEP]"] if isinstance(value[0], str) else value
        before = "" if name == "context" else "</s> [SEP] "  # where an answer stands in a context is counted
        return f"{before}{value} </s><pad>" if isinstance(value, str) else value

    forged = {name: forge(name, value) if name in case.task.fields else value for name, value in record.items()}
    (_, plain, *sides), (_, arrays, *forged_sides) = (_features(case, which, tokenizer) for which in (record, forged))
    reserved = {id for name, id in tokenizer.special.items() if name != "unk"}
    for side, forged_side in zip(sides, forged_sides, strict=True):
        if side is not None:
            assert [int(id) for id in forged_side.ids if int(id) in reserved] == [
                int(id) for id in side.ids if int(id) in reserved]
    assert arrays["weights"].sum() == plain["weights"].sum() > 0
