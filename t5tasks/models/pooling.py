# SPDX-License-Identifier: Apache-2.0
"""Hidden states of a sequence in, one vector of it out: what heads for whole texts and images read."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from t5tasks.models.attention import Attention
from t5tasks.models.config import ModelConfig
from t5tasks.models.layers import FeedForward, Norm

Inputs = dict[str, jax.Array]


class Pooling(nn.Module):
    """One vector for each sequence, as the config's `pooling` says."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array, inputs: Inputs) -> jax.Array:
        """float[B, D] of x float[B, T, D]; [B, 2 D] where the class token and the patches both count.

        Args:
          inputs: of the model; `segments`, where given, tells padding, which a mean leaves out, and
            `tokens` are searched for the end.
        """
        how = self.config.pooling
        if how == "attention":
            return self._attended(x)
        if how == "mean":
            return _mean(x, inputs.get("segments"))
        if how in ("largest", "end"):
            tokens = inputs["tokens"]
            place = jnp.argmax(tokens if how == "largest" else tokens == self.config.end_token, axis=1)
            return jnp.take_along_axis(x, place[:, None, None], axis=1)[:, 0]
        if how in ("patches", "first_and_patches"):
            mean = jnp.mean(x[:, 1:], axis=1)
            return mean if how == "patches" else jnp.concatenate([x[:, 0], mean], axis=-1)
        return x[:, -1 if how == "last" else 0]

    def _attended(self, x: jax.Array) -> jax.Array:
        """What a learned query finds among x (arxiv.org/abs/2205.01917, section 3.2), fed forward."""
        c = self.config
        probe = self.param("probe", nn.initializers.normal(c.initializer_range or 0.02), (c.width,), jnp.float32)
        query = jnp.broadcast_to(probe.astype(x.dtype), (x.shape[0], 1, c.width))
        attention = Attention(c, name="attention")
        keys, values = attention.project(x, None)
        found = attention.attend(query, keys, values, jnp.ones((x.shape[0], 1, x.shape[1]), bool))
        fed = FeedForward(c, name="feed_forward")(Norm(c, name="feed_forward_norm")(found))
        return (found + fed)[:, 0]


def _mean(x: jax.Array, segments: jax.Array | None) -> jax.Array:
    """float[B, D], the mean of x float[B, T, D] over the tokens that are not padding."""
    real = jnp.ones(x.shape[:2], bool) if segments is None else segments > 0
    return jnp.mean(x, axis=1, where=real[..., None] | ~jnp.any(real, axis=1)[:, None, None])
