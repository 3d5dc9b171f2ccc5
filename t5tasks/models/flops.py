# SPDX-License-Identifier: Apache-2.0
"""A model's shape and a batch's in, the floating-point operations of its mathematics out.

Multiplications and additions of matrix products, as in arxiv.org/abs/2204.02311, appendix B:
2 per weight and token, and 4 N H per query-key pair; embedding look-ups, norms and recomputation
do not count. A backward pass costs twice its forward pass.
"""

from t5tasks.models.config import ModelConfig


def forward_flops(config: ModelConfig, tokens: int, length: int, source_tokens: int = 0,
                  source_length: int = 0, images: int = 0, size: tuple[int, int] = (0, 0)) -> float:
    """Operations of one forward pass.

    Args:
      tokens: real tokens in the batch on the head's side; length: T, what each of them attends to
        (a window's width at most, where a layer slides).
      source_tokens, source_length: the same of an encoder-decoder's source.
      images: that a decoder sees among its tokens, each of `size`, height and width in pixels.
    """
    c = config
    attention = 2 * c.width * c.head_size * (c.heads + c.kv_heads)
    feed_forward = (3 if c.gated else 2) * c.width * c.feed_forward
    pairs = 4 * c.heads * c.head_size
    layer = 2 * (attention + feed_forward)
    total = 0.0
    if c.architecture == "encoder_decoder":
        memory = 2 * 2 * c.width * c.head_size * c.kv_heads
        cross = 2 * 2 * c.width * c.head_size * c.heads
        total += c.encoder_layers * source_tokens * (layer + pairs * source_length)
        total += c.decoder_layers * (source_tokens * memory + tokens * (cross + pairs * source_length))
    window = c.window if c.decoder_layers else 2 * c.window - 1
    for number in range(c.decoder_layers or c.encoder_layers):
        total += tokens * (layer + pairs * (min(length, window) if c.slides(number) else length))
    if c.head_transform:
        total += 2 * tokens * c.width * c.width
    if c.head == "lm":
        total += 2 * tokens * c.width * c.vocabulary
    return total + (seeing_flops(c, *size) * images if images else 0.0)


def seeing_flops(config: ModelConfig, height: int, width: int) -> float:
    """Operations on one image of this size: patches, the encoder of images, and the projector."""
    vision = config.vision
    assert vision is not None and vision.tower.patches is not None
    tower, patches = vision.tower, vision.tower.patches
    cut = (height // patches.patch_size) * (width // patches.patch_size)
    read = cut + patches.class_token
    total = 2.0 * cut * patches.patch_size**2 * patches.channels * tower.width + forward_flops(tower, read, read)
    projected = vision.features(height, width)
    return total + 2 * projected * config.width * (
        tower.width + (config.width if vision.projector == "mlp" else 0))
