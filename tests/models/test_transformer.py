# SPDX-License-Identifier: Apache-2.0
"""Who may influence whom: later tokens, padding, neighbours in a packed row, and dropout."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5tasks.models import attention
from t5tasks.models.layers import Dropout

LENGTH, SOURCE_LENGTH = 7, 9  # of the first document; test_reference compiles these shapes too
DECODERS = ("rotary decoder", "learned decoder", "relative decoder", "sliding decoder", "parallel decoder")
BOTH = ("rotary encoder-decoder", "learned encoder-decoder", "relative encoder-decoder",
        "layerwise encoder-decoder")


def _changed(inputs, name, column, vocabulary):
    tokens = inputs[name]
    return inputs | {name: tokens.at[:, column].set((tokens[:, column] + 1) % vocabulary)}


def _difference(made, inputs, other):
    """float[B, T]: the largest change of any logit at each place."""
    return np.abs(np.asarray(made.apply(made.parameters, inputs) - made.apply(made.parameters, other))).max(-1)


@pytest.mark.parametrize("name", DECODERS + BOTH)
def test_a_later_token_changes_no_earlier_logit(family, inputs_of, name):
    made = family(name)
    inputs = inputs_of(made.config, length=LENGTH)
    change = _difference(made, inputs, _changed(inputs, "tokens", 4, made.config.vocabulary))
    assert (change[:, :4] == 0).all() and (change[:, 4:] > 1e-4).all()


def test_an_encoder_sees_both_ways(family, inputs_of):
    made = family("encoder", head="token")
    inputs = inputs_of(made.config, length=LENGTH)
    for column in (0, 4, LENGTH - 1):
        change = _difference(made, inputs, _changed(inputs, "tokens", column, made.config.vocabulary))
        assert (change > 1e-5).all()


def test_every_target_sees_the_whole_source(family, inputs_of):
    made = family("relative encoder-decoder")
    inputs = inputs_of(made.config, length=LENGTH)
    for column in (0, SOURCE_LENGTH - 1):
        change = _difference(made, inputs, _changed(inputs, "source_tokens", column, made.config.vocabulary))
        assert (change > 1e-5).all()


# Three documents: row 0 holds them packed, with padding at its end; rows 1 to 3 one each, padded.
SIZES, SOURCE_SIZES, WIDE = (LENGTH, 3, 4), (SOURCE_LENGTH, 2, 5), 18


def _rows(sizes, documents, fill):
    """tokens, segments, positions, owner int32[4, WIDE]; owner is the document, -1 for padding."""
    tokens, segments, positions = (np.full((4, WIDE), value, np.int32) for value in (fill, 0, 0))
    owner = np.full((4, WIDE), -1)
    start = 0
    for index, (size, document) in enumerate(zip(sizes, documents, strict=True)):
        for row, at, segment in ((0, start, index + 1), (index + 1, 0, 1)):
            place = np.s_[row, at:at + size]
            tokens[place], segments[place], positions[place] = document, segment, np.arange(size)
            owner[place] = index
        start += size
    return tokens, segments, positions, owner


def _packing_inputs(config, fill):
    """Inputs, targets and owner; document d's ids are 3 d + 1 ... of a third of the vocabulary each."""
    random = np.random.RandomState(3)
    third = (config.vocabulary - 1) // 3

    def documents(sizes):
        return [1 + index * third + random.randint(third, size=size) for index, size in enumerate(sizes)]

    names = ("tokens", "segments", "positions")
    *arrays, owner = _rows(SIZES, documents(SIZES), fill)
    inputs = dict(zip(names, arrays, strict=True))
    if config.architecture == "encoder_decoder":
        *arrays, _ = _rows(SOURCE_SIZES, documents(SOURCE_SIZES), fill)
        inputs |= {f"source_{name}": array for name, array in zip(names, arrays, strict=True)}
    if config.token_types and config.architecture == "encoder":
        inputs["token_types"] = _rows(SIZES, [random.randint(2, size=size) for size in SIZES], 0)[0]
    targets = _rows(SIZES, [random.randint(3, size=size) for size in SIZES], 0)[0]
    return {name: jnp.asarray(array) for name, array in inputs.items()}, jnp.asarray(targets), owner


