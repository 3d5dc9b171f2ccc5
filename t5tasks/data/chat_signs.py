# SPDX-License-Identifier: Apache-2.0
"""What a template writes comes in; whose each of its characters is goes out.

A template runs once on the plain turns, which says what is right, and once on turns whose texts
stand between two private characters. Without its signs the second must equal the first:

    text     "  Hello "          signs round all of it     «  Hello »
                                 a template that trims     "  «Hello» "   and writes   «Hello»

For each role and side the signs stand as far out as leaves what is written unchanged.
"""

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from t5tasks.data.features import Piece

# Private characters, which no text in use has.
FIRST, LAST = 0xF0000, 0x10FFFD


@dataclasses.dataclass(frozen=True)
class Signs:
    """Characters that neither the dialogue nor the template has."""

    special: str  # breaks a special token's text that a turn holds
    word: str  # breaks an added word's text, which is then encoded in two
    block: tuple[str, str]  # round a generation block
    turns: tuple[tuple[str, str], ...]  # round each turn's text

    @property
    def table(self) -> dict[int, None]:
        """For str.translate, which takes them all out."""
        return dict.fromkeys(map(ord, (self.special, self.word, *self.block, *itertools.chain(*self.turns))))


@dataclasses.dataclass(frozen=True)
class Stretch:
    """A part of what the template wrote."""

    text: str
    turn: int | None  # whose text it is, None for the template's own
    generated: bool  # within a generation block


def unused(texts: Sequence[str], turns: int) -> Signs:
    """Returns signs that none of the texts has; raises ValueError for too many turns."""
    used = set().union(*texts)
    free = (chr(code) for code in range(FIRST, LAST) if chr(code) not in used)
    found = list(itertools.islice(free, 4 + 2 * turns))
    if len(found) < 4 + 2 * turns:
        raise ValueError(f"the dialogue has {turns} turns: there are signs for about {(LAST - FIRST) // 2} only")
    return Signs(found[0], found[1], (found[2], found[3]), tuple(zip(found[4::2], found[5::2], strict=True)))


def broken(text: str, pattern: re.Pattern[str], sign: str) -> str:
    """The text with a sign after the first character of whatever the pattern finds, overlaps included."""
    places = [match.start() + 1 for match in re.finditer(f"(?={pattern.pattern})", text)]
    parts = [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]
    return sign.join(parts)


def signed(
    write: Callable[[Sequence[str]], str],
    turns: Sequence[Mapping[str, str]],
    texts: Sequence[str],
    signs: Signs,
    plain: str,
) -> str:
    """Returns what `write` makes of the turns' texts with signs: without them it is `plain`.

    Raises ValueError where no signs leave the rest unchanged.
    """
    table = signs.table

    def tried(wrapped: Sequence[str]) -> str | None:
        try:
            found = write(wrapped)
        except ValueError:  # a template may refuse a text for its signs
            return None
        return found if found.translate(table) == plain else None

    sides = {(turn["role"], side) for turn in turns for side in ("left", "right")}
    best = tried(_wrapped(texts, turns, signs, sides))
    if best is not None:
        return best
    outer: set[tuple[str, str]] = set()
    best = tried(_wrapped(texts, turns, signs, outer))
    if best is not None:
        for side in sorted(sides):
            found = tried(_wrapped(texts, turns, signs, outer | {side}))
            if found is not None:
                best, outer = found, outer | {side}
        return best
    return _signed_singly(tried, turns, texts, signs)


def _signed_singly(
    tried: Callable[[Sequence[str]], str | None],
    turns: Sequence[Mapping[str, str]],
    texts: Sequence[str],
    signs: Signs,
) -> str:
    """Signs each turn that bears it: some templates look into a text before they write it."""
    kept = list(texts)
    best = tried(kept)
    if best is None:
        raise ValueError("the chat template writes something else where a turn holds the text of a special token")
    for index, wrapped in enumerate(_wrapped(texts, turns, signs, set())):
        found = tried([*kept[:index], wrapped, *kept[index + 1:]])
        if found is not None:
            best, kept[index] = found, wrapped
    return best


def _wrapped(texts: Sequence[str], turns: Sequence[Mapping[str, str]], signs: Signs,
             outer: set[tuple[str, str]]) -> list[str]:
    """The texts with their signs, which stand inside the white space unless their side is an outer one."""
    wrapped = []
    for text, turn, (before, after) in zip(texts, turns, signs.turns, strict=True):
        core = text.strip()
        start = text.find(core) if core else 0
        end = start + len(core)
        start = 0 if (turn["role"], "left") in outer else start
        end = len(text) if (turn["role"], "right") in outer else end
        bare = not core and (start, end) == (0, 0)  # to a template, a text of signs alone is no empty text
        both = {(turn["role"], "left"), (turn["role"], "right")} <= outer
        wrapped.append(text if bare and not both else text[:start] + before + text[start:end] + after + text[end:])
    return wrapped


def stretches(signed: str, signs: Signs) -> Iterator[Stretch]:
    """Cuts what was written at its signs."""
    openings = {before: index for index, (before, _) in enumerate(signs.turns)}
    endings = {after for _, after in signs.turns}
    marks = [*openings, *endings, *signs.block]
    turn: int | None = None
    generated = False
    for part in re.split("([" + "".join(map(re.escape, marks)) + "])", signed):
        if part in openings:
            turn = openings[part]
            yield Stretch("", turn, generated)  # so that an empty text is seen too
        elif part in endings:
            turn = None
        elif part in signs.block:
            generated = part == signs.block[0]
        elif part:
            yield Stretch(part, turn, generated)


def texts(text: str, role: str, signs: Signs) -> Iterator[Piece]:
    """The text as pieces without signs: a new one, encoded apart, where a word is broken."""
    for index, part in enumerate(text.replace(signs.special, "").split(signs.word)):
        if part:
            yield Piece(part, role, apart=index > 0)


def place(signed: str, position: int, signs: Signs) -> int:
    """Where in the signed text the character is that is at `position` without the signs."""
    table = signs.table
    count = 0
    for index, character in enumerate(signed):
        if ord(character) in table:
            continue
        if count == position:
            return index
        count += 1
    return len(signed)
