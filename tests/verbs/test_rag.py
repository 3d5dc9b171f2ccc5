# SPDX-License-Identifier: Apache-2.0
"""Questions and an index come in; cited answers, exact quotes, figures, and an encoder for the index come out."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable

import numpy as np
import pytest

from t5tasks import augmentation, configuration, embedding, experiment, index, predict, rag, tasks, train, trained
from t5tasks.data import sources, world
from t5tasks.entailment import Judge
from t5tasks.reading import Reader
from t5tasks.retrieval.bm25 import Bm25
from t5tasks.tasks import extractive_qa
from t5tasks.training import contrastive

QUESTION = "What does the shop of Mia in Lima sell?"
STORE = {passage["id"]: passage for passage in world.passages()}


@pytest.fixture(scope="module")
def shops(verb, tmp_path_factory) -> pathlib.Path:
    """An index of the built-in world's shops."""
    folder = tmp_path_factory.mktemp("shops")
    assert verb(index, "--input=builtin:passages", f"--index={folder}").status == 0
    return folder


@pytest.fixture(scope="module")
def writer(verb, config_file, tmp_path_factory, shops) -> pathlib.Path:
    """A run of rag that was trained and validated on passages of the index, two steps long."""
    folder = tmp_path_factory.mktemp("writer")
    config = config_file(folder, "rag", "decoder", f"""config.batch.length = 320
    config.task.update(index={str(shops)!r}, passages=3)
    config.train.update(steps=2, evaluate_every=2, validation_records=8)""")
    assert verb(train, f"--config={config}", f"--workdir={folder / 'run'}").status == 0
    return folder / "run"


@pytest.fixture(scope="module")
def finder(shops) -> augmentation.Finder:
    return augmentation.Finder({**rag.TASK.options, "index": str(shops)})


def _answers(finder, options, changed=lambda answer: answer):
    """Answers with the record's own, and cites the passages that hold it."""

    def answers(records):
        for record in records:
            numbers = [place for place, passage in enumerate(record["passages"], 1)
                       if passage["id"] in record["passage_ids"]]
            said = changed(record["answers"][0] if record["answers"] else options["no_answer"])
            yield record, rag.TASK.postprocess(record, said + "".join(f" [{each}]" for each in numbers), options)

    return rag.System(finder, options, answers)


def test_right_answers_from_what_is_found_score_what_retrieval_allows(finder):
    options = {**rag.TASK.options, "passages": 20}
    records = list(sources.read("builtin:test?size=60", "rag"))
    result, predictions = rag.evaluate(_answers(finder, options), "builtin:test?size=60")
    assert result["examples"] == len(predictions) == 60
    figures, told = result["figures"], [record for record in records if record["answers"]]
    found = finder.find([record["question"] for record in told], 20)
    for k in (1, 5, 20):
        shares = [len({passage.document for passage in row[:k]} & {*record["passage_ids"]}) / len(record["passage_ids"])
                  for record, row in zip(told, found, strict=True)]
        assert figures[f"recall@{k}"] == pytest.approx(np.mean(shares))
    assert 0.3 < figures["recall@1"] < figures["recall@20"] == 1 and figures["ndcg@5"] > figures["mrr@1"] * 0.5
    assert figures["exact_match"] == figures["citation_precision"] == figures["citation_recall"] == 1
    wrong = rag.evaluate(_answers(finder, options, lambda answer: "bombs"), "builtin:test?size=60")[0]["figures"]
    assert wrong["exact_match"] == 0 and wrong["recall@5"] == figures["recall@5"]
    few = rag.evaluate(_answers(finder, {**options, "passages": 1}), "builtin:test?size=60")[0]["figures"]
    assert few["citation_recall"] == pytest.approx(sum(
        row[0].document in record["passage_ids"] for record, row in zip(told, found, strict=True)) / sum(
        len(record["passage_ids"]) for record in told))
    alone = rag.evaluate(rag.System(finder, options, None), "builtin:test?size=60")[0]["figures"]
    assert {name: value for name, value in figures.items() if "@" in name} == alone


