# SPDX-License-Identifier: Apache-2.0
"""What a user asks `explain` for comes in; a page and facts, or a line that says what is wrong, come out."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from explain_cases import RECORDS, config_of, written

from t5tasks import experiment, explain
from t5tasks.data import sources

CHECKOUT = pathlib.Path(__file__).parents[2]


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


def test_a_loss_on_everything_trains_on_the_prompt_and_evaluates_the_answer(sentence_pieces: str) -> None:
    config = config_of("text_generation", "decoder", sentence_pieces)
    answer = experiment.build(config.copy_and_resolve_references(), None)
    config.loss.graded = "all"
    run = experiment.build(config, None)
    record = sources.load(RECORDS, "text_generation")[0]
    weights = run.training_features(record)["weights"]
    assert weights.all() and len(weights) == len(run.features(record)[1].ids) - 1
    evaluated = run.features(record)[0]["weights"]
    assert np.array_equal(evaluated, answer.training_features(record)["weights"])
    assert 0 < evaluated.sum() < weights.sum()
    assert explain.count_sample(run, sources.load(RECORDS, "text_generation"), 1).graded == weights.sum()


@pytest.mark.parametrize(("task", "architecture", "graded", "message"), [
    ("summarization", "encoder_decoder", "all", "has nothing besides its answer to grade"),
    ("ner", "encoder", "all", "has nothing besides its answer to grade"),
    ("text_generation", "decoder", "prompt", "is 'prompt'; expected 'answer' or 'all'")])
def test_what_cannot_be_graded_is_refused(task: str, architecture: str, graded: str, message: str) -> None:
    config = config_of(task, architecture)
    config.loss.graded = graded
    with pytest.raises(ValueError, match=f"config.loss.graded .*{message}"):
        experiment.build(config, None)


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
