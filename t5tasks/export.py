# SPDX-License-Identifier: Apache-2.0
"""A trained workdir in, a folder that others can load out: a Hugging Face model, or PEFT's adapters.

    python -m t5tasks.export --workdir=DIR --output=FOLDER [--checkpoint=best|latest] [--merge]

A run with adapters (config.lora) writes these alone; with --merge, the whole model with them added.
"""

import pathlib
import shutil

import jax
import ml_collections
from absl import flags

from t5tasks import command, experiment, pretrained, processes, trained
from t5tasks.models.adapters import Lora
from t5tasks.pretrained import adapters


def export(config: ml_collections.ConfigDict | None, workdir: pathlib.Path, output: pathlib.Path,
           merge: bool = False, checkpoint: str = "best") -> str:
    """Writes the model of a step, or its adapters, and the tokenizer; returns a line that says so.

    Args:
      config: settings; None for those saved in the workdir.
      output: must not exist, or be empty.
      merge: write the whole model also where adapters were trained.

    Raises:
      ValueError: the workdir cannot be read, the output is taken, or neither format can hold the model.
    """
    loaded = trained.load(config, workdir, checkpoint)
    run, shape = loaded.experiment, loaded.experiment.model.config
    source = experiment.pretrained_folder(run.config) if run.config.pretrained else None
    if loaded.adapters is None or merge:
        pretrained.save(output, run.model, loaded.parameters, source=source, tokenizer_folder=workdir / "tokenizer",
                        labels=run.options["labels"] if shape.head in ("cls", "token") else None)
        return f"{output}: the model of {workdir} at step {loaded.step}"
    if jax.process_count() > 1:
        raise ValueError("adapters are exported by one process; run t5tasks.export on one host")
    assert source is not None  # adapters are added to something
    lora = Lora(**run.config.lora)
    adapters.save(output, run.model, loaded.adapters, lora, source, run.config.pretrained)
    shutil.copytree(workdir / "tokenizer", output, dirs_exist_ok=True)
    return f"{output}: adapters of rank {lora.rank} of {workdir} at step {loaded.step}, for {run.config.pretrained}"


def define_flags() -> None:
    """The verb's flags; not defined on import, so that verbs can be imported together."""
    command.config_flag()
    processes.define_flags()
    flags.DEFINE_string("workdir", None, "folder of a run")
    flags.DEFINE_enum("checkpoint", "best", ["best", "latest"], "which step to write")
    flags.DEFINE_string("output", None, "new folder for the model or its adapters")
    flags.DEFINE_bool("merge", False, "write the whole model, adapters added to its weights")


def main(_: list[str]) -> None:
    """The verb."""
    given = flags.FLAGS
    if not given.workdir or not given.output:
        raise ValueError("export needs --workdir=DIR and --output=FOLDER")
    with processes.joined():
        said = export(given.config, pathlib.Path(given.workdir), pathlib.Path(given.output), given.merge,
                      given.checkpoint)
        if jax.process_index() == 0:
            print(said)


if __name__ == "__main__":
    define_flags()
    command.run(main)
