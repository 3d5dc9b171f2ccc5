# SPDX-License-Identifier: Apache-2.0
"""A family's name in, a small model of it out: parameters that hide nothing, jitted functions.

Sizes are odd on purpose, three heads or two query heads for each key head, and every bias and
norm scale is drawn too, so that a part left out shows in the figures.
"""

import dataclasses
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5tasks.models.config import ModelConfig
from t5tasks.models.model import Model

LLAMA = ModelConfig(vocabulary=37, max_length=200, width=24, heads=4, kv_heads=2, head_size=6, feed_forward=20,
                    decoder_layers=2, initializer_range=0.0)
GPT2 = dataclasses.replace(LLAMA, heads=3, kv_heads=3, head_size=7, norm="layernorm", norm_epsilon=1e-5,
                           biases=True, positions="learned", activation="gelu_tanh", gated=False)
T5_DECODER = dataclasses.replace(LLAMA, heads=3, kv_heads=3, head_size=5, positions="relative", relative_buckets=9,
                                 relative_distance=33, scaled_attention=False, activation="relu", gated=False,
                                 scaled_head=True)
BERT = dataclasses.replace(GPT2, architecture="encoder", head="cls", encoder_layers=2, decoder_layers=0,
                           norm_placement="post", embedding_norm=True, final_norm=False, token_types=2,
                           activation="gelu", pooler="tanh", classes=3)
# What the newest families have beside: windows on some layers, capped scores, norms on every side.
GEMMA = dataclasses.replace(LLAMA, norm_placement="sandwich", query_key_norm="head", unit_offset=True,
                            scaled_embedding=True, attention_cap=2.0, logit_cap=3.0, query_scale=9.0, window=3,
                            sliding_layers=(0,), local_rotary_base=50.0, rotary_scaling="linear", rotary_factor=2.0)
NEOX = dataclasses.replace(GPT2, positions="rotary", head_size=8, rotary_fraction=0.5, parallel=True)
UMT5_DECODER = dataclasses.replace(T5_DECODER, relative_per_layer=True)


def _both(decoder: ModelConfig) -> ModelConfig:
    return dataclasses.replace(decoder, architecture="encoder_decoder", encoder_layers=2)


FAMILIES = {
    "rotary decoder": LLAMA, "learned decoder": GPT2, "relative decoder": T5_DECODER, "encoder": BERT,
    "rotary encoder-decoder": _both(LLAMA), "learned encoder-decoder": _both(GPT2),
    "relative encoder-decoder": _both(T5_DECODER),
    "sliding decoder": GEMMA, "parallel decoder": NEOX, "layerwise encoder-decoder": _both(UMT5_DECODER),
}


def _made(config: ModelConfig, jit) -> SimpleNamespace:
    model = Model(config)
    random = np.random.RandomState(0)

    def draw(path, shape) -> jax.Array:
        # NumPy draws at once what would take seconds to compile; `init` has tests of its own.
        start = 1.0 if path[-1].key == "scale" else 0.0
        return jnp.asarray(start + random.randn(*shape.shape) * 0.25, jnp.float32)

    parameters = jax.tree_util.tree_map_with_path(draw, jax.eval_shape(model.init, jax.random.key(0)))
    return SimpleNamespace(
        model=model, config=config, parameters=parameters,
        apply=jit(model.apply), step=jit(model.step), start=jit(model.start, static_argnums=(1, 2)))


@pytest.fixture(scope="session")
def family(quick_jit):
    """family(name, **changes): a model, parameters, and its functions jitted; made once."""
    made = functools.cache(functools.partial(_made, jit=quick_jit))
    return lambda name, **changes: made(dataclasses.replace(FAMILIES[name], **changes))


@pytest.fixture(scope="session")
def inputs_of():
    """inputs_of(config, rows, length, seed): what the architecture reads, drawn at random."""

    def draw(config: ModelConfig, rows: int = 2, length: int = 9, seed: int = 0) -> dict[str, jax.Array]:
        random = np.random.RandomState(seed)
        inputs = {"tokens": random.randint(config.vocabulary, size=(rows, length))}
        if config.architecture == "encoder_decoder":
            inputs["source_tokens"] = random.randint(config.vocabulary, size=(rows, length + 2))
        if config.token_types and config.architecture == "encoder":
            inputs["token_types"] = random.randint(config.token_types, size=(rows, length))
        return {name: jnp.asarray(array, jnp.int32) for name, array in inputs.items()}

    return draw
