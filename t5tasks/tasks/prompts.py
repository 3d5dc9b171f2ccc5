# SPDX-License-Identifier: Apache-2.0
r"""A template, a record and labelled examples in, the pieces of a decoder's prompt out.

    template   "Review: {text} {cue}"                  cue   "Sentiment:"
    shots      [{"text": "A bore.", "label": "Negative"}]

    "Review: A bore. Sentiment: Negative\n\n" shot | "Review: " prompt | "I love it!" input | " Sentiment:" prompt

Examples that stand before what is asked (arxiv.org/abs/2005.14165, section 2) are drawn once from the training
records, as many of each label as there can be, and are the same for every record.
"""

import functools
import string
from collections.abc import Mapping, Sequence

import numpy as np

from t5tasks.data.features import Piece
from t5tasks.tasks.task import SHOT, Record


@functools.cache
def parts(template: str, fields: tuple[str, ...], optional: tuple[str, ...] = ()) -> tuple[tuple[str, str], ...]:
    """What the template says and the field after it ("" at the end).

    Raises:
      ValueError: it does not have each of the fields once, has one of the optional ones twice, or any other.
    """
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"config.task.template is {template!r}: {error}; a brace that is meant is doubled") from None
    names = [name for _, name, _, _ in parsed if name is not None]
    plain = all(not form and not conversion for _, _, form, conversion in parsed)
    if not plain or not {*fields} <= {*names} <= {*fields, *optional} or len({*names}) < len(names):
        def told(names: tuple[str, ...]) -> str:
            return ", ".join(f"{{{name}}}" for name in names)
        raise ValueError(f"config.task.template is {template!r}; expected a text with {told((*fields, *optional))}, "
                         f"each field once; {told(optional)} may be left out")
    return tuple((text, name or "") for text, name, _, _ in parsed)


def worded(template: str, cue: str, record: Record, roles: Mapping[str, str]) -> list[Piece]:
    """The template with the record's fields in it, each a piece of its role that may be trimmed.

    Args:
      roles: field of the record → role of its piece; all else is of the prompt.
    """
    pieces: list[Piece] = []
    said = ""
    for text, name in parts(template, tuple(roles), ("cue",)):
        said += text + (cue if name == "cue" else "")
        if name in roles:
            pieces += [Piece(said, "prompt")] if said else []
            pieces.append(Piece(record[name], roles[name], trim=True))
            said = ""
    return [*pieces, Piece(said, "prompt")] if said else pieces


def shots(template: str, cue: str, examples: Sequence[Record], record: Record, roles: Mapping[str, str]) -> list[Piece]:
    """A piece for each example, answered and with a blank line after it; the record itself is left out."""
    others = [example for example in examples if any(example[name] != record[name] for name in roles)]
    asked = ["".join(piece.text for piece in worded(template, cue, example, roles)) for example in others]
    return [Piece(f"{text} {example['label']}\n\n", SHOT) for text, example in zip(asked, others, strict=True)]


def draw(records: Sequence[Record], fields: Sequence[str], count: int, seed: int) -> tuple[dict[str, str], ...]:
    """`count` different records in random order, of each label as many as of any other, or one more or less.

    A label that runs out leaves its place to the others.

    Raises:
      ValueError: there are not as many different records.
    """
    generator = np.random.default_rng(seed)
    waiting: dict[str, dict[tuple[str, ...], dict[str, str]]] = {}
    for index in generator.permutation(len(records)):
        record = records[int(index)]
        own = {name: record[name] for name in (*fields, "label")}
        waiting.setdefault(record["label"], {}).setdefault(tuple(own.values()), own)
    stocks = [list(waiting[label].values()) for label in sorted(waiting)]
    if sum(map(len, stocks)) < count:
        raise ValueError(f"config.task.shots is {count}, but there are {sum(map(len, stocks))} different training "
                         "records; ask for fewer")
    found: list[dict[str, str]] = []
    while len(found) < count:
        turn = [stocks[place] for place in generator.permutation(len(stocks)) if stocks[place]]
        found += [stock.pop() for stock in turn[:count - len(found)]]
    return tuple(found[place] for place in generator.permutation(count))
