# SPDX-License-Identifier: Apache-2.0
"""The count of operations against one by hand and against the compiler's own."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from t5tasks.models.config import ModelConfig, Patches, Vision
from t5tasks.models.flops import forward_flops
from t5tasks.models.model import Model

DECODER = ModelConfig(vocabulary=1000, width=128, heads=4, kv_heads=2, head_size=32, feed_forward=256,
                      decoder_layers=2)


def test_a_decoder_by_hand():
    """Two operations a weight and token; scores and mixing 2 N H each a query-key pair."""
    weights = 2 * (128 * 128 + 2 * 128 * 64 + 128 * 128 + 3 * 128 * 256) + 128 * 1000
    assert forward_flops(DECODER, tokens=10, length=7) == 10 * (2 * weights + 2 * 4 * 128 * 7)


def test_an_encoder_decoder_by_hand():
    config = dataclasses.replace(DECODER, architecture="encoder_decoder", encoder_layers=1, decoder_layers=1,
                                 gated=False)
    block = 2 * (128 * 128 + 2 * 128 * 64 + 128 * 128 + 2 * 128 * 256)
    source = 20 * (block + 4 * 128 * 11)
    memory = 20 * 2 * (2 * 128 * 64)  # keys and values of the source, once a source token
    target = 10 * (block + 4 * 128 * 7 + 2 * (2 * 128 * 128) + 4 * 128 * 11 + 2 * 128 * 1000)
    assert forward_flops(config, 10, 7, 20, 11) == source + memory + target


def test_a_sliding_layer_looks_no_further_than_its_window():
    config = dataclasses.replace(DECODER, window=5, sliding_layers=(1,))
    saved = 10 * 4 * 128 * (64 - 5)
    assert forward_flops(DECODER, 10, 64) - forward_flops(config, 10, 64) == saved
    assert forward_flops(DECODER, 10, 4) == forward_flops(config, 10, 4)
    both_ways = dataclasses.replace(config, architecture="encoder", encoder_layers=2, decoder_layers=0)
    assert forward_flops(both_ways, 10, 64) - forward_flops(config, 10, 64) == 10 * 4 * 128 * 4


@pytest.mark.parametrize("changes", [
    {}, {"gated": False, "activation": "relu"},
    {"architecture": "encoder", "encoder_layers": 2, "decoder_layers": 0, "head": "none"},
    {"architecture": "encoder_decoder", "encoder_layers": 1, "decoder_layers": 1}], ids=str)
def test_the_compiler_counts_the_same(changes):
    """Within a few per cent: the compiler counts element-wise work too."""
    config = dataclasses.replace(DECODER, **changes)
    rows, length, source_length = 4, 64, 96
    shape = jax.ShapeDtypeStruct((rows, length), jnp.int32)
    inputs = {"tokens": shape}
    if config.architecture == "encoder_decoder":
        inputs["source_tokens"] = jax.ShapeDtypeStruct((rows, source_length), jnp.int32)
    model = Model(config)
    lowered = jax.jit(model.apply).lower(jax.eval_shape(model.init, jax.random.key(0)), inputs)
    counted = lowered.cost_analysis()["flops"]
    expected = forward_flops(config, rows * length, length, rows * source_length, source_length)
    assert counted == pytest.approx(expected, rel=0.05)


SEEING = dataclasses.replace(DECODER, vision=Vision(ModelConfig(
    architecture="encoder", head="none", positions="grid", width=96, heads=3, kv_heads=3, head_size=32,
    feed_forward=192, gated=False, activation="gelu", encoder_layers=3, decoder_layers=0,
    patches=Patches(image_size=64, patch_size=8)), projector="mlp", image_token=7))


def test_images_by_hand():
    """65 tokens of the tower each (64 patches and the class token), of which 64 are projected."""
    block = 2 * (4 * 96 * 96 + 2 * 96 * 192) + 4 * 96 * 65
    image = 64 * 2 * 8 * 8 * 3 * 96 + 3 * 65 * block + 64 * 2 * (96 * 128 + 128 * 128)
    assert forward_flops(SEEING, 10, 7, images=3, size=(64, 64)) == forward_flops(DECODER, 10, 7) + 3 * image


def test_the_compiler_counts_the_same_with_images():
    rows, length, images = 2, 160, 2
    model = Model(SEEING)
    inputs = {"tokens": jax.ShapeDtypeStruct((rows, length), jnp.int32),
              "images": jax.ShapeDtypeStruct((rows, images, 64, 64, 3), jnp.float32)}
    lowered = jax.jit(model.apply).lower(jax.eval_shape(model.init, jax.random.key(0)), inputs)
    expected = forward_flops(SEEING, rows * length, length, images=rows * images, size=(64, 64))
    assert lowered.cost_analysis()["flops"] == pytest.approx(expected, rel=0.05)
