# SPDX-License-Identifier: Apache-2.0
"""Token embeddings in, hidden states out: an encoder's or a decoder's tower of blocks.

The tower's parameters have two forms with the same numbers. Unrolled, each layer is an entry of
its own, which runs fastest on a CPU and while decoding; scanned, they lie stacked along a first
axis, which keeps compile time flat in depth. `stacked` and `unstacked` turn one into the other,
for a parameter tree or anything shaped like it (an optimizer's moments):

    {"layer_0": {"kernel": [D, F]}, "layer_1": {"kernel": [D, F]}}  <->  {"layers": {"kernel": [2, D, F]}}
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from t5tasks.models import masks
from t5tasks.models import positions as position_functions
from t5tasks.models.attention import RelativeBias
from t5tasks.models.block import Block, LayerCache, Sight, Surroundings
from t5tasks.models.cache import Cache
from t5tasks.models.config import ModelConfig
from t5tasks.models.layers import Dropout, Norm
from t5tasks.models.placement import by_rows

POLICIES: dict[str, Callable[..., Any] | None] = {
    "full": None,  # keep only what enters a layer
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,  # keep matrix products
}


def is_scanned(config: ModelConfig) -> bool:
    """Whether the model's stacks run as scans on the default device."""
    if config.layer_loop != "auto":
        return config.layer_loop == "scan"
    return scans_where_fast(config) and jax.default_backend() != "cpu"


def scans_where_fast(config: ModelConfig) -> bool:
    """Whether an accelerator runs the stacks of `layer_loop` "auto" as scans: deep ones, for the time they compile."""
    return max(config.encoder_layers, config.decoder_layers) >= 12 and config.first_norm


class Stack(nn.Module):
    """`depth` blocks with what a family puts before the first and after the last of them."""

    config: ModelConfig
    depth: int
    causal: bool
    cross: bool = False

    @nn.compact
    def __call__(
        self, x: jax.Array, segments: jax.Array | None = None, positions: jax.Array | None = None,
        token_types: jax.Array | None = None, memory: jax.Array | None = None,
        memory_segments: jax.Array | None = None, cache: Cache | None = None, prefix: jax.Array | None = None,
    ) -> tuple[jax.Array, tuple[LayerCache, ...]]:
        """Runs the tower.

        Args:
          x: float[B, T, D], token embeddings.
          segments: int32[B, T], 0 where padding; not used with a cache.
          positions: int32[B, T], restarting in each packed document; by default 0, 1, 2 ...
          token_types: int32[B, T], where the model has them; by default 0.
          memory: float[B, S, D] and memory_segments: int32[B, S], the encoded source.
          cache: what the rows have seen; x then continues them.
          prefix: bool[B, T], tokens that earlier ones of their segment see too; not used with a
            cache, which knows its own.

        Returns:
          float[B, T, D], and the layers' caches (empty without one).
        """
        c = self.config
        slots = jnp.arange(x.shape[1])[None]
        if cache is not None:
            slots = slots + cache.lengths[:, None]
        positions = slots if positions is None else positions
        x = self._embed(x, positions, token_types)
        around = self._surroundings(x, slots, segments, positions, memory, memory_segments, cache, prefix)
        caches: tuple[LayerCache, ...] = ()
        if cache is None and is_scanned(c):
            x = self._scan(x, around)
        else:
            x, caches = self._unroll(x, around, cache)
        return by_rows(Norm(c, name="final_norm")(x) if c.final_norm else x), caches

    def _embed(self, x: jax.Array, positions: jax.Array, token_types: jax.Array | None) -> jax.Array:
        c = self.config
        normal = nn.initializers.normal(c.initializer_range or 0.02)
        if c.positions == "learned":
            table = self.param("positions", normal, (c.max_length + c.position_offset, c.width), jnp.float32)
            x += table.astype(x.dtype)[positions + c.position_offset]
        elif c.positions == "sinusoidal":
            x += jnp.asarray(position_functions.sinusoids(c.max_length, c.width), x.dtype)[positions]
        if c.token_types:
            table = self.param("token_types", normal, (c.token_types, c.width), jnp.float32)
            x += table.astype(x.dtype)[jnp.zeros_like(positions) if token_types is None else token_types]
        if c.embedding_norm:
            x = Norm(c, name="embedding_norm")(x)
        return Dropout(c.dropout)(x)

    def _surroundings(
        self, x: jax.Array, slots: jax.Array, segments: jax.Array | None, positions: jax.Array,
        memory: jax.Array | None, memory_segments: jax.Array | None, cache: Cache | None,
        prefix: jax.Array | None,
    ) -> Surroundings:
        c = self.config
        kin = None
        if cache is None:
            query_segments = jnp.ones(x.shape[:2], jnp.int32) if segments is None else segments
            key_segments, key_slots, query_prefix = query_segments, slots, prefix
            order: tuple[jax.Array | None, jax.Array | None] = (slots, slots) if self.causal else (None, None)
        else:
            # What beams share has a row for all of them: their bias and memory are the same.
            slots = slots[::cache.beams]
            query_segments = jnp.ones(slots.shape, jnp.int32)
            key_slots, kin = cache.places()
            # Slots not yet written lie after every query, so order alone hides them.
            key_segments = jnp.ones((slots.shape[0], cache.capacity), jnp.int32)
            order, memory_segments = (slots, key_slots), cache.memory_segments
            if cache.prefix_lengths is not None and kin is None:  # beams stand behind it
                query_prefix, prefix = (places < cache.prefix_lengths[:, None] for places in (slots, key_slots))
        # Nobody looks at padding, but it looks where the first segment's tokens do, so that it too
        # comes out as the reference has it: BERT classifies a left-padded row by its first slot.
        query_segments = jnp.maximum(query_segments, 1)
        buckets = bias = None
        if c.positions == "relative":
            buckets = position_functions.relative_buckets(
                slots, key_slots, c.relative_buckets, c.relative_distance, not self.causal)
            if not c.relative_per_layer:
                bias, buckets = RelativeBias(c, name="relative_bias")(buckets).astype(x.dtype), None
        across = None
        if self.cross and memory_segments is not None:
            across = masks.attention_mask(query_segments, memory_segments)
        mask = masks.attention_mask(query_segments, key_segments, order[0], order[1], prefix)
        if kin is not None:
            mask = mask & kin
        near = None
        if c.window and c.sliding_layers:
            close = masks.near(slots, key_slots, c.window)
            if prefix is not None and query_prefix is not None:  # inside a prefix no window ends (PaliGemma 2)
                close |= query_prefix[:, :, None] & prefix[:, None, :]
            near = Sight(mask & close, self._rotation(positions, local=True))
        return Surroundings(
            Sight(mask, self._rotation(positions)), near, bias=bias, buckets=buckets, memory=memory,
            memory_mask=across, write_starts=None if cache is None else cache.starts())

    def _rotation(self, positions: jax.Array, local: bool = False) -> position_functions.Rotation | None:
        c = self.config
        if c.positions != "rotary":
            return None
        amplitude = 1.0 if local and c.local_rotary_base else c.rotary_amplitude
        return position_functions.rotation(positions, position_functions.frequencies(c, local), amplitude)

    def _block(self) -> Any:
        if self.config.rematerialise == "none":
            return Block
        scanned = is_scanned(self.config)
        return nn.remat(Block, policy=POLICIES[self.config.rematerialise], prevent_cse=not scanned,
                        static_argnums=() if scanned else (3,))  # whether the layer slides

    def _unroll(self, x: jax.Array, around: Surroundings, cache: Cache | None
                ) -> tuple[jax.Array, tuple[LayerCache, ...]]:
        block, caches = self._block(), []
        for layer in range(self.depth):
            cached = None if cache is None else layer_cache(cache, layer)
            made = block(self.config, self.cross, layer == 0, name=f"layer_{layer}")
            x, cached = made(x, around, self.config.slides(layer), cached)
            caches.append(cached)
        return x, tuple(cached for cached in caches if cached is not None)

    def _scan(self, x: jax.Array, around: Surroundings) -> jax.Array:
        slides = jnp.asarray([self.config.slides(layer) for layer in range(self.depth)])
        scanned = nn.scan(self._block(), variable_axes={"params": 0}, in_axes=(nn.broadcast, 0),
                          split_rngs={"params": True, "dropout": True}, length=self.depth)
        return scanned(self.config, self.cross, name="layers")(x, around, slides)[0]


