# SPDX-License-Identifier: Apache-2.0
"""Configs of every form come in; what `explain` says is graded is compared with the records' targets."""

from __future__ import annotations

import dataclasses
import html
import pathlib

import pytest
from explain_cases import RECORDS, all_tokens, config_of, plain_text, written

from t5tasks import experiment, explain, explanation
from t5tasks.data import sources, tokenizer

# task, architecture, the text before the graded one, the graded text
LM_FORMS = {
    ("classification", "decoder"): ("{text}\nLabel:", " {label}"),
    ("translation", "encoder_decoder"): ("", "{target}"),
    ("text_generation", "decoder"): ("{prompt}", "{completion}"),
}


@pytest.mark.parametrize(("task", "architecture"), LM_FORMS)
def test_the_graded_tokens_spell_the_target_and_eos(task: str, architecture: str) -> None:
    before, graded_text = LM_FORMS[task, architecture]
    config = config_of(task, architecture)
    run = experiment.build(config, None)
    records = sources.load(RECORDS, task)
    found = explain.explain(config, first=3, count=4)
    assert [view.title for view in found.views] == [f"{RECORDS} record {index}" for index in range(3, 7)]
    for view, index in zip(found.views, range(3, 7), strict=True):
        tokens = view.sequences[-1].documents[0].tokens
        graded = [token for token in tokens if token.weight]
        assert graded[-1].id == run.tokenizer.special["eos"] and graded[-1].special
        assert not any(token.special for token in graded[:-1])
        # SentencePiece drops a blank that begins a text, so the answer is decoded behind its prompt.
        prompt = run.tokenizer.decode([token.id for token in tokens if not token.weight])
        assert prompt == before.format_map(records[index])
        whole = run.tokenizer.decode([token.id for token in tokens])
        assert whole == prompt + graded_text.format_map(records[index])
        assert all(token.weight == (token.role == "target") for token in tokens)
    read = [token for view in found.views for sequence in view.sequences[:-1]
            for document in sequence.documents for token in document.tokens]
    assert bool(read) == (architecture == "encoder_decoder") and not any(token.weight for token in read)


def test_the_languages_of_a_translation_are_seen_before_its_source(tmp_path: pathlib.Path) -> None:
    config = config_of("translation", "encoder_decoder")
    config.data.train = written([{"source": "a dog", "target": "ein Hund"}, {
        "source": "a dog", "target": "un chien", "target_language": "French"}], tmp_path)
    config.tokenizer.size = 300
    config.task.update(source_language="English", target_language="German")
    for view, language in zip(explain.explain(config, count=2).views, ("German", "French"), strict=True):
        seen = view.sequences[0].documents[0].tokens
        text = "".join(token.text for token in seen if token.role == "prompt")
        assert text.replace("·", " ").strip() == f"translate English to {language}:"
        assert not any(token.weight for token in seen)


@pytest.mark.parametrize(("task", "architecture"), LM_FORMS)
def test_the_table_is_what_the_model_is_given(task: str, architecture: str) -> None:
    config = config_of(task, architecture)
    run = experiment.build(config, None)
    features, _, _ = run.features(sources.load(RECORDS, task)[5])
    view = explain.explain(config, first=5).views[0]
    document = view.sequences[-1].documents[0]
    rows = list(document.rows())
    assert [row.position for row in rows] == list(range(len(features["tokens"])))
    assert [row.token.id for row in rows] == features["tokens"].tolist()
    assert [token.id for token in document.tokens[1:]] == features["targets"].tolist()
    assert [row.weight for row in rows] == features["weights"].tolist()
    assert [row.target for row in rows] == [token.marked for token in document.tokens[1:]]
    if architecture == "encoder_decoder":
        read = view.sequences[0].documents[0].rows()
        assert [row.token.id for row in read] == features["source_tokens"].tolist()
        assert rows[0].token.role == "start" and rows[0].token.marked == "◆<pad>"


def test_a_class_is_graded_at_the_first_token(word_pieces: str) -> None:
    config = config_of("classification", "encoder", word_pieces)
    record = sources.load(RECORDS, "classification")[2]
    labels = sorted(set(sources.load(RECORDS, "classification")["label"]))
    found = explain.explain(config, first=2)
    (sequence,) = found.views[0].sequences
    rows = list(sequence.documents[0].rows())
    assert rows[0].token.marked == "◆[CLS]" and rows[-1].token.marked == "◆[SEP]"
    answer = f"class {labels.index(record['label'])}: {record['label']}"
    assert [(row.target, row.weight) for row in rows] == [(answer, 1)] + [("", 0)] * (len(rows) - 1)
    assert {row.token_type for row in rows} == {0}
    assert found.counts["graded"].startswith("200 examples")
    assert f"→ ⟦{answer}⟧" in plain_text(found) and html.escape(answer) in explanation.page(found)


