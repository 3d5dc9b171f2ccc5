# SPDX-License-Identifier: Apache-2.0
"""A config file and flags in, one locked ConfigDict out, in which a typo is an error.

A config file's get_config() starts from `defaults()` and sets what is its own. The dict is
locked: a name that is not below raises and names the nearest one, in the file and on the command
line alike (`--config.optimizer.learning_rate=1e-3`).
"""

import dataclasses
import json
import pathlib
import re
import runpy
import traceback
from collections.abc import Iterable
from typing import Any

import ml_collections

from t5tasks import tasks
from t5tasks.data.text_files import nearest
from t5tasks.models.adapters import Lora
from t5tasks.models.config import ModelConfig

# Decided by the task, the tokenizer or the architecture, not by hand.
DERIVED = ("architecture", "head", "vocabulary", "classes")


def defaults(task: str) -> ml_collections.ConfigDict:
    """Every setting there is, with its default, for one task."""
    registered = tasks.get(task)
    model = {field.name: field.default for field in dataclasses.fields(ModelConfig)
             if field.name not in DERIVED}
    # pooling: "auto" is the pretrained folder's way, or else the first token.
    model |= {"encoder_layers": 2, "decoder_layers": 2, "initializer_range": 0.0, "pooling": "auto"}
    model |= registered.model
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
        # training records with `size` pieces and kept in the workdir. Where it is the pretrained
        # folder's with tokens added to it, their rows are added to the model.
        "tokenizer": {"path": "", "size": 600, "kind": "bpe"},
        "model": model,
        # length: T at most. source_length: S at most, encoder-decoder only. evaluation_size:
        # rows of a batch in evaluation and prediction. window: training batches whose rows are sorted by length
        # together, which saves padding; 1 for rows in random order.
        "batch": {"size": 32, "length": 128, "source_length": 128, "packing": False,
                  "micro_batches": 1, "evaluation_size": 64, "window": 64},
        # steps: 0 means as many as `epochs` need. validation_records: 0 for all. *_every: in steps,
        # 0 means four evaluations a run, a checkpoint with each. on_nan: stop, or skip the batch.
        # frozen: patterns, searched in the paths of parameters (`encoder/layer_0/attention/query/kernel`);
        # what they match stays as it is, as with ("^embedding$", r"encoder/layer_[0-3]/").
        "train": {"epochs": 1.0, "steps": 0, "log_every": 20, "validation_records": 0,
                  "evaluate_every": 0, "checkpoint_every": 0, "on_nan": "stop", "frozen": ()},
        # With a rank, low-rank adapters of the kernels that the pattern matches are trained in place of
        # the pretrained weights, and what no checkpoint holds (a new head, new rows) in full: see
        # models/adapters.py. The workdir keeps these alone, and needs the pretrained folder.
        "lora": dataclasses.asdict(Lora()),
        # temperature: what cosines are divided by, where texts are compared (dense_retriever). graded: what a decoder
        # is trained on, the answer, or all of its text, prompt included; evaluation grades answers alone.
        "loss": {"label_smoothing": 0.0, "z_loss": 0.0, "chunk_tokens": 0, "temperature": 0.05, "graded": "answer"},
        # name: adamw, adafactor, lion, muon or sgd (training/optimizer.py). warmup: steps, or a fraction of the run
        # below 1.
        "optimizer": {"name": "adamw", "learning_rate": 1e-3, "schedule": "linear", "warmup": 0.1,
                      "final_fraction": 0.0, "weight_decay": 0.0, "clip_norm": 1.0, "beta1": 0.9,
                      "beta2": 0.999, "epsilon": 1e-8},
        # method: greedy, sample or beam. samples: answers to each record, drawn independently, where the task
        # does something with them (majority, pass@k). Filters (temperature to typical_p) act in sampling;
        # penalties, bad_words and forced tokens always: see decode/process.py. stop: texts end before these
        # strings (not in beam search). prefix: what an answer has to begin with. forced_eos: an answer cut at
        # max_new_tokens ends with EOS. prefill_chunk: tokens of a prompt read at once, which bounds the memory
        # that long prompts need; 0 for whole prompts. slots: texts under way together, an ended one's place
        # given to the next prompt at once; 0: static batches of batch.evaluation_size, as beam search,
        # constraints, several processes and a tensor mesh always have them.
        # beam_groups: above 1, diverse beam search; it divides beams, and diversity_penalty keeps the groups
        # apart (decode/beam.py).
        # Not in beam search or slots: draft, a pretrained folder or a workdir of a smaller model, or
        # prompt_lookup, the longest n-gram to look up (0: off), guess draft_tokens ahead, which changes no
        # text but for rounding: see decode/speculate.py. choices (texts), regex or json_schema (a file or the
        # schema itself): constraints, what every answer is one of, see decode/patterns.py and decode/schema.py.
        # weights: int8 rounds matrices, and what they are multiplied by, to eight bits: see models/prepared.py.
        # Of labels that a decoder scores: length_normalised divides a label's log-probability by its
        # number of tokens. prior: texts without content, ("N/A",) say; a label's probability is divided
        # by its mean probability after these in place of the record's texts (Zhao et al. 2021,
        # arXiv:2102.09690, section 5), and ("",), the prompt without a text, makes it the PMI of Holtzman
        # et al. 2021 (arXiv:2104.08315, section 3). It evens out what a model says whatever it reads.
        "decode": {"method": "greedy", "samples": 1, "max_new_tokens": 64, "min_new_tokens": 0, "temperature": 1.0,
                   "top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0, "repetition_penalty": 1.0,
                   "presence_penalty": 0.0, "frequency_penalty": 0.0, "no_repeat_ngram": 0,
                   "bad_words": (), "stop": (), "prefix": "", "forced_eos": False,
                   "choices": (), "regex": "", "json_schema": "", "beams": 4,
                   "beam_groups": 1, "diversity_penalty": 0.0, "length_penalty": 1.0,
                   # False, True or "never": see decode/beam.py
                   "early_stopping": ml_collections.FieldReference(False, field_type=object),
                   "length_normalised": False, "prior": (),
                   "prefill_chunk": 0, "slots": 0, "draft": "", "draft_tokens": 4, "prompt_lookup": 0,
                   "weights": "full"},
        "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
    })
    return config.lock()


