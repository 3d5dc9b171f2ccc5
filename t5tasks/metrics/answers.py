# SPDX-License-Identifier: Apache-2.0
"""A reasoning text in, its final answer, normalised so that equal answers are equal strings, out."""

import re
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

# What may announce an answer. The first kind that a text has counts, and of it the last place.
SIGNS = (
    re.compile(r"####\s*(.+)"),
    re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}"),
    re.compile(r"(?i:answer)\s*(?:is|=|:)\s*:?[ \t]*((?:(?!(?i:answer)\s*(?:is|=|:)).)+)"),
)
NUMBER = re.compile(r"-?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:\s*/\s*\d+(?:\.\d+)?)?")
FRACTION = re.compile(r"\\d?frac\s*\{(-?\d+)\}\s*\{(\d+)\}")


def final_answer(text: str) -> str:
    """The answer that a text ends with, as it is written there; empty where there is none.

    What stands after `####` (GSM8K), in `\\boxed{}` (MATH) or after "The answer is", in this order, the last
    place of its kind, up to the end of the line; a number where there is one in it, so that units and the
    full stop fall away. A text without any of these answers with its last number.
    """
    for sign in SIGNS:
        if found := sign.findall(text):
            said = FRACTION.sub(r"\1/\2", found[-1]).strip()
            number = NUMBER.search(said)
            return number[0] if number else said.rstrip(" .").strip()
    numbers = NUMBER.findall(FRACTION.sub(r"\1/\2", text))
    return numbers[-1] if numbers else ""


def normalised(answer: str) -> str:
    """An answer as all that mean the same are written: numbers as exact fractions, words in lower case.

        "$1,200.00" → "1200"     "2.50" → "5/2"     "50%" → "50"     " Seven. " → "seven"
    """
    text = FRACTION.sub(r"\1/\2", answer).strip().strip("$€£ ").removesuffix(".").removesuffix("%").strip()
    plain = text.replace(",", "").replace(" ", "")
    if NUMBER.fullmatch(plain):
        above, _, below = plain.partition("/")
        if not below or Fraction(below):
            return str(Fraction(above) / Fraction(below or 1))
    return " ".join(text.casefold().split())


def majority(answers: Sequence[str]) -> str:
    """The most frequent answer that is not empty, the earliest among equals (arxiv.org/abs/2203.11171)."""
    votes = Counter(normalised(answer) for answer in answers if answer)
    if not votes:
        return ""
    best = votes.most_common(1)[0][0]  # of equals, what was counted first
    return next(answer for answer in answers if answer and normalised(answer) == best)
