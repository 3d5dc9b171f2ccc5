# SPDX-License-Identifier: Apache-2.0
"""From an experiment's config.decode to what its answers may be: an automaton, and a batch's constraint."""

import pathlib
from collections.abc import Sequence

from t5tasks import decode
from t5tasks.data import features as feature_functions
from t5tasks.data.features import Piece
from t5tasks.experiment import Experiment
from t5tasks.tasks.task import CLASSES, LABEL_SCORING

SETTINGS = ("choices", "regex", "json_schema")


def automaton(experiment: Experiment) -> decode.Automaton | None:
    """What every answer has to be by config.decode, None where it says nothing.

    Raises: ValueError naming the setting, where two are given, or one cannot be kept.
    """
    settings = experiment.config.decode
    given = [name for name in SETTINGS if settings[name]]
    if not given:
        return None
    if len(given) > 1 or settings.stop:
        raise ValueError(f"config.decode has {' and '.join([*given, 'stop'][:2])}, which cannot both be kept; "
                         "leave one of them out")
    if experiment.form.answers_by in (CLASSES, LABEL_SCORING):
        raise ValueError(f"config.decode.{given[0]} is for tasks that generate text, which "
                         f"{experiment.task.name} in this form does not; leave it out")
    try:
        if settings.choices:
            return _choices(experiment, settings.choices)
        spelled, eos = decode.spellings(experiment.tokenizer), [experiment.tokenizer.special["eos"]]
        if settings.regex:
            return decode.regex(settings.regex, spelled, eos)
        return decode.json_schema(_schema(settings.json_schema), spelled, eos)
    except ValueError as error:
        raise ValueError(f"config.decode.{given[0]}: {error}") from error


def _schema(given: str) -> str:
    if given.lstrip().startswith("{"):
        return given
    try:
        return pathlib.Path(given).read_text("utf-8")
    except OSError as error:
        raise ValueError(f"no file {given} that can be read ({error.strerror}); expected a file or a schema "
                         "that begins with {") from error


def _choices(experiment: Experiment, texts: Sequence[str]) -> decode.Automaton:
    """The texts as a model learns them: spelled after the prompt's last text, or as an answer's first."""
    tokenizer = experiment.tokenizer
    cue = [Piece("\n", "prompt")] if experiment.start is None else []
    sequences = []
    for text in texts:
        tokens = feature_functions.tokenise((*cue, Piece(text, "target")), tokenizer)
        before, ids = ([int(id) for id, role in zip(tokens.ids, tokens.roles, strict=True) if role == wanted]
                       for wanted in ("prompt", "target"))
        shown = decode.continuation(tokenizer, before, ids)
        if not text or shown != text:
            raise ValueError(f"the tokenizer spells {text!r} as {shown!r}; choose texts that it keeps")
        sequences.append(ids)
    return decode.trie(sequences, tokenizer.vocabulary_size, [tokenizer.special["eos"]])


def constraint(experiment: Experiment, allowed: decode.Automaton | None, prompts: Sequence[Sequence[int]],
               rows: int, samples: int) -> decode.Constraint | None:
    """The constraint of `rows` prompts with their samples side by side; rows that only fill a batch are free."""
    if allowed is None:
        return None
    unused = (rows - len(prompts)) * samples
    opening = [not experiment.tokenizer.decode(prompt) for prompt in prompts for _ in range(samples)]
    return decode.constrain([allowed] * len(opening) + [None] * unused, opening=opening + [False] * unused,
                            vocabulary=experiment.model.config.vocabulary)
