# SPDX-License-Identifier: Apache-2.0
"""Records in, one prediction a line out, in their order; or lines of plain text in, their answers as lines out.

    python -m t5tasks.predict --workdir=DIR --input=FILE.jsonl --output=FILE.jsonl
    python -m t5tasks.predict --workdir=DIR --input=text:FILE.en --output=FILE.de
    ... | python -m t5tasks.predict --workdir=DIR --input=text:- --output=- | ...
    python -m t5tasks.predict --config=FILE --config.pretrained=FOLDER --input=... --output=...

The input is read as it is needed, so it may be larger than memory. The predictions of records grow by whole
lines; those of plain text (see line_by_line.py) stand in a hidden file beside their place until they are whole.
Run again, the same command goes on after the last whole line.
"""

import contextlib
import io
import json
import os
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import IO, Any

import jax
from absl import flags

from t5tasks import augmentation, command, configuration, experiment, line_by_line, processes
from t5tasks.data import sources
from t5tasks.inference import Predictor
from t5tasks.tasks.task import Record
from t5tasks.trained import Trained, load
from t5tasks.training import agreement
from t5tasks.training.writers import ProgressLine

# The settings that predictions depend on.
SETTINGS = ("seed", "architecture", "task", "pretrained", "tokenizer", "model", "batch", "decode")
STANDARD_OUTPUT = pathlib.Path("-")


def predict(trained: Trained, source: str, output: pathlib.Path) -> int:
    """Writes the predictions that are missing in output; returns how many there are then.

    Raises:
      ValueError: a record without the task's fields, a line that is no text, or an output that another command began.
    """
    run = trained.experiment
    settings = configuration.plain(run.config)
    identity = {"input": source, "workdir": str(run.workdir), "step": trained.step,
                **{name: settings[name] for name in SETTINGS}}
    if source.startswith(line_by_line.SCHEME):
        return _predict_lines(trained, line_by_line.parse(source), output, identity)
    source = source if ":" in source.split("/")[0] else f"file:{source}"
    done = 0 if output == STANDARD_OUTPUT else _begun(output, output, {**identity, "input": source})

    def records() -> Iterator[Record]:
        found = sources.read(source, run.task.name, run.task.pictures)
        if run.options.get("index"):
            found = augmentation.augmented(found, run.options)
        for index, record in enumerate(found):
            run.task.check(record, f"{source} record {index}", targets=False)
            yield record

    predictor = Predictor(run)
    predictions = predictor.predictions(trained.parameters, records(), skip=done)
    lines = (json.dumps(prediction, ensure_ascii=False) for _, prediction in predictions)
    return _write(predictor, lines, output, done)


def _predict_lines(trained: Trained, text: line_by_line.PlainText, output: pathlib.Path, identity: dict[str, Any]
                   ) -> int:
    """The same for plain text: a file that is there is whole, and was made of these very lines."""
    line_by_line.shape(trained.experiment.task)
    total, content = (0, f"piped at {time.time_ns()}") if text.piped else text.measure()
    piped_out = output == STANDARD_OUTPUT
    growing = output if piped_out else output.with_name(f".{output.name}.partial")
    done = 0 if piped_out else _begun(output, growing, {**identity, "content": content})
    if not piped_out and output.exists():
        return done
    predictor = Predictor(trained.experiment)
    written = _write(predictor, line_by_line.answers(trained, predictor, text, done), growing, done, total)
    if not piped_out and jax.process_index() == 0:
        growing.replace(output)
    return written


def _write(predictor: Predictor, lines: Iterator[str], output: pathlib.Path, done: int, total: int = 0) -> int:
    """Appends lines to a file that has `done`, of which there will be `total` (0: who knows); how many it has then."""
    run, lead = predictor.experiment, jax.process_index() == 0
    written = done
    with (_opened(output, lead) as file,
          ProgressLine(f"predict {run.task.name}", total, done, quiet=not lead) as progress):
        for line in lines:
            file.write(f"{line}\n")
            file.flush()
            written += 1
            progress.tell(written)
    if lead and predictor.guesses is not None:
        print(predictor.guesses, file=sys.stderr if output == STANDARD_OUTPUT else sys.stdout)
    return written


def _opened(output: pathlib.Path, lead: bool) -> contextlib.AbstractContextManager[IO[str]]:
    """Where lines are written; only one process of a run writes."""
    if not lead:
        return open(os.devnull, "w", encoding="utf-8")
    if output == STANDARD_OUTPUT:
        if isinstance(sys.stdout, io.TextIOWrapper):  # and no stand-in of another program
            sys.stdout.reconfigure(encoding="utf-8", newline="\n")
        return contextlib.nullcontext(sys.stdout)
    return output.open("a", encoding="utf-8", newline="\n")


def _begun(output: pathlib.Path, growing: pathlib.Path, identity: dict[str, Any]) -> int:
    """`_resume`, by the one process that writes, for all."""
    return int(agreement.gathered(str(_resume(output, growing, identity) if jax.process_index() == 0 else 0))[0])


def _resume(output: pathlib.Path, growing: pathlib.Path, identity: dict[str, Any]) -> int:
    """Whole lines already there, half a last line cut off; the file beside it says what made them.

    Args:
      growing: output itself, or the file that becomes it when it is whole.
    """
    mark = output.with_name(f".{output.name}.run")
    output.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(mark.read_text()) if mark.exists() else {}
    other = [name for name in identity if known.get(name) != identity[name]]
    if output.exists() and other:
        raise ValueError(f"{output} exists and comes from another command (its {other[0]} differs); delete it "
                         "or name another --output")
    found = output if output.exists() else growing
    if other or not found.exists():
        growing.unlink(missing_ok=True)
        experiment.write_json(mark, identity)
        growing.touch()
        return 0
    whole = done = 0
    with found.open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            done += 1
    with found.open("rb+") as lines:
        lines.truncate(whole)
    return done


def define_flags() -> None:
    """The verb's flags; not defined on import, so that verbs can be imported together."""
    command.config_flag()
    processes.define_flags()
    flags.DEFINE_string("workdir", None, "folder of a run")
    flags.DEFINE_enum("checkpoint", "best", ["best", "latest"], "which step to use")
    flags.DEFINE_string("input", None, "JSON Lines of records, or any source (file:, hub:, builtin:), or "
                        "text:FILE, lines of plain text (text:-: standard input)")
    flags.DEFINE_string("output", None, "JSON Lines of predictions, one a record, or a line of text each; -: standard "
                        "output")


def main(_: list[str]) -> None:
    """The verb."""
    given = flags.FLAGS
    if not given.input or not given.output:
        raise ValueError("predict needs --input=FILE and --output=FILE")
    with processes.joined():
        trained = load(given.config, pathlib.Path(given.workdir) if given.workdir else None, given.checkpoint)
        output = pathlib.Path(given.output)
        count = predict(trained, given.input, output)
        if output != STANDARD_OUTPUT and jax.process_index() == 0:
            print(f"{given.output}: {count} predictions")


if __name__ == "__main__":
    define_flags()
    command.run(main)
