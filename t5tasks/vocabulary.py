# SPDX-License-Identifier: Apache-2.0
"""Text in, a SentencePiece model out: the tokenizer of models trained from scratch.

    python -m t5tasks.vocabulary --config=configs/multi30k.py --output=FOLDER [--size=8000] [--kind=bpe]

reads the training records of a config, worded as its task words them.
"""

import pathlib

from absl import flags

from t5tasks import command, experiment, tasks
from t5tasks.data import tokenizer


def define_flags() -> None:
    """The verb's flags; not defined on import, so that verbs can be imported together."""
    command.config_flag()
    flags.DEFINE_string("output", None, "folder for spiece.model")
    flags.DEFINE_integer("size", 0, "number of pieces; 0 for config.tokenizer.size")
    flags.DEFINE_enum("kind", None, ["unigram", "bpe"], "default: config.tokenizer.kind")


def main(_: list[str]) -> None:
    """The verb."""
    given = flags.FLAGS
    if given.config is None or not given.output:
        raise ValueError("vocabulary needs --config=FILE and --output=FOLDER")
    config = given.config
    task = tasks.get(config.task.name, config.task)
    records = experiment.read_records(config.data.train, task, config.task)
    options = task.resolve({name: value for name, value in config.task.items() if name != "name"},
                           lambda: records)
    texts = experiment.texts(task.form(config.architecture), options, records)
    trained = tokenizer.train(texts, given.size or config.tokenizer.size, pathlib.Path(given.output),
                              given.kind or config.tokenizer.kind)
    print(f"{given.output}: {trained.vocabulary_size} pieces from {len(records)} records of {config.data.train}")


if __name__ == "__main__":
    define_flags()
    command.run(main)