def _nll(logits, targets, weights):
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)[..., 0]
    return -jnp.sum(jnp.where(weights > 0, weights * chosen, 0))


@pytest.fixture(scope="module")
def loss_and_gradient(quick_jit):
    """loss_and_gradient(made): a function of inputs, targets and weights."""

    @functools.cache
    def of_model(model):
        return quick_jit(jax.value_and_grad(
            lambda parameters, inputs, targets, weights: _nll(model.apply(parameters, inputs), targets, weights)))

    return lambda made: functools.partial(of_model(made.model), made.parameters)


PACKED = [(name, {"tied_head": False, "vocabulary": 28, "decoder_layers": 1,
                  "encoder_layers": 1 if name in BOTH else 0})
          for name in DECODERS + BOTH] + [("encoder", {"head": "token", "vocabulary": 28, "encoder_layers": 1})]


@pytest.mark.parametrize(("name", "changes"), PACKED, ids=lambda value: value if isinstance(value, str) else "")
def test_packing_and_padding_change_nothing(family, loss_and_gradient, name, changes):
    """Packed = unpacked = without padding, in loss and gradient; none crosses between documents."""
    made = family(name, **changes)
    inputs, targets, owner = _packing_inputs(made.config, fill=0)
    call = loss_and_gradient(made)
    packed = np.where(np.arange(4)[:, None] == 0, owner >= 0, False).astype(np.float32)
    unpacked = np.where(np.arange(4)[:, None] > 0, owner >= 0, False).astype(np.float32)

    loss, gradient = call(inputs, targets, packed)
    loss_unpacked, gradient_unpacked = call(inputs, targets, unpacked)
    np.testing.assert_allclose(loss, loss_unpacked, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-4), gradient, gradient_unpacked)

    # The embedding table is only read here (the head is not tied), and documents share no id.
    third = (made.config.vocabulary - 1) // 3
    for document in range(3):
        table = np.asarray(call(inputs, targets, packed * (owner == document))[1]["embedding"])
        touched = np.flatnonzero(np.abs(table).max(1))
        assert len(touched) and set(touched) <= set(range(1 + document * third, 1 + (document + 1) * third))

    other_filling = _packing_inputs(made.config, fill=5)[0]
    assert not np.array_equal(other_filling["tokens"], inputs["tokens"])
    np.testing.assert_array_equal(call(other_filling, targets, packed)[0], loss)
    np.testing.assert_array_equal(call(other_filling, targets, unpacked)[0], loss_unpacked)

    first = {name: array[1:2, :SOURCE_LENGTH if name.startswith("source_") else LENGTH]
             for name, array in inputs.items() if name.endswith(("tokens", "types"))}
    bare = jax.tree.map(lambda array: jnp.repeat(array, 2, axis=0), first)
    alone = _nll(made.apply(made.parameters, bare)[:1], targets[1:2, :LENGTH], jnp.ones((1, LENGTH)))
    np.testing.assert_allclose(alone, call(inputs, targets, unpacked * (owner == 0))[0], rtol=1e-5)


def test_positions_restart_by_argument_not_by_segment(family, loss_and_gradient):
    """Without `positions` a packed document would stand where it lies: the law above needs both."""
    made = family(*PACKED[1][:1], **PACKED[1][1])
    inputs, targets, owner = _packing_inputs(made.config, fill=0)
    weights = ((owner == 2) & (np.arange(4)[:, None] == 0)).astype(np.float32)
    call = loss_and_gradient(made)
    running = inputs | {"positions": jnp.broadcast_to(jnp.arange(WIDE), (4, WIDE))}
    assert abs(call(inputs, targets, weights)[0] - call(running, targets, weights)[0]) > 1e-3


