# SPDX-License-Identifier: Apache-2.0
"""The built-in world: a task, a split, a size and a seed in, records with known right answers out.

A small closed world of people, places, things, times, prices, sums and shapes, from which records
of all tasks are made without files or network. Validation and test are made of
combinations of words that never occur in train, while every word does (see `combinations.py`).
"""

import difflib
import random
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from t5tasks.data.world.combinations import SPLITS
from t5tasks.data.world.judgements import (
    NER_PATTERNS,
    NLI_LABELS,
    OPINIONS,
    TAGS,
    classification,
    ner,
    nli,
)
from t5tasks.data.world.language import ENDINGS, translation
from t5tasks.data.world.pictures import PICTURE_KINDS, multimodal
from t5tasks.data.world.problems import OPERATIONS, REASONING_KINDS, code, reasoning
from t5tasks.data.world.questions import (
    FREE_KINDS,
    SPAN_KINDS,
    extractive_qa,
    generative_qa,
)
from t5tasks.data.world.shops import RAG_KINDS, passages, rag
from t5tasks.data.world.stories import (
    CONTINUATIONS,
    DEEDS,
    TOPICS,
    dialogue,
    summarization,
    text_generation,
)

__all__ = ["SIZES", "labels", "passages", "records", "tasks"]

Record = dict[str, Any]
SIZES = {"train": 4000, "validation": 400, "test": 400}
# So many draws in a row that only give known records mean that there are no others.
PATIENCE = 2000


class Recipe(NamedTuple):
    """How a task's records are made: its kinds, met equally often, and the maker of one record."""

    kinds: tuple[str, ...]
    make: Callable[[random.Random, str, str], Record]


def _recipes(seed: int) -> dict[str, Recipe]:
    return {
        "text_generation": Recipe(CONTINUATIONS, text_generation),
        "dialogue": Recipe(TOPICS, dialogue),
        "classification": Recipe(tuple(OPINIONS), classification),
        "nli": Recipe(NLI_LABELS, nli),
        "extractive_qa": Recipe(SPAN_KINDS, extractive_qa),
        "generative_qa": Recipe(FREE_KINDS, generative_qa),
        "ner": Recipe(tuple(NER_PATTERNS), ner),
        "summarization": Recipe(DEEDS, summarization),
        "translation": Recipe(tuple(ENDINGS), translation),
        "code": Recipe(tuple(OPERATIONS), code),
        "reasoning": Recipe(REASONING_KINDS, reasoning),
        "rag": Recipe(RAG_KINDS, partial(rag, seed=seed)),
        "dense_retriever": Recipe(("thing", "day"), partial(rag, seed=seed, least=2)),
        "multimodal": Recipe(PICTURE_KINDS, multimodal),
    }


def tasks() -> tuple[str, ...]:
    """List the tasks, in the order of the guide's chapters."""
    return tuple(_recipes(seed=0))


def labels(task: str) -> tuple[str, ...]:
    """List a task's label names in their fixed order: a label's place is its class number.

    Args:
      task: "classification", "nli" or "ner" (its IOB2 tags).

    Raises:
      ValueError: the task has no labels.
    """
    known = {"classification": tuple(OPINIONS), "nli": NLI_LABELS, "ner": TAGS}
    if task not in known:
        raise ValueError(f"The built-in world has no labels for {task!r}. Expected one of {', '.join(known)}.")
    return known[task]


def records(task: str, split: str, size: int | None = None, seed: int = 0) -> list[Record]:
    """Make the first `size` records of a task's split.

    The same arguments give the same records on every machine, a smaller size gives the beginning
    of a larger one, and no two records of a list are equal. The kinds of a task (its labels, where
    it has labels) come equally often: in turns, each turn in an order of its own.

    Args:
      task: one of `tasks()`.
      split: "train", "validation" or "test".
      size: how many; None for SIZES[split].
      seed: which stream of records. What belongs to which split does not depend on it.

    Returns:
      Records with the fields that the task reads, e.g. {"source", "target"} for translation.
      Questions of "rag" are about the passages that they come with; outside of train these are some of
      `passages(seed)`.

    Raises:
      ValueError: unknown task or split, a negative size, or more records than the world has.
    """
    recipe = _find("task", task, _recipes(seed))
    _find("split", split, dict.fromkeys(SPLITS))
    size = SIZES[split] if size is None else size
    if size < 0:
        raise ValueError(f"size is {size}. Expected 0 or more records.")
    draw = random.Random(f"{task}/{split}/{seed}")
    made: list[Record] = []
    seen: set[str] = set()
    while len(made) < size:
        for kind in draw.sample(recipe.kinds, len(recipe.kinds)):
            made.append(_unseen(draw, recipe, split, kind, seen, f"{task} {split}: {size}"))
    if task == "extractive_qa":
        for position, record in enumerate(made):
            record["id"] = f"{split}-{seed}-{position}"
    return made[:size]


def _unseen(draw: random.Random, recipe: Recipe, split: str, kind: str, seen: set[str], wanted: str) -> Record:
    """Make a record that is not in `seen`, and put it there."""
    for _ in range(PATIENCE):
        record = recipe.make(draw, split, kind)
        key = repr(record)
        if key not in seen:
            seen.add(key)
            return record
    raise ValueError(
        f"{wanted} records were asked for, but the built-in world has no more than about "
        f"{len(seen)} different ones. Ask for fewer (size)."
    )


def _find(what: str, name: str, known: dict[str, Any]) -> Any:
    """Look a name up; an unknown one is answered with the nearest and with all."""
    if name in known:
        return known[name]
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"The built-in world has no {what} {name!r}.{hint} Expected one of {', '.join(known)}.")
