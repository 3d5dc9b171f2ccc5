# SPDX-License-Identifier: Apache-2.0
"""From lists of each sequence (bad words, forced tokens, stop strings) to arrays of bucketed sizes.

A compiled program depends on the shapes of the arrays, so these have few: every list is filled up
to the next size in its row of buckets, and the smallest bucket is there when nothing is asked for.
"""

from typing import Any

import numpy as np

from t5tasks.decode.prompts import NOTHING, bucket

BAD_WORDS = (8, 64, 512, 4096)  # words of a sequence
BAD_WORD_TOKENS = (4, 16, 64)   # tokens of a word
FORCED = (4, 32, 256)           # tokens of a forced prefix
STOP_BYTES = (32, 256, 2048)    # bytes of a sequence's stop strings together


def bad_words(given: Any, batch: int) -> np.ndarray:
    """int32[B, W, M]: each sequence's words at the end of their rows, NOTHING before them.

        [[7], [4, 5]] of one sequence   [[-, -, -, 7],
                                         [-, -, 4, 5], ...]

    Args: given: None, a list of words (lists of ids) for all, or such a list for each sequence.
    """
    rows = _rows(given, batch, 2, "bad_words")
    for word in (word for words in rows for word in words):
        _check_ids("bad_words", word, smallest=0)
    count = bucket(max(map(len, rows), default=0), BAD_WORDS, "the number of bad_words of a sequence")
    width = bucket(max((len(word) for words in rows for word in words), default=0), BAD_WORD_TOKENS,
                   "the number of tokens of a bad word")
    table = np.full((batch, count, width), NOTHING, np.int32)
    for index, words in enumerate(rows):
        for place, word in enumerate(words):
            table[index, place, width - len(word):] = word
    return table


def forced(given: Any, batch: int) -> np.ndarray:
    """int32[B, F]: the id that each of the first new tokens has to be, NOTHING where it is free."""
    rows = _rows(given, batch, 1, "forced")
    for ids in rows:
        _check_ids("forced", ids, smallest=NOTHING)
    width = bucket(max(map(len, rows), default=0), FORCED, "the number of forced tokens")
    table = np.full((batch, width), NOTHING, np.int32)
    for index, ids in enumerate(rows):
        table[index, :len(ids)] = ids
    return table


def stops(given: Any, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """(int32[B, S], bool[B, S]): the bytes of each sequence's stop strings, and which of them are a
    string's last.

        ["ab", "é"]    bytes = [97, 98, 195, 169, -, ...]    ends = [0, 1, 0, 1, 0, ...]

    Args: given: None, a string or a list of strings for all, or a list for each sequence.
    """
    rows = _rows([given] if isinstance(given, str) else given, batch, 1, "stop")
    for text in (text for row in rows for text in row):
        if not isinstance(text, str) or not text:
            raise ValueError(f"stop has {text!r}, expected strings that are not empty.")
    encoded = [[text.encode() for text in row] for row in rows]
    width = bucket(max((sum(map(len, row)) for row in encoded), default=0), STOP_BYTES,
                   "the number of bytes of a sequence's stop strings")
    table, ends = np.full((batch, width), NOTHING, np.int32), np.zeros((batch, width), bool)
    for index, texts in enumerate(encoded):
        joined = b"".join(texts)
        table[index, :len(joined)] = np.frombuffer(joined, np.uint8)
        ends[index, np.cumsum([len(text) for text in texts], dtype=int) - 1] = True
    return table, ends


def _rows(given: Any, batch: int, depth: int, name: str) -> list[list[Any]]:
    """A list for each sequence, from one for all (nested `depth` times) or from one for each."""
    listed = [] if given is None else _plain(given)
    if not isinstance(listed, list):
        raise ValueError(f"{name} is {given!r}, expected a list.")

    def is_a_row(item: Any) -> bool:
        nested = isinstance(item, list) and (depth == 1 or not item or isinstance(item[0], list))
        return item is None or nested

    if not any(map(is_a_row, listed)):
        return [listed] * batch
    if len(listed) != batch:
        raise ValueError(f"{name} has {len(listed)} lists, expected one for all or {batch}, one a sequence.")
    return [[] if row is None else row for row in listed]


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(inner) for inner in value]
    return value


def _check_ids(name: str, ids: Any, smallest: int) -> None:
    if not isinstance(ids, list):
        raise ValueError(f"{name} has {ids!r}, expected a list of token ids.")
    for id in ids:
        if not isinstance(id, int | np.integer) or isinstance(id, bool) or id < smallest:
            raise ValueError(f"{name} has {id!r}, expected token ids, whole numbers from {smallest}.")
