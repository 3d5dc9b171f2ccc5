# SPDX-License-Identifier: Apache-2.0
"""Answers that no model gives, the records' own, and several answers of one model to a record."""

import json
import runpy

import jax
import pytest

from t5tasks import evaluate, experiment
from t5tasks.data import world
from t5tasks.inference import Predictor


@pytest.mark.parametrize(("task", "architecture", "metric", "most"), [
    ("classification", "decoder", "accuracy", 1), ("translation", "encoder_decoder", "bleu", 100),
    ("code", "decoder", "exact_match", 1)])
def test_the_records_own_answers_score_the_most_there_is(verb, tmp_path, task, architecture, metric, most):
    from tests.verbs.conftest import write_config
    told = verb(evaluate, f"--config={write_config(tmp_path, task, architecture)}", "--answers=gold",
                f"--output={tmp_path / 'figures.json'}")
    assert told.status == 0, told.errors
    result = json.loads(told.output)
    assert result == json.loads((tmp_path / "figures.json").read_text())
    assert result["figures"][metric] == pytest.approx(most) and result["examples"] == 24
    assert "step" not in result and "loss" not in result["figures"]


def _answers(path, records, **decode):
    config = runpy.run_path(str(path))["get_config"]()
    config.decode.update(decode)
    run = experiment.build(config, None)
    return list(Predictor(run).answers(run.model.init(jax.random.key(3)), records))


def test_several_samples_stand_in_one_answer_and_the_first_is_what_one_alone_is(tmp_path):
    from tests.verbs.conftest import write_config
    path, records = write_config(tmp_path, "code", "decoder"), world.records("code", "test", 5)
    several = _answers(path, records, method="sample", samples=3)
    assert all(isinstance(answer, tuple) and len(answer) == 3 for answer in several) and len(several) == 5
    assert [answer[0] for answer in several] == _answers(path, records, method="sample")
    assert all(len(set(answer)) > 1 for answer in several)
    with pytest.raises(ValueError, match="config.decode.samples is 3; expected 1, or more with method sample"):
        _answers(path, records, samples=3)
