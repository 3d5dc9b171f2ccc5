# SPDX-License-Identifier: Apache-2.0
"""A trained workdir (or a pretrained folder) and a source in, its metrics out.

    python -m t5tasks.evaluate --workdir=DIR [--config=FILE] [--config.data.test=SOURCE]
                               [--checkpoint=best|latest] [--output=FILE.json]
    python -m t5tasks.evaluate --config=FILE --answers=gold

The second scores the records' own targets as if a model had answered them: what the metrics give at most.
"""

import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_collections
from absl import flags

from t5tasks import command, experiment, inference, processes, tasks
from t5tasks.inference import Predictor
from t5tasks.metrics.counts import Counts
from t5tasks.tasks.task import GENERATION, Prediction, Record
from t5tasks.trained import load


def evaluate(config: ml_collections.ConfigDict | None, workdir: pathlib.Path | None, checkpoint: str = "best",
             tell: Callable[[Record, Prediction, Counts], None] = lambda *counted: None) -> dict[str, Any]:
    """The figures of data.test (data.validation where it is empty).

    Args:
      tell: called with each record, its prediction and what these add to the metric's counts, in order.

    Returns:
      {"source", "examples", "step", "parameters", "metric", "figures", "baselines", "notes"}; notes hold
      the signatures to quote. Of answers in words, figures have unigram_perplexity too, what a model
      without context reaches at least.
    """
    trained = load(config, workdir, checkpoint)
    run = trained.experiment
    source = run.config.data.test or run.config.data.validation
    records = experiment.read_records(source, run.task, run.options)
    predictor = Predictor(run)
    counts = predictor.evaluate(trained.parameters, records, tell)
    tokens = predictor.token_counts(trained.parameters, records)
    figures = predictor.figures(counts, tokens)
    baselines = run.task.baselines(list(records), run.options)
    if run.form.answers_by == GENERATION:
        figures["unigram_perplexity"] = predictor.unigram_perplexity(records)
    if run.task.metric == "perplexity":
        baselines["unigram"] = figures["unigram_perplexity"]
    notes = run.task.notes(counts, run.options)
    if predictor.guesses is not None:
        notes = {**notes, "speculation": str(predictor.guesses)}
    parameters = sum(leaf.size for leaf in jax.tree.leaves(trained.parameters))
    return {"source": source, "examples": len(records), "step": trained.step, "parameters": parameters,
            "metric": run.task.metric, "figures": figures, "baselines": baselines, "notes": notes}


def evaluate_gold(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """What `evaluate` returns, for a model that makes no mistake; there is no step and no loss."""
    task = tasks.get(config.task.name, config.task)
    options = task.resolve({name: value for name, value in config.task.items() if name != "name"},
                           lambda: experiment.read_records(config.data.train, task, config.task))
    source = config.data.test or config.data.validation
    records = experiment.read_records(source, task, options)
    form, samples = task.form(config.architecture), config.decode.samples

    def predictions() -> Iterator[tuple[Record, Prediction]]:
        for record in records:
            answer = form.right(record, options)
            several = (answer,) * samples if samples > 1 and isinstance(answer, str) else answer
            yield record, task.postprocess(record, several, options)

    counts = inference.count(task, task.known(records, options), predictions())
    return {"source": source, "examples": len(records), "metric": task.metric, "figures": task.figures(counts, options),
            "baselines": task.baselines(list(records), options), "notes": task.notes(counts, options)}


def define_flags() -> None:
    """The verb's flags; not defined on import, so that verbs can be imported together."""
    command.config_flag()
    processes.define_flags()
    flags.DEFINE_string("workdir", None, "folder of a run")
    flags.DEFINE_enum("checkpoint", "best", ["best", "latest"], "which step to score")
    flags.DEFINE_enum("answers", "model", ["model", "gold"], "whose answers to score: the model's, or the records'")
    flags.DEFINE_string("output", None, "also write the figures to this JSON file")


def main(_: list[str]) -> None:
    """The verb."""
    given = flags.FLAGS
    workdir = pathlib.Path(given.workdir) if given.workdir else None
    with processes.joined():
        if given.answers == "gold":
            result = evaluate_gold(experiment.given_or_saved(given.config, workdir))
        else:
            result = evaluate(given.config, workdir, given.checkpoint)
        if jax.process_index() == 0:
            print(json.dumps(result, indent=2))
            if given.output:
                experiment.write_json(pathlib.Path(given.output), result)


if __name__ == "__main__":
    define_flags()
    command.run(main)
