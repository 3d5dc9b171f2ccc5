# SPDX-License-Identifier: Apache-2.0
"""The recipes of vision-language training, as config switches: which parameters a step moves, and which not at all."""

import pathlib
import re
import shutil

import jax
import numpy as np
import pytest

from t5tasks import configuration, experiment, train
from t5tasks.data import batches
from t5tasks.sharding import flat
from t5tasks.training import optimizer as optimizers
from t5tasks.training.step import make_train_step

TESTS = pathlib.Path(__file__).parents[1]
PICTURE = str(TESTS / "data" / "fixtures" / "images" / "wide.png")
RECORDS = [{"image": PICTURE, "question": "What?", "answers": ["A sky"]},
           {"question": "How many?", "answers": ["Six"]}]
# frozen, lora → what moves; of adapters, the kernels that get one
RECIPES = {
    "projector only": (("^(?!projector/)",), {}, ("projector/",)),
    "then the decoder": (("^vision/",), {}, ("projector/", "decoder/", "embedding", "head/")),
    "adapters of the decoder": ((), {"rank": 2, "pattern": r"^decoder/.*/(query|value)/kernel$"},
                                ("decoder/layer_",)),
    "adapters of all three": (("^vision/encoder/layer_0/",), {"rank": 2, "pattern": r"/(query|value|map_\d)/kernel$"},
                              ("decoder/layer_", "projector/map_", "vision/encoder/layer_1/")),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """LLaVA's tiny checkpoint with its tokenizer and its processor's file."""
    made = tmp_path_factory.mktemp("checkpoint") / "llava"
    shutil.copytree(TESTS / "pretrained" / "fixtures" / "llava", made)
    for path in (TESTS / "verbs" / "fixtures" / "llava").glob("*.json"):
        shutil.copy(path, made)
    return made


@pytest.mark.parametrize("name", RECIPES)
def test_what_a_recipe_trains(name, folder, quick_jit):
    frozen, lora, moving = RECIPES[name]
    config = configuration.defaults("multimodal")
    config.pretrained, config.train.frozen = str(folder), frozen
    config.lora.update(lora)
    config.batch.update(size=8, evaluation_size=8, length=24)
    config.optimizer.update(learning_rate=0.1, schedule="constant", warmup=0, weight_decay=0.1)
    config.model.update(layer_loop="unroll", compute_dtype="float32")
    run = experiment.build(config, None)
    optimizer = optimizers.build(config.optimizer, 10)
    state, parts = train._first_state(run, optimizer)
    rows = [run.training_features(record) for record in RECORDS] * 4
    batch = {key: array[:] for key, array in batches.padded(rows, run.shape).items()}
    before = jax.device_get(flat(parts.merge(state.parameters, state.kept)))
    step = quick_jit(make_train_step(run.model, optimizer, config.loss, 1, parts))
    for _ in range(2):  # an adapter's A moves only once its B has
        state, sums = step(state, batch)
        assert sums["finite"]
    after = jax.device_get(flat(parts.merge(state.parameters, state.kept)))
    moved = {path for path in before if not np.array_equal(before[path], after[path])}
    chosen = {path for path in before if path.startswith(moving)}
    if lora:
        chosen = {path for path in chosen if re.search(lora["pattern"], path)}
        assert {re.sub(r"/lora_[ab]$", "/kernel", path) for path in flat(state.parameters)} == chosen
    else:
        assert {*flat(state.parameters)} == chosen
    assert moved <= chosen and {path.split("/")[0] for path in moved} == {path.split("/")[0] for path in chosen}
    # What does not move has no part in the loss: here, rows of no token and biases that softmax takes out.
    assert len(moved) >= 0.8 * len(chosen)
