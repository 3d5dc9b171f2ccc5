# SPDX-License-Identifier: Apache-2.0
"""Labels scored together, from one reading of the prompts, are the labels scored one at a time."""

import jax.numpy as jnp
import numpy as np
import pytest

from t5tasks import decode

LABELS = [[3], [3, 4], [5, 6, 7, 1], [8, 9, 1]]


def log_softmax(logits):
    return logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())


def together(model, prompts, labels, pad_right):
    tokens, lengths = pad_right(prompts)
    return np.asarray(decode.log_probabilities(
        model.step, model.score, model.params, tokens, lengths,
        model.empty(range(len(prompts)), 20), *pad_right(labels)))


def test_sums_are_those_of_each_label_scored_by_itself(recency, pad_right):
    sums = together(recency, recency.prompts, LABELS, pad_right)
    for row, prompt in enumerate(recency.prompts):
        for column, label in enumerate(LABELS):
            expected = sum(log_softmax(recency.logits(prompt + label[:place], row))[token]
                           for place, token in enumerate(label))
            assert abs(sums[row, column] - expected) < 1e-5
            alone = together(recency, recency.prompts, [label], pad_right)[row, 0]
            assert abs(sums[row, column] - alone) < 1e-5


def test_labels_of_one_token_need_no_second_pass(recency, pad_right):
    sums = together(recency, recency.prompts, [[3], [9]], pad_right)
    for row, prompt in enumerate(recency.prompts):
        expected = log_softmax(recency.logits(prompt, row))[[3, 9]]
        np.testing.assert_allclose(sums[row], expected, atol=1e-5)


def test_all_sequences_of_a_length_are_the_whole_probability(recency, pad_right):
    labels = [[first, second] for first in range(11) for second in range(11)]
    sums = together(recency, recency.prompts, labels, pad_right)
    np.testing.assert_allclose(np.exp(sums).sum(-1), 1, atol=1e-5)


def test_normalised_scores():
    sums, lengths = jnp.log(jnp.array([[0.4, 0.04], [0.1, 0.1]])), np.array([1, 2])
    plain = decode.normalise(sums, lengths, by_length=False)
    np.testing.assert_allclose(plain, [[10 / 11, 1 / 11], [0.5, 0.5]], atol=1e-6)
    by_length = decode.normalise(sums, lengths, by_length=True)
    np.testing.assert_allclose(by_length[0], [0.4 / 0.6, 0.2 / 0.6], atol=1e-6)
    # A label ten times as frequent everywhere has to be ten times as likely here to tie.
    prior = jnp.log(jnp.array([0.5, 0.05]))
    calibrated = decode.normalise(sums, lengths, by_length=False, prior=prior)
    np.testing.assert_allclose(calibrated, [[0.5, 0.5], [1 / 11, 10 / 11]], atol=1e-6)


def test_nothing_compiles_again_for_other_labels_of_the_same_shape(recency, pad_right):
    together(recency, recency.prompts, LABELS, pad_right)
    traces = recency.traces
    together(recency, recency.prompts[::-1], LABELS[::-1], pad_right)
    assert recency.traces == traces


@pytest.mark.parametrize(("labels", "lengths", "capacity", "said"), [
    ([[3, 4]], [0], 20, "label 0 has 0 tokens, expected 1 to 2"),
    ([[3, 4]], [3], 20, "label 0 has 3 tokens"),
    ([3, 4], [1, 1], 20, "expected [L, M] and [L]"),
    ([[3, 4]], [2], 3, "a prompt of 2 and 2 new tokens need 4 slots, the cache has 3"),
])
def test_labels_that_do_not_fit_are_refused(recency, labels, lengths, capacity, said):
    with pytest.raises(ValueError) as error:
        decode.log_probabilities(
            recency.step, recency.score, recency.params, np.array([[3, 4]]), np.array([2]),
            recency.empty([0], capacity), np.array(labels), np.array(lengths))
    assert said in str(error.value)


def test_a_token_outside_the_vocabulary_is_seen(recency, pad_right):
    sums = together(recency, [[3, 4]], [[11], [3]], pad_right)
    assert np.isnan(sums).tolist() == [[True, False]]