def test_a_class_head_explains_itself_with_a_tokenizer_of_its_own() -> None:
    rows = list(explain.explain(config_of("classification", "encoder")).views[0].sequences[0].documents[0].rows())
    assert (rows[0].token.marked, rows[-1].token.marked) == ("◆<s>", "◆</s>")
    assert [row.weight for row in rows] == [1] + [0] * (len(rows) - 1)


def test_a_span_is_graded_at_its_ends_in_every_window() -> None:
    config = config_of("extractive_qa", "encoder", length=40)
    records = sources.load(RECORDS, "extractive_qa")
    chosen = next(index for index, record in enumerate(records) if record["answers"]["text"])
    view = explain.explain(config, first=chosen).views[0]
    assert len(view.sequences) > 1 and view.sequences[0].name == f"window 1 of {len(view.sequences)}"
    said = []
    for sequence in view.sequences:
        rows = list(sequence.documents[0].rows())
        graded = {row.place: (row.target, row.weight) for row in rows if row.weight}
        if sequence.documents[0].answer:
            assert graded == {0: ("start, end", 2)} and sequence.documents[0].answer == "no answer here"
            continue
        first, last = min(graded), max(graded)
        assert [each[0] for each in graded.values()] in (["start", "end"], ["start, end"])
        said.append("".join(row.token.text for row in rows[first:last + 1]).replace("·", " ").strip())
        assert {row.token.role for row in rows[first:last + 1]} == {"context"} and rows[first].token_type == 1
    assert said and set(said) == {records[chosen]["answers"]["text"][0]}
    found = explain.explain(config)
    assert int(found.counts["windows"].split(", as")[0].replace(",", "")) > 200
    assert "windows: where" in found.counts["graded"]


def test_the_first_token_of_a_word_is_graded_with_its_tag() -> None:
    config = config_of("ner", "encoder")
    record = sources.load(RECORDS, "ner")[4]
    (sequence,) = explain.explain(config, first=4).views[0].sequences
    rows = list(sequence.documents[0].rows())
    assert [row.target for row in rows if row.weight] == record["tags"]
    assert all(bool(row.weight) == (row.token.role == "word") == bool(row.target) for row in rows)
    assert any(row.token.role == "rest of word" for row in rows)
    assert f"{len(record['tags'])} graded" in sequence.summary


def test_counts_are_those_of_every_record(sentence_pieces: str) -> None:
    config = config_of("text_generation", "decoder", sentence_pieces)
    run = experiment.build(config, None)
    features = [run.features(record)[0] for record in sources.load(RECORDS, "text_generation")]
    seen = sum(len(example["tokens"]) for example in features)
    graded = int(sum(example["weights"].sum() for example in features))
    counts = explain.explain(config).counts
    assert counts["examples"] == "200"
    assert counts["tokens seen"] == f"{seen:,}"
    assert counts["tokens graded"] == f"{graded:,} ({graded / seen:.1%})"
    assert counts["target truncated"] == "0 examples" and counts["dropped"].startswith("0 examples")


def test_a_cut_target_is_counted_and_named(sentence_pieces: str, tmp_path: pathlib.Path) -> None:
    spell = tokenizer.load(sentence_pieces).encode
    records = [{"prompt": "In", "completion": " Oslo"}, {"prompt": "In", "completion": " Oslo" * 40}]
    config = config_of("text_generation", "decoder", sentence_pieces, length=20)
    config.data.train = written(records, tmp_path)
    # Of 21 tokens the beginning is kept; a prompt is given up before a target.
    whole = [1 + len(spell("".join(record.values())).ids) + 1 for record in records]
    prompt = len([end for _, end in spell("In" + records[1]["completion"]).offsets if end <= 2])
    assert whole[0] <= 21 < whole[1] - prompt
    found = explain.explain(config, count=2)
    assert found.counts["target truncated"] == f"1 examples ({whole[1] - 21 - prompt:,} tokens)"
    assert found.counts["prompt truncated"] == f"1 examples ({prompt} tokens)"
    assert found.views[0].notes == ()
    assert f"{whole[1] - 21 - prompt} tokens cut off: target" in found.views[1].notes
    assert "tokens cut off: target" in plain_text(found) and "tokens cut off: target" in explanation.page(found)


