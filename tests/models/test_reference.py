# SPDX-License-Identifier: Apache-2.0
"""Every switch of `ModelConfig` against one transformer written out in float64 NumPy, row by row."""

import functools
import math

import jax
import numpy as np
import pytest

from t5tasks.models.positions import relative_buckets

ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
    "quick_gelu": lambda x: x / (1 + np.exp(-1.702 * x)),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
}


def _norm(c, p, x):
    if c.norm == "layernorm":
        x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + c.norm_epsilon) * (p["scale"] + c.unit_offset)
    return x + p["bias"] if c.norm == "layernorm" and c.biases else x


def _linear(p, x, inputs=1):
    """The last `inputs` axes of x against the first of the kernel."""
    y = np.tensordot(x, p["kernel"], axes=inputs)
    return y + p["bias"] if "bias" in p else y


def _turned(c, x, slides):
    """Each pair (i, i + R/2) of a head's first R numbers, turned by its position."""
    size = round(c.head_size * c.rotary_fraction)
    half = size // 2
    own = slides and c.local_rotary_base
    turns = np.array([(own or c.rotary_base) ** (-2 * pair / size) for pair in range(half)])
    if c.rotary_scaling == "linear" and not own:
        turns = turns / c.rotary_factor
    if c.rotary_scaling == "llama3" and not own:
        length = c.rotary_original_length
        low, high = length / c.rotary_low_frequency, length / c.rotary_high_frequency  # wavelengths
        for pair, wavelength in enumerate(2 * np.pi / turns):
            between = (low / wavelength - 1) / (low / high - 1)
            if wavelength > low:
                turns[pair] /= c.rotary_factor
            elif wavelength > high:
                turns[pair] *= (1 - between) / c.rotary_factor + between
    angles = np.arange(len(x))[:, None, None] * turns
    turned = (x[..., :half] + 1j * x[..., half:size]) * np.exp(1j * angles)
    turned *= 1 if own else c.rotary_amplitude
    return np.concatenate([turned.real, turned.imag, x[..., size:]], axis=-1)


def _normalised(c, p, x):
    """Queries or keys [T, N, H], each head by itself or all of them together."""
    return _norm(c, p, x) if c.query_key_norm == "head" else _norm(c, p, x.reshape(len(x), -1)).reshape(x.shape)