def read(path: str) -> ml_collections.ConfigDict:
    """The locked config of a Python file's get_config(), or of the config.json that a run saved.

    Raises:
      ValueError: the file is missing, is not Python or has no get_config, or what get_config does
        fails (an unknown setting, with the nearest one); with the file and its line.
    """
    if not pathlib.Path(path).is_file():
        raise ValueError(f"no config file {path}")
    try:
        if path.endswith(".json"):
            return from_plain(json.loads(pathlib.Path(path).read_text("utf-8")))
        made = runpy.run_path(path).get("get_config", lambda: None)()
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        raise ValueError(f"{path}:{f'{line}:' if line else ''} {_told(error)}") from error
    if not isinstance(made, ml_collections.ConfigDict):
        raise ValueError(f"{path} has no get_config() that returns a config; begin one with "
                         "t5tasks.configuration.defaults(TASK)")
    return made.lock()


def _told(error: Exception) -> str:
    """What went wrong in a config file, without all that ml_collections adds to it."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if found := re.search(r'Did you mean "(.+)" instead of "(.+)"', text):
        return f"no setting {found[2]!r}; did you mean {found[1]}?"
    if found := re.search(r"field '(.+?)'.*?\. (.+) is of .* type <class '(.+)'> and .* <class '(.+)'>", text):
        return f"setting {found[1]!r} is {found[2]} ({found[3]}), expected {found[4]}"
    if isinstance(error, SyntaxError):
        text = error.msg
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"


def check_overrides(config: ml_collections.ConfigDict, arguments: Iterable[str]) -> None:
    """Raises ValueError for the first --config.NAME of a command line that is no setting."""
    for argument in arguments:
        given = re.match(r"--?(?:no)?config\.([^=]+)", argument)
        settings: Any = config
        for name in re.sub(r"\[.*?\]", "", given[1]).split(".") if given else ():
            known = list(settings) if isinstance(settings, ml_collections.ConfigDict) else []
            if name not in known:
                raise ValueError(f"no setting {argument.partition('=')[0]}; {nearest(name, known)}")
            settings = settings[name]


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
