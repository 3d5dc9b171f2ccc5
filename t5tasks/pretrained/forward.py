# SPDX-License-Identifier: Apache-2.0
"""The reference implementation's inputs come in under its names; its outputs go out."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping

import jax
import numpy as np

from t5tasks.models.config import ModelConfig
from t5tasks.models.model import Model, Parameters
from t5tasks.pretrained import pixels

# The reference's names of inputs → ours, for each architecture.
INPUTS = {
    "encoder": {"input_ids": "tokens", "attention_mask": "segments", "token_type_ids": "token_types",
                "position_ids": "positions"},
    "decoder": {"input_ids": "tokens", "attention_mask": "segments", "position_ids": "positions"},
    "encoder_decoder": {"input_ids": "source_tokens", "attention_mask": "source_segments",
                        "decoder_input_ids": "tokens", "decoder_attention_mask": "segments"},
}
PIXELS = {"pixel_values": "images"}


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A checkpoint as this project runs it."""

    model: Model
    parameters: Parameters
    tokenizer_folder: pathlib.Path
    new: tuple[str, ...]  # parameters that the folder lacks: they begin fresh
    padding: int | None = None  # the token id that takes no position (RoBERTa)

    def forward(self, **inputs: np.ndarray) -> np.ndarray:
        """What the reference's plain forward pass returns for the same inputs.

        Positions count padding on the left, as there, save where the family skips its token.

        Args:
          **inputs: integers[B, T] under the reference's names, those of INPUTS that the model has
            a use for; all but the token ids may be left out. An encoder-decoder's input_ids and
            attention_mask are [B, S]. pixel_values are floats[M, channels, height, width] of M
            examples, or of the M images whose tokens stand in the texts, in order; of another size
            than the checkpoint's, they are read with its positions resized, as the reference does
            where interpolate_pos_encoding is set. Where images and prompts see each other both
            ways, token_type_ids are 0 there and 1 in what follows; without them, nothing looks ahead.

        Returns:
          f32: language model [B, T, V], classifier [B, C], token classifier [B, T, C], question
          answering [2, B, T] (start logits, end logits), bare model [B, T, D], pooled [B, E], match
          of images and texts [M, B].

        Raises:
          ValueError: unknown, missing, misshapen or out-of-range inputs.
        """
        ours = _inputs(self.model.config, inputs)
        if self.padding is not None and "positions" not in ours:
            real = ours["tokens"] != self.padding
            ours["positions"] = np.where(real, np.cumsum(real, axis=1) - 1, -1).astype(np.int32)
        logits = np.asarray(_forward(self.model, self.parameters, ours), np.float32)
        return np.moveaxis(logits, 1, 0) if self.model.config.head == "span" else logits


@functools.partial(jax.jit, static_argnums=0)
def _forward(model: Model, parameters: Parameters, inputs: dict[str, jax.Array]) -> jax.Array:
    # A span head is not told of the padding: the reference does not mask its logits.
    known = None if model.config.head == "span" else inputs
    return model.logits(parameters, model.hidden(parameters, inputs), known)


def _inputs(config: ModelConfig, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The reference's inputs under our names, as int32, checked: on a device indexing is silent."""
    names, vision = _names(config), None if config.head == "match" else config.vision
    limits = {"tokens": config.vocabulary, "source_tokens": config.vocabulary,
              "token_types": config.token_types, "segments": 2, "source_segments": 2, "prefix": 2,
              "positions": config.max_length + config.position_offset}
    ours: dict[str, np.ndarray] = {}
    images = None
    for name, array in given.items():
        if name not in names:
            raise ValueError(f"unknown input {name!r}; this model takes {', '.join(names)}")
        array = np.asarray(array)
        if names[name] == "images":
            images = pixels.checked(config, array)
            continue
        if array.ndim != 2 or array.dtype.kind not in "iub" or not array.size:
            raise ValueError(f"{name} is {array.dtype}{list(array.shape)}; expected integers of two "
                             "dimensions, examples and tokens")
        limit = limits[names[name]]
        # An image's token may lie past the vocabulary.
        known = array if vision is None or names[name] != "tokens" else array[array != vision.image_token]
        if known.size and (known.min() < 0 or known.max() >= limit):
            raise ValueError(f"{name} has values from {known.min()} to {known.max()}; expected 0 to "
                             f"{limit - 1}")
        ours[names[name]] = array.astype(np.int32)
    if "positions" in ours:  # theirs are rows of the table
        ours["positions"] = ours["positions"] - config.position_offset
    _check_shapes(config, names, ours)
    if "prefix" in ours:
        ours["prefix"] = ours["prefix"] == 0
    if images is not None:
        ours["images"] = images if vision is None else pixels.by_row(vision, ours["tokens"], images)
    elif "images" in names.values() and vision is None:
        raise ValueError("the input pixel_values is missing")
    return ours


def _names(config: ModelConfig) -> dict[str, str]:
    """The reference's names of the inputs that this model has a use for → ours."""
    if config.patches is not None:
        return PIXELS
    absent = {"token_types"} if not config.token_types else set()
    absent |= {"positions"} if config.positions == "relative" else set()
    names = {theirs: ours for theirs, ours in INPUTS[config.architecture].items() if ours not in absent}
    if config.vision is not None:
        names |= PIXELS | ({"token_type_ids": "prefix"} if config.vision.prefix else {})
    return names


def _check_shapes(config: ModelConfig, names: Mapping[str, str], ours: Mapping[str, np.ndarray]
                  ) -> None:
    theirs = {our: their for their, our in names.items()}
    for tokens in ("tokens", "source_tokens"):
        if tokens in theirs and tokens not in ours:
            raise ValueError(f"the input {theirs[tokens]} is missing")
    for name, array in ours.items():
        tokens = "source_tokens" if name.startswith("source_") else "tokens"
        if array.shape != ours[tokens].shape:
            raise ValueError(f"{theirs[name]} is {list(array.shape)}, but {theirs[tokens]} is "
                             f"{list(ours[tokens].shape)}; expected the same shape")
        if array.shape[1] > config.max_length and config.positions in ("learned", "sinusoidal"):
            raise ValueError(f"{theirs[name]} is {array.shape[1]} tokens long; the model has positions "
                             f"for {config.max_length}")
        if array.shape[0] != ours["tokens"].shape[0]:
            raise ValueError(f"{theirs[name]} has {array.shape[0]} examples, {theirs['tokens']} "
                             f"{ours['tokens'].shape[0]}")
