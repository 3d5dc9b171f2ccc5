# SPDX-License-Identifier: Apache-2.0
"""From a regular expression or a JSON schema, and how tokens are spelled, to an automaton over tokens.

`outlines-core` (an extra: `pip install 't5tasks[constraints]'`) makes the automaton over bytes; it is
laid over the vocabulary here, so that a token may hold part of a character or end anywhere in a key.
Its own index over a vocabulary is not used: 0.2.14 leaves out a token that ends one byte after a whole
match, so that after the "3" of "[0-9]+([.][0-9]+)?" there would be no ".".
"""

import functools
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from t5tasks.decode import schema as schemas
from t5tasks.decode.automaton import Automaton, ByteAutomaton, compose
from t5tasks.decode.spelling import Spellings

KEPT = 64  # automata that are remembered
END = 256           # stands for the end of a text among bytes
MARK = chr(0x10FFFF)  # put after a pattern, so that nothing but its own end is a whole match; no character


def regex(pattern: str, spellings: Spellings, eos: Iterable[int] = ()) -> Automaton:
    """The automaton of the texts that match a regular expression as a whole.

    Args:
      pattern: in the syntax of Rust's `regex`, which is Python's without look-around and
        back-references; one that begins with ^ or ends with $ says the same without.
      spellings: of the model's tokenizer (`spelling.spellings`). eos: ids that are never text.

    Raises: ValueError where the library is missing, the pattern is no regular expression or too
      large, or the vocabulary cannot spell any match.
    """
    return _composed(_bare(pattern), spellings, tuple(sorted({int(id) for id in eos if id >= 0})))


def json_schema(schema: str | dict[str, Any], spellings: Spellings, eos: Iterable[int] = ()) -> Automaton:
    """The automaton of the JSON texts that a schema describes, see `schema.pattern`.

    Raises: as `regex`, and ValueError for a part of a schema that cannot be kept.
    """
    return regex(schemas.pattern(schema, _holds_json_string), spellings, eos)


@functools.lru_cache(KEPT)
def _composed(pattern: str, spellings: Spellings, eos: tuple[int, ...]) -> Automaton:
    automaton = _byte_automaton(pattern)
    try:
        return compose(automaton, spellings, eos)
    except ValueError as error:
        spelled = set(b"".join(spellings.within))
        lacking = [chr(byte) for byte in np.flatnonzero(np.any(automaton.step >= 0, axis=0))
                   if byte not in spelled and 32 < byte < 127]
        also = f" (no token holds {' '.join(lacking[:8])})" if lacking else ""
        raise ValueError(f"regex {_short(pattern)}: {error}{also}") from error


def _byte_automaton(pattern: str) -> ByteAutomaton:
    try:
        import outlines_core
    except ImportError as error:
        raise ValueError("regular expressions and JSON schemas need outlines-core; "
                         "pip install 't5tasks[constraints]'.") from error
    every_byte = outlines_core.Vocabulary(END, {bytes([byte]): [byte] for byte in range(END)})
    try:
        index = outlines_core.Index(f"(?:{pattern}){MARK}", every_byte)
        if "$" in re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "", pattern, flags=re.DOTALL):
            raise ValueError("$ inside it")
    except ValueError as error:
        raise ValueError(f"regex {_short(pattern)} cannot be compiled; anchors and \\b inside it, look-around and "
                         f"back-references are not supported ({' '.join(str(error).split())[:100]}).") from error
    transitions, ends = index.get_transitions(), index.get_final_states()
    reached = {target for row in transitions.values() for target in row.values()}
    names = [index.get_initial_state(), *sorted((reached | transitions.keys() | ends) - {index.get_initial_state()})]
    numbers = {name: number for number, name in enumerate(names)}
    step = np.full((len(names), END), -1, np.int32)
    for name, row in transitions.items():
        for byte, target in row.items():
            if byte != END:
                step[numbers[name], byte] = numbers[target]
    # Accepting is where the mark leads to the end; the states on the way there lead nowhere else.
    marked = np.arange(len(names))
    for byte in MARK.encode():
        marked = np.where(marked < 0, -1, step[marked, byte])
    accepting = (marked >= 0) & np.array([name in ends for name in names])[marked]
    return _useful(step, accepting)


def _useful(step: np.ndarray, accepting: np.ndarray) -> ByteAutomaton:
    """Without the states from which no text is accepted."""
    alive = accepting.copy()
    while True:
        more = alive | np.any((step >= 0) & alive[step], axis=1)
        if np.array_equal(more, alive):
            break
        alive = more
    alive[0] = True
    numbers = np.cumsum(alive) - 1
    kept = step[alive]
    return ByteAutomaton(np.where((kept >= 0) & alive[kept], numbers[kept], -1).astype(np.int32), accepting[alive])


def _holds_json_string(pattern: str) -> str | None:
    """A pattern for a string's inside, without anchors; None where a match could end or escape the string."""
    bare = _bare(pattern)
    used = np.any(_byte_automaton(bare).step >= 0, axis=0)
    return None if used[:32].any() or used[ord('"')] or used[ord("\\")] else bare


def _bare(pattern: str) -> str:
    """Without the anchors around it: a match is always of the whole text."""
    ended = re.search(r"(?<!\\)(?:\\\\)*\$$", pattern)
    return pattern[pattern.startswith("^"):-1 if ended else None]


def _short(pattern: str) -> str:
    return repr(pattern if len(pattern) <= 60 else pattern[:57] + "...")