def layer_cache(cache: Cache, layer: int) -> LayerCache:
    """The part of the cache that one layer reads and writes."""
    if not cache.memory_keys:
        return LayerCache(cache.keys[layer], cache.values[layer])
    return LayerCache(cache.keys[layer], cache.values[layer],
                      cache.memory_keys[layer], cache.memory_values[layer])


def stacked(tree: Any) -> Any:
    """Puts the `layer_i` entries of every dict in the tree into one `layers` entry, [L, ...]."""
    def stack(entries: dict[str, Any]) -> dict[str, Any]:
        names = [f"layer_{i}" for i in range(sum(name.startswith("layer_") for name in entries))]
        if not names:
            return entries
        rest = {name: value for name, value in entries.items() if name not in names}
        layers = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(entries[name] for name in names))
        return rest | {"layers": layers}

    return _map_dicts(stack, tree)


def unstacked(tree: Any) -> Any:
    """The inverse of `stacked`."""
    def unstack(entries: dict[str, Any]) -> dict[str, Any]:
        if "layers" not in entries:
            return entries
        rest = {name: value for name, value in entries.items() if name != "layers"}
        depth = jax.tree.leaves(entries["layers"])[0].shape[0]
        layers = {f"layer_{i}": jax.tree.map(lambda leaf, i=i: leaf[i], entries["layers"])
                  for i in range(depth)}
        return rest | layers

    return _map_dicts(unstack, tree)


def _map_dicts(function: Callable[[dict[str, Any]], dict[str, Any]], tree: Any) -> Any:
    """Applies function to every dict in a tree, the innermost first."""
    if isinstance(tree, dict):
        return function({name: _map_dicts(function, value) for name, value in tree.items()})
    children, structure = jax.tree.flatten(tree, is_leaf=lambda node: node is not tree)
    if jax.tree_util.treedef_is_leaf(structure):
        return tree
    return jax.tree.unflatten(
        jax.tree.structure(tree, is_leaf=lambda node: node is not tree),
        [_map_dicts(function, child) for child in children])