def _attention(c, p, x, source, seen, bias, slides=None):
    queries, keys, values = (_linear(p[name], y) for name, y in (("query", x), ("key", source), ("value", source)))
    if c.query_key_norm != "none":
        queries, keys = _normalised(c, p["query_norm"], queries), _normalised(c, p["key_norm"], keys)
    if c.positions == "rotary" and slides is not None:
        queries, keys = _turned(c, queries, slides), _turned(c, keys, slides)
    mixed = np.zeros_like(queries)
    for head in range(c.heads):
        shared = head // (c.heads // c.kv_heads)
        scores = queries[:, head] @ keys[:, shared].T
        scores = scores / math.sqrt(c.query_scale or c.head_size) if c.scaled_attention else scores
        scores = c.attention_cap * np.tanh(scores / c.attention_cap) if c.attention_cap else scores
        scores = np.where(seen, scores + (0 if bias is None else bias[head]), -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed[:, head] = weights / weights.sum(-1, keepdims=True) @ values[:, shared]
    return _linear(p["out"], mixed, inputs=2)


def _feed_forward(c, p, x):
    act = ACTIVATIONS[c.activation]
    hidden = act(_linear(p["gate"], x)) * _linear(p["up"], x) if c.gated else act(_linear(p["up"], x))
    return _linear(p["down"], hidden)


def _positions(c, p, length):
    """What is added to the embeddings of a row for their places."""
    if c.positions == "learned":
        return p["positions"][c.position_offset:][:length]
    if c.positions == "sinusoidal":
        angles = np.arange(length)[:, None] / 10_000 ** (np.arange(0, c.width, 2) / c.width)
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    return 0


def _bias(c, p, length, causal):
    slots = np.arange(length)[None]
    buckets = relative_buckets(slots, slots, c.relative_buckets, c.relative_distance, not causal)
    return np.moveaxis(p["relative_bias"]["embedding"][np.asarray(buckets)[0]], -1, 0)


def _stack(c, p, x, depth, causal, types=None, memory=None):
    length = len(x)
    x = x + _positions(c, p, length)
    if c.token_types:
        x = x + p["token_types"][np.zeros(length, int) if types is None else types]
    if c.embedding_norm:
        x = _norm(c, p["embedding_norm"], x)
    every = np.tril(np.ones((length, length))) > 0 if causal else np.ones((length, length)) > 0
    apart = np.abs(np.arange(length)[:, None] - np.arange(length))

    def residual(x, name, layer, sublayer):
        norm = layer.get(f"{name}_norm")
        if c.norm_placement == "post":
            return _norm(c, norm, x + sublayer(layer[name], x))
        if c.norm_placement == "output":
            return x + _norm(c, norm, sublayer(layer[name], x))
        y = sublayer(layer[name], x if norm is None else _norm(c, norm, x))
        return x + (_norm(c, layer[f"{name}_output_norm"], y) if c.norm_placement == "sandwich" else y)

    for index in range(depth):
        layer, slides = p[f"layer_{index}"], index in c.sliding_layers
        seen = every & (apart < c.window) if slides else every
        bias = None
        if c.positions == "relative":
            bias = _bias(c, layer if c.relative_per_layer else p, length, causal)
        look = functools.partial(_attention, c, seen=seen, bias=bias, slides=slides)
        attended = residual(x, "attention", layer, lambda q, y, look=look: look(q, y, y))
        if memory is not None:
            attended = residual(attended, "cross_attention", layer,
                                lambda q, y: _attention(c, q, y, memory, True, None))
        x = residual(x if c.parallel else attended, "feed_forward", layer, lambda q, y: _feed_forward(c, q, y)) + (
            attended - x if c.parallel else 0)
    return _norm(c, p["final_norm"], x) if c.final_norm else x


def _head(c, p, x, embedding):
    if c.head == "none":
        return x
    if c.head == "cls":
        x = x.mean(0) if c.pooling == "mean" else x[0]
    if c.head_transform:
        x = _norm(c, p["transform_norm"], ACTIVATIONS[c.activation](_linear(p["transform"], x)))
    if c.head == "lm":
        x = x * c.width**-0.5 if c.scaled_head else x
        x = x @ embedding.T if c.tied_head else _linear(p["words"], x)
        x = x + p["bias"] if c.head_bias else x
        return c.logit_cap * np.tanh(x / c.logit_cap) if c.logit_cap else x
    if c.head == "cls" and c.pooler != "none":
        x = _linear(p["pooler"], x)
        x = np.tanh(x) if c.pooler == "tanh" else ACTIVATIONS[c.pooler](x)
    logits = _linear(p["classifier"], x)
    return logits.T if c.head == "span" else logits


def reference(c, parameters, inputs):
    """The logits of every row of inputs without padding."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), parameters)
    rows = {name: np.asarray(array) for name, array in inputs.items()}
    answers = []
    table = p["embedding"] * (math.sqrt(c.width) if c.scaled_embedding else 1)
    for row in range(len(rows["tokens"])):
        x, memory = table[rows["tokens"][row]], None
        if c.architecture == "encoder":
            types = rows["token_types"][row] if "token_types" in rows else None
            x = _stack(c, p["encoder"], x, c.encoder_layers, False, types)
        else:
            if c.architecture == "encoder_decoder":
                source = table[rows["source_tokens"][row]]
                memory = _stack(c, p["encoder"], source, c.encoder_layers, False)
            x = _stack(c, p["decoder"], x, c.decoder_layers, True, memory=memory)
        answers.append(_head(c, p.get("head", {}), x, p["embedding"]))
    return np.stack(answers)


@pytest.mark.parametrize(("name", "changes"), [
    ("rotary decoder", {}),
    ("learned decoder", {}),
    ("relative decoder", {}),
    ("encoder", {}),
    ("rotary encoder-decoder", {}),
    ("learned encoder-decoder", {}),
    ("relative encoder-decoder", {}),
    # one switch at a time, away from its family
    ("rotary decoder", {"rotary_base": 30.0, "kv_heads": 1, "tied_head": False}),
    ("rotary decoder", {"norm_placement": "post", "final_norm": False, "norm": "layernorm"}),
    ("learned decoder", {"embedding_norm": True, "norm": "rmsnorm", "activation": "gelu"}),
    ("relative decoder", {"scaled_attention": True, "scaled_head": False}),
    ("relative decoder", {"gated": True, "activation": "gelu_tanh"}),
    ("relative encoder-decoder", {"encoder_layers": 1, "decoder_layers": 3, "biases": True}),
    ("encoder", {"head": "token", "token_types": 0}),
    ("encoder", {"head": "span", "norm_placement": "pre", "final_norm": True}),
    ("encoder", {"head": "lm", "embedding_norm": False, "activation": "relu"}),
    ("encoder", {"head": "none", "norm_epsilon": 0.5}),
    ("encoder", {"pooler": "none", "classes": 1}),
    ("encoder", {"pooling": "mean"}),
    ("encoder", {"pooler": "relu", "activation": "quick_gelu", "position_offset": 2}),
    ("encoder", {"head": "lm", "head_transform": True, "head_bias": True}),
    ("encoder", {"head_transform": True, "pooler": "none", "first_norm": False, "norm_placement": "pre"}),
    ("encoder", {"head": "token", "positions": "rotary", "head_size": 8, "window": 3, "sliding_layers": (1,),
                 "local_rotary_base": 50.0}),
    ("rotary decoder", {"qkv_biases": True, "window": 3, "sliding_layers": (0, 1)}),
    ("rotary decoder", {"query_key_norm": "head", "window": 2, "sliding_layers": (0,), "local_rotary_base": 20.0,
                        "rotary_scaling": "linear", "rotary_factor": 3.0, "norm_placement": "sandwich"}),
    ("rotary decoder", {"query_key_norm": "width", "norm_placement": "output", "unit_offset": True}),
    ("rotary decoder", {"attention_cap": 0.7, "logit_cap": 1.5, "query_scale": 2.0, "scaled_embedding": True}),
    ("rotary decoder", {"rotary_scaling": "llama3", "rotary_factor": 4.0, "rotary_original_length": 9,
                        "rotary_base": 7.0, "head_size": 16, "rotary_amplitude": 1.3}),
    ("learned decoder", {"positions": "rotary", "head_size": 16, "rotary_fraction": 0.25, "parallel": True}),
    ("relative decoder", {"attention_cap": 0.9, "relative_per_layer": True}),
    ("relative encoder-decoder", {"relative_per_layer": True}),
    ("learned encoder-decoder", {"positions": "sinusoidal", "head_bias": True, "norm_placement": "post"}),
])
def test_logits_are_those_of_the_written_out_transformer(family, inputs_of, name, changes):
    made = family(name, **changes)
    inputs = inputs_of(made.config, rows=2, length=7)
    expected = reference(made.config, made.parameters, inputs)
    logits = np.asarray(made.apply(made.parameters, inputs))
    assert expected.std() > 0.05  # figures this far apart tell a wrong switch
    np.testing.assert_allclose(logits, expected, atol=2e-5, rtol=1e-4)
