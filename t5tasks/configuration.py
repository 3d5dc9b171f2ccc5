# SPDX-License-Identifier: Apache-2.0
"""A config file and flags in, one locked ConfigDict out, in which a typo is an error.

A config file's get_config() starts from `defaults()` and sets what is its own. The dict is
locked: a name that is not below raises and names the nearest one, in the file and on the command
line alike (`--config.optimizer.learning_rate=1e-3`).
"""

import dataclasses
import json
from typing import Any

import ml_collections

from t5tasks import tasks
from t5tasks.models.config import ModelConfig

# Decided by the task, the tokenizer or the architecture, not by hand.
DERIVED = ("architecture", "head", "vocabulary", "classes")


def defaults(task: str) -> ml_collections.ConfigDict:
    """Every setting there is, with its default, for one task."""
    registered = tasks.get(task)
    model = {field.name: field.default for field in dataclasses.fields(ModelConfig)
             if field.name not in DERIVED}
    model |= {"encoder_layers": 2, "decoder_layers": 2, "initializer_range": 0.0}
    config = ml_collections.ConfigDict({
        "seed": 0,
        "architecture": next(iter(registered.forms)),
        "task": {"name": task, **registered.options},
        # What to read: see data/sources.py for builtin:, file: and hub:. `validation` picks the best
        # checkpoint while training, `test` is what the verb evaluate scores (default: validation).
        "data": {"train": "builtin:train", "validation": "builtin:validation", "test": ""},
        # A Hugging Face folder to start from (or package:NAME/FOLDER, in an installed package);
        # empty for a model of the sizes in `model`.
        "pretrained": "",
        # A tokenizer's file or folder; empty for the pretrained folder's, or one trained on the
        # training records with `size` pieces and kept in the workdir.
        "tokenizer": {"path": "", "size": 600, "kind": "bpe"},
        "model": model,
        # length: T at most. source_length: S at most, encoder-decoder only. evaluation_size:
        # rows of a batch in evaluation and prediction.
        "batch": {"size": 32, "length": 128, "source_length": 128, "packing": False,
                  "micro_batches": 1, "evaluation_size": 64},
        # steps: 0 means as many as `epochs` need. validation_records: 0 for all. *_every: in steps,
        # 0 means four evaluations a run, a checkpoint with each. on_nan: stop, or skip the batch.
        "train": {"epochs": 1.0, "steps": 0, "log_every": 20, "validation_records": 0,
                  "evaluate_every": 0, "checkpoint_every": 0, "on_nan": "stop"},
        "loss": {"label_smoothing": 0.0, "z_loss": 0.0, "chunk_tokens": 0},
        # warmup: steps, or a fraction of the run below 1.
        "optimizer": {"name": "adamw", "learning_rate": 1e-3, "schedule": "linear", "warmup": 0.1,
                      "final_fraction": 0.0, "weight_decay": 0.0, "clip_norm": 1.0, "beta1": 0.9,
                      "beta2": 0.999, "epsilon": 1e-8},
        # method: greedy, sample or beam. length_normalised: divide a label's log-probability by
        # its number of tokens (decoder form of classification).
        "decode": {"method": "greedy", "max_new_tokens": 64, "temperature": 1.0, "top_k": 0,
                   "top_p": 1.0, "beams": 4, "length_penalty": 1.0, "early_stopping": False,
                   "length_normalised": False},
        "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
    })
    return config.lock()


def plain(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The config as JSON-ready dicts."""
    return json.loads(config.to_json_best_effort())


def from_plain(values: dict[str, Any]) -> ml_collections.ConfigDict:
    """The inverse of `plain`: a saved config, checked against today's names.

    Raises:
      ValueError: a name that is unknown today, with the nearest one.
    """
    config = defaults(values["task"]["name"])
    try:
        with config.ignore_type():
            for name, value in values.items():
                if isinstance(value, dict):
                    for inner, setting in value.items():
                        config[name][inner] = tuple(setting) if isinstance(setting, list) else setting
                else:
                    config[name] = value
    except (KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"the saved config does not fit this version: {error}") from error
    return config
