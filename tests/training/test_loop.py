# SPDX-License-Identifier: Apache-2.0
"""A run that meets a loss which is no number, and what it logs, evaluates and saves on its way."""

import json

import jax
import numpy as np
import pytest

from t5tasks.models.flops import forward_flops
from t5tasks.training import loop
from t5tasks.training.checkpoint import Checkpoints
from t5tasks.training.loop import Hooks, NonFiniteLossError, Plan, fit
from t5tasks.training.writers import MetricsWriter, ProgressLine, clock


@pytest.fixture
def fitted(run, batch_of, tmp_path, monkeypatch):
    """fitted(plan, bad=step): (state, metrics of each evaluation); steps of 8 rows into tmp_path."""
    monkeypatch.setattr(loop, "peak_flops", lambda: 1e9)
    made = run()

    def go(plan, bad=0):
        evaluated = []

        def batches():
            number = 0
            while True:
                number += 1
                batch = batch_of(8)
                if number == bad:
                    batch["weights"][2, 3] = np.nan
                yield batch

        def evaluate(state):
            evaluated.append(int(state.step))
            return {"accuracy": float(state.step)}

        writer = MetricsWriter(tmp_path, 0)
        try:
            with Checkpoints(tmp_path / "checkpoints", "accuracy") as checkpoints:
                hooks = Hooks(place=made.place, evaluate=evaluate, learning_rate=lambda step: 0.5 * step,
                              save=lambda state, metrics: checkpoints.save(made.model, state, {}, metrics))
                state = fit(made.first, made.step, batches(), made.model.config, plan, hooks, writer,
                            ProgressLine("test", plan.steps, 0, quiet=True))
        finally:
            writer.close()
        return state, evaluated

    return go


def _finite(state) -> bool:
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state.parameters, state.optimizer)))


@pytest.mark.parametrize("bad", [1, 4, 5])
def test_a_loss_that_is_no_number_stops_the_run_at_its_step(run, fitted, tmp_path, bad):
    plan = Plan(steps=9, log_every=3, evaluate_every=2, checkpoint_every=2)
    with pytest.raises(NonFiniteLossError, match=f"loss nan.* at step {bad}: training stopped.*on_nan=skip"):
        fitted(plan, bad)
    made, last = run(), (bad - 1) // 2 * 2  # what was saved before the bad step, and nothing after
    with Checkpoints(tmp_path / "checkpoints", "accuracy") as checkpoints:
        assert checkpoints.latest() == (last or None)
        if last:
            assert _finite(checkpoints.restore(made.model, made.shapes, made.mesh, last))


@pytest.mark.parametrize("log_every", [1, 3])
def test_a_bad_batch_can_be_skipped(fitted, tmp_path, log_every):
    """Also where it is all that a log line covers."""
    plan = Plan(steps=6, log_every=log_every, evaluate_every=6, checkpoint_every=6, on_nan="skip")
    state, evaluated = fitted(plan, bad=4)
    assert int(state.step) == 6 and _finite(state) and evaluated == [6]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    logged = [line for line in lines if line["kind"] == "train"]
    assert logged and all(np.isfinite(value) for line in logged for value in line.values() if value != "train")


def test_figures_are_means_over_the_interval(run, batch_of, fitted, tmp_path):
    plan = Plan(steps=5, log_every=2, evaluate_every=4, checkpoint_every=100)
    _, evaluated = fitted(plan)
    assert evaluated == [4, 5]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["kind"], line["step"]) for line in lines] == [
        ("train", 2), ("train", 4), ("validation", 4), ("train", 5), ("validation", 5)]
    assert [line["learning_rate"] for line in lines if line["kind"] == "train"] == [0.5, 1.5, 2.0]

    made, sums = run(), []
    state = made.first
    for _ in range(4):
        state, step_sums = made.step(state, made.place(batch_of(8)))
        sums.append(jax.device_get(step_sums))
    for line, pair in ((lines[0], sums[:2]), (lines[1], sums[2:])):
        weight = sum(part["weight"] for part in pair)
        for name, part in (("loss", "loss"), ("nll", "nll"), ("accuracy", "correct")):
            assert line[name] == pytest.approx(sum(entry[part] for entry in pair) / weight, rel=1e-5)
        assert line["gradient_norm"] == pytest.approx(np.mean([part["gradient_norm"] for part in pair]), rel=1e-5)
    batch = batch_of(8)
    tokens, length = int(batch["segments"].sum()), batch["tokens"].shape[1]
    assert lines[0]["tokens_per_second"] * lines[0]["seconds_per_step"] == pytest.approx(tokens)
    flops = 3 * forward_flops(made.model.config, tokens, length)
    assert lines[0]["mfu"] * lines[0]["seconds_per_step"] * 1e9 == pytest.approx(flops)


@pytest.mark.parametrize(("changes", "message"), [
    ({"on_nan": "ignore"}, "config.train.on_nan is 'ignore', expected stop or skip"),
    ({"steps": 0}, "the run has 0 steps")])
def test_a_plan_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        Plan(**{"steps": 1, "log_every": 1, "evaluate_every": 1, "checkpoint_every": 1, **changes})


def test_a_resumed_log_forgets_what_came_after_the_checkpoint(tmp_path):
    """Half a line, from a run killed while it wrote, goes too."""
    writer = MetricsWriter(tmp_path, 0)
    for step in (1, 2, 3):
        writer.write(step, "train", {"loss": step / 2})
    writer.close()
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 1, "ki')
    writer = MetricsWriter(tmp_path, 2)
    writer.write(3, "train", {"loss": 9.0})
    writer.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1, "kind": "train", "loss": 0.5}, {"step": 2, "kind": "train", "loss": 1.0},
        {"step": 3, "kind": "train", "loss": 9.0}]


def test_time_left_reads_as_a_clock():
    assert [clock(seconds) for seconds in (-1, 5, 65, 3723.9)] == ["0:00", "0:05", "1:05", "1:02:03"]
