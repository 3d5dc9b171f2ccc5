# SPDX-License-Identifier: Apache-2.0
"""Every task and form goes through train, evaluate and predict; what one verb says, another confirms."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable

import jax
import numpy as np
import pytest
import sacrebleu

from t5tasks import configuration, evaluate, inference, predict, tasks, vocabulary
from t5tasks.data import sources, tokenizer
from t5tasks.metrics.entities import entities
from t5tasks.metrics.spans import normalise
from t5tasks.tasks.ner import in_characters
from t5tasks.trained import load

FORMS = (("classification", "encoder"), ("classification", "decoder"), ("translation", "encoder_decoder"),
         ("text_generation", "decoder"), ("extractive_qa", "encoder"), ("ner", "encoder"))
form = pytest.mark.parametrize(("task", "architecture"), FORMS)


@form
def test_train_leaves_all_that_is_needed_to_go_on(runs: Callable, task: str, architecture: str) -> None:
    run = runs(task, architecture)
    assert run.trained.status == 0, run.trained.errors
    assert f"{task} 6/6 loss" in run.trained.errors and "step 6 validation" in run.trained.errors
    config, model, environment = (json.loads((run.workdir / f"{name}.json").read_text())
                                  for name in ("config", "model", "environment"))
    assert config["architecture"] == model["architecture"] == architecture
    assert config["train"]["steps"] == 6 and config["task"]["name"] == task
    assert (model["width"], model["vocabulary"]) == (16, 330)
    assert model["decoder_layers"] == ("decoder" in architecture)
    assert environment["packages"]["jax"] == jax.__version__ and len(environment["devices"]) == jax.device_count()
    assert f"--workdir={run.workdir}" in environment["command"]
    assert tokenizer.load(run.workdir / "tokenizer").vocabulary_size == 330
    assert any((run.workdir / "tensorboard").iterdir())


@form
def test_metrics_have_every_step_once(runs: Callable, task: str, architecture: str) -> None:
    lines = [json.loads(line) for line in (runs(task, architecture).workdir / "metrics.jsonl").open()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines if line["kind"] == "validation"] == [3, 6]
    assert all(np.isfinite(value) for line in lines for value in line.values() if isinstance(value, float))
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    if task in ("text_generation", "translation"):  # where a row has one label, six steps tell of luck alone
        assert min(losses[3:]) < losses[0]


@form
def test_what_evaluate_says_is_true_of_what_predict_writes(runs: Callable, task: str, architecture: str) -> None:
    run = runs(task, architecture)
    said = json.loads(run.evaluated.output)
    assert (said["source"], said["examples"]) == ("builtin:test?size=24", 24)
    assert run.predicted.output == f"{run.predictions}: 24 predictions\n"
    records = list(sources.read(said["source"], task))
    figures, pairs = said["figures"], list(zip(records, run.lines, strict=True))
    if task == "classification":
        right = [record["label"] == line["label"] for record, line in pairs]
        assert figures["accuracy"] == pytest.approx(np.mean(right))
        assert sorted({record["label"] for record in records}) == sorted(run.lines[0]["probabilities"])
        if architecture == "encoder":
            surprise = [-np.log(line["probabilities"][record["label"]]) for record, line in pairs]
            assert figures["loss"] == pytest.approx(np.mean(surprise), rel=1e-4)
    elif task == "translation":
        texts, references = [line["translation"] for line in run.lines], [[r["target"] for r in records]]
        assert figures["chrf"] == pytest.approx(sacrebleu.corpus_chrf(texts, references).score)
        assert figures["bleu"] == pytest.approx(sacrebleu.corpus_bleu(texts, references).score)
        assert "tok:13a" in said["notes"]["bleu"]
    elif task == "extractive_qa":
        right = [normalise(line["answer"]) in {normalise(text) for text in record["answers"]["text"] or [""]}
                 for record, line in pairs]
        assert figures["exact_match"] == pytest.approx(np.mean(right)) and "best_f1_threshold" in figures
    elif task == "ner":
        found = [{(entity["type"], entity["start"], entity["end"]) for entity in line["entities"]} for _, line in pairs]
        gold = [{in_characters(entity, record["tokens"]) for entity in entities(record["tags"])} for record, _ in pairs]
        both = sum(len(some & others) for some, others in zip(found, gold, strict=True))
        assert figures["f1"] == pytest.approx(2 * both / sum(map(len, [*found, *gold])))
    else:
        right = [record["completion"].strip() == line["completion"].strip() for record, line in pairs]
        assert figures["exact_match"] == pytest.approx(np.mean(right))
    assert said["metric"] in figures and said["baselines"]


@form
def test_predictions_have_the_guides_shape(runs: Callable, task: str, architecture: str) -> None:
    run = runs(task, architecture)
    records = list(sources.read(f"file:{run.records}"))
    for record, line in zip(records, run.lines, strict=True):
        if task == "extractive_qa":
            assert list(line) == ["answer", "start", "end", "score", "n_best", "no_answer"]
            for each in line["n_best"]:
                assert each["answer"] == record["context"][each["start"]:each["end"]] != ""
            given = {name: line[name] for name in ("answer", "start", "end", "score")}
            assert given == line["n_best"][0] or (line["answer"], line["start"], line["end"]) == ("", None, None)
        elif task == "ner":
            assert list(line) == ["entities"]
            for each in line["entities"]:
                assert list(each) == ["type", "text", "start", "end", "score"] and 0 < each["score"] <= 1
                assert each["text"] == " ".join(record["tokens"])[each["start"]:each["end"]]
        elif task == "classification":
            assert list(line) == ["label", "score", "probabilities"]
            assert line["score"] == line["probabilities"][line["label"]] == max(line["probabilities"].values())
            assert sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        else:
            (name, text), = line.items()
            assert name == {"translation": "translation", "text_generation": "completion"}[task]
            assert isinstance(text, str)


@form
def test_predictions_stand_in_the_order_of_the_input(
        runs: Callable, verb: Callable, tmp_path: pathlib.Path, task: str, architecture: str) -> None:
    run = runs(task, architecture)
    needed = {"text_generation": ["prompt"]}.get(task, list(tasks.get(task).fields))
    backwards = tmp_path / "backwards.jsonl"  # and without what was to be predicted
    backwards.write_text("".join(json.dumps({name: record[name] for name in needed}) + "\n" for record in reversed(
        list(sources.read(f"file:{run.records}")))), "utf-8")
    output = tmp_path / "new" / "out.jsonl"
    assert verb(predict, f"--workdir={run.workdir}", f"--input={backwards}", f"--output={output}").status == 0
    lines = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    if task in ("extractive_qa", "ner"):
        assert [_without_scores(line) for line in lines[::-1]] == [_without_scores(line) for line in run.lines]
        return
    if task != "classification":
        assert lines[::-1] == run.lines and len({json.dumps(line) for line in lines}) > 1
        return
    assert [line["label"] for line in reversed(lines)] == [line["label"] for line in run.lines]
    table = [np.asarray([list(line["probabilities"].values()) for line in some])
             for some in (lines[::-1], run.lines)]
    np.testing.assert_allclose(*table, atol=1e-5)
    assert np.ptp(table[0], axis=0).max() > 1e-3  # so that another order would be seen


def _without_scores(line: dict) -> list:
    """What a prediction says, of whose scores the last digits depend on the batch."""
    if "entities" in line:
        return [(each["type"], each["start"], each["end"]) for each in line["entities"]]
    return [line["answer"], line["start"], line["end"]]


def test_evaluate_takes_other_records_and_writes_a_file(
        runs: Callable, verb: Callable, tmp_path: pathlib.Path) -> None:
    run, output = runs("classification", "encoder"), tmp_path / "figures.json"
    told = verb(evaluate, f"--config={run.workdir / 'config.json'}", f"--workdir={run.workdir}",
                "--config.data.test=builtin:validation?size=24", "--checkpoint=latest", f"--output={output}")
    said = json.loads(told.output)
    assert said == json.loads(output.read_text()) and said["step"] == 6
    last = [json.loads(line) for line in (run.workdir / "metrics.jsonl").open()][-1]
    assert {name: said["figures"][name] for name in last.keys() - {"step", "kind"}} == pytest.approx(
        {name: last[name] for name in last.keys() - {"step", "kind"}})


def test_vocabulary_makes_the_tokenizer_that_train_would(
        runs: Callable, verb: Callable, tmp_path: pathlib.Path) -> None:
    run = runs("translation", "encoder_decoder")
    told = verb(vocabulary, f"--config={run.config}", f"--output={tmp_path / 'pieces'}")
    assert told.output == f"{tmp_path / 'pieces'}: 330 pieces from 96 records of builtin:train?size=96\n"
    made = tokenizer.load(tmp_path / "pieces")
    assert made.fingerprint == tokenizer.load(run.workdir / "tokenizer").fingerprint
    other = verb(vocabulary, f"--config={run.config}", f"--output={tmp_path / 'other'}", "--size=340",
                 "--kind=unigram")
    assert other.output.startswith(f"{tmp_path / 'other'}: 340 pieces")


@pytest.fixture(scope="module")
def forty(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], pathlib.Path]:
    """Forty records of a task in a file: three windows of sixteen, as `small_windows` makes them."""
    folder = tmp_path_factory.mktemp("forty")

    def file(task: str) -> pathlib.Path:
        path = folder / f"{task}.jsonl"
        records = sources.read("builtin:test?size=40", task)
        path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
        return path

    return file


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "WINDOW", 2)


@pytest.mark.parametrize(("task", "architecture", "more"), [
    ("classification", "encoder", ()), ("text_generation", "decoder", ("--config.decode.method=sample",))],
    ids=["classes", "samples"])
def test_a_cut_output_goes_on_to_the_same_file(
        runs: Callable, verb: Callable, forty: Callable, small_windows: None, monkeypatch: pytest.MonkeyPatch,
        tmp_path: pathlib.Path, task: str, architecture: str, more: tuple[str, ...]) -> None:
    run, output = runs(task, architecture), tmp_path / "out.jsonl"
    line = (f"--config={run.config}", *more, f"--workdir={run.workdir}", f"--input={forty(task)}",
            f"--output={output}")
    seen: list[tuple] = []

    original = inference.Predictor._answering

    def remembered(self: inference.Predictor, parameters: object) -> Callable:
        answer = original(self, parameters)

        def remember(batch: dict, indices: list[int]) -> list:
            seen.append((*indices, batch["tokens"].shape))
            return answer(batch, indices)

        return remember

    monkeypatch.setattr(inference.Predictor, "_answering", remembered)
    assert verb(predict, *line).output == f"{output}: 40 predictions\n"
    whole, batches = output.read_bytes(), set(seen)
    ends = [index + 1 for index, byte in enumerate(whole) if byte == ord("\n")]
    assert len(ends) == 40 and len(set(whole.splitlines())) > 20
    # half of the first line, in a line of the first window, whole lines, half a line of the last window
    for size in (9, (ends[4] + ends[5]) // 2, ends[15], ends[20], ends[37] - 1):
        output.write_bytes(whole[:size])
        assert verb(predict, *line).output == f"{output}: 40 predictions\n"
        assert output.read_bytes() == whole, size
    # In other batches, a larger model's answers would differ in the last bits.
    assert len(batches) == 5 and set(seen) == batches
    changed = output.stat().st_mtime_ns
    assert verb(predict, *line).status == 0 and output.read_bytes() == whole
    assert output.stat().st_mtime_ns >= changed


@pytest.mark.parametrize(("task", "architecture", "more"), [
    ("text_generation", "decoder", {"method": "sample", "samples": 2}), ("translation", "encoder_decoder", {})],
    ids=["samples", "sources"])
def test_slots_answer_what_batches_answer_and_go_on_anywhere(
        runs: Callable, small_windows: None, task: str, architecture: str, more: dict) -> None:
    run, answers = runs(task, architecture), []
    records = list(sources.read("builtin:test?size=20", task))
    for slots in (0, 8):
        config = configuration.read(str(run.config))
        config.decode.update(slots=slots, **more)
        trained = load(config, run.workdir)
        predictor = inference.Predictor(trained.experiment)
        answers.append(list(predictor.answers(trained.parameters, records)))
    assert len(answers[0]) == 20 and answers[0] == answers[1]
    assert {type(answer) for answer in answers[0]} == ({tuple} if more else {str})
    assert len(set(answers[0])) > (18 if more else 1)
    # The 19th stands in the second window.
    assert list(predictor.answers(trained.parameters, records, skip=18)) == answers[1][18:]


def test_slots_are_for_generated_texts_alone(runs: Callable) -> None:
    run, found = runs("extractive_qa", "encoder"), []
    records = list(sources.read("builtin:test?size=8", "extractive_qa"))
    for slots in (0, 8):
        config = configuration.read(str(run.config))
        config.decode.slots = slots
        trained = load(config, run.workdir)
        found.append(list(inference.Predictor(trained.experiment).predictions(trained.parameters, records)))
    assert len(found[0]) == 8 and found[0] == found[1]


def test_a_sample_depends_on_the_seed_and_the_records_number(
        runs: Callable, verb: Callable, tmp_path: pathlib.Path) -> None:
    run = runs("text_generation", "decoder")
    same = tmp_path / "same.jsonl"
    same.write_text(run.records.read_text("utf-8").splitlines()[0].join(["", "\n"]) * 8, "utf-8")

    def sampled(seed: int) -> list[str]:
        output = tmp_path / f"{seed}.jsonl"
        assert verb(predict, f"--config={run.config}", "--config.decode.method=sample", f"--config.seed={seed}",
                    f"--workdir={run.workdir}", f"--input={same}", f"--output={output}").status == 0
        return output.read_text("utf-8").splitlines()

    first, second = sampled(0), sampled(1)
    assert len(set(first)) > 4 and first != second


def test_predict_streams(runs: Callable, verb: Callable, forty: Callable, small_windows: None,
                         tmp_path: pathlib.Path) -> None:
    """What stands before a broken line is answered; mended, the file is answered to its end."""
    run, source, output = runs("classification", "encoder"), tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = forty("classification").read_text("utf-8").splitlines(keepends=True)
    source.write_text("".join([*lines[:35], "{\n", *lines[36:]]), "utf-8")
    line = (f"--workdir={run.workdir}", f"--input={source}", f"--output={output}")
    assert f"{source}:36" in verb(predict, *line).mistake
    begun = output.read_text("utf-8")
    assert begun.count("\n") == 32
    source.write_text("".join(lines), "utf-8")
    assert verb(predict, *line).status == 0
    whole = tmp_path / "whole.jsonl"
    assert verb(predict, *line[:2], f"--output={whole}").status == 0
    assert output.read_bytes() == whole.read_bytes() and output.read_text("utf-8").startswith(begun)


@pytest.mark.parametrize(("change", "named"), [
    ("--input={other}", "input"), ("--config.seed=1", "seed"), ("--config.decode.method=sample", "decode"),
    ("--config.batch.evaluation_size=16", "batch"), (None, "input")])
def test_another_commands_output_is_refused(
        runs: Callable, verb: Callable, tmp_path: pathlib.Path, change: str | None, named: str) -> None:
    run, output = runs("classification", "encoder"), tmp_path / "out.jsonl"
    line = [f"--config={run.config}", f"--workdir={run.workdir}", f"--input={run.records}", f"--output={output}"]
    if change is None:  # a file that no predict wrote
        output.write_text('{"mine": 1}\n')
    else:
        assert verb(predict, *line).status == 0
        other = tmp_path / "other.jsonl"
        other.write_bytes(run.records.read_bytes())
        line.append(change.format(other=other))
    before = output.read_bytes()
    said = verb(predict, *line).mistake
    assert f"{output} exists and comes from another command (its {named} differs)" in said
    assert output.read_bytes() == before
