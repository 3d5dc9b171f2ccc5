# SPDX-License-Identifier: Apache-2.0
"""config.decode.draft or prompt_lookup on the command line; the predictions without it come out."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable

import pytest

from t5tasks import evaluate, predict


@pytest.mark.parametrize(("task", "architecture", "guesser"), [
    ("text_generation", "decoder", "draft"), ("translation", "encoder_decoder", "prompt_lookup")])
def test_guesses_change_no_prediction(runs: Callable, verb: Callable, tmp_path: pathlib.Path, task: str,
                                      architecture: str, guesser: str) -> None:
    """A run that drafts for itself is right throughout."""
    run, output = runs(task, architecture), tmp_path / "guessed.jsonl"
    outcome = verb(predict, f"--config={run.config}", f"--workdir={run.workdir}", f"--input={run.records}",
                   f"--config.decode.{guesser}={run.workdir if guesser == 'draft' else 3}", f"--output={output}")
    assert outcome.status == 0, outcome.errors
    assert output.read_bytes() == run.predictions.read_bytes()
    found = re.fullmatch(r"([\d,]+) of ([\d,]+) guessed tokens accepted, (\d+\.\d\d) tokens a pass of the model\n.*\n",
                         outcome.output)
    assert found, outcome.output
    accepted, drafted = (int(number.replace(",", "")) for number in found.groups()[:2])
    assert 0 < accepted <= drafted and float(found[3]) > 1
    assert accepted == drafted or guesser != "draft"


@pytest.mark.parametrize(("given", "said"), [
    (("draft={run}", "prompt_lookup=2"), "of which one at most can guess"),
    (("prompt_lookup=2", "method=beam"), "prompt_lookup is 2, which beam search does not know"),
    (("prompt_lookup=2", "slots=8"), "prompt_lookup is 2 and slots 8, but texts in slots are not guessed"),
    (("prompt_lookup=2", "draft_tokens=0"), "config.decode.draft_tokens is 0, expected at least 1"),
    (("prompt_lookup=-1",), "config.decode.prompt_lookup is -1, expected at least 0"),
    (("draft=nowhere",), "config.decode.draft: nowhere is no folder"),
    (("draft={other}",), "an encoder_decoder with head lm; expected a model of architecture decoder with head lm"),
    (("draft={stranger}",), "which has another vocabulary (its token "),
])
def test_a_draft_that_cannot_guess_is_refused(runs: Callable, verb: Callable, given: tuple[str, ...],
                                              said: str) -> None:
    run = runs("text_generation", "decoder")
    folders = {"run": run.workdir}
    if "{other}" in given[0].partition("=")[2]:
        folders["other"] = runs("translation", "encoder_decoder").workdir
    if "{stranger}" in given[0].partition("=")[2]:
        folders["stranger"] = runs("classification", "decoder").workdir
    outcome = verb(evaluate, f"--workdir={run.workdir}", f"--config={run.config}",
                   *(f"--config.decode.{setting.format(**folders)}" for setting in given))
    assert said in outcome.mistake
