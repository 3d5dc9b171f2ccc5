# SPDX-License-Identifier: Apache-2.0
"""Products of full f32 precision, which GPUs and TPUs do not take unasked, and folders with one thing changed."""

import json
import pathlib
import shutil

import jax
import pytest
import safetensors.numpy

from t5tasks import pretrained

FIXTURES = pathlib.Path(__file__).parent / "fixtures"


@pytest.fixture(autouse=True)
def full_precision():
    with jax.default_matmul_precision("highest"):
        yield


@pytest.fixture
def changed(tmp_path):
    """Copies a fixture with fields of config.json changed (None: removed) and tensors edited."""
    def change(name, config=None, tensors=None):
        folder = tmp_path / name
        shutil.copytree(FIXTURES / name, folder, dirs_exist_ok=True)
        fields = json.loads((folder / "config.json").read_text()) | (config or {})
        fields = {key: value for key, value in fields.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(fields))
        if tensors is not None:
            path = folder / "model.safetensors"
            arrays = safetensors.numpy.load_file(path)
            safetensors.numpy.save_file(tensors(arrays) or arrays, path)
        return folder

    return change


@pytest.fixture
def refused():
    """Checks that loading a folder raises one line of error with these parts."""
    def refused(folder, *parts, **arguments):
        with pytest.raises(ValueError) as error:
            pretrained.load(folder, **arguments)
        message = str(error.value)
        assert "\n" not in message
        for part in parts:
            assert part in message, message

    return refused
