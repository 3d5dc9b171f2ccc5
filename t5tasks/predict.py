# SPDX-License-Identifier: Apache-2.0
"""Records of a JSON Lines file in, one prediction a line out, in their order.

    python -m t5tasks.predict --workdir=DIR --input=FILE.jsonl --output=FILE.jsonl
    python -m t5tasks.predict --config=FILE --config.pretrained=FOLDER --input=... --output=...

The input is read as it is needed, so it may be larger than memory. The output grows by whole
lines; run again, the same command goes on after the last whole one.
"""

import json
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import jax
from absl import flags

from t5tasks import command, configuration, experiment
from t5tasks.data import sources
from t5tasks.inference import Predictor
from t5tasks.tasks.task import Record
from t5tasks.trained import Trained, load
from t5tasks.training.writers import ProgressLine, clock

# The settings that predictions depend on.
SETTINGS = ("seed", "architecture", "task", "pretrained", "tokenizer", "model", "batch", "decode")


def predict(trained: Trained, source: str, output: pathlib.Path) -> int:
    """Writes the predictions that are missing in output; returns how many there are then.

    Raises:
      ValueError: a record without the task's fields, or an output that another command began.
    """
    run = trained.experiment
    source = source if ":" in source.split("/")[0] else f"file:{source}"
    settings = configuration.plain(run.config)
    done = _resume(output, {"input": source, "workdir": str(run.workdir), "step": trained.step,
                            **{name: settings[name] for name in SETTINGS}})

    def records() -> Iterator[Record]:
        for index, record in enumerate(sources.read(source, run.task.name)):
            run.task.check(record, f"{source} record {index}", targets=False)
            yield record

    lead, predictor = jax.process_index() == 0, Predictor(run)
    started, written = time.perf_counter(), done
    with (output.open("a", encoding="utf-8") as lines,
          ProgressLine(f"predict {run.task.name}", 0, done, quiet=not lead) as progress):
        for _, prediction in predictor.predictions(trained.parameters, records(), skip=done):
            if lead:
                lines.write(json.dumps(prediction, ensure_ascii=False) + "\n")
                lines.flush()
            written += 1
            seconds = time.perf_counter() - started
            progress.update(written, f"{(written - done) / seconds:,.1f} a second, {clock(seconds)}")
    if lead and predictor.guesses is not None:
        print(predictor.guesses)
    return written


def _resume(output: pathlib.Path, identity: dict[str, Any]) -> int:
    """Whole lines already there, half a last line cut off; the file beside it says what made them."""
    mark = output.with_name(f".{output.name}.run")
    output.parent.mkdir(parents=True, exist_ok=True)
    if not output.exists():
        experiment.write_json(mark, identity)
        output.touch()
        return 0
    known = json.loads(mark.read_text()) if mark.exists() else {}
    if other := [name for name in identity if known.get(name) != identity[name]]:
        raise ValueError(f"{output} exists and comes from another command (its {other[0]} differs); delete it "
                         "or name another --output")
    whole = done = 0
    with output.open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            done += 1
    with output.open("rb+") as lines:
        lines.truncate(whole)
    return done


def define_flags() -> None:
    """The verb's flags; not defined on import, so that verbs can be imported together."""
    command.config_flag()
    flags.DEFINE_string("workdir", None, "folder of a run")
    flags.DEFINE_enum("checkpoint", "best", ["best", "latest"], "which step to use")
    flags.DEFINE_string("input", None, "JSON Lines of records, or any source (file:, hub:, builtin:)")
    flags.DEFINE_string("output", None, "JSON Lines of predictions, one a record")


def main(_: list[str]) -> None:
    """The verb."""
    given = flags.FLAGS
    if not given.input or not given.output:
        raise ValueError("predict needs --input=FILE and --output=FILE")
    trained = load(given.config, pathlib.Path(given.workdir) if given.workdir else None, given.checkpoint)
    count = predict(trained, given.input, pathlib.Path(given.output))
    print(f"{given.output}: {count} predictions")


if __name__ == "__main__":
    define_flags()
    command.run(main)
