# SPDX-License-Identifier: Apache-2.0
"""Pixels in, patch embeddings out; and how a text model takes in what an image encoder says of them.

    images    f32[B, height, width, channels], already scaled and centred as the checkpoint wants it
    patches   float[B, P, D], left to right, then top to bottom; the class token, if any, before them
    features  float[B, I * P, D] of the I images of a row, which take the places of its image tokens
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from t5tasks.models.config import ModelConfig, Patches
from t5tasks.models.layers import ACTIVATIONS, Linear, compute_dtype
from t5tasks.models.stack import is_scanned


class PatchEmbedding(nn.Module):
    """A linear map of each patch's pixels, and its learned position (arxiv.org/abs/2010.11929, section 3.1)."""

    config: ModelConfig

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """float[B, P, D] of images f32[B, height, width, channels]; what is left of a patch is not read."""
        c, patches = self.config, self.config.patches
        assert patches is not None  # as the config's own check has found
        size, rows, columns = patches.patch_size, *grid(patches, images)
        normal = nn.initializers.normal(c.initializer_range or 0.02)
        images = images[:, :rows * size, :columns * size].astype(compute_dtype(c))
        cut = images.reshape(-1, rows, size, columns, size, patches.channels)
        kernel = self.param("kernel", normal, (size, size, patches.channels, c.width), jnp.float32)
        x = jnp.einsum("BXPYQC,PQCD->BXYD", cut, kernel.astype(cut.dtype))
        x = x.reshape(x.shape[0], rows * columns, c.width)
        if patches.biases:
            x += self.param("bias", nn.initializers.zeros, (c.width,), jnp.float32).astype(x.dtype)
        if patches.class_token:
            first = self.param("class_token", normal, (c.width,), jnp.float32).astype(x.dtype)
            x = jnp.concatenate([jnp.broadcast_to(first, (x.shape[0], 1, c.width)), x], axis=1)
        table = self.param("positions", normal, (patches.side**2 + patches.class_token, c.width), jnp.float32)
        return x + resized(table, patches, rows, columns).astype(x.dtype)


def grid(patches: Patches, images: jax.Array) -> tuple[int, int]:
    """Rows and columns of patches in images [B, height, width, channels]."""
    return images.shape[1] // patches.patch_size, images.shape[2] // patches.patch_size


def resized(table: jax.Array, patches: Patches, rows: int, columns: int) -> jax.Array:
    """f32[P, D], the table of positions for a grid of this size; the class token's, if any, stays."""
    side, first = patches.side, int(patches.class_token)
    if (rows, columns) == (side, side):
        return table
    square = table[first:].reshape(side, side, -1)
    along = jnp.asarray(bicubic(side, rows)), jnp.asarray(bicubic(side, columns))
    square = jnp.einsum("XI,YJ,IJD->XYD", *along, square, precision="highest")
    return jnp.concatenate([table[:first], square.reshape(rows * columns, -1)])


@functools.cache
def bicubic(size: int, wanted: int) -> np.ndarray:
    """f32[wanted, size], what each old place gives to each new one.

    Keys' cubic convolution with a = -0.75, pixels as areas, the border's value beyond the border:
    what PyTorch's interpolate computes (doi.org/10.1109/TASSP.1981.1163711, equation 4).
    """
    a = -0.75
    places = (np.arange(wanted) + 0.5) * (size / wanted) - 0.5
    weights = np.zeros((wanted, size))
    for step in range(-1, 3):
        old = np.floor(places).astype(int) + step
        away = np.abs(places - old)
        near = ((a + 2) * away - (a + 3)) * away**2 + 1
        far = ((away - 5) * away + 8) * a * away - 4 * a
        np.add.at(weights, (np.arange(wanted), np.clip(old, 0, size - 1)), np.where(away <= 1, near, far))
    return weights.astype(np.float32)


class Projector(nn.Module):
    """From the image encoder's width to the text model's: one linear map, or two and an activation."""

    config: ModelConfig

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """float[B, S, D] of features float[B, S, D of the tower]."""
        c, vision = self.config, self.config.vision
        assert vision is not None  # as the config's own check has found
        for number in range(1 if vision.projector == "linear" else 2):
            if number:
                features = ACTIVATIONS[vision.activation](features)
            features = Linear("BSI,ID->BSD", (features.shape[-1], c.width), c, biases=vision.biases,
                              name=f"map_{number}")(features)
        return features


def tower_config(config: ModelConfig) -> ModelConfig:
    """The image encoder's config, run as the whole model is: both forms of parameters go together."""
    assert config.vision is not None  # as the caller has found
    return dataclasses.replace(
        config.vision.tower, layer_loop="scan" if is_scanned(config) else "unroll",
        rematerialise=config.rematerialise, compute_dtype=config.compute_dtype)


def merged(x: jax.Array, tokens: jax.Array, features: jax.Array, image_token: int,
           used: jax.Array | None = None) -> jax.Array:
    """Puts features in the places of the image tokens, in their order:

        tokens = [ 7, 99, 99,  8, 99]        features = [f0, f1, f2, f3]
        out    = [x0, f0, f1, x3, f2]        used = 0

    Args:
      x: float[B, T, D], embeddings of tokens int32[B, T]; they stay where features run out.
      features: float[B, S, D]. used: int32[B], how many of them earlier tokens took.
    """
    here = tokens == image_token
    order = jnp.cumsum(here, axis=1) - 1 + (0 if used is None else used[:, None])
    taken = jnp.take_along_axis(features, jnp.clip(order, 0, features.shape[1] - 1)[..., None], axis=1)
    return jnp.where((here & (order < features.shape[1]))[..., None], taken.astype(x.dtype), x)
