# SPDX-License-Identifier: Apache-2.0
"""The reference's pixel_values come in, checked; the images of a batch, each with its row's text, go out."""

import numpy as np

from t5tasks.models.config import ModelConfig, Patches, Vision


def checked(config: ModelConfig, pixels: np.ndarray) -> np.ndarray:
    """f32[M, height, width, channels] of pixel_values floats[M, channels, height, width].

    Raises:
      ValueError: they are no floats of four axes, have other channels, or are smaller than a patch.
    """
    patches = _patches(config)
    if pixels.ndim != 4 or pixels.dtype.kind != "f" or not pixels.size:
        raise ValueError(f"pixel_values is {pixels.dtype}{list(pixels.shape)}; expected floats of four dimensions: "
                         "images, channels, height and width")
    if pixels.shape[1] != patches.channels or min(pixels.shape[2:]) < patches.patch_size:
        raise ValueError(f"pixel_values is {list(pixels.shape)}; expected {patches.channels} channels, and height and "
                         f"width of {patches.patch_size} pixels or more")
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1), np.float32)


def by_row(vision: Vision, tokens: np.ndarray, images: np.ndarray) -> np.ndarray:
    """f32[B, I, height, width, channels]: the images M whose tokens stand in tokens int32[B, T], in order.

    Rows with fewer than I images end with empty ones, which no token takes.

    Raises:
      ValueError: the image tokens are not those of M whole images.
    """
    each = vision.features(*images.shape[1:3])
    found = np.sum(tokens == vision.image_token, axis=1)
    if np.any(found % each) or found.sum() != each * len(images):
        raise ValueError(f"input_ids has {', '.join(map(str, found))} image tokens (id {vision.image_token}) in its "
                         f"rows, pixel_values {len(images)} images; expected {each} tokens an image")
    counts = found // each
    rows = np.zeros((len(tokens), counts.max(), *images.shape[1:]), np.float32)
    rows[np.arange(counts.max()) < counts[:, None]] = images
    return rows


def _patches(config: ModelConfig) -> Patches:
    patches = config.patches if config.vision is None else config.vision.tower.patches
    assert patches is not None  # the caller knows that the model reads images
    return patches
