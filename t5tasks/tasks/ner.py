# SPDX-License-Identifier: Apache-2.0
"""Chapter 6, named entity recognition: a sentence of words in, the entities among them out.

The guide's examples:

    tokens   Barack Obama was born in Hawaii .            tokens   Tim   Cook  , CEO of Apple
    tags     B-PER  I-PER O   O    O  B-LOC  O            tags     B-PER I-PER O O   O  B-ORG

    encoder  [CLS] Tim Cook , CEO of Apple [SEP]  → a tag for the first subword of each word; the others are seen
             and not graded: of Cupertino, Cuper ##tino, only Cuper
    entities Tim Cook (PER), Apple (ORG)

A word's tag is the most probable one (in `label_all`, by the mean over its subwords); what is then
ill-formed is repaired: `repair` is lenient or strict, see `metrics.entities`, and the metrics take both
sides so. An entity's score is the lowest of its words' probabilities, for it is right only if all of them
are. A word that several windows hold is read in the one where it stands farthest from an edge.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from t5tasks.data.features import Example, Piece, Tokens, graded, special
from t5tasks.metrics import entities as entity_metrics
from t5tasks.metrics.counts import Counts
from t5tasks.metrics.entities import Entity
from t5tasks.tasks.task import TAGS, Answer, Form, Options, Prediction, Record, Task, Window


def example(record: Record, options: Options) -> Example:
    """[CLS] words [SEP]; without tags the classes stand for nothing.

    Raises:
      ValueError: tokens that are no texts, as many tags as there are not tokens, or an unknown tag.
    """
    words, tags = record["tokens"], record.get("tags")
    if not all(isinstance(word, str) for word in words) or (tags is not None and len(tags) != len(words)):
        raise ValueError(f"{_quoted(words)} has {len(words)} tokens and {tags if tags is None else len(tags)} tags; "
                         "expected texts, and a tag for each")
    later = "" if options["label_all"] else "rest of word"
    pieces = (special("cls", "edge"),
              *(Piece(f" {word}" if index else word, "word", window=True, later_role=later)
                for index, word in enumerate(words)),
              special("sep", "edge"))
    classes = (0, *(_class(tag, options, words) for tag in tags or ["O"] * len(words)), 0)
    return Example(pieces, classes=classes, overlap=options["overlap"])


def _class(tag: str, options: Options, words: Sequence[str]) -> int:
    labels = list(options["labels"])
    if tag not in labels:
        raise ValueError(f"unknown tag {tag!r} of {_quoted(words)}; valid tags are {', '.join(labels)}")
    return labels.index(tag)


def _quoted(words: Sequence[str]) -> str:
    return f"tokens {' '.join(map(str, words))!r:.60}"


def word_probabilities(windows: Sequence[Window], words: int, labels: Sequence[str]) -> np.ndarray:
    """f64[words, C]; a word without tokens is outside every entity."""
    probabilities = np.zeros((words, len(labels)))
    probabilities[:, list(labels).index("O")] = 1
    margins = np.full(words, -1)
    for window in windows:
        owners = window.tokens.pieces
        last = len(owners) - 1  # [SEP]; the first is [CLS]
        graded_here = np.asarray([role == "word" for role in window.tokens.roles])
        for word in np.unique(owners[graded_here]):
            places = np.flatnonzero(graded_here & (owners == word))
            margin = min(places[0] - 1, last - 1 - places[-1])
            if margin > margins[word - 1]:
                margins[word - 1] = margin
                probabilities[word - 1] = window.values[places].mean(axis=0)
    return probabilities


def postprocess(record: Record, answer: Answer, options: Options) -> Prediction:
    """{"entities": [{"type", "text", "start", "end", "score"}]}, in their order.

    `start` and `end` count characters of the record's tokens joined by blanks; `text` stands between them.
    """
    assert isinstance(answer, list)
    words, labels = record["tokens"], options["labels"]
    probabilities = word_probabilities(answer, len(words), labels)
    tags = [labels[index] for index in probabilities.argmax(axis=1)]
    text, found = " ".join(words), []
    for entity in entity_metrics.entities(tags, options["repair"]):
        kind, start, end = in_characters(entity, words)
        score = float(probabilities.max(axis=1)[entity[1]:entity[2]].min())
        found.append({"type": kind, "text": text[start:end], "start": start, "end": end, "score": score})
    return {"entities": found}


def gold(record: Record, options: Options) -> Answer:
    """The right tags, in a window with a token for each word."""
    classes = example(record, options).classes
    assert classes is not None
    count = len(classes)
    tokens = Tokens(np.zeros(count, np.int32), np.arange(count, dtype=np.int32), np.zeros((count, 2), np.int32),
                    ("edge", *["word"] * (count - 2), "edge"))
    return [Window(tokens, np.eye(len(options["labels"]))[list(classes)])]


def in_characters(entity: Entity, words: Sequence[str]) -> Entity:
    """An entity whose ends count words as one whose ends count characters of the words joined by blanks."""
    kind, first, after = entity
    start = sum(len(word) + 1 for word in words[:first])
    return kind, start, start + sum(len(word) + 1 for word in words[first:after]) - 1


def count(record: Record, prediction: Prediction, options: Options) -> Counts:
    """The entities of one record: present, found and right, by type."""
    right = [in_characters(entity, record["tokens"])
             for entity in entity_metrics.entities(record["tags"], options["repair"])]
    found = [(entity["type"], entity["start"], entity["end"]) for entity in prediction["entities"]]
    return entity_metrics.entity_counts(right, found, entity_metrics.types(options["labels"]))


def figures(counts: Counts, options: Options) -> dict[str, float]:
    """Precision, recall and F1 of entities: over all, and by type."""
    return entity_metrics.entity_figures(counts, entity_metrics.types(options["labels"]))


def baselines(records: Sequence[Record], options: Options) -> dict[str, float]:
    """F1 of taking every run of capitalised words for an entity of the most frequent type."""
    frequent = Counter(kind for record in records for kind, _, _ in entity_metrics.entities(
        record["tags"], options["repair"]))
    types = entity_metrics.types(options["labels"])
    kind = frequent.most_common(1)[0][0] if frequent else types[0]
    total = entity_metrics.entity_counts((), (), types)
    for record in records:
        places = [len(list(run)) * (1 if capital else -1)
                  for capital, run in itertools.groupby(record["tokens"], lambda word: word[:1].isupper())]
        ends = np.cumsum(np.abs(places))
        runs = [(kind, int(end - size), int(end)) for size, end in zip(places, ends, strict=True) if size > 0]
        each = entity_metrics.entity_counts(entity_metrics.entities(record["tags"], options["repair"]), runs, types)
        total = {name: total[name] + each[name] for name in total}
    return {"capitals": entity_metrics.entity_figures(total, types)["f1"]}


def resolve(options: Options, load: Callable[[], Iterable[Record]]) -> Options:
    """Where no labels are set: O, and both tags of every type that the training records have, sorted."""
    if options["repair"] not in entity_metrics.REPAIRS:
        raise ValueError(f"config.task.repair is {options['repair']!r}, expected "
                         f"{' or '.join(entity_metrics.REPAIRS)}")
    if options["labels"]:
        return options
    types = entity_metrics.types({tag for record in load() for tag in record["tags"]})
    if not types:
        raise ValueError("the training records have no tag but O; recognition needs entities to learn from")
    return {**options, "labels": ("O", *(f"{mark}-{kind}" for kind in types for mark in "BI"))}


TASK = Task(
    name="ner", chapter="6", fields={"tokens": list}, targets={"tags": list},
    options={"labels": (), "label_all": False, "repair": "lenient", "overlap": 0},
    forms={"encoder": Form("encoder", "token", TAGS, example, graded("word"), gold=gold)},
    postprocess=postprocess, count=count, figures=figures, metric="f1", baselines=baselines, resolve=resolve)
