# SPDX-License-Identifier: Apache-2.0
"""From automata, one a sequence or none, to the tokens that each sequence may write next, on the device.

Every output is a text that its row's automaton accepts: EOS is allowed only where the text is one, and
a token only where one can still be reached within the tokens left to the row. So a text that is cut at
its limit is complete too, and "(ab)+" with three tokens left ends after "ab". What else bans tokens
(bad words, n-grams, forced tokens) may leave none that the automaton allows: such a text ends with the
reason FORBIDDEN. A stop string ends a text wherever it stands.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from t5tasks.decode.automaton import FAR, Automaton
from t5tasks.decode.contract import known
from t5tasks.decode.settings import Settings
from t5tasks.decode.tables import bucket

FREE = -1  # the state of a row that nothing constrains
AUTOMATA = (1, 4, 16, 64, 256)                       # different ones in a batch
SIZES = tuple(4 ** power for power in range(4, 15))  # 256 states, columns or entries to 268 million


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Constraint:
    """The automata of a batch in one table, padded to buckets; make it with `constrain`."""

    start: jax.Array      # int32[B]     the state of each row before its first token, FREE: none
    which: jax.Array      # int32[B]     the automaton of each row
    classes: jax.Array    # int32[K, V]  see Automaton; the rest is in one numbering for all K
    columns: jax.Array    # int32[C]     0, 1, 2, ...
    base: jax.Array       # int32[S]
    owners: jax.Array     # int32[M]
    targets: jax.Array    # int32[M]
    remaining: jax.Array  # int32[S]


def constrain(automata: Sequence[Automaton | None], *, vocabulary: int,
              opening: bool | Sequence[bool] = False) -> Constraint:
    """The constraint of a batch from the automaton of each sequence, None for one that is free.

    Args:
      vocabulary: V of the logits; tokens beyond an automaton's own are not allowed.
      opening: whether a sequence begins a text (an encoder-decoder's does), so that the space
        which SentencePiece puts before the first word is not shown.

    Raises: ValueError where nothing is constrained, an automaton has more than V tokens, or the
      lengths differ.
    """
    distinct = [*{id(one): one for one in automata if one is not None}.values()]
    if not distinct:
        raise ValueError("no sequence has an automaton; leave the constraint out.")
    if (largest := max(one.classes.size for one in distinct)) > vocabulary:
        raise ValueError(f"an automaton knows {largest} tokens, the vocabulary has {vocabulary}; make it from "
                         "the model's own tokenizer.")
    states, entries = (np.cumsum([0, *sizes]) for sizes in (
        [one.base.size for one in distinct], [one.owners.size for one in distinct]))
    classes = np.zeros((bucket(len(distinct), AUTOMATA, "the number of automata"), vocabulary), np.int32)
    columns = bucket(max(one.columns for one in distinct), SIZES, "the number of columns")
    base, remaining = (np.zeros(bucket(states[-1], SIZES, "the number of states"), np.int32) for _ in range(2))
    # The window of a state's columns may reach past its automaton's entries, and past all of them.
    owners, targets = (np.full(bucket(entries[-1] + columns, SIZES, "the number of transitions"), FREE, np.int32)
                       for _ in range(2))
    for number, automaton in enumerate(distinct):
        mine, here = slice(states[number], states[number + 1]), slice(entries[number], entries[number + 1])
        classes[number, :automaton.classes.size] = automaton.classes
        base[mine], remaining[mine] = automaton.base + entries[number], automaton.remaining
        owners[here] = np.where(automaton.owners >= 0, automaton.owners + states[number], FREE)
        targets[here] = automaton.targets + states[number]
    place = {id(one): number for number, one in enumerate(distinct)}
    which = np.array([place.get(id(one), 0) for one in automata], np.int32)
    openings = np.broadcast_to(np.asarray(opening, bool), which.shape)
    start = np.full(which.shape, FREE, np.int32)
    for row, (one, first) in enumerate(zip(automata, openings, strict=True)):
        if one is not None:
            state = one.opening if first else one.start
            if one.remaining[state] == FAR:
                raise ValueError(f"sequence {row}: no tokens spell a text that its constraint allows here.")
            start[row] = states[which[row]] + state
    return Constraint(*map(jnp.asarray, (
        start, which, classes, np.arange(columns, dtype=np.int32), base, owners,
        np.maximum(targets, 0), remaining)))


def check(constraint: Constraint, settings: Settings, max_new_tokens: int) -> None:
    """Refuses what cannot end in time, where the values are at hand; ValueError names the row."""
    start, remaining, max_new = map(known, (constraint.start, constraint.remaining, settings.max_new))
    if np.shape(constraint.start) != settings.max_new.shape:
        raise ValueError(f"the constraint is for {np.shape(constraint.start)} sequences, the settings for "
                         f"{settings.max_new.shape}; make it from one automaton (or None) a sequence.")
    forced, forced_eos = map(known, (settings.forced, settings.forced_eos))
    if start is None or remaining is None or max_new is None or forced is None or forced_eos is None:
        return
    for row in np.flatnonzero(start != FREE):
        state, written = int(start[row]), 0
        while state >= 0 and written < forced.shape[1] and forced[row, written] >= 0:
            state = _after(constraint, int(row), state, int(forced[row, written]))
            written += 1
        if state < 0:
            raise ValueError(f"sequence {row} has the forced token {forced[row, written - 1]} at place {written - 1}, "
                             "which its constraint does not allow; change the one or the other.")
        needed = written + int(remaining[state]) + int(forced_eos[row] >= 0)
        if needed > (limit := min(int(max_new[row]), max_new_tokens)):
            raise ValueError(f"sequence {row} needs at least {needed} tokens to satisfy its constraint, its limit "
                             f"is {limit}; raise max_new or allow shorter texts.")


def _after(constraint: Constraint, row: int, state: int, token: int) -> int:
    """On the host: where a token leads, FREE where it is not allowed."""
    which, classes, base, owners, targets = (np.asarray(array) for array in (
        constraint.which, constraint.classes, constraint.base, constraint.owners, constraint.targets))
    place = base[state] + (classes[which[row], token] if token < classes.shape[1] else 0)
    return int(targets[place]) if owners[place] == state else FREE


def begin(constraint: Constraint | None, batch: int) -> jax.Array:
    """int32[B]: the states before the first token."""
    return jnp.full(batch, FREE, jnp.int32) if constraint is None else constraint.start


def mask(logits: jax.Array, constraint: Constraint, states: jax.Array, left: jax.Array, eos: jax.Array) -> jax.Array:
    """Logits f32[R, V], -inf where a row may not go on with a token.

    Args:
      states: int32[R], R = B or a multiple of it: rows in the order of the constraint's, each repeated.
      left: int32[R], the tokens that a row may still write. eos: int32[E], ids below 0 name no token.
    """
    state = jnp.maximum(states, 0)
    places = constraint.base[state][:, None] + constraint.columns
    fits = constraint.remaining[constraint.targets[places]] < left[:, None]
    fits &= constraint.owners[places] == state[:, None]
    # Without "clip" each of the lookups is checked, and a write into [R, V] would copy it.
    if constraint.classes.shape[0] == 1:  # one automaton: its columns need not be written out for each row
        allowed = jnp.take(fits, constraint.classes[0], axis=1, mode="clip")
    else:
        classes = jnp.take(constraint.classes, _which(constraint, states), axis=0, mode="clip")
        allowed = jnp.take_along_axis(fits, classes, axis=1, mode="clip")
    is_end = jnp.zeros(logits.shape[-1], bool).at[jnp.where(eos < 0, logits.shape[-1], eos)].set(True, mode="drop")
    allowed = jnp.where(is_end, (constraint.remaining[state] == 0)[:, None], allowed)
    return jnp.where(allowed | (states == FREE)[:, None], logits, -jnp.inf)


def move(constraint: Constraint | None, states: jax.Array, tokens: jax.Array) -> jax.Array:
    """int32[R]: the states after one token more, int32[R]; that of a row which must not take it means nothing."""
    if constraint is None:
        return states
    column = constraint.classes[_which(constraint, states), tokens]
    reached = constraint.targets[constraint.base[jnp.maximum(states, 0)] + column]
    return jnp.where(states == FREE, FREE, reached)


def _which(constraint: Constraint, states: jax.Array) -> jax.Array:
    return jnp.repeat(constraint.which, states.shape[0] // constraint.which.shape[0])


def left(settings: Settings, written: jax.Array, width: int) -> jax.Array:
    """int32[B]: the tokens of text that rows may still write after int32[B], less one where EOS is forced last."""
    return jnp.minimum(settings.max_new, width) - written - (settings.forced_eos >= 0)
