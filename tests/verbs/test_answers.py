# SPDX-License-Identifier: Apache-2.0
"""Answers that no model gives are scored: the records' own."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable

import pytest

from t5tasks import evaluate


@pytest.mark.parametrize(("task", "architecture", "metric", "most"), [
    ("classification", "decoder", "accuracy", 1), ("translation", "encoder_decoder", "bleu", 100),
    ("dialogue", "decoder", "exact_match", 1), ("code", "decoder", "exact_match", 1)])
def test_the_records_own_answers_score_the_most_there_is(
        verb: Callable, config_file: Callable, tmp_path: pathlib.Path, task: str, architecture: str, metric: str,
        most: float) -> None:
    told = verb(evaluate, f"--config={config_file(tmp_path, task, architecture)}", "--answers=gold",
                f"--output={tmp_path / 'figures.json'}")
    assert told.status == 0, told.errors
    result = json.loads(told.output)
    assert result == json.loads((tmp_path / "figures.json").read_text())
    assert result["figures"][metric] == pytest.approx(most) and result["examples"] == 24
    assert "step" not in result and "loss" not in result["figures"]
