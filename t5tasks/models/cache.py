# SPDX-License-Identifier: Apache-2.0
"""Keys and values seen so far: a value that goes into a decoder call and comes out of it.

One array a layer, so that the decoding loop updates each in place. Row b's slots below
`lengths[b]` are filled, without holes: a token's slot is its position, prompts of mixed lengths
lie at the start of their rows, and what a padded token wrote is overwritten by the next one.

    lengths = [2, 4]        keys[layer] = [[k0, k1, --, --, --, --],
    capacity = 6                           [k0, k1, k2, k3, --, --]]
"""

import dataclasses

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    keys: tuple[jax.Array, ...]  # L of float[B, capacity, K, H]
    values: tuple[jax.Array, ...]  # L of float[B, capacity, K, H]
    lengths: jax.Array  # int32[B]
    memory_keys: tuple[jax.Array, ...] = ()  # L of float[B, S, K, H], encoder-decoder only
    memory_values: tuple[jax.Array, ...] = ()
    memory_segments: jax.Array | None = None  # int32[B, S], 0 where padding
    image_features: jax.Array | None = None  # float[B, I * P, D], of the images that the prompt will name
    image_features_used: jax.Array | None = None  # int32[B]
    prefix_lengths: jax.Array | None = None  # int32[B], slots that all see, where a prompt is a prefix

    @property
    def capacity(self) -> int:
        """The most tokens a row can hold."""
        return self.keys[0].shape[1]

    @property
    def reads_whole(self) -> bool:
        """Whether one step must read a prompt, whose tokens then see later ones."""
        return self.prefix_lengths is not None

    def take(self, rows: jax.Array) -> "Cache":
        """Rows int32[B2] of the batch, in that order, repeated where named twice."""
        return jax.tree.map(lambda array: jnp.take(array, rows, axis=0), self)

    def reorder(self, rows: jax.Array) -> "Cache":
        """Like `take`, for rows that stay within one example: its memory is the same for all."""
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
        more = ((0, 0), (0, capacity - self.capacity), (0, 0), (0, 0))
        return dataclasses.replace(self, keys=tuple(jnp.pad(keys, more) for keys in self.keys),
                                   values=tuple(jnp.pad(values, more) for values in self.values))


def empty(batch: int, capacity: int, layers: int, kv_heads: int, head_size: int,
          dtype: jnp.dtype) -> Cache:
    """A cache without tokens: zeros of [batch, capacity, kv_heads, head_size], a pair a layer."""
    def zeros() -> tuple[jax.Array, ...]:
        return tuple(jnp.zeros((batch, capacity, kv_heads, head_size), dtype) for _ in range(layers))

    return Cache(keys=zeros(), values=zeros(), lengths=jnp.zeros(batch, jnp.int32))


def write(stored: jax.Array, new: jax.Array, starts: jax.Array) -> jax.Array:
    """Writes new[B, T, K, H] into stored[B, capacity, K, H] from slot starts[b] of each row."""
    if new.shape[1] == 1:  # one token a row: a scatter, which XLA does in place
        rows = jnp.arange(stored.shape[0])
        return stored.at[rows, starts].set(new[:, 0], mode="drop", unique_indices=True)
    update = jax.vmap(lambda row, part, start: jax.lax.dynamic_update_slice_in_dim(row, part, start, 0))
    return update(stored, new, starts)


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
