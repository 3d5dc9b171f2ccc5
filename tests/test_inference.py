# SPDX-License-Identifier: Apache-2.0
"""Records through a `Predictor` of a classifying decoder, on eight devices, against each label scored by itself."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable

import jax
import numpy as np
import pytest

from t5tasks import configuration, experiment, sharding
from t5tasks.data import features as feature_functions
from t5tasks.inference import Predictor
from t5tasks.models.model import Model

WIDTH = 72
LABELS = ("joy", "no joy at all", "neither of the two")
TEXTS = ("a film", "words that go on for much longer than the others do", "why not, after all?", "?", "N/A or so")


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Predictor]:
    """A Predictor of a tiny decoder under settings of config.decode."""
    records = tmp_path_factory.mktemp("records") / "train.jsonl"
    records.write_text("".join(json.dumps({"text": f"{text} {label}", "label": label}) + "\n"
                               for text in TEXTS for label in LABELS), "utf-8")

    def build(**decode: object) -> Predictor:
        config = configuration.defaults("classification")
        config.architecture = "decoder"
        config.task.labels = LABELS
        config.data.train = config.data.validation = f"file:{records}"
        config.tokenizer.size = 300
        config.model.update(width=16, heads=2, kv_heads=2, head_size=8, feed_forward=32, decoder_layers=1)
        config.batch.update(length=WIDTH, evaluation_size=8)
        config.decode.update(decode)
        return Predictor(experiment.build(config, None))

    return build


@pytest.fixture(scope="module")
def parameters(predictor: Callable[..., Predictor]) -> dict:
    """Large enough that labels differ, on all eight devices."""
    run = predictor().experiment
    drawn = jax.tree.map(lambda array: array * 3, run.model.init(jax.random.key(0)))
    assert run.mesh.size == 8
    return jax.device_put(drawn, sharding.parameter_shardings(drawn, run.mesh))


def answers(predictor: Predictor, parameters: dict, texts: tuple[str, ...] = TEXTS) -> np.ndarray:
    return np.stack(list(predictor.answers(parameters, [{"text": text} for text in texts])))


def alone(predictor: Predictor, parameters: dict, text: str) -> tuple[np.ndarray, np.ndarray]:
    """f64[L] and int[L]: each label's log-probability after a text in one plain forward pass, and its tokens."""
    run = predictor.experiment
    sums, lengths = [], []
    for label in LABELS:
        example = run.form.preprocess({"text": text, "label": label}, run.options)
        tokens = feature_functions.tokenise(example.pieces, run.tokenizer)
        row = np.zeros((1, WIDTH), np.int32)
        row[0, :len(tokens.ids)] = tokens.ids
        logprobs = np.asarray(_logprobs(run.model, jax.device_get(parameters), row)[0], np.float64)
        target = [place for place, role in enumerate(tokens.roles) if role == "target"]
        sums.append(sum(logprobs[place - 1, tokens.ids[place]] for place in target))
        lengths.append(len(target))
    return np.array(sums), np.array(lengths)


@functools.partial(jax.jit, static_argnums=0)
def _logprobs(model: Model, parameters: dict, tokens: np.ndarray) -> jax.Array:
    return jax.nn.log_softmax(model.apply(parameters, {"tokens": tokens}))


def softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


@pytest.mark.parametrize("prior", [(), ("N/A",), ("N/A", "", "[MASK] ?")], ids=len)
def test_labels_are_those_scored_one_by_one(predictor: Callable[..., Predictor], parameters: dict,
                                            prior: tuple[str, ...]) -> None:
    """Labels of three lengths, prompts of five; plain, and for each token of a label."""
    plain = predictor(prior=prior)
    sums, lengths = zip(*(alone(plain, parameters, text) for text in TEXTS), strict=True)
    assert len(set(lengths[0])) == 3
    scores = np.stack(sums)
    if prior:
        scores = scores - np.log(np.mean([np.exp(alone(plain, parameters, text)[0]) for text in prior], axis=0))
    found = answers(plain, parameters)
    np.testing.assert_allclose(found, softmax(scores), rtol=0, atol=1e-5)
    by_length = predictor(prior=prior, length_normalised=True)
    np.testing.assert_allclose(answers(by_length, parameters), softmax(scores / lengths[0]), rtol=0, atol=1e-5)


def test_a_text_without_content_is_calibrated_to_even_odds(predictor: Callable[..., Predictor], parameters: dict
                                                           ) -> None:
    texts = ("N/A", *TEXTS)
    plain, calibrated = (answers(predictor(prior=prior), parameters, texts) for prior in ((), ("N/A",)))
    # The prior is read in a batch of its own, whose sums are rounded otherwise.
    np.testing.assert_allclose(calibrated[0], 1 / 3, atol=5e-5)
    assert np.abs(plain[0] - 1 / 3).max() > 0.1 and np.abs(calibrated[1:] - 1 / 3).max() > 0.1


def test_batch_mates_do_not_matter_to_labels(predictor: Callable[..., Predictor], parameters: dict) -> None:
    one = predictor(prior=("N/A",))
    together = answers(one, parameters, TEXTS * 3)
    for index in (1, 3):  # the longest and the shortest
        np.testing.assert_allclose(answers(one, parameters, (TEXTS[index],))[0], together[index], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("decode", "said"), [
    ({"method": "beam", "beams": 4, "beam_groups": 3}, "4 beams cannot be 3 groups"),
    ({"method": "beam", "diversity_penalty": 0.5}, "diversity_penalty is 0.5, which acts between groups"),
    ({"method": "beam", "early_stopping": "always"}, "early_stopping is 'always'"),
    ({"prior": (3,)}, "config.decode.prior is (3,), expected texts"),
])
def test_settings_out_of_range_are_refused_before_anything_runs(
        predictor: Callable[..., Predictor], decode: dict, said: str) -> None:
    with pytest.raises(ValueError) as error:
        predictor(**decode)
    assert said in str(error.value)
