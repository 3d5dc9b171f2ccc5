# SPDX-License-Identifier: Apache-2.0
"""A text in, the terms that BM25 counts in it out.

    "The café's doors, the cafés" → the, cafe, s, doors, the, cafes

Words in lower case and without accents. Where a script writes no blanks between words (Chinese, Japanese, Thai,
Khmer, Lao, Burmese), every two neighbouring characters are a term, as in Lucene's CJKBigramFilter.
"""

import functools
import hashlib
import re
import unicodedata
from collections.abc import Iterator

import numpy as np

VERSION = 1  # of the rules below: counts that other rules made cannot be searched by these

# A term's number, 64 bits of a hash, and how often it occurs.
COUNTS = np.dtype([("term", "<u8"), ("count", "<u4")])

_UNSPACED = ("\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
             "\U00020000-\U0003ffff")
_RUNS = re.compile(f"([{_UNSPACED}]+)|([^{_UNSPACED}]+)")
_PLAIN = re.compile(r"[a-z0-9_]+")
_NO_WORD = re.compile(r"[^\w\s]")
_ACCENTS = dict.fromkeys(range(0x300, 0x370))  # of Latin, Greek and Cyrillic; other scripts' marks are their vowels


def terms(text: str) -> list[str]:
    """The terms of a text, in order, as often as they occur."""
    if text.isascii():
        return _PLAIN.findall(text.lower())
    bare = unicodedata.normalize("NFKD", text.casefold()).translate(_ACCENTS)
    words = _NO_WORD.sub(_mark_or_blank, unicodedata.normalize("NFC", bare)).split()
    return [term for word in words for term in _split(word)]


def _mark_or_blank(sign: re.Match[str]) -> str:
    """A sign that belongs to the letter before it (a vowel of Devanagari) as it is, a blank for others."""
    return sign[0] if unicodedata.category(sign[0]).startswith("M") else " "


def _split(word: str) -> Iterator[str]:
    """The word itself; of a run without blanks between its words, every two neighbours."""
    for unspaced, plain in _RUNS.findall(word):
        if plain or len(unspaced) == 1:
            yield plain or unspaced
        else:
            yield from (unspaced[place:place + 2] for place in range(len(unspaced) - 1))


@functools.lru_cache(2**18)
def _number(term: str) -> int:
    return int.from_bytes(hashlib.blake2b(term.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def counts(text: str) -> np.ndarray:
    """COUNTS[U] of a text's different terms, by ascending number.

    Terms are told apart by hashes, so that a store needs no table of words: among a million of them, two share a
    number with a probability of 3e-8.
    """
    numbers = np.fromiter(map(_number, terms(text)), np.uint64)
    found, often = np.unique(numbers, return_counts=True)
    counted = np.empty(len(found), COUNTS)
    counted["term"], counted["count"] = found, often
    return counted
