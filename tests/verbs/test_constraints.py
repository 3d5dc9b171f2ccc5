# SPDX-License-Identifier: Apache-2.0
"""config.decode.choices, regex and json_schema come in; predictions that they allow, or a line why not, come out."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Callable

import pytest

from t5tasks import evaluate, predict


@pytest.mark.parametrize(("task", "architecture", "given", "pattern"), [
    ("text_generation", "decoder", ("choices=('the cat','a dog é')", "method=sample"), "the cat|a dog é"),
    ("translation", "encoder_decoder", ("regex=([a-z]é?){2,4}", "method=beam"), "([a-z]é?){2,4}"),
])
def test_every_prediction_is_allowed(runs: Callable, verb: Callable, tmp_path: pathlib.Path, task: str,
                                     architecture: str, given: tuple[str, ...], pattern: str) -> None:
    run, output = runs(task, architecture), tmp_path / "out.jsonl"
    verb(predict, f"--config={run.config}", f"--workdir={run.workdir}", f"--input={run.records}", f"--output={output}",
         "--config.decode.max_new_tokens=24", *(f"--config.decode.{one}" for one in given))
    texts = [text for line in output.read_text("utf-8").splitlines() for text in json.loads(line).values()]
    assert len(texts) == 24 and all(re.fullmatch(pattern, text) for text in texts), texts


@pytest.mark.parametrize(("given", "said"), [
    (("regex=a", "choices=('a',)"), "config.decode has choices and regex, which cannot both be kept"),
    (("regex=a", "stop=('x',)"), "config.decode has regex and stop, which cannot both be kept"),
    (("regex=(a",), "config.decode.regex: regex '(a' cannot be compiled"),
    (("json_schema=none.json",), "config.decode.json_schema: no file none.json that can be read"),
    (('json_schema={"type": "array"}',), "config.decode.json_schema: JSON schema #/items: None says nothing"),
    (("choices=('a','')",), "config.decode.choices: the tokenizer spells '' as ''"),
    (("regex=[0-9]{40}", "max_new_tokens=6"), "tokens to satisfy its constraint, its limit is 6"),
])
def test_what_cannot_be_kept(runs: Callable, verb: Callable, given: tuple[str, ...], said: str) -> None:
    run = runs("text_generation", "decoder")
    settings = [f"--config.decode.{one}" for one in given]
    assert said in verb(evaluate, f"--config={run.config}", f"--workdir={run.workdir}", *settings).mistake


def test_a_task_that_writes_no_text_has_no_constraint(runs: Callable, verb: Callable) -> None:
    run = runs("classification", "encoder")
    said = verb(evaluate, f"--config={run.config}", f"--workdir={run.workdir}", "--config.decode.regex=a").mistake
    assert "config.decode.regex is for tasks that generate text, which classification in this form does not" in said