def test_padding_is_out_of_a_span_heads_reach(family, inputs_of):
    made = family("encoder", head="span")
    inputs = inputs_of(made.config, rows=2, length=LENGTH)
    segments = jnp.asarray([[1] * LENGTH, [1] * 5 + [0] * 2])
    logits = np.asarray(made.apply(made.parameters, inputs | {"segments": segments}))
    assert logits.shape == (2, 2, LENGTH)
    probabilities = np.asarray(jax.nn.softmax(logits))
    assert (probabilities[1, :, 5:] == 0).all() and (probabilities[1, :, :5] > 0).all()
    np.testing.assert_allclose(logits[0], made.apply(made.parameters, inputs)[0], atol=1e-6)


def test_padding_has_no_part_in_a_mean(family, inputs_of):
    made = family("encoder", pooling="mean")
    inputs = inputs_of(made.config, rows=2, length=LENGTH)
    segments = jnp.asarray([[1] * 5 + [0] * 2, [0] * LENGTH])  # the second row only fills the batch
    logits = np.asarray(made.apply(made.parameters, inputs | {"segments": segments}))
    alone = made.apply(made.parameters, {name: array[:, :5] for name, array in inputs.items()})
    np.testing.assert_allclose(logits[0], alone[0], atol=1e-5)
    assert np.isfinite(logits[1]).all()


@pytest.mark.parametrize("rate", ["dropout", "attention_dropout"])
@pytest.mark.parametrize(("name", "changes"), [("rotary decoder", {}), ("encoder", {"head": "token"})])
def test_dropout_comes_from_its_key(family, inputs_of, name, changes, rate):
    made, without = family(name, **{rate: 0.3}, **changes), family(name, **changes)
    inputs = inputs_of(made.config, length=LENGTH)
    dropped = [np.asarray(made.apply(made.parameters, inputs, jax.random.key(seed))) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(dropped[0], dropped[1])
    assert np.abs(dropped[0] - dropped[2]).max() > 1e-2
    kept = made.apply(made.parameters, inputs)
    np.testing.assert_array_equal(kept, without.apply(made.parameters, inputs))
    assert np.abs(dropped[0] - kept).max() > 1e-2


def test_dropout_takes_its_share_and_scales_the_rest(family):
    """A stack whose layers add nothing shows the dropout on its embeddings alone."""
    made = family("rotary decoder", head="none", final_norm=False, dropout=0.25, decoder_layers=1)
    parameters = jax.tree.map(jnp.zeros_like, made.parameters) | {"embedding": jnp.ones((37, 24))}
    tokens = jnp.zeros((8, 64), jnp.int32)
    hidden = np.asarray(made.apply(parameters, {"tokens": tokens}, jax.random.key(0)))
    assert set(np.unique(hidden.round(5))) == {0.0, np.float32(1 / 0.75).round(5)}
    assert (hidden == 0).mean() == pytest.approx(0.25, abs=0.02)
    assert not np.array_equal(hidden[0], hidden[1])


@pytest.mark.parametrize("name", ["rotary decoder", "encoder", "relative encoder-decoder"])
def test_attention_that_drops_nothing_is_attention_without_dropout(family, inputs_of, name):
    """A rate below 2**-16 draws, and takes the way that writes the weights out, but drops none of them."""
    made = family(name, attention_dropout=1e-6)
    inputs = inputs_of(made.config, length=LENGTH)
    drawn, plain = (np.asarray(made.apply(made.parameters, inputs, key)) for key in (jax.random.key(0), None))
    np.testing.assert_allclose(drawn, plain, atol=2e-5)


def test_attention_dropout_takes_its_share_of_each_heads_weights():
    """Equal scores and values of one: a query's answer counts the weights that stayed."""
    zeros, mask = jnp.zeros((4, 64, 2, 3)), jnp.ones((4, 64, 64), bool)

    def dropout(weights):
        return Dropout(0.25).apply({}, weights, rngs={"dropout": jax.random.key(0)})

    mixed = np.asarray(attention._plain_attention(zeros, zeros, zeros + 1, mask, None, 0.0, dropout))
    counts = mixed * 0.75 * 64
    np.testing.assert_allclose(counts, counts.round(), atol=1e-3)
    np.testing.assert_array_equal(counts[..., :1], counts[..., 1:2])
    assert counts.mean() / 64 == pytest.approx(0.75, abs=0.02)
    assert not np.array_equal(counts[:, :, 0], counts[:, :, 1])
