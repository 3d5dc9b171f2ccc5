# SPDX-License-Identifier: Apache-2.0
"""A generator comes in; the images and texts of the vision families' cases go out."""

import make_fixtures
import numpy as np

IMAGE_SIZE, PATCH_SIZE = 15, 5
VISION = dict(hidden_size=24, num_attention_heads=3, intermediate_size=41, num_hidden_layers=2,
              image_size=IMAGE_SIZE, patch_size=PATCH_SIZE)


def pixels(generator, count=3, height=IMAGE_SIZE, width=IMAGE_SIZE, channels=3):
    """f32[count, channels, height, width]."""
    return generator.normal(size=(count, channels, height, width)).astype(np.float32)


def image_batch(model, generator, left):
    """Images alone."""
    return {"pixel_values": pixels(generator, channels=model.config.num_channels)}


def tall_image_batch(model, generator, left):
    """Images of a size that the positions are not made for, and that leaves a part of a patch over."""
    height, width = (17, 28) if left else (36, 10)
    return image_batch(model, generator, left) | {"pixel_values": pixels(generator, 2, height, width)}


def sharpen(model):
    """A scale that spreads the similarities out."""
    model.logit_scale.fill_(2.3)


def texts_and_images(ends):
    """Two images and three texts; where `ends` is given, each text ends with that id, as CLIP's do."""
    def batch(model, generator, left):
        config = model.config.text_config
        padding = config.pad_token_id
        words = np.setdiff1d(np.arange(config.vocab_size), [padding] if ends is None else [padding, ends])
        ids, mask = make_fixtures.padded(generator, make_fixtures.LENGTHS, make_fixtures.LENGTH, left,
                                         len(words) - 1)
        ids = np.where(mask, words[ids], padding)
        if ends is not None:
            last = make_fixtures.LENGTH - 1 - mask[:, ::-1].argmax(1)
            ids[np.arange(len(ids)), last] = ends
        return {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels(generator, 2)}

    return batch
