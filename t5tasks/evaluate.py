# SPDX-License-Identifier: Apache-2.0
"""A trained workdir (or a pretrained folder) and a source in, its metrics out.

    python -m t5tasks.evaluate --workdir=DIR [--config=FILE] [--config.data.test=SOURCE]
                               [--checkpoint=best|latest] [--output=FILE.json]
"""

import json
import pathlib
from typing import Any

import ml_collections
from absl import flags

from t5tasks import command, experiment
from t5tasks.inference import Predictor
from t5tasks.trained import load


def evaluate(config: ml_collections.ConfigDict | None, workdir: pathlib.Path | None,
             checkpoint: str = "best") -> dict[str, Any]:
    """The figures of data.test (data.validation where it is empty).

    Returns:
      {"source", "examples", "step", "metric", "figures", "baselines", "notes"}; notes hold the
      signatures to quote.
    """
    trained = load(config, workdir, checkpoint)
    run = trained.experiment
    source = run.config.data.test or run.config.data.validation
    records = experiment.read_records(source, run.task)
    predictor = Predictor(run)
    counts = predictor.evaluate(trained.parameters, records)
    tokens = predictor.token_counts(trained.parameters, records)
    baselines = run.task.baselines(list(records), run.options)
    if run.task.metric == "perplexity":
        baselines["unigram"] = predictor.unigram_perplexity(records)
    notes = run.task.notes(counts, run.options)
    if predictor.guesses is not None:
        notes = {**notes, "speculation": str(predictor.guesses)}
    return {"source": source, "examples": len(records), "step": trained.step, "metric": run.task.metric,
            "figures": predictor.figures(counts, tokens), "baselines": baselines, "notes": notes}


def define_flags() -> None:
    """The verb's flags; not defined on import, so that verbs can be imported together."""
    command.config_flag()
    flags.DEFINE_string("workdir", None, "folder of a run")
    flags.DEFINE_enum("checkpoint", "best", ["best", "latest"], "which step to score")
    flags.DEFINE_string("output", None, "also write the figures to this JSON file")


def main(_: list[str]) -> None:
    """The verb."""
    given = flags.FLAGS
    result = evaluate(given.config, pathlib.Path(given.workdir) if given.workdir else None, given.checkpoint)
    print(json.dumps(result, indent=2))
    if given.output:
        experiment.write_json(pathlib.Path(given.output), result)


if __name__ == "__main__":
    define_flags()
    command.run(main)
