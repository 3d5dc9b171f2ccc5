# SPDX-License-Identifier: Apache-2.0
"""A tiny pretrained folder and settings of adapters or frozen parts come in; what training made of it goes out."""

from __future__ import annotations

import json
import pathlib
import re
import shutil
from collections.abc import Callable

import jax
import numpy as np
import pytest

from t5tasks import evaluate, export, predict, pretrained, sharding, train
from t5tasks.data import sources
from t5tasks.models.model import Model
from t5tasks.pretrained import adapters
from t5tasks.pretrained.resizing import resize
from t5tasks.trained import load
from t5tasks.training.checkpoint import Checkpoints

FIXTURE = pathlib.Path(__file__).parents[1] / "pretrained" / "fixtures" / "bert_bare"
CONFIG = """
def get_config():
    from t5tasks.configuration import defaults
    config = defaults("classification")
    config.data.update(train="builtin:train?size=96", validation="builtin:validation?size=24")
    config.pretrained = "{folder}"
    config.model.update(dropout=0.1, compute_dtype="float32")
    config.batch.update(size=8, length=16, evaluation_size=8)
    config.train.update(steps=6, log_every=1, evaluate_every=3)
    config.optimizer.update(learning_rate=1e-2, weight_decay=0.1)
    {more}
    return config
"""
LORA = "config.lora.update(rank=3, alpha=6.0, pattern='attention/(query|out)/kernel')"
FROZEN = "config.train.frozen = ('^embedding$', 'encoder/layer_0/')"
ADAPTERS = {f"encoder/layer_{layer}/attention/{name}/lora_{letter}" for layer in range(2)
            for name in ("query", "out") for letter in "ab"}
HEAD = {"head/classifier/kernel", "head/classifier/bias"}


def vocabulary(size: int) -> list[str]:
    """Letters, and free places up to the size."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *".,!?'-", *letters, *(f"##{letter}" for letter in letters)]
    return pieces + [f"[unused{number}]" for number in range(size - len(pieces))]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A BERT without a head, with a tokenizer of as many pieces as it has rows."""
    folder = tmp_path_factory.mktemp("base") / "bert"
    shutil.copytree(FIXTURE, folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary(199)) + "\n")
    return folder


def config_file(folder: pathlib.Path, base: pathlib.Path, more: str) -> pathlib.Path:
    path = folder / "config.py"
    path.write_text(CONFIG.format(folder=base, more=more))
    return path


