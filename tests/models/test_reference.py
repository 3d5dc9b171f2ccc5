# SPDX-License-Identifier: Apache-2.0
"""Every switch of `ModelConfig` against one transformer written out in float64 NumPy, row by row."""

import math

import jax
import numpy as np
import pytest

from t5tasks.models.positions import relative_buckets

ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
}


def _norm(c, p, x):
    if c.norm == "layernorm":
        x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + c.norm_epsilon) * p["scale"]
    return x + p["bias"] if c.norm == "layernorm" and c.biases else x


def _linear(p, x, inputs=1):
    """The last `inputs` axes of x against the first of the kernel."""
    y = np.tensordot(x, p["kernel"], axes=inputs)
    return y + p["bias"] if "bias" in p else y


def _turned(c, x):
    """Each pair (i, i + H/2) of a head, turned by its position."""
    half = c.head_size // 2
    angles = np.arange(len(x))[:, None, None] * c.rotary_base ** (-np.arange(half) / half)
    turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)
    return np.concatenate([turned.real, turned.imag], axis=-1)


def _attention(c, p, x, source, seen, bias, rotary):
    queries, keys, values = (_linear(p[name], y) for name, y in (("query", x), ("key", source), ("value", source)))
    if rotary:
        queries, keys = _turned(c, queries), _turned(c, keys)
    mixed = np.zeros_like(queries)
    for head in range(c.heads):
        shared = head // (c.heads // c.kv_heads)
        scores = queries[:, head] @ keys[:, shared].T
        scores = scores / math.sqrt(c.head_size) if c.scaled_attention else scores
        scores = np.where(seen, scores + (0 if bias is None else bias[head]), -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed[:, head] = weights / weights.sum(-1, keepdims=True) @ values[:, shared]
    return _linear(p["out"], mixed, inputs=2)


def _feed_forward(c, p, x):
    act = ACTIVATIONS[c.activation]
    hidden = act(_linear(p["gate"], x)) * _linear(p["up"], x) if c.gated else act(_linear(p["up"], x))
    return _linear(p["down"], hidden)


def _stack(c, p, x, depth, causal, types=None, memory=None):
    length = len(x)
    if c.positions == "learned":
        x = x + p["positions"][:length]
    if c.token_types:
        x = x + p["token_types"][np.zeros(length, int) if types is None else types]
    if c.embedding_norm:
        x = _norm(c, p["embedding_norm"], x)
    seen, bias = np.tril(np.ones((length, length))) > 0 if causal else np.ones((length, length)) > 0, None
    if c.positions == "relative":
        slots = np.arange(length)[None]
        buckets = relative_buckets(slots, slots, c.relative_buckets, c.relative_distance, not causal)
        bias = np.moveaxis(p["relative_bias"]["embedding"][np.asarray(buckets)[0]], -1, 0)

    def residual(x, name, layer, sublayer):
        if c.norm_placement == "post":
            return _norm(c, layer[f"{name}_norm"], x + sublayer(layer[name], x))
        return x + sublayer(layer[name], _norm(c, layer[f"{name}_norm"], x))

    for index in range(depth):
        layer = p[f"layer_{index}"]
        x = residual(x, "attention", layer,
                     lambda q, y: _attention(c, q, y, y, seen, bias, c.positions == "rotary"))
        if memory is not None:
            x = residual(x, "cross_attention", layer, lambda q, y: _attention(c, q, y, memory, True, None, False))
        x = residual(x, "feed_forward", layer, lambda q, y: _feed_forward(c, q, y))
    return _norm(c, p["final_norm"], x) if c.final_norm else x


def _head(c, p, x, embedding):
    if c.head == "none":
        return x
    if c.head == "lm":
        x = x * c.width**-0.5 if c.scaled_head else x
        return x @ embedding.T if c.tied_head else _linear(p["words"], x)
    if c.head == "cls":
        x = x.mean(0) if c.pooling == "mean" else x[0]
        x = np.tanh(_linear(p["pooler"], x)) if c.pooler == "tanh" else x
    logits = _linear(p["classifier"], x)
    return logits.T if c.head == "span" else logits


def reference(c, parameters, inputs):
    """The logits of every row of inputs without padding."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), parameters)
    rows = {name: np.asarray(array) for name, array in inputs.items()}
    answers = []
    for row in range(len(rows["tokens"])):
        x, memory = p["embedding"][rows["tokens"][row]], None
        if c.architecture == "encoder":
            types = rows["token_types"][row] if "token_types" in rows else None
            x = _stack(c, p["encoder"], x, c.encoder_layers, False, types)
        else:
            if c.architecture == "encoder_decoder":
                source = p["embedding"][rows["source_tokens"][row]]
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
])
def test_logits_are_those_of_the_written_out_transformer(family, inputs_of, name, changes):
    made = family(name, **changes)
    inputs = inputs_of(made.config, rows=2, length=7)
    expected = reference(made.config, made.parameters, inputs)
    logits = np.asarray(made.apply(made.parameters, inputs))
    assert expected.std() > 0.05  # figures this far apart tell a wrong switch
    np.testing.assert_allclose(logits, expected, atol=2e-5, rtol=1e-4)
