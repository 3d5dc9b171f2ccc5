# SPDX-License-Identifier: Apache-2.0
"""Keys and values seen so far: a value that goes into a decoder call and comes out of it.

One array a layer, so that the decoding loop updates each in place. Row b's slots below
`lengths[b]` are filled, without holes: a token's slot is its position, prompts of mixed lengths
lie at the start of their rows, and what a padded token wrote is overwritten by the next one.

    lengths = [2, 4]        keys[layer] = [[k0, k1, --, --, --, --],
    capacity = 6                           [k0, k1, k2, k3, --, --]]

Heads come before slots, as attention's matrix products want them: with slots first, XLA turned the
whole cache over at every step.
"""

import dataclasses

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Kinship:
    """How J beams share one row of keys and values: the prompt once, then the J tokens of each step.

    A beam that goes on from another one leaves everything where it is and takes over its ancestry:
    at step n, what beam j sees as its own token is the one that beam ancestry[j, n] wrote.

        slots  [p0, p1, p2,  a0, b0, c0,  a1, b1, c1]     ancestry = [[0, 0, ...],    beams b and c
                                                                      [0, 1, ...],    both went on
                                                                      [0, 2, ...]]    from a0
    """

    ancestry: jax.Array  # int32[B, J, N]
    prompt_lengths: jax.Array  # int32[B]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    keys: tuple[jax.Array, ...]  # L of float[B, K, capacity, H]
    values: tuple[jax.Array, ...]  # L of float[B, K, capacity, H]
    lengths: jax.Array  # int32[B]
    memory_keys: tuple[jax.Array, ...] = ()  # L of float[B, K, S, H], encoder-decoder only
    memory_values: tuple[jax.Array, ...] = ()
    memory_segments: jax.Array | None = None  # int32[B, S], 0 where padding
    image_features: jax.Array | None = None  # float[B, I * P, D], of the images that the prompt will name
    image_features_used: jax.Array | None = None  # int32[B]
    prefix_lengths: jax.Array | None = None  # int32[B], slots that all see, where a prompt is a prefix
    kinship: Kinship | None = None  # of beams: keys, values and memory have B rows, all else B * J

    @property
    def capacity(self) -> int:
        """The most tokens a row can hold."""
        return self.keys[0].shape[2]

    @property
    def reads_whole(self) -> bool:
        """Whether one step must read a prompt, whose tokens then see later ones."""
        return self.prefix_lengths is not None

    def take(self, rows: jax.Array) -> "Cache":
        """Rows int32[B2] of the batch, in that order, repeated where named twice."""
        return jax.tree.map(lambda array: jnp.take(array, rows, axis=0), self)

    def reorder(self, rows: jax.Array) -> "Cache":
        """Like `take`, for rows that stay within one example: its memory is the same for all."""
        if self.kinship is not None:
            return self._adopted(self.kinship, rows)
        moved = [jax.tree.map(lambda array: jnp.take(array, rows, axis=0), part)
                 for part in (self.keys, self.values, self.lengths)]
        return dataclasses.replace(self, keys=moved[0], values=moved[1], lengths=moved[2])

    def place(self, rows: jax.Array, other: "Cache") -> "Cache":
        """Rows int32[R] become the R rows of `other`, of this or a lower capacity and memory; the others stay."""
        if self.memory_segments is not None and other.memory_segments is not None:
            missing = self.memory_segments.shape[1] - other.memory_segments.shape[1]
            other = dataclasses.replace(
                other, memory_segments=jnp.pad(other.memory_segments, ((0, 0), (0, missing))))
        return jax.tree.map(
            lambda held, new: held.at[(rows, *(slice(size) for size in new.shape[1:]))].set(new), self, other)

    def rewind(self, lengths: jax.Array) -> "Cache":
        """The first lengths[b] tokens of each row, int32[B]; what lies behind them will be overwritten.

        A row with images may go back to their last token or to 0, from where it reads them again.
        """
        used = self.image_features_used
        return dataclasses.replace(
            self, lengths=lengths, image_features_used=None if used is None else jnp.where(lengths > 0, used, 0))

    def grow(self, capacity: int) -> "Cache":
        """The same rows with more slots."""
        more = ((0, 0), (0, 0), (0, capacity - self.capacity), (0, 0))
        return dataclasses.replace(self, keys=tuple(jnp.pad(keys, more) for keys in self.keys),
                                   values=tuple(jnp.pad(values, more) for values in self.values))

    def expand(self, beams: int, new_tokens: int) -> "Cache":
        """`beams` rows in the place of each, side by side, with room for `new_tokens` more, one at a time.

        They share prompt, memory and each other's tokens: after this only `reorder` moves them.
        """
        def repeated(array: jax.Array | None) -> jax.Array | None:
            return None if array is None else jnp.repeat(array, beams, axis=0)

        def extended(stored: jax.Array) -> jax.Array:
            prompt = stored[:, :, :self.capacity - new_tokens]
            return jnp.pad(prompt, ((0, 0), (0, 0), (0, beams * new_tokens), (0, 0)))

        batch = self.lengths.shape[0]
        own = jnp.broadcast_to(jnp.arange(beams, dtype=jnp.int32)[:, None], (batch, beams, new_tokens))
        return dataclasses.replace(
            self, keys=tuple(extended(keys) for keys in self.keys),
            values=tuple(extended(values) for values in self.values), lengths=jnp.repeat(self.lengths, beams),
            image_features=repeated(self.image_features), image_features_used=repeated(self.image_features_used),
            prefix_lengths=repeated(self.prefix_lengths), kinship=Kinship(own, self.lengths))

    def _adopted(self, kinship: Kinship, rows: jax.Array) -> "Cache":
        batch, beams, steps = kinship.ancestry.shape
        parents = rows.reshape(batch, beams) - jnp.arange(batch, dtype=jnp.int32)[:, None] * beams
        lengths = jnp.take(self.lengths, rows)
        inherited = jnp.take_along_axis(kinship.ancestry, parents[..., None], axis=1)
        written = jnp.arange(steps) < (lengths.reshape(batch, beams) - kinship.prompt_lengths[:, None])[..., None]
        own = jnp.arange(beams, dtype=jnp.int32)[:, None]
        return dataclasses.replace(self, lengths=lengths, kinship=dataclasses.replace(
            kinship, ancestry=jnp.where(written, inherited, own)))

    def places(self) -> tuple[jax.Array, jax.Array | None]:
        """(int32[1 or B, S]: the position of what each slot holds; bool[B, J, S]: whose it is, None without beams).

        Positions of slots that are not yet filled lie after all that are.
        """
        slots = jnp.arange(self.capacity)
        if self.kinship is None:
            return slots[None], None
        _, beams, steps = self.kinship.ancestry.shape
        prompt = slots.size - beams * steps
        step, writer = jnp.maximum(slots - prompt, 0) // beams, (slots - prompt) % beams
        lengths = self.kinship.prompt_lengths[:, None]
        positions = jnp.where(slots < prompt, slots, lengths + step)
        kin = jnp.take(self.kinship.ancestry, step, axis=2) == writer
        held = (slots < jnp.minimum(lengths, prompt))[:, None]
        return positions, jnp.where(slots < prompt, held, kin)

    @property
    def beams(self) -> int:
        """Rows that share each row of keys and values."""
        return 1 if self.kinship is None else self.kinship.ancestry.shape[1]

    def starts(self) -> jax.Array:
        """int32[B]: the slot that each row of keys and values is written at next."""
        if self.kinship is None:
            return self.lengths
        batch, beams, steps = self.kinship.ancestry.shape
        step = self.lengths.reshape(batch, beams)[:, 0] - self.kinship.prompt_lengths
        return self.capacity - beams * (steps - step)


