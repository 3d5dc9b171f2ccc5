# SPDX-License-Identifier: Apache-2.0
"""Configs of every form come in; what `explain` says is graded is compared with the records' targets."""

from __future__ import annotations

import dataclasses
import html
import io
import json
import os
import pathlib
import re
import subprocess
import sys

import ml_collections
import numpy as np
import pytest
from rich.console import Console

from t5tasks import experiment, explain, explanation
from t5tasks.configuration import defaults
from t5tasks.data import sources, tokenizer
from t5tasks.explanation import Explanation, Token

CHECKOUT = pathlib.Path(__file__).parents[1]
RECORDS = "builtin:train?size=200"
# task, architecture, the text before the graded one, the graded text
LM_FORMS = {
    ("classification", "decoder"): ("{text}\nLabel:", " {label}"),
    ("translation", "encoder_decoder"): ("", "{target}"),
    ("text_generation", "decoder"): ("{prompt}", "{completion}"),
}


@pytest.fixture(scope="module")
def word_pieces(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A WordPiece vocabulary of every word of the classification records, [CLS] and [SEP] in it."""
    words = {word for record in sources.load(RECORDS, "classification")
             for word in re.findall(r"\w+|[^\w\s]", record["text"].lower())}
    path = tmp_path_factory.mktemp("words") / "vocab.txt"
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(words)]) + "\n", "utf-8")
    return str(path)


@pytest.fixture(scope="module")
def sentence_pieces(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small tokenizer with byte fallback, so that any text is spelled without loss."""
    folder = tmp_path_factory.mktemp("pieces")
    texts = [record["prompt"] + record["completion"] for record in sources.load(RECORDS, "text_generation")]
    tokenizer.train(texts, 330, folder)
    return str(folder)


def config_of(task: str, architecture: str, tokenizer_path: str = "", **batch: int) -> ml_collections.ConfigDict:
    config = defaults(task)
    config.architecture = architecture
    config.data.train = RECORDS
    config.tokenizer.size = 330
    config.tokenizer.path = tokenizer_path
    config.batch.update(size=8, evaluation_size=8, **batch)
    return config


def written(records: list[dict], folder: pathlib.Path) -> str:
    path = folder / "records.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return f"file:{path}"


def plain_text(found: Explanation, width: int = 200, **settings: bool) -> str:
    output = io.StringIO()
    explanation.show(found, Console(file=output, width=width, highlight=False, **settings))
    return output.getvalue()


def all_tokens(found: Explanation) -> list[Token]:
    return [token for view in found.views for sequence in view.sequences
            for document in sequence.documents for token in document.tokens]


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


EVIL = {"prompt": "<script>alert('x')</script> & \"a\"\nb\x1b[31m ⟦x⟧ é😀", "completion": " <b>yes</b>\t</s>"}


def test_html_escapes_and_holds_every_piece(sentence_pieces: str, tmp_path: pathlib.Path) -> None:
    config = config_of("text_generation", "decoder", sentence_pieces)
    config.data.train = written([EVIL], tmp_path)
    found = explain.explain(config, name="<i>configs/a&b.py</i>")
    page = explanation.page(found)
    shown = re.findall(r'<(?:mark|span) class="(\w+)" title="([^"]*)" dir="auto">([^<]*)</(?:mark|span)>', page)
    tokens = all_tokens(found)
    assert [html.unescape(text) for _, _, text in shown] == [token.marked for token in tokens]
    assert [kind == "graded" for kind, _, _ in shown] == [token.weight > 0 for token in tokens]
    assert "<script" not in page and "<i>" not in page and "<b>" not in page
    assert "&lt;i&gt;configs/a&amp;b.py&lt;/i&gt;" in page
    for facts in (found.facts, found.counts):
        assert all(html.escape(value) in page for value in facts.values())
    assert not re.search(r"(?:src|href)=|url\(|@import|https?:", page)
    assert "prefers-color-scheme: dark" in page and 'name="viewport"' in page


def test_a_page_from_a_piece_that_is_a_tag() -> None:
    token = Token("<script>", 7, "prompt<", False, 1.0)
    document = explanation.Document(1, 0, (token, token), predicts=True)
    page = explanation.page(Explanation("<t>", {"<a>": "<b>"}, {}, (
        explanation.View("<v>", (explanation.Sequence("<n>", (document,)),), ("<note>",)),)))
    body = page.split("</head>")[1]
    assert set(re.findall(r"<([a-z0-9]+)", body)) <= {
        "body", "h1", "h2", "h3", "dl", "dt", "dd", "ul", "li", "section", "p", "mark", "span", "details",
        "summary", "div", "table", "thead", "tbody", "tr", "th", "td"}
    assert body.count("&lt;script&gt;") == 4  # twice in the line, then as token and as target


def test_no_text_steers_a_terminal_or_passes_for_a_special_token(
        sentence_pieces: str, tmp_path: pathlib.Path) -> None:
    config = config_of("text_generation", "decoder", sentence_pieces)
    config.data.train = written([EVIL], tmp_path)
    found = explain.explain(config)
    text = plain_text(found)
    assert "\x1b" not in text and "<001B>" in text and "⏎" in text and "⇥" in text
    assert [token.marked for token in all_tokens(found) if token.special] == ["◆<s>", "◆</s>"]


def test_without_colour_the_text_says_what_is_graded(sentence_pieces: str) -> None:
    config = config_of("text_generation", "decoder", sentence_pieces)
    found = explain.explain(config)
    text = plain_text(found, width=4000)
    tokens = all_tokens(found)
    graded = " ".join(token.marked for token in tokens if token.weight)
    prompt = " ".join(token.marked for token in tokens if not token.weight)
    assert "\x1b" not in text
    assert f"{prompt} ⟦{graded}⟧\n" in text
    coloured = plain_text(found, width=4000, force_terminal=True, color_system="standard")
    assert "\x1b[1;4;32m" in coloured
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == text


def test_a_narrow_terminal_loses_nothing(sentence_pieces: str) -> None:
    found = explain.explain(config_of("text_generation", "decoder", sentence_pieces))
    narrow = plain_text(found, width=44)
    assert max(map(len, narrow.splitlines())) <= 44 and "…" not in narrow
    styles = dict.fromkeys(("graded", "special", "plain"), "")
    line = explanation.running_text(found.views[0].sequences[0].documents[0], styles).plain.split()
    words = narrow.split()
    start = words.index("graded", words.index("sequence:")) + 1
    assert len(line) > 44 and line == words[start : start + len(line)]


def test_visible_pieces_of_byte_level_and_word_piece(word_pieces: str, shared_weights: pathlib.Path) -> None:
    words = tokenizer.load(word_pieces)
    assert explain.visible(words, words.special["cls"]) == "[CLS]"
    pieces = tokenizer.load(shared_weights / "gpt2-bpe")
    shown = [explain.visible(pieces, id) for id in pieces.encode("Hello wörld\n\tthe").ids]
    assert shown == ["Hello", "·w", "ör", "ld", "⏎", "⇥", "the"]
    assert not any("�" in explain.visible(pieces, id) for id in pieces.encode("😀").ids)


def test_an_unknown_word_is_not_taken_for_a_special_token(word_pieces: str, tmp_path: pathlib.Path) -> None:
    config = config_of("classification", "encoder", word_pieces)
    config.task.labels = ("good", "bad")
    config.data.train = written([{"text": "Schnabeltier [SEP]", "label": "bad"}], tmp_path)
    marked = [token.marked for token in all_tokens(explain.explain(config))]
    assert (marked[0], marked[1], marked[-1]) == ("◆[CLS]", "[UNK]", "◆[SEP]")
    assert "◆[SEP]" not in marked[:-1]


# What is refused.


def test_a_length_that_cuts_off_every_target_is_refused(sentence_pieces: str) -> None:
    config = config_of("classification", "decoder", sentence_pieces, length=2)
    uncut = config_of("classification", "decoder", sentence_pieces, length=1000)
    run = experiment.build(uncut, None)
    longest = max(len(run.features(record)[1].ids) for record in sources.load(RECORDS, "classification"))
    with pytest.raises(ValueError, match=rf"batch.length 2 cuts off .* has {longest} tokens .*raise config.batch"):
        explain.explain(config)


def test_a_record_without_a_target_is_refused(sentence_pieces: str, tmp_path: pathlib.Path) -> None:
    config = config_of("text_generation", "decoder", sentence_pieces)
    config.data.train = written([{"prompt": "In Oslo", "answer": "yes"}], tmp_path)
    with pytest.raises(ValueError, match="record 0: no field 'completion'"):
        explain.explain(config)


def test_a_mask_that_grades_no_role_is_refused(sentence_pieces: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("text_generation", "decoder", sentence_pieces)
    run = experiment.build(config, None)
    blind = dataclasses.replace(run.form, loss_mask=lambda roles: np.zeros(len(roles), np.float32))
    monkeypatch.setattr(experiment, "build", lambda *_: dataclasses.replace(run, form=blind))
    with pytest.raises(ValueError, match=r"roles prompt, target, and the loss mask .* grades none of these"):
        explain.explain(config)


def test_an_example_that_is_not_there_is_refused(sentence_pieces: str) -> None:
    with pytest.raises(ValueError, match=r"--example=200, but .* has 200 records, numbered from 0"):
        explain.explain(config_of("text_generation", "decoder", sentence_pieces), first=200)


def test_packing_a_class_head_is_refused(word_pieces: str) -> None:
    with pytest.raises(ValueError, match="packing is True, but a .CLS. head has one answer a row"):
        explain.explain(config_of("classification", "encoder", word_pieces, packing=True))


def test_a_workdir_that_is_not_there_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="no folder"):
        explain.explain(config_of("text_generation", "decoder"), tmp_path / "absent")
    with pytest.raises(ValueError, match=r"has no config\.json"):
        explain.explain(None, tmp_path)


def test_a_workdir_gives_its_tokenizer_and_config_and_keeps_its_files(tmp_path: pathlib.Path) -> None:
    config = config_of("text_generation", "decoder")
    workdir = tmp_path / "run"
    run = experiment.build(config, workdir)
    experiment.save(run)
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    config.tokenizer.size = 340
    with_config = explain.explain(config, workdir)
    assert run.tokenizer.fingerprint[:12] in with_config.facts["tokenizer"]
    assert explain.explain(None, workdir).views == with_config.views
    assert {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()} == before
    empty = tmp_path / "empty"
    empty.mkdir()
    assert explain.explain(config, empty).facts["tokenizer"].startswith(f"trained on {RECORDS}, 340 pieces")
    assert not list(empty.iterdir())


def test_a_mesh_of_another_machine_does_not_matter(sentence_pieces: str) -> None:
    config = config_of("text_generation", "decoder", sentence_pieces)
    here = explain.explain(config)
    config.mesh.update(data=4, fsdp=64, tensor=3)
    assert explain.explain(config).views == here.views
    assert config.mesh.fsdp == 64


def test_the_test_split_falls_back_to_validation(sentence_pieces: str) -> None:
    config = config_of("text_generation", "decoder", sentence_pieces, packing=True)
    config.data.validation = "builtin:validation?size=20"
    found = explain.explain(config, split="test")
    assert found.facts["records"] == "builtin:validation?size=20"
    assert found.views[0].title == "builtin:validation?size=20 record 0"  # evaluation never packs


def test_the_verb_prints_and_writes_a_page(tmp_path: pathlib.Path) -> None:
    config = tmp_path / "config.py"
    config.write_text(
        "def get_config():\n    from t5tasks.configuration import defaults\n"
        "    config = defaults('classification')\n    config.architecture = 'decoder'\n"
        f"    config.data.train = '{RECORDS}'\n    config.tokenizer.size = 330\n    return config\n")

    output = tmp_path / "new" / "page.html"
    done = subprocess.run(
        [sys.executable, "-m", "t5tasks.explain", f"--config={config}", "--example=2", "--count=2",
         f"--output={output}"], cwd=CHECKOUT, capture_output=True, text=True, encoding="utf-8", timeout=120,
        env={name: value for name, value in os.environ.items() if name != "FORCE_COLOR"})
    assert done.returncode == 0, done.stderr
    assert "record 3 " in done.stdout and "\x1b" not in done.stdout
    assert len(re.findall("⟦[^⟦⟧]*◆</s>⟧", done.stdout.split("record 3 ")[1].split("position")[0])) == 1
    page = output.read_text("utf-8")
    assert str(config) in page and page.count("<section>") == 2