def test_a_run_answers_and_is_scored(verb, writer, shops, runs, tmp_path):
    said = verb(rag, f"--workdir={writer}", f"--query={QUESTION}")
    assert said.status == 0 and said.output.strip(), said.errors
    line = [f"--workdir={writer}", f"--index={shops}", "--input=builtin:test?size=16", "--passages=2"]
    told = verb(rag, *line, f"--nli={runs('nli', 'encoder').workdir}", f"--output={tmp_path / 'figures.json'}",
                f"--predictions={tmp_path / 'answers.jsonl'}")
    assert told.status == 0, told.errors
    result = json.loads(told.output)
    assert result == json.loads((tmp_path / "figures.json").read_text()) and result["examples"] == 16
    assert {"recall@1", "mrr@5", "ndcg@20", "exact_match", "f1", "left_out"} <= result["figures"].keys()
    predictions = [json.loads(each) for each in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert len(predictions) == 16 and all(len(each["passages"]) == 2 for each in predictions)
    assert all(STORE[passage["id"]]["text"] == passage["text"] for each in predictions for passage in each["passages"])
    assert verb(rag, *line[:2], "--input=builtin:test?size=4", "--passages=20",
                f"--predictions={tmp_path / 'many.jsonl'}").status == 0
    for each in map(json.loads, (tmp_path / "many.jsonl").read_text().splitlines()):
        assert each["left_out"] > 0 and len(each["passages"]) + each["left_out"] == 20


def test_each_line_of_plain_text_is_a_question_for_the_index(verb, writer, tmp_path):
    (tmp_path / "questions.txt").write_text(f"{QUESTION}\n\nWho?\n")
    told = verb(predict, f"--workdir={writer}", f"--input=text:{tmp_path / 'questions.txt'}",
                f"--output={tmp_path / 'answers.txt'}")
    assert told.status == 0, told.errors
    assert len((tmp_path / "answers.txt").read_text().splitlines()) == 3
    (tmp_path / "records.jsonl").write_text(json.dumps({"question": QUESTION}) + "\n")
    told = verb(predict, f"--workdir={writer}", f"--input={tmp_path / 'records.jsonl'}",
                f"--output={tmp_path / 'out.jsonl'}")
    assert told.status == 0, told.errors
    [answer] = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert answer["passages"][0]["id"] == "mia-lima" and len(answer["passages"]) == 3


def test_training_reads_the_passages_that_are_found_for_its_questions(writer, finder):
    run = experiment.build(configuration.read(str(writer / "config.json")), writer)
    [record] = experiment.read_records("builtin:train?size=1", run.task, run.options)
    found = finder.find([record["question"]], 3)[0]
    assert [passage["id"] for passage in record["passages"]] == [passage.document for passage in found]
    text = "".join(piece.text for piece in run.example(record, 1000).pieces)
    assert all(f"[{number}] {passage.text}" in text for number, passage in enumerate(found, 1))


def tells(text: str, record: dict) -> bool:
    return any(answer in text for answer in record["answers"])


def test_hard_negatives_are_neither_the_right_document_nor_hold_the_answer(shops):
    options = {**tasks.get("dense_retriever").options, "index": str(shops), "passages": 6}
    records = list(sources.read("builtin:test?size=12", "dense_retriever"))
    own = [{**record, "passages": [STORE[record["passage_ids"][0]]]} for record in records]
    plain = augmentation.finder(options).find([record["question"] for record in own], 24)
    for record, made, found in zip(own, augmentation.augmented(own, options), plain, strict=True):
        right, *wrong = made["passages"]
        assert right == STORE[record["passage_ids"][0]] and len(wrong) == 5
        assert all(passage["id"] != right["id"] and not tells(passage["text"], record) for passage in wrong)
        order = [passage.document for passage in found if passage.document != right["id"]
                 and not tells(passage.text, record)]
        assert [passage["id"] for passage in wrong] == order[:5]
    with pytest.raises(ValueError, match="record 1 has no question to search for"):
        list(augmentation.augmented([own[0], {"text": "x"}], options))


@pytest.fixture(scope="module")
def reader(runs) -> trained.Trained:
    return trained.load(None, runs("extractive_qa", "encoder").workdir)


def _with_options(run, **options):
    return dataclasses.replace(run, experiment=dataclasses.replace(
        run.experiment, options={**run.experiment.options, **options}))


@pytest.mark.parametrize("version", [1, 2])
def test_a_quote_is_the_best_span_of_all_passages_by_the_stated_rule(reader, version):
    run = _with_options(reader, version=version, threshold=1e9)
    documents = [{"id": f"d{number}", "title": "", "text": text, "start": 100 * number, "end": 0} for number, text in
                 enumerate(["Mia sold 3 hats in Oslo.", "In Rome, Leo bought 4 kites on Monday.", "Nobody came."])]
    record = {"question": "Who bought kites?", "passages": documents}
    for weight in (0.0, 5.0):
        [(_, found)] = Reader(run, weight).predictions([record])
        scores = {}
        for rank, passage in enumerate(documents, 1):
            asked = {"question": record["question"], "context": passage["text"]}
            [answer] = rag.Predictor(run.experiment).answers(run.parameters, [asked])
            nothing, spans = extractive_qa.candidates(asked, answer, run.experiment.options)
            for place, total in spans.items():
                scores[passage["id"], *place] = total - (nothing if version == 2 else 0) - weight * np.log(rank)
        (id, start, end), score = max(scores.items(), key=lambda item: item[1])
        [cited] = found["citations"]
        assert cited["id"] == id and found["score"] == pytest.approx(score, abs=1e-4)
        assert found["answer"] == cited["text"][start:end] and found["start"] == cited["start"] + start
        assert found["end"] - found["start"] == len(found["answer"]) > 0
    if version == 2:
        [(_, none)] = Reader(_with_options(reader, version=2, threshold=-1e9)).predictions([record])
        assert none["answer"] == "" and none["start"] is None and not none["citations"]
    assert [answer for _, answer in Reader(run).predictions([])] == []
    assert next(Reader(run).predictions([{**record, "passages": []}]))[1]["answer"] == ""


def test_the_verb_quotes_with_the_place_in_the_document(verb, runs, tmp_path):
    text = "The rules. " * 30 + "Mia bought 3 hats in Oslo on Monday. " + "Nobody came. " * 30
    (tmp_path / "long.txt").write_text(text)
    at = f"--index={tmp_path / 'index'}"
    assert verb(index, f"--input={tmp_path / 'long.txt'}", at, "--size=20", "--overlap=5").status == 0
    line = [at, f"--workdir={runs('extractive_qa', 'encoder').workdir}"]
    said = verb(rag, *line, "--query=What did Mia buy in Oslo?")
    assert said.status == 0, said.errors
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"question": "What did Mia buy in Oslo?", "answers": ["hats"],
                                     "passage_ids": ["long.txt"]}) + "\n")
    told = verb(rag, *line, f"--input={questions}", f"--predictions={tmp_path / 'quotes.jsonl'}")
    assert json.loads(told.output)["figures"]["recall@1"] == 1
    quote = json.loads((tmp_path / "quotes.jsonl").read_text())
    assert not quote["answer"] or text[quote["start"]:quote["end"]] == quote["answer"]