def empty(batch: int, capacity: int, layers: int, kv_heads: int, head_size: int,
          dtype: jnp.dtype) -> Cache:
    """A cache without tokens: zeros of [batch, kv_heads, capacity, head_size], a pair a layer."""
    def zeros() -> tuple[jax.Array, ...]:
        return tuple(jnp.zeros((batch, kv_heads, capacity, head_size), dtype) for _ in range(layers))

    return Cache(keys=zeros(), values=zeros(), lengths=jnp.zeros(batch, jnp.int32))


def write(stored: jax.Array, new: jax.Array, starts: jax.Array) -> jax.Array:
    """Writes new[B, T, K, H] into stored[B, K, capacity, H] from slot starts[b] of each row."""
    if stored.shape[0] < new.shape[0]:  # beams share a row: a token of each, side by side
        new = new.reshape(stored.shape[0], -1, *new.shape[2:])
    if new.shape[1] == 1:  # one token a row: a scatter, which XLA does in place
        rows, new = jnp.arange(stored.shape[0]), new[:, 0]
        if rows.size == 1:
            # Twice the same: XLA turns a scatter of one row into a select over the whole, and copies that at each step.
            rows, new, starts = (jnp.concatenate([array, array]) for array in (rows, new, starts))
        return stored.at[rows, :, starts].set(new, mode="drop", unique_indices=stored.shape[0] > 1)
    update = jax.vmap(lambda row, part, start: jax.lax.dynamic_update_slice_in_dim(row, part, start, 1))
    return update(stored, jnp.swapaxes(new, 1, 2), starts)


def check_room(cache: Cache, width: int, counts: jax.Array) -> None:
    """Refuses a step of int32[B, width] tokens that the cache cannot hold: on a device, it would go unnoticed.

    Lengths are read where they are at hand, which within a `jax.jit` they are not: who runs steps
    there checks the whole request before (decode.contract.check_request).

    Raises: ValueError.
    """
    need = width
    if not any(isinstance(array, jax.core.Tracer) or not array.is_fully_addressable
               for array in (cache.lengths, jnp.asarray(counts))):
        # A wider block is written whole, its padding included.
        need = int(jnp.max(cache.lengths + (counts if width == 1 else width)))
    if need > cache.capacity:
        raise ValueError(f"a step of {width} tokens needs {need} slots, the cache has {cache.capacity}; make it larger")
