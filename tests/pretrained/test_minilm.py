# SPDX-License-Identifier: Apache-2.0
"""Five sentences come in; real BERT weights give the embeddings that plain NumPy gives."""

import math

import numpy as np
import pytest
import safetensors.numpy

from t5tasks import pretrained
from t5tasks.data import tokenizer

SENTENCES = (
    "A man is eating food.",
    "The girl carries a baby through the crowded, noisy street market.",
    "Ein Mann reitet auf einem weißen Pferd.",
    "!",
    "JAX compiles programs of array operations to XLA; 1,024 × 768 is typical.",
)
HEADS, LAYERS = 12, 6


def normalised(x, weights, name):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + np.float32(1e-12))
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(x, weights, name):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def attended(x, weights, name):
    """f32[T, D] of one sentence, every token looking at every token."""
    query, key, value = (linear(x, weights, f"{name}.self.{part}").reshape(len(x), HEADS, -1)
                         for part in ("query", "key", "value"))
    scores = np.einsum("tnh,snh->nts", query, key) / np.float32(math.sqrt(query.shape[-1]))
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = np.einsum("nts,snh->tnh", scores / scores.sum(-1, keepdims=True), value)
    return linear(mixed.reshape(x.shape), weights, f"{name}.output.dense")


def bert(ids, weights):
    """f32[T, D], the last hidden states of one sentence."""
    erf = np.vectorize(math.erf, otypes=[np.float32])
    x = weights["embeddings.word_embeddings.weight"][ids]
    x = x + weights["embeddings.position_embeddings.weight"][: len(ids)]
    x = x + weights["embeddings.token_type_embeddings.weight"][0]
    x = normalised(x, weights, "embeddings.LayerNorm")
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        x = normalised(x + attended(x, weights, f"{name}.attention"), weights,
                       f"{name}.attention.output.LayerNorm")
        hidden = linear(x, weights, f"{name}.intermediate.dense")
        hidden = hidden * (1 + erf(hidden / np.float32(math.sqrt(2)))) / 2
        x = normalised(x + linear(hidden, weights, f"{name}.output.dense"), weights,
                       f"{name}.output.LayerNorm")
    return x


def unit(vector):
    return vector / np.linalg.norm(vector)


@pytest.fixture(scope="module")
def loaded(minilm_folder):
    return pretrained.load(minilm_folder, overrides={"compute_dtype": "float32"})


def test_sentence_embeddings_equal_plain_numpy(loaded, minilm_folder):
    assert loaded.model.config.head == "none" and loaded.new == ()
    pieces = tokenizer.load(loaded.tokenizer_folder)
    rows = [[pieces.special["cls"], *pieces.encode(text).ids, pieces.special["sep"]]
            for text in SENTENCES]
    ids = np.zeros((len(rows), 32), np.int64)
    mask = np.zeros_like(ids)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
    hidden = loaded.forward(input_ids=ids, attention_mask=mask)
    means = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    weights = safetensors.numpy.load_file(minilm_folder / "model.safetensors")
    for mean, tokens in zip(means, rows, strict=True):
        expected = unit(bert(np.array(tokens), weights).mean(0))
        np.testing.assert_allclose(unit(mean), expected, rtol=0, atol=1e-5)


def test_a_classifier_over_it_begins_fresh_and_keeps_the_pooler(minilm_folder):
    loaded = pretrained.load(minilm_folder, head="cls", classes=77)
    assert loaded.new == ("head/classifier/bias", "head/classifier/kernel")
    weights = safetensors.numpy.load_file(minilm_folder / "model.safetensors")
    np.testing.assert_array_equal(loaded.parameters["head"]["pooler"]["kernel"],
                                  weights["pooler.dense.weight"].T)
    assert loaded.forward(input_ids=np.array([[101, 102]])).shape == (1, 77)
