# SPDX-License-Identifier: Apache-2.0
"""Questions in, the passages whose vectors point the same way out: exact search over all devices of a mesh.

The vectors of N passages stand in rows, in equal parts on all devices. Each finds the best of its own, and the best
of these are the best of all:

    questions f32[Q, D] (everywhere) x rows f32[N / devices, D]  →  scores  →  the K best of each device  →  K of all
"""

import functools
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from t5tasks.retrieval.ranking import NONE, Ranking, check_count
from t5tasks.retrieval.store import Store

AT_ONCE = 64  # questions in one program
LEAST_ROWS = 1024  # for which there is room at first; the room doubles as it is filled
ADDED_AT_ONCE = 256  # rows that are written into that room together


class Embedder(Protocol):
    """What turns texts into vectors whose products say how much they have to do with each other."""

    fingerprint: str  # of all that the vectors depend on
    dimension: int

    def questions(self, texts: Sequence[str]) -> np.ndarray:
        """f32[Q, D]."""

    def passages(self, texts: Sequence[str]) -> np.ndarray:
        """f32[P, D]."""


class Dense:
    """A retriever of a store's passages; what has changed in the store is read before each search."""

    def __init__(self, store: Store, embedder: Embedder, mesh: Mesh, approximate: float = 0.0) -> None:
        """Args:
          approximate: 0 for the exact best; else the share of them, below 1, that is to be found at least, on
            average, in less time on a TPU (`jax.lax.approx_max_k`, arxiv.org/abs/2206.14286).

        Raises:
          ValueError: the store has no vectors, or another embedder's.
        """
        if not 0 <= approximate < 1:
            raise ValueError(f"approximate is {approximate}; expected 0 for exact search or a share below 1")
        known = store.fact("embedder")
        if known != embedder.fingerprint:
            other = f"those of another encoder (fingerprint {known}, this one's is {embedder.fingerprint})"
            raise ValueError(f"{store.path} has {other if known else 'no vectors'}; python -m t5tasks.index --encoder "
                             "makes an index with them")
        self._store, self._embedder, self._mesh, self._approximate = store, embedder, mesh, approximate
        self._generation = -1
        nothing = np.zeros(0, np.int64)
        self._load(nothing, nothing, np.zeros((0, embedder.dimension), np.float16))

    def _placed(self, rows: np.ndarray) -> jax.Array:
        """The array, an equal part of its rows on every device."""
        parts = NamedSharding(self._mesh, PartitionSpec(self._mesh.axis_names))
        return jax.make_array_from_callback(rows.shape, parts, lambda index: rows[index])

    def _room(self, count: int) -> int:
        """How many rows there are for so many passages: one of few numbers, for each of which a program is made."""
        rows = LEAST_ROWS * self._mesh.size
        while rows < count:
            rows *= 2
        return rows

    def refresh(self) -> None:
        """Takes in what others have written since the last search."""
        with self._store.reading():
            if self._generation == (generation := self._store.generation):
                return
            last = int(self._numbers[-1]) if len(self._numbers) else -1
            numbers, passages, vectors = self._store.vectors(after=last)
            together = len(self._numbers) + len(numbers)
            removed = together != self._store.size("vectors")
            if removed or together > len(self._rows) or len(numbers) > ADDED_AT_ONCE:
                self._load(*self._store.vectors())
            elif len(numbers):
                self._append(numbers, passages, vectors)
        self._generation = generation
        bias = np.full(len(self._rows), -np.inf, np.float32)
        bias[:len(self._numbers)] = 0
        self._bias = self._placed(bias)

    def _load(self, numbers: np.ndarray, passages: np.ndarray, vectors: np.ndarray) -> None:
        """Puts these into the rows in place of all that was there."""
        self._numbers, self._passages = numbers, passages
        rows = np.zeros((self._room(len(numbers)), self._embedder.dimension), np.float32)
        rows[:len(numbers)] = vectors
        self._rows = self._placed(rows)

    def _append(self, numbers: np.ndarray, passages: np.ndarray, vectors: np.ndarray) -> None:
        """Puts a few more into the rows that are free."""
        places = np.full(ADDED_AT_ONCE, len(self._rows), np.int32)  # outside, where nothing is written
        places[:len(numbers)] = np.arange(len(numbers)) + len(self._numbers)
        padded = np.zeros((ADDED_AT_ONCE, self._embedder.dimension), np.float32)
        padded[:len(numbers)] = vectors
        self._rows = _written(self._rows, places, padded)
        self._numbers = np.concatenate([self._numbers, numbers])
        self._passages = np.concatenate([self._passages, passages])

    def search(self, questions: Sequence[str], count: int) -> Ranking:
        """The passages whose vectors have the greatest products with the question's."""
        check_count(count)
        self.refresh()
        found = [self._nearest(self._embedder.questions(questions[first:first + 16 * AT_ONCE]), count)
                 for first in range(0, len(questions), 16 * AT_ONCE)]
        empty = Ranking(np.zeros((0, count), np.int64), np.zeros((0, count), np.float32))
        return Ranking(np.concatenate([empty.numbers, *(each.numbers for each in found)]),
                       np.concatenate([empty.scores, *(each.scores for each in found)]))

    def _nearest(self, vectors: np.ndarray, count: int) -> Ranking:
        """The passages nearest to each of f32[Q, D]."""
        wanted = min(count, len(self._rows))
        search = _search(self._mesh, min(wanted, len(self._rows) // self._mesh.size), wanted, self._approximate)
        scores, rows = [], []
        for first in range(0, len(vectors), AT_ONCE):
            part = vectors[first:first + AT_ONCE]
            padded = np.zeros((AT_ONCE, vectors.shape[1]), np.float32)
            padded[:len(part)] = part
            best, places = jax.device_get(search(padded, self._rows, self._bias))
            scores.append(best[:len(part)])
            rows.append(places[:len(part)])
        return self._ranking(np.concatenate(scores), np.concatenate(rows), count)

    def _ranking(self, scores: np.ndarray, rows: np.ndarray, count: int) -> Ranking:
        numbers = np.append(self._passages, NONE)[np.where(np.isfinite(scores), rows, len(self._passages))]
        missing = ((0, 0), (0, count - scores.shape[1]))
        return Ranking(np.pad(numbers, missing, constant_values=NONE),
                       np.pad(scores, missing, constant_values=-np.inf))


@functools.partial(jax.jit, donate_argnums=0)
def _written(rows: jax.Array, places: jax.Array, vectors: jax.Array) -> jax.Array:
    return rows.at[places].set(vectors, mode="drop")


@functools.cache
def _search(mesh: Mesh, each: int, count: int, approximate: float) -> Any:
    """f32[Q, D], f32[R, D], f32[R] → the scores f32[Q, count] and rows int32[Q, count] of the best.

    Args:
      each: how many a device offers.
    """
    axes = mesh.axis_names

    def best(scores: jax.Array) -> tuple[jax.Array, jax.Array]:
        if approximate:
            return jax.lax.approx_max_k(scores, each, recall_target=approximate)
        return jax.lax.top_k(scores, each)

    def local(questions: jax.Array, rows: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
        scores, places = best(jnp.einsum("QD,RD->QR", questions, rows, precision="highest") + bias)
        return scores, places + jax.lax.axis_index(axes) * rows.shape[0]

    split, whole = PartitionSpec(axes), PartitionSpec()
    offered = jax.shard_map(local, mesh=mesh, in_specs=(whole, split, split),
                            out_specs=PartitionSpec(None, axes), check_vma=False)

    def search(questions: jax.Array, rows: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
        scores, places = offered(questions, rows, bias)
        chosen, order = jax.lax.top_k(scores, count)
        return chosen, jnp.take_along_axis(places, order, axis=1)

    return jax.jit(search, out_shardings=NamedSharding(mesh, whole))