@pytest.fixture(scope="module")
def tuned(base: pathlib.Path, verb: Callable, tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """tuned(settings): the config file and workdir of a finished run, and what `train` said."""
    done: dict[str, tuple] = {}

    def finished(more: str) -> tuple:
        if more not in done:
            folder = tmp_path_factory.mktemp("tuned")
            config, workdir = config_file(folder, base, more), folder / "run"
            done[more] = config, workdir, verb(train, f"--config={config}", f"--workdir={workdir}")
            assert done[more][2].status == 0, done[more][2].errors
        return done[more]

    return finished


def leaves(tree: object) -> dict[str, np.ndarray]:
    return {sharding.path_name(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def stored(workdir: pathlib.Path, item: str) -> set[str]:
    """Paths of what the latest checkpoint holds."""
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        step = checkpoints.latest()
        assert step is not None
        tree = checkpoints._manager.item_metadata(step)[item].tree
    return {sharding.path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)}


def test_adapters_and_the_new_head_alone_are_trained_and_kept(tuned: Callable, base: pathlib.Path) -> None:
    _, workdir, said = tuned(LORA)
    assert f"new parameters, not in {base}: head/classifier/bias, head/classifier/kernel" in said.errors
    count = 8 * 24 * 3 + 100  # four pairs of 24 x 3 and 3 x 24, a head of four classes
    assert f"training {count:,} parameters, " in said.errors
    assert stored(workdir, "parameters") == ADAPTERS | HEAD
    moments = {path.split("/", 3)[-1] for path in stored(workdir, "optimizer") if re.search("/(mu|nu)/", path)}
    assert moments == ADAPTERS | HEAD
    trained, began = load(None, workdir, "latest"), pretrained.load(base, head="cls", classes=4)
    assert trained.step == 6 and {*leaves(trained.adapters)} == ADAPTERS | HEAD
    changed = {path for path, leaf in leaves(trained.parameters).items()
               if not np.array_equal(leaf, leaves(began.parameters)[path])}
    assert changed == HEAD | {re.sub("lora_[ab]", "kernel", path) for path in ADAPTERS}


def test_a_run_with_adapters_that_broke_off_ends_like_one_that_did_not(
        tuned: Callable, verb: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    config, workdir, _ = tuned(LORA)

    class Breaking(train.MetricsWriter):
        def write(self, step: int, kind: str, figures: dict) -> None:
            super().write(step, kind, figures)
            if (step, kind) == (5, "train"):
                raise OSError("the disk is full")

    line = (f"--config={config}", f"--workdir={tmp_path / 'run'}")
    with monkeypatch.context() as patched:
        patched.setattr(train, "MetricsWriter", Breaking)
        assert verb(train, *line).mistake == "error: the disk is full"
    told = verb(train, *line)
    assert told.status == 0 and "resuming at step 3 of 6" in told.errors, told.errors
    one, other = ({path: leaf.tobytes() for path, leaf in leaves(load(None, folder, "latest").parameters).items()}
                  for folder in (workdir, tmp_path / "run"))
    assert one == other


def test_a_workdir_with_adapters_evaluates_predicts_and_exports(
        tuned: Callable, verb: Callable, base: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The adapters on their base, the merged model, and the workdir give one answer."""
    _, workdir, _ = tuned(LORA)
    evaluated = verb(evaluate, f"--workdir={workdir}", "--checkpoint=latest")
    last = [json.loads(line) for line in (workdir / "metrics.jsonl").open()][-1]
    assert json.loads(evaluated.output)["figures"]["loss"] == pytest.approx(last["loss"], rel=1e-6)
    records, answers = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    records.write_text("".join(json.dumps(record) + "\n" for record in
                               sources.read("builtin:test?size=8", "classification")))
    assert verb(predict, f"--workdir={workdir}", f"--input={records}", f"--output={answers}").status == 0
    assert len(answers.read_text().splitlines()) == 8

    line = (f"--workdir={workdir}", "--checkpoint=latest")
    for output, more in (("adapters", ()), ("merged", ("--merge",))):
        told = verb(export, *line, f"--output={tmp_path / output}", *more)
        assert told.status == 0 and str(tmp_path / output) in told.output, told.errors
        assert (tmp_path / output / "vocab.txt").is_file() or (tmp_path / output / "tokenizer.json").is_file()
    settings = json.loads((tmp_path / "adapters" / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], settings["task_type"]) == (3, 6, "SEQ_CLS")
    assert settings["modules_to_save"] == ["classifier"] and settings["base_model_name_or_path"] == str(base)
    assert settings["target_modules"] == [f"bert.encoder.layer.{layer}.attention.{name}" for layer in range(2)
                                          for name in ("output.dense", "self.query")]
    fields = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert [*fields["id2label"].values()] == ["improved", "negative", "positive", "worsened"]

    trained = load(None, workdir, "latest")
    ids = np.random.RandomState(0).randint(0, 199, (3, 11))
    expected = Model(trained.experiment.model.config).apply(trained.parameters, {"tokens": ids})
    f32 = {"compute_dtype": "float32"}
    plain = pretrained.load(base, head="cls", classes=4, overrides=f32)
    assert plain.new
    adapted = adapters.load(tmp_path / "adapters", plain)
    merged = pretrained.load(tmp_path / "merged", overrides=f32)
    assert adapted.new == merged.new == ()
    for loaded in (adapted, merged):
        np.testing.assert_allclose(loaded.forward(input_ids=ids), expected, rtol=0, atol=1e-5)
    assert np.abs(np.asarray(plain.forward(input_ids=ids)) - expected).max() > 1e-3
    assert f"{tmp_path / 'merged'} exists and is not empty" in verb(export, *line, f"--output={tmp_path / 'merged'}"
                                                                    ).mistake


def test_adapters_say_what_they_need(tuned: Callable, verb: Callable, base: pathlib.Path, tmp_path: pathlib.Path
                                     ) -> None:
    config, original, _ = tuned(LORA)
    workdir, moved = tmp_path / "run", tmp_path / "moved"
    shutil.copytree(original, workdir)
    shutil.copytree(base, moved)
    line = (f"--config={workdir / 'config.json'}", f"--workdir={workdir}")
    assert verb(evaluate, *line, f"--config.pretrained={moved}").status == 0  # the same weights elsewhere
    said = verb(evaluate, *line, "--config.pretrained=nowhere").mistake
    assert f"the checkpoints of {workdir} hold adapters alone, which need the weights of config.pretrained: nowhere " \
        in said
    weights = (moved / "model.safetensors").read_bytes()
    (moved / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))  # one bit
    said = verb(evaluate, *line, f"--config.pretrained={moved}").mistake
    assert f"{moved} has other weights than those that the adapters of {workdir} were trained on" in said
    for change, named in (("lora.rank=4", "lora.rank was 3"), ("lora.alpha=7.0", "lora.alpha was 6.0"),
                          ("train.frozen=('head',)", "train.frozen was []")):
        assert f"cannot resume: {named}" in verb(train, f"--config={config}", f"--workdir={workdir}",
                                                 f"--config.{change}").mistake


def test_frozen_parts_stay_to_the_bit_and_the_pretrained_folder_is_not_needed_again(
        tuned: Callable, verb: Callable, base: pathlib.Path, tmp_path: pathlib.Path) -> None:
    _, original, said = tuned(FROZEN)
    workdir = tmp_path / "run"
    shutil.copytree(original, workdir)
    assert " stay as they are" in said.errors
    moments = {path.split("/", 3)[-1] for path in stored(workdir, "optimizer") if re.search("/(mu|nu)/", path)}
    trained, began = (leaves(tree.parameters) for tree in (
        load(None, workdir, "latest"), pretrained.load(base, head="cls", classes=4)))
    frozen = {path for path in trained if path == "embedding" or path.startswith("encoder/layer_0/")}
    assert stored(workdir, "parameters") == {*trained} == moments | frozen and not moments & frozen
    for path in trained:
        assert (path in frozen) == np.array_equal(trained[path], began[path]), path
    # Nothing of the folder is looked at, as its name no longer leads anywhere.
    line = (f"--config={workdir / 'config.json'}", f"--workdir={workdir}", "--config.pretrained=nowhere")
    assert json.loads(verb(evaluate, *line, "--checkpoint=latest").output)["step"] == 6
    assert verb(evaluate, *line, "--config.model.pooling=mean").mistake.endswith(
        "is another model: pooling is mean in the config, first in the checkpoint")


def test_added_tokens_get_rows(base: pathlib.Path, verb: Callable, tmp_path: pathlib.Path) -> None:
    """Trained in full beside the adapters, and in every export."""
    larger = tmp_path / "larger"
    larger.mkdir()
    added = ["the", "was", "service", "waiter"]
    (larger / "vocab.txt").write_text("\n".join([*vocabulary(199), *added]) + "\n")
    config, workdir = config_file(tmp_path, base, LORA), tmp_path / "run"
    line = (f"--config={config}", f"--workdir={workdir}", f"--config.tokenizer.path={larger}",
            "--config.train.steps=2")
    told = verb(train, *line)
    assert told.status == 0 and "embedding[199:203]" in told.errors, told.errors
    assert stored(workdir, "parameters") == ADAPTERS | HEAD | {"embedding"}
    trained = load(None, workdir)
    assert trained.parameters["embedding"].shape == (203, 24)
    assert verb(export, f"--workdir={workdir}", f"--output={tmp_path / 'out'}").status == 0
    assert verb(export, f"--workdir={workdir}", f"--output={tmp_path / 'whole'}", "--merge").status == 0
    whole = pretrained.load(tmp_path / "whole", overrides={"compute_dtype": "float32"})
    plain = pretrained.load(base, head="cls", classes=4, overrides={"compute_dtype": "float32"})
    adapted = adapters.load(tmp_path / "out", resize(plain, 203))
    ids = np.array([[2, 199, 200, 201, 202, 3]])
    np.testing.assert_allclose(adapted.forward(input_ids=ids), whole.forward(input_ids=ids), rtol=0, atol=1e-5)


def test_another_tokenizer_adds_no_rows(base: pathlib.Path, verb: Callable, tmp_path: pathlib.Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    pieces = vocabulary(230)  # the letters last
    (other / "vocab.txt").write_text("\n".join([*pieces[:5], *pieces[83:], *pieces[5:83]]) + "\n")
    line = (f"--config={config_file(tmp_path, base, LORA)}", f"--workdir={tmp_path / 'run'}")
    said = verb(train, *line, f"--config.tokenizer.path={other}").mistake
    assert "is outside the model's vocabulary of 199; is this the model's own tokenizer?" in said


@pytest.mark.parametrize(("given", "said"), [
    (("--config.pretrained=",), "config.lora.rank is 3, but config.pretrained is empty"),
    (("--config.lora.pattern=attention/querry",), "config.lora.pattern is 'attention/querry', which matches no "),
    (("--config.train.frozen=('encoder/layer_7',)",), "config.train.frozen is 'encoder/layer_7', which matches no"),
    (("--config.train.frozen=('attention',)",), "all that it matches is frozen"),
    (("--config.lora.rank=0", "--config.train.frozen=('',)"), "which freezes every parameter"),
    (("--config.lora.rank=-2",), "lora.rank is -2"),
    (("--config.train.frozen=('encoder/layer_0',)", "--config.model.layer_loop=scan"), "set config.model.layer_loop"),
])
def test_mistakes_are_told_before_anything_is_trained(
        base: pathlib.Path, verb: Callable, tmp_path: pathlib.Path, given: tuple[str, ...], said: str) -> None:
    told = verb(train, f"--config={config_file(tmp_path, base, LORA)}", f"--workdir={tmp_path / 'run'}", *given).mistake
    assert said in told
    assert not [*tmp_path.glob("run/checkpoints/*")]


def test_export_needs_a_workdir_and_an_output(verb: Callable, tmp_path: pathlib.Path) -> None:
    assert "export needs --workdir=DIR and --output=FOLDER" in verb(export, f"--workdir={tmp_path}").mistake
