# SPDX-License-Identifier: Apache-2.0
"""Two rows at a time, each in a process of its own; the report of what they did."""

import pytest

from t5tasks import quickstart


@pytest.fixture(scope="module")
def configs():
    """Two rows of few records and steps."""
    chosen = [config for config in quickstart.configs()
              if quickstart.name_of(config) in ("ner-encoder", "classification-encoder")]
    for config in chosen:
        for split in ("train", "validation", "test"):
            config.data[split] = f"builtin:{split}?size=60"
        config.train.steps = 2
        config.model.update(width=32, heads=2, kv_heads=2, head_size=16, feed_forward=64)
    return chosen


def test_every_task_has_a_row_for_each_of_its_forms():
    names = [quickstart.name_of(config) for config in quickstart.configs()]
    assert len(set(names)) == len(names) >= 15
    assert {"nli-encoder", "nli-decoder", "summarization-encoder_decoder", "summarization-decoder"} <= set(names)


def test_rows_run_beside_each_other_and_are_reported(configs, tmp_path, monkeypatch):
    for name in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS"):  # a row trains on one device
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # what is compiled is used once
    rows = list(quickstart.run_all(configs, tmp_path, count=2))
    assert {row.folder for row in rows} == {"ner-encoder", "classification-encoder"}
    for row in rows:
        assert 0 <= row.score <= 1 and row.seconds > 0
        folder = tmp_path / row.folder
        assert "2/2" in (folder / "output.txt").read_text() and (folder / "explain.html").exists()
    text = quickstart.report(rows, tmp_path).read_text()
    assert all(f"## {row.task}, {row.architecture}" in text for row in rows)
    # What is there is only read.
    assert sorted(map(str, quickstart.run_all(configs, tmp_path, count=1))) == sorted(map(str, rows))


def test_a_row_that_fails_is_named(configs, tmp_path):
    broken = configs[0].copy_and_resolve_references()
    broken.optimizer.learning_rate = -1.0
    with pytest.raises(ValueError, match="classification-encoder: optimizer.learning_rate is -1.0.*output.txt"):
        list(quickstart.run_all([broken], tmp_path, count=2))