def test_a_dropped_example_is_counted_and_named(sentence_pieces: str) -> None:
    run = experiment.build(config_of("text_generation", "decoder", sentence_pieces), None)
    preprocess = run.form.preprocess

    def without_an_answer(record, options):
        short = len(record["completion"]) < 5
        return preprocess({**record, "completion": None} if short else record, options)

    run = dataclasses.replace(run, form=dataclasses.replace(run.form, preprocess=without_an_answer))
    completions = sources.load(RECORDS, "text_generation")["completion"]
    short = [index for index, completion in enumerate(completions) if len(completion) < 5]
    long = next(index for index, completion in enumerate(completions) if len(completion) >= 5)
    records = explain.CheckedRecords(sources.load(RECORDS, "text_generation"), run, RECORDS)
    assert 0 < explain.count_sample(run, records).dropped == len(short)
    assert explain.record_view(run, records[short[0]], "a record").notes == (
        "nothing of this example is graded: training leaves it out",)
    assert explain.record_view(run, records[long], "a record").notes == ()


def test_the_sample_is_spread_over_the_split(sentence_pieces: str) -> None:
    run = experiment.build(config_of("text_generation", "decoder", sentence_pieces), None)
    records = sources.load(RECORDS, "text_generation")
    counts = explain.count_sample(run, explain.CheckedRecords(records, run, RECORDS), size=3)
    chosen = [run.features(records[index])[0] for index in (0, 99, 199)]
    assert (counts.total, counts.examples) == (200, 3)
    assert counts.seen == sum(len(features["tokens"]) for features in chosen)


@pytest.mark.parametrize(
    ("task", "architecture"), [("text_generation", "decoder"), ("translation", "encoder_decoder")])
def test_a_packed_row_is_whole_examples_side_by_side(task: str, architecture: str) -> None:
    config = config_of(task, architecture, length=150, source_length=150, packing=True)
    run = experiment.build(config, None)
    made = {}
    for record in sources.load(RECORDS, task):
        features, tokens, source = run.features(record)
        made[tuple(features["tokens"]), tuple(features["targets"]), tuple(features.get("source_tokens", ()))] = (
            tokens.roles, source.roles if source else ())
    found = explain.explain(config, count=3)
    assert [view.title.split(" of ")[0] for view in found.views] == ["row 0", "row 1", "row 2"]
    for view in found.views:
        sequence = view.sequences[-1]
        assert len(sequence.documents) > 1
        assert sequence.length + sequence.padding == 150
        position = 0
        for number, document in enumerate(sequence.documents):
            rows = list(document.rows())
            assert [row.position for row in rows] == list(range(position, position + len(rows)))
            assert [row.place for row in rows] == list(range(len(rows)))
            assert {row.segment for row in rows} == {number + 1}
            position += len(rows)
            read = view.sequences[0].documents[number].tokens if architecture == "encoder_decoder" else ()
            roles, source_roles = made[tuple(row.token.id for row in rows),
                                       tuple(token.id for token in document.tokens[1:]),
                                       tuple(token.id for token in read)]
            assert tuple(token.role for token in document.tokens)[-len(roles):] == roles
            assert tuple(token.role for token in read) == source_roles
    text = plain_text(found)
    assert "segment 1: " in text and "segment 2: " in text
    assert explanation.page(found).count("<tbody>") == sum(
        len(sequence.documents) for view in found.views for sequence in view.sequences)


def test_later_rows_are_the_later_ones(sentence_pieces: str) -> None:
    config = config_of("text_generation", "decoder", sentence_pieces, length=100, packing=True)
    ten = explain.explain(config, count=10).views
    assert explain.explain(config, first=7, count=2).views == ten[7:9]
    assert len({view.sequences for view in ten}) == 10


def test_passages_that_do_not_fit_are_left_out_whole_and_told(sentence_pieces: str, tmp_path: pathlib.Path) -> None:
    passages = [{"id": str(number), "text": f"Passage {number} is in Oslo."} for number in range(1, 5)]
    record = {"question": "Where?", "passages": passages, "answers": ["Oslo"], "passage_ids": ["1"]}
    config = config_of("rag", "decoder", sentence_pieces, length=1000)
    config.data.train = written([record, {**record, "passages": passages[:1]}], tmp_path)
    whole = explain.explain(config)
    [sequence] = whole.views[0].sequences
    assert not whole.views[0].notes and {"passage", "number", "question", "target"} <= {
        token.role for token in sequence.documents[0].tokens}
    config.batch.length = len(sequence.documents[0].tokens) - 4
    found = explain.explain(config)
    assert found.views[0].notes == ("1 of 4 passages left out",)
    assert found.counts["passages left out"] == "1 in 1 examples"
    text = plain_text(found)
    assert "1 of 4 passages left out" in text and not any("truncated" in name and "target" not in name
                                                          for name in found.counts)
    kept = [token for token in all_tokens(found) if token.role == "number"]
    assert len(kept) == 3 / 4 * len([token for token in all_tokens(whole) if token.role == "number"])
