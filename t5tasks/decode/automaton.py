# SPDX-License-Identifier: Apache-2.0
"""From the texts that are allowed to an automaton whose steps are a vocabulary's tokens, on the host.

    tokens   ye  s  no  EOS       "yes|no"     0 --ye--> 1 --s--> 3, accepting    remaining = [1, 1, 0, 0]
                                               0 --no--> 2, accepting

Tokens that lead from every state to the same one share a column. The transitions of a state are laid
over those of the others where they leave room (row displacement, Tarjan and Yao 1979, "Storing a
sparse table"), so a trie of ten thousand labels takes a megabyte where a full table took a gigabyte:

    state 0   columns 1 . 3     base 0     owners   = [-, 0, 1, 0, ...]
    state 1   columns . 2 .     base 0     targets  = [-, 1, 3, 2, ...]

EOS is in no column: it is allowed in the accepting states, wherever the request's ids for it lie.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from t5tasks.decode.spelling import Spellings

FAR = int(np.iinfo(np.int32).max) // 2  # of a state from which no accepted text can be reached
LARGEST = 2 ** 27  # entries of a table that is filled while an automaton is made: 512 MiB
REACH, SEARCHED = 4096, 64  # places looked at, and free ones tried, for the transitions of a state


@dataclasses.dataclass(frozen=True, eq=False)
class Automaton:
    """A deterministic automaton over tokens; made by `trie`, `patterns.regex` and `patterns.json_schema`."""

    classes: np.ndarray    # int32[V]  the column of each token, 0: allowed nowhere
    columns: int           #           how many there are
    base: np.ndarray       # int32[S]  where the columns of a state begin
    owners: np.ndarray     # int32[M]  the state that an entry belongs to, -1: none
    targets: np.ndarray    # int32[M]  the state that it leads to
    remaining: np.ndarray  # int32[S]  fewest tokens to an accepted text, 0: it is one
    start: int             #           of an answer after other text
    opening: int           #           of an answer that begins a text, where the first space is not shown

    def after(self, state: int, token: int) -> int:
        """The state that a token leads to, -1 where it is not allowed."""
        column = int(self.classes[token]) if token < self.classes.size else 0
        place = self.base[state] + column
        return int(self.targets[place]) if column and self.owners[place] == state else -1


@dataclasses.dataclass(frozen=True, eq=False)
class ByteAutomaton:
    """A deterministic automaton over bytes, whose start is state 0."""

    step: np.ndarray       # int32[S, 256]  -1: not allowed
    accepting: np.ndarray  # bool[S]


def trie(sequences: Iterable[Sequence[int]], vocabulary: int, eos: Iterable[int] = ()) -> Automaton:
    """The automaton of some sequences of token ids, each the whole of a continuation, without EOS.

    Args: vocabulary: how many ids there are; eos: ids that end a text (one at a sequence's end is passed over).
    Raises: ValueError for no sequence, or an id that is EOS or outside the vocabulary.
    """
    ends, accepting = set(eos), set[int]()
    edges: dict[tuple[int, int], int] = {}
    for number, sequence in enumerate(sequences):
        ids = [int(id) for id in sequence]
        ids = ids[:-1] if ids and ids[-1] in ends else ids
        state = 0
        for id in ids:
            if not 0 <= id < vocabulary or id in ends:
                raise ValueError(f"sequence {number} of the trie has the id {id}, expected ids of 0 to "
                                 f"{vocabulary - 1} that do not end a text.")
            state = edges.setdefault((state, id), len(edges) + 1)
        accepting.add(state)
    if not accepting:
        raise ValueError("the trie has no sequence; give at least one.")
    source, token, target = (np.array(values, np.int32) for values in (
        [state for state, _ in edges], [token for _, token in edges], [*edges.values()]))
    used, column = np.unique(token, return_inverse=True)
    classes = np.zeros(vocabulary, np.int32)
    classes[used] = np.arange(1, used.size + 1)
    ends_here = np.isin(np.arange(len(edges) + 1), [*accepting])
    return _automaton(classes, source, column + 1, target, ends_here, 0, 0)


def compose(automaton: ByteAutomaton, spellings: Spellings, eos: Iterable[int] = ()) -> Automaton:
    """The automaton of the tokens whose bytes, one after the other, a byte automaton accepts.

    Every way to cut a text into tokens is in it. A token without bytes is allowed nowhere, but a
    space at a text's beginning that is not shown.

    Raises: ValueError where the tables would be too large, or no tokens spell an accepted text.
    """
    states, within = automaton.accepting.size, [*spellings.within]
    opening = [*spellings.opening]
    for id in eos:
        if 0 <= id < len(within):
            within[id] = opening[id] = b""
    reached, inside = _columns(automaton.step, within)
    # The opening is a state of its own: one more, after the others.
    at_opening = _walk(automaton.step, opening)
    unshown = [bool(text) and not shown for text, shown in zip(within, opening, strict=True)]
    at_opening[np.array(unshown)] = states if spellings.again else 0
    pairs, classes = np.unique(np.stack([inside, at_opening]), axis=1, return_inverse=True)
    table = np.concatenate([reached[:, pairs[0]], pairs[1][None]])  # [S + 1, C]
    source, column = np.nonzero(table >= 0)
    accepting = np.append(automaton.accepting, automaton.accepting[0])
    # Column 0 is that of the tokens that are allowed nowhere, whether there are such or not.
    return _automaton(classes.reshape(-1).astype(np.int32) + 1, source, column + 1, table[source, column],
                      accepting, 0, states)


def _columns(step: np.ndarray, texts: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """(int32[S, C], int64[V]): where the columns lead from each state, and the column of each text.

    Bytes that lead from every state to the same one are one symbol; few different sequences of
    symbols are left of a vocabulary, and each is walked once.
    """
    _, symbols = np.unique(step, axis=1, return_inverse=True)
    symbols = symbols.reshape(-1).astype(np.uint8)
    spelled = [symbols[np.frombuffer(text, np.uint8)].tobytes() for text in texts]
    # A text with a byte that no state allows is as good as none.
    nowhere = set(symbols[np.all(step < 0, axis=0)].tolist())
    spelled = [b"" if nowhere.intersection(text) else text for text in spelled]
    distinct = sorted(set(spelled), key=len, reverse=True)
    if step.shape[0] * len(distinct) > LARGEST:
        raise ValueError(f"the constraint has {step.shape[0]} states and {len(distinct)} kinds of tokens, which is too "
                         "large for a table; make its repetitions shorter.")
    representative = np.zeros(256, np.uint8)
    representative[symbols] = np.arange(256)
    place = {text: number for number, text in enumerate(distinct)}
    reached = _walk_all(step, [representative[np.frombuffer(text, np.uint8)].tobytes() for text in distinct])
    columns: dict[bytes, int] = {}
    rows = np.ascontiguousarray(reached.T)
    merged = np.array([columns.setdefault(row.tobytes(), len(columns)) for row in rows])
    first = np.unique(merged, return_index=True)[1]
    return reached[:, first], merged[np.array([place[text] for text in spelled])]


def _walk_all(step: np.ndarray, texts: Sequence[bytes]) -> np.ndarray:
    """int32[S, U]: where texts, the longest first, lead from each state; -1 nowhere, as empty ones do."""
    states = step.shape[0]
    dead = np.concatenate([np.where(step < 0, states, step), np.full((1, 256), states)]).astype(np.int32)
    at = np.repeat(np.arange(states, dtype=np.int32)[:, None], len(texts), axis=1)
    lengths = np.array([len(text) for text in texts])
    for place in range(lengths[0] if lengths.size else 0):
        active = int(np.sum(lengths > place))
        bytes_here = np.array([text[place] for text in texts[:active]])
        at[:, :active] = dead[at[:, :active], bytes_here]
    at[:, lengths == 0] = states
    return np.where(at == states, -1, at)


def _walk(step: np.ndarray, texts: Sequence[bytes]) -> np.ndarray:
    """int64[V]: where each text leads from state 0; -1 nowhere, as an empty one does."""
    found = np.full(len(texts), -1)
    for number, text in enumerate(texts):
        state = 0
        for byte in text:
            state = int(step[state, byte])
            if state < 0:
                break
        found[number] = state if text else -1
    return found


def _automaton(classes: np.ndarray, source: np.ndarray, column: np.ndarray, target: np.ndarray,
               accepting: np.ndarray, start: int, opening: int) -> Automaton:
    """The automaton of the transitions (source, column, target), those that lead to no end left out."""
    remaining = np.where(accepting, 0, FAR).astype(np.int32)
    count = 0
    while True:
        nearer = np.unique(source[(remaining[target] == count) & (remaining[source] == FAR)])
        if not nearer.size:
            break
        count += 1
        remaining[nearer] = count
    if remaining[start] == FAR and remaining[opening] == FAR:
        raise ValueError("no tokens of the vocabulary spell a text that it allows")
    useful = (remaining[target] < FAR) & (remaining[source] < FAR)
    source, column, target = source[useful], column[useful], target[useful]
    kept, column = np.unique(column, return_inverse=True)
    renumbered = np.zeros(max(int(classes.max(initial=0)), 0) + 1, np.int32)
    renumbered[kept] = np.arange(1, kept.size + 1)
    base, owners, targets = _laid_over(source, column.reshape(-1) + 1, target, accepting.size, kept.size + 1)
    return Automaton(renumbered[classes], kept.size + 1, base, owners, targets, remaining, start, opening)


def _laid_over(source: np.ndarray, column: np.ndarray, target: np.ndarray, states: int, columns: int
               ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(base int32[S], owners int32[M], targets int32[M]); M leaves room for the columns of every state."""
    order = np.lexsort((column, source))
    source, column, target = source[order], column[order], target[order]
    sizes = np.bincount(source, minlength=states)
    begins = np.concatenate([[0], np.cumsum(sizes)])
    free = np.ones(source.size + 4 * columns, bool)
    # The first entries stay free, so that a state's first column may lie on any free one after them.
    base, end, lowest = np.zeros(states, np.int32), columns, columns
    for state in np.argsort(-sizes, kind="stable"):  # the fullest first: the others fit between
        if not sizes[state]:
            break
        mine = column[begins[state]:begins[state + 1]]
        if end + 2 * columns > free.size:
            free = np.concatenate([free, np.ones(free.size, bool)])
        while lowest < end and not free[lowest]:
            lowest += 1
        tried = np.flatnonzero(free[lowest:min(lowest + REACH, end)])[:SEARCHED] + lowest - mine[0]
        fits = tried[np.all(free[tried[:, None] + mine], axis=1)]
        at = int(fits[0]) if fits.size else end - int(mine[0])
        base[state], free[at + mine] = at, False
        end = max(end, at + int(mine[-1]) + 1)
    size = int(base.max(initial=0)) + columns
    owners, targets = np.full(size, -1, np.int32), np.zeros(size, np.int32)
    owners[base[source] + column], targets[base[source] + column] = source, target
    return base, owners, targets