def test_the_judge_reads_what_is_cited_and_question_with_answer(runs):
    run = trained.load(None, runs("nli", "encoder").workdir)
    seen = []

    class Recorded:
        def answers(self, parameters, records):
            seen.extend(records)
            return iter([np.asarray([0.8, 0.1, 0.1]), np.asarray([0.2, 0.7, 0.1])])

    judge = Judge(run, statement="{question} It is {answer}.")
    judge._predictor = Recorded()
    passages = [{"title": "T", "text": "a b"}, {"title": "", "text": "c"}]
    given = [({"question": "q1?"}, {"answer": "x", "citations": passages}),
             ({"question": "q2?"}, {"answer": "y", "citations": []}),
             ({"question": "q3?"}, {"answer": "{question}", "citations": passages[:1]})]
    assert list(judge.entailed(given)) == [True, False, False]
    assert seen == [{"premise": "T: a b c", "hypothesis": "q1? It is x."},
                    {"premise": "T: a b", "hypothesis": "q3? It is {question}."}]
    with pytest.raises(ValueError, match="cannot say what is 'yes'"):
        Judge(run, "yes")
    with pytest.raises(ValueError, match="has no {answer}"):
        Judge(run, statement="{question}")


def test_a_trained_retriever_is_an_encoder_of_the_index(verb, runs, shops, tmp_path):
    run = runs("dense_retriever", "encoder")
    assert run.trained.status == run.evaluated.status == run.predicted.status == 0, run.trained.errors
    assert all(sorted(line["scores"], reverse=True) == line["scores"] for line in run.lines)
    loaded = trained.load(None, run.workdir).experiment
    embedder = embedding.load(str(run.workdir))
    texts = ["Mia?", "hats"]  # short enough for a batch of this run
    record = {"question": texts[0], "passages": [{"text": texts[1]}]}
    features = loaded.features(record)[0]
    batch = {name: np.asarray(array)[None] for name, array in features.items()}
    made = np.asarray(contrastive.vectors(loaded.model, trained.load(None, run.workdir).parameters, batch))[0]
    np.testing.assert_allclose(embedder.questions(texts[:1])[0], made[0], atol=1e-5)
    np.testing.assert_allclose(embedder.passages(texts[1:])[0], made[1], atol=1e-5)
    at = f"--index={tmp_path / 'dense'}"
    made = verb(index, "--input=builtin:passages?limit=20", at, f"--encoder={run.workdir}")
    assert made.status == 0 and "20 vectors" in made.output, made.errors
    assert verb(index, at, "--retriever=dense", f"--query={QUESTION}", "--top=1").output.startswith("[1] ")


