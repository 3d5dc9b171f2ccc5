# SPDX-License-Identifier: Apache-2.0
"""Texts come in; the vectors that a plain forward pass of each alone gives come out, and who made them."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy

from t5tasks import embedding, pretrained, sharding
from t5tasks.data import tokenizer

pytestmark = pytest.mark.usefixtures("quick_to_compile")

TEXTS = ["a door", "", "the keys of a shop, the bell and more", "zz top.", *("abc " * n for n in (1, 2, 3, 5))]


@pytest.fixture(scope="module")
def embedder(tiny_encoder):
    return embedding.load(str(tiny_encoder))


@pytest.fixture(scope="module")
def hidden(tiny_encoder):
    """f32[T, D] of one text, by the reference's own inputs, without padding."""
    loaded, pieces = pretrained.load(tiny_encoder), tokenizer.load(tiny_encoder)

    def hidden(text, length=16):
        ids = [pieces.special["cls"], *pieces.encode(text).ids[:length - 2], pieces.special["sep"]]
        return loaded.forward(input_ids=np.asarray([ids]))[0]

    return hidden


def unit(vector):
    return vector / np.linalg.norm(vector)


def test_the_folder_says_how_its_vectors_are_made(embedder):
    assert embedder.settings == embedding.Settings(pooling="mean", length=16, unit=True)
    assert embedder.dimension == 24 and embedder._mesh.size == 8


def test_vectors_are_those_of_each_text_alone(embedder, hidden):
    expected = np.stack([unit(hidden(text).mean(0)) for text in TEXTS])
    np.testing.assert_allclose(embedder.passages(TEXTS), expected, rtol=0, atol=2e-6)
    np.testing.assert_allclose(embedder.questions(TEXTS[::-1]), expected[::-1], rtol=0, atol=2e-6)
    assert embedder.questions([]).shape == (0, 24)


def test_settings_change_the_vectors_as_they_say(tiny_encoder, hidden):
    changed = embedding.load(str(tiny_encoder), sharding.make_mesh(devices=jax.devices()[:1]), {
        "pooling": "first", "unit": False, "length": 10, "question_prefix": "ask ", "passage_prefix": "say "})
    for make, prefix in ((changed.questions, "ask "), (changed.passages, "say ")):
        expected = np.stack([hidden(prefix + text, 10)[0] for text in TEXTS])
        np.testing.assert_allclose(make(TEXTS), expected, rtol=0, atol=1e-5)


def test_a_head_makes_no_difference(embedder, tiny_encoder):
    loaded = pretrained.load(tiny_encoder, head="cls", classes=3)
    headed = embedding.Embedder(loaded.model, loaded.parameters, embedder.tokenizer, sharding.make_mesh(),
                                embedder.settings)
    assert headed.fingerprint == embedder.fingerprint
    np.testing.assert_array_equal(headed.passages(TEXTS), embedder.passages(TEXTS))


def test_the_fingerprint_tells_weights_tokenizer_and_settings_apart_but_not_meshes(embedder, tiny_encoder, tmp_path):
    alone = sharding.make_mesh(devices=jax.devices()[:1])
    assert embedding.load(str(tiny_encoder), alone).fingerprint == embedder.fingerprint
    prints = {embedder.fingerprint}
    for changes in ({"pooling": "first"}, {"length": 15}, {"unit": False}, {"passage_prefix": "x"}):
        prints.add(embedding.load(str(tiny_encoder), alone, changes).fingerprint)
    for change in ("weights", "tokenizer"):
        folder = tmp_path / change
        shutil.copytree(tiny_encoder, folder)
        if change == "weights":
            tensors = safetensors.numpy.load_file(folder / "model.safetensors")
            name = next(name for name in tensors if name.endswith("layer.1.output.dense.bias"))
            tensors[name][0] = np.nextafter(tensors[name][0], np.float32(9))  # one bit
            safetensors.numpy.save_file(tensors, folder / "model.safetensors")
        else:
            (folder / "vocab.txt").write_text((folder / "vocab.txt").read_text().replace("?", "!"))
        prints.add(embedding.load(str(folder), alone).fingerprint)
    assert len(prints) == 7


def test_what_cannot_embed_is_refused(embedder, tiny_encoder, tmp_path):
    with pytest.raises(ValueError, match="expected mean or first"):
        embedding.load(str(tiny_encoder), changes={"pooling": "last"})
    with pytest.raises(ValueError, match="length is 20; the encoder reads 3 to 19 tokens"):
        embedding.load(str(tiny_encoder), changes={"length": 20})
    decoder = dataclasses.replace(embedder._model.config, architecture="decoder", decoder_layers=1, encoder_layers=0)
    with pytest.raises(ValueError, match="a model of architecture decoder cannot embed"):
        embedding.Embedder(type(embedder._model)(decoder), {}, embedder.tokenizer, sharding.make_mesh(),
                           embedder.settings)
    with pytest.raises(ValueError, match="the encoder is package:nowhere/x, but the package nowhere is not installed"):
        embedding.load("package:nowhere/x")
    for path, content, message in (
            ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "pools by pooling_mode_max_tokens"),
            ("modules.json", [{"type": "x.Dense", "path": "2"}], "makes its vectors with Dense")):
        folder = tmp_path / path.partition("/")[0]
        shutil.copytree(tiny_encoder, folder)
        (folder / path).write_text(json.dumps(content))
        with pytest.raises(ValueError, match=message):
            embedding.load(str(folder))


def test_a_plain_folder_takes_the_usual_settings(tiny_encoder, tmp_path):
    folder = tmp_path / "plain"
    shutil.copytree(tiny_encoder, folder)
    (folder / "modules.json").unlink()
    with pytest.raises(ValueError, match="length is 256; the encoder reads 3 to 19 tokens"):
        embedding.load(str(folder))
    assert embedding.load(str(folder), changes={"length": 19}).settings.pooling == "mean"
