# SPDX-License-Identifier: Apache-2.0
"""Few-shot prompts and class weights: from a config to what a run trains on, keeps and reports."""

import json

import jax
import numpy as np

from t5tasks import configuration, evaluate, experiment, inference, train
from t5tasks.data.features import tokenise
from t5tasks.tasks.task import SHOT


def _built(config_file, folder, architecture, more):
    config = configuration.read(str(config_file(folder, "classification", architecture, more)))
    run = experiment.build(config, None)
    return run, list(experiment.read_records(config.data.train, run.task, run.options))


def test_what_does_not_fit_costs_the_first_examples_and_not_the_text(config_file, tmp_path):
    run, records = _built(config_file, tmp_path, "decoder", "config.task.shots = 5")
    seen = set()
    for length in (30, 100, 160, 220, 600):
        for record in records[:8]:
            pieces = run.example(run.form.asked(record), length).pieces
            shown = [piece.text for piece in pieces if piece.role == SHOT]
            every = [piece.text for piece in run.form.preprocess(record, run.options).pieces if piece.role == SHOT]
            tokens = tokenise(pieces, run.tokenizer)
            assert shown == every[len(every) - len(shown):]
            assert len(tokens.ids) <= length or not shown
            assert next(piece for piece in pieces if piece.role == "input").text == record["text"]
            seen.add(len(shown))
    assert {0, 5} <= seen and len(seen) > 3
    # Examples are no texts of their own to a tokenizer that is to be trained.
    plain = experiment.texts(run.form, {**run.options, "examples": ()}, records)
    assert list(experiment.texts(run.form, run.options, records)) == list(plain)


def test_a_run_keeps_the_examples_that_it_drew(config_file, tmp_path):
    path = config_file(tmp_path, "classification", "decoder", "config.task.update(shots=2, balanced=True)")
    config, workdir = configuration.read(str(path)), tmp_path / "run"
    run = experiment.build(config, workdir)
    experiment.save(run)
    assert len(run.options["examples"]) == 2 and len(run.options["class_weights"]) == 4
    # The training records are needed no more, and another seed draws no others.
    config.data.train, config.task.shots_seed = "file:gone.jsonl", 7
    again = experiment.build(config, workdir).options
    assert {**again, "shots_seed": 0} == dict(run.options)
    assert experiment.build(experiment.saved_config(workdir), workdir).options == run.options


def test_class_weights_act_in_training_and_on_no_figure(config_file, tmp_path):
    runs = {}
    for weights in ((), (1.0, 2.0, 4.0, 0.5)):
        for architecture in ("encoder", "decoder"):
            run, records = _built(config_file, tmp_path, architecture, f"config.task.class_weights = {weights}")
            for record in records[:12]:
                plain, weighted = run.features(record)[0]["weights"], run.training_features(record)["weights"]
                factor = dict(zip(run.options["labels"], weights or (1.0,) * 4, strict=True))[record["label"]]
                np.testing.assert_allclose(weighted, plain * factor)
                assert weighted.dtype == np.float32
            predictor, parameters = inference.Predictor(run), run.model.init(jax.random.key(0))
            counted = predictor.token_counts(parameters, records[:9])
            runs.setdefault(architecture, []).append({name: float(value) for name, value in counted.items()})
    assert all(first == second for first, second in runs.values())


def test_an_encoder_is_told_that_it_reads_no_examples(verb, config_file, tmp_path):
    path = config_file(tmp_path, "classification", "encoder", "config.task.shots = 2")
    assert "an encoder reads no examples" in verb(train, f"--config={path}", f"--workdir={tmp_path / 'run'}").mistake


LABELS = ("ape", "bee", "cow")


def test_sets_of_labels_are_learned(verb, config_file, tmp_path):
    """Each label has its word, and which words a text has is nothing that one label of three could tell."""
    sets = [[label for bit, label in enumerate(LABELS) if number >> bit & 1] for number in range(8)]
    rows = [{"text": " ".join(label if label in chosen else "dog" for label in LABELS) + f" {number}", "labels": chosen}
            for number in range(8) for chosen in sets]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    path = config_file(tmp_path, "classification", "encoder", "\n    ".join((
        f'config.data.update(train="file:{tmp_path}/rows.jsonl", validation="file:{tmp_path}/rows.jsonl", test="")',
        "config.tokenizer.size = 285", "config.batch.length = 16", "config.task.multi_label = True",
        "config.model.dropout = 0.0", "config.train.update(steps=90, log_every=90, evaluate_every=90)")))
    told = verb(train, f"--config={path}", f"--workdir={tmp_path / 'run'}")
    assert told.status == 0, told.errors
    result = json.loads(verb(evaluate, f"--workdir={tmp_path / 'run'}").output)
    assert result["metric"] == "micro_f1" and result["figures"]["subset_accuracy"] > 0.9, result
    assert result["figures"]["micro_f1"] > 0.95 > 0.7 > max(result["baselines"].values())
