# SPDX-License-Identifier: Apache-2.0
"""A document's text and the characters of its tokens in, the spans of its passages out.

A passage has at most `size` tokens and ends, where one is near, with a paragraph, a line, a sentence or else a
word. It begins up to `overlap` tokens before the last one's end, so that what a cut parts stands whole in one of
the two:

    One two. Three four. Five six.      size 6, overlap 3, a token a word or point
    [-----------------]
             [-------------------]
"""

import dataclasses
import json
import re
from collections.abc import Callable, Sequence

Offsets = Sequence[tuple[int, int]]
Tokenise = Callable[[str], Offsets]  # a text → of each token the characters it covers

SMALLEST = 8  # tokens
PARAGRAPH, LINE, SENTENCE, WORD, INSIDE = 4, 3, 2, 1, 0  # what ends before a token, from best to worst
_ENDS_SENTENCE = tuple(".!?…。！？") + tuple(mark + quote for mark in ".!?" for quote in "\"'”’)")
_WORDS = re.compile(r"\w+|[^\w\s]")


def words(text: str) -> Offsets:
    """The words and signs of a text: its tokens where no tokenizer is at hand."""
    return [match.span() for match in _WORDS.finditer(text)]


@dataclasses.dataclass(frozen=True)
class Cutter:
    """How the documents of one index are cut.

    Attributes:
      size: tokens of a passage, at most.
      overlap: tokens that it shares with the one before, at most; up to half the size.
      tokenise: gives the tokens.
      tokenizer: tells that tokenizer from others.
    """

    size: int = 200
    overlap: int = 40
    tokenise: Tokenise = words
    tokenizer: str = "words"

    def __post_init__(self) -> None:
        if self.size < SMALLEST or not 0 <= self.overlap <= self.size // 2:
            raise ValueError(f"passages of {self.size} tokens that share {self.overlap}; expected at least {SMALLEST} "
                             "tokens, and an overlap from 0 to half of them")

    @property
    def described(self) -> str:
        """What an index keeps, to refuse documents cut otherwise."""
        return json.dumps({"size": self.size, "overlap": self.overlap, "tokenizer": self.tokenizer})

    def cut(self, text: str) -> list[tuple[int, int]]:
        """The spans of the passages of a text, none where it is blank; outside them there are only blanks."""
        tokens = [token for token in self.tokenise(text) if text[slice(*token)].strip()]
        spans, first = [], 0
        while first < len(tokens):
            last = min(first + self.size, len(tokens))
            if last < len(tokens):
                last = _best(text, tokens, first + self.size - self.size // 4, last)
            spans.append(_trimmed(text, 0 if first == 0 else tokens[first][0],
                                  len(text) if last == len(tokens) else tokens[last][0]))
            if last == len(tokens):
                break
            first = _beginning(text, tokens, last - self.overlap, last)
        return spans


def _best(text: str, tokens: Offsets, lowest: int, highest: int) -> int:
    """The token from lowest to highest before which most ends, the last of equals."""
    return max(range(lowest, highest + 1), key=lambda token: (_ends_before(text, tokens, token), token))


def _beginning(text: str, tokens: Offsets, lowest: int, end: int) -> int:
    """The first token from lowest on that begins a sentence, else a word; `end` where none does."""
    begun = [_ends_before(text, tokens, token) for token in range(lowest, end)]
    for least in (SENTENCE, WORD):
        for token, ended in enumerate(begun, lowest):
            if ended >= least:
                return token
    return end


def _ends_before(text: str, tokens: Offsets, token: int) -> int:
    """What ends between a token and the one before it. Either may have the blank between them as its own."""
    end = start = max(tokens[token][0], tokens[token - 1][1])
    while end and text[end - 1].isspace():
        end -= 1
    while start < len(text) and text[start].isspace():
        start += 1
    breaks = text.count("\n", end, start)
    if breaks or start == end:
        return PARAGRAPH if breaks > 1 else LINE if breaks else INSIDE
    return SENTENCE if text.endswith(_ENDS_SENTENCE, 0, end) else WORD


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    part = text[start:end]
    return start + len(part) - len(part.lstrip()), start + len(part.rstrip())