def test_a_source_of_squad_knows_its_paragraphs_as_an_index_does(verb, tmp_path):
    squad = {"data": [{"title": "T", "paragraphs": [
        {"context": f"Paragraph {letter} tells of {letter}.", "qas": [
            {"id": letter, "question": f"What tells of {letter}?",
             "answers": [{"text": f"Paragraph {letter}", "answer_start": 0}]}]} for letter in ("alpha", "beta")]}]}
    (tmp_path / "squad.json").write_text(json.dumps(squad))
    line = f"file:{tmp_path / 'squad.json'}?format=squad"
    at = f"--index={tmp_path / 'index'}"
    assert verb(index, f"--input={line}&columns=context&rename=context:text", at).status == 0
    told = verb(rag, at, f"--input={line}&convert=squad")
    assert told.status == 0 and json.loads(told.output)["figures"]["recall@1"] == 1, told.errors
    with index.open_index(str(tmp_path / "index")).store as store:
        assert {store.passages([number])[number].document for number in store.numbers("passages")} == {
            record["passage_ids"][0] for record in sources.read(f"{line}&convert=squad")}
        assert Bm25(store).search(["alpha"], 1).numbers.shape == (1, 1)


@pytest.mark.parametrize(("flags", "message"), [
    ([], "rag needs --index=DIR, and --workdir"), (["--query=x", "--index=SHOPS"], "rag needs --index=DIR, and"),
    (["--input=builtin:test"], "rag needs --index=DIR: the run was trained without one"),
    (["--input=builtin:test", "--index=nowhere"], "there is no index in nowhere"),
    (["--query=x", "--index=SHOPS", "--workdir=NLI"], "a run of nli cannot answer from passages; expected"),
    (["--input=builtin:test?size=2", "--index=SHOPS", "--retriever=dense"], "has no vectors"),
    (["--input=RECORDS", "--index=SHOPS"], "record 0 has no question"),
])
def test_mistakes_are_told_in_one_line(
        verb: Callable, runs: Callable, shops: pathlib.Path, tmp_path: pathlib.Path, flags: list[str], message: str
        ) -> None:
    (tmp_path / "records.jsonl").write_text('{"text": "x"}\n')
    places = {"SHOPS": shops, "RECORDS": tmp_path / "records.jsonl"}
    if "--workdir=NLI" in flags:
        places["NLI"] = runs("nli", "encoder").workdir
    line = flags
    for name, place in places.items():
        line = [flag.replace(name, str(place)) for flag in line]
    assert message in verb(rag, *line).mistake
