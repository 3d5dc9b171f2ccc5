# SPDX-License-Identifier: Apache-2.0
"""A `ModelConfig` in, pure functions of parameters out: all that other rooms see of a model."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from t5tasks.models import cache as cache_functions
from t5tasks.models import prepared as preparing
from t5tasks.models import stack
from t5tasks.models.block import Block
from t5tasks.models.cache import Cache
from t5tasks.models.config import ModelConfig
from t5tasks.models.layers import compute_dtype
from t5tasks.models.transformer import Inputs, Transformer

Parameters = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Model:
    """The functions of one model. Hashable, so that its methods can be jitted as they are.

    `inputs` holds int32 arrays: tokens[B, T] and, each optional, segments (0 where padding, by
    default all 1), positions (by default 0, 1, 2 ...) and token_types of that shape; for an
    encoder-decoder source_tokens[B, S], source_segments, source_positions, and tokens are the
    decoder's. Token ids must lie in [0, V): check on the host, indexing on a device is silent.

    An encoder of images takes images f32[B, height, width, channels] alone. A decoder that sees
    images takes, beside its tokens, images f32[B, I, height, width, channels], whose features go
    to the image tokens of their row in order (rows with fewer images leave the last ones unused,
    a batch of text alone leaves `images` out), and prefix bool[B, T], tokens that earlier ones see
    too. The head `match` takes images f32[M, height, width, channels].
    """

    config: ModelConfig

    def init(self, key: jax.Array) -> Parameters:
        """Fresh f32 parameters from a PRNG key, the same numbers in either layer form."""
        unrolled = dataclasses.replace(self.config, layer_loop="unroll")
        inputs: Inputs = {"tokens": jnp.zeros((1, 2), jnp.int32)}
        tower = self.config.vision.tower if self.config.vision is not None else self.config
        if tower.patches is not None:
            side = tower.patches.image_size
            shape = (1, side, side, tower.patches.channels)
            among_tokens = self.config.vision is not None and self.config.vision.projector != "none"
            inputs["images"] = jnp.zeros((1, *shape) if among_tokens else shape, jnp.float32)
        if self.config.architecture == "encoder_decoder":
            inputs["source_tokens"] = jnp.zeros((1, 2), jnp.int32)
        parameters = Transformer(unrolled).init(key, inputs)["params"]
        return self.running_form(parameters)

    def running_form(self, unrolled: Any) -> Any:
        """Turns a tree in the unrolled form (of checkpoints) into the one this model runs on."""
        return stack.stacked(unrolled) if stack.is_scanned(self.config) else unrolled

    def unrolled_form(self, running: Any) -> Any:
        """The inverse of `running_form`."""
        return stack.unstacked(running) if stack.is_scanned(self.config) else running

    def unrolled_form_shapes(self, running: Any) -> Any:
        """`unrolled_form` of a tree of shapes."""
        return jax.eval_shape(self.unrolled_form, running)

    def prepared(self, parameters: Parameters, rows: int, weights: str = "full", consume: bool = False
                 ) -> Parameters:
        """The parameters as `start`, `step` and `score` read them fastest for so many rows; see `models.prepared`."""
        ready: Parameters = preparing.prepared(self.config, parameters, rows, weights, consume)
        return ready

    def hidden(self, parameters: Parameters, inputs: Inputs, dropout_key: jax.Array | None = None
               ) -> jax.Array:
        """float[B, T, D], before the head; with a key, under dropout."""
        return self._call("hidden", parameters, inputs, dropout_key=dropout_key)

    def logits(self, parameters: Parameters, hidden: jax.Array, inputs: Inputs | None = None,
               dropout_key: jax.Array | None = None) -> jax.Array:
        """The head's logits of hidden states: lm float[B, T, V], cls [B, C], token [B, T, C],
        span [B, 2, T], pooled [B, E], match f32[M, B]; head `none` returns float[B, T, D] as it came."""
        return self._call("logits", parameters, hidden, inputs, dropout_key=dropout_key)

    def apply(self, parameters: Parameters, inputs: Inputs, dropout_key: jax.Array | None = None
              ) -> jax.Array:
        """The logits of inputs, shaped as `logits` says."""
        return self._call("__call__", parameters, inputs, dropout_key=dropout_key)

    def start(self, parameters: Parameters, batch: int, capacity: int, inputs: Inputs | None = None
              ) -> Cache:
        """An empty cache for `batch` rows of up to `capacity` tokens; encodes the source or images, if any.

        Images (of `inputs`) wait in the cache for the image tokens of the first steps. Where the
        inputs have a prefix, bool[B, T] (with segments, if there is padding), it must begin the row,
        and one step must read it whole.
        """
        c = self.config
        cache = cache_functions.empty(batch, capacity, c.decoder_layers, c.kv_heads, c.head_size,
                                      compute_dtype(c))
        if inputs is None:
            return cache
        if c.vision is not None:
            prefix = inputs.get("prefix")
            if prefix is not None and "segments" in inputs:
                prefix = prefix & (inputs["segments"] > 0)
            return dataclasses.replace(
                cache, image_features=self._call("see", parameters, inputs),
                image_features_used=jnp.zeros(batch, jnp.int32),
                prefix_lengths=None if prefix is None else jnp.sum(prefix, axis=1, dtype=jnp.int32))
        if c.architecture != "encoder_decoder":
            return cache
        memory = self._call("encode", parameters, inputs)
        projected = [self._project_memory(parameters, layer, memory) for layer in range(c.decoder_layers)]
        segments = inputs.get("source_segments")
        return dataclasses.replace(
            cache, memory_keys=tuple(keys for keys, _ in projected),
            memory_values=tuple(values for _, values in projected),
            memory_segments=jnp.ones_like(inputs["source_tokens"]) if segments is None else segments)

    def step(self, parameters: Parameters, tokens: jax.Array, counts: jax.Array, cache: Cache
             ) -> tuple[jax.Array, Cache]:
        """Continues every row by its next tokens.

        Args:
          tokens: int32[B, T], of which row b's first counts[b] are valid.
          counts: int32[B], between 0 and T.
          cache: rows with room for T more tokens.

        Returns:
          f32[B, V], the logits after each row's last valid token (of no meaning where counts is
          0), and the cache with the valid tokens in it.

        Raises:
          ValueError: the cache has no room; where its lengths are traced, the caller has to see to it.
        """
        hidden, cache = self._extend(parameters, tokens, counts, cache)
        last = jnp.maximum(counts - 1, 0)[:, None, None]
        hidden = jnp.take_along_axis(hidden, last, axis=1)
        return self.logits(parameters, hidden)[:, 0].astype(jnp.float32), cache

    def verify(self, parameters: Parameters, tokens: jax.Array, counts: jax.Array, cache: Cache
               ) -> tuple[jax.Array, Cache]:
        """As `step`, but returns f32[B, T, V]: the logits after each token (of no meaning from counts[b] on).

        No token uses up an image: the cache may be rewound to where any of them had not been read.
        """
        hidden, after = self._extend(parameters, tokens, counts, cache)
        after = dataclasses.replace(after, image_features_used=cache.image_features_used)
        return self.logits(parameters, hidden).astype(jnp.float32), after

    def score(self, parameters: Parameters, tokens: jax.Array, counts: jax.Array,
              targets: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
        """As `step`, but returns f32[B, T]: the log-probability of targets[b, t] after tokens[b, t]."""
        hidden, cache = self._extend(parameters, tokens, counts, cache)
        logits = self.logits(parameters, hidden).astype(jnp.float32)
        chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        return chosen - jax.nn.logsumexp(logits, axis=-1), cache

    def _extend(self, parameters: Parameters, tokens: jax.Array, counts: jax.Array, cache: Cache
                ) -> tuple[jax.Array, Cache]:
        cache_functions.check_room(cache, tokens.shape[1], counts)
        hidden, layers = self._call("extend", self.unrolled_form(parameters), tokens, cache)
        if cache.image_features_used is not None and self.config.vision is not None:
            valid = jnp.arange(tokens.shape[1]) < counts[:, None]
            here = jnp.sum(valid & (tokens == self.config.vision.image_token), axis=1, dtype=jnp.int32)
            cache = dataclasses.replace(cache, image_features_used=cache.image_features_used + here)
        cache = dataclasses.replace(
            cache, keys=tuple(layer.keys for layer in layers),
            values=tuple(layer.values for layer in layers), lengths=cache.lengths + counts)
        return hidden, cache

    def _project_memory(self, parameters: Parameters, layer: int, memory: jax.Array
                        ) -> tuple[jax.Array, jax.Array]:
        block = Block(self.config, cross=True)
        layers = self.unrolled_form(parameters["decoder"])
        projected: Any = block.apply({"params": layers[f"layer_{layer}"]}, memory, method="project_memory")
        return jax.tree.map(lambda array: jnp.swapaxes(array, 1, 2), projected)

    def _call(self, method: str, parameters: Parameters, *arguments: Any,
              dropout_key: jax.Array | None = None) -> Any:
        rngs = None if dropout_key is None else {"dropout": dropout_key}
        return Transformer(self.config).apply({"params": parameters}, *arguments, method=method, rngs=rngs)
