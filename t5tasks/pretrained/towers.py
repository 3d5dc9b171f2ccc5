# SPDX-License-Identifier: Apache-2.0
"""What vision families share: fields of images and of sub-configurations, and rows of CLIP's names."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from t5tasks.models.config import Patches
from t5tasks.pretrained import fields
from t5tasks.pretrained.fields import Foreign
from t5tasks.pretrained.table import Row, linear, norm

ACTIVATIONS = fields.ACTIVATIONS | {"quick_gelu": "quick_gelu"}


def images(foreign: Foreign, image_size: int, patch_size: int, class_token: bool, biases: bool = True
           ) -> dict[str, Any]:
    """What an encoder of images reads: its patches and their positions.

    Args:
      image_size, patch_size: the family's defaults.

    Raises:
      ValueError: images or patches that are not square.
    """
    patches = Patches(side(foreign, "image_size", image_size), side(foreign, "patch_size", patch_size),
                      fields.integer(foreign, "num_channels", 3), class_token, biases)
    return {"patches": patches, "positions": "grid", "max_length": patches.side**2 + class_token,
            "vocabulary": 1}  # no tokens


def side(foreign: Foreign, name: str, default: int) -> int:
    """A square's side, also where the file gives height and width."""
    value = foreign.get(name)
    if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
        return fields.integer({name: value[0]}, name, default)
    if isinstance(value, list):
        raise ValueError(f"config.json: {name} is {value}; only squares are supported")
    return fields.integer(foreign, name, default)


def shape(foreign: Foreign, defaults: Mapping[str, Any], causal: bool = False) -> dict[str, Any]:
    """ModelConfig values of a pre-norm encoder with biases, as all of these families are.

    Args:
      defaults: the family's values of the fields that the file leaves out.
      causal: a text encoder whose tokens look back only (CLIP).

    Raises:
      ValueError: a field that changes the result and that we do not honour.
    """
    foreign = fields.filled(foreign, defaults)
    width = fields.integer(foreign, "hidden_size", 768)
    heads = fields.integer(foreign, "num_attention_heads", 12)
    if "head_dim" not in foreign and width % heads:
        raise ValueError(f"config.json: hidden_size is {width}, not a multiple of num_attention_heads {heads}")
    layers = fields.integer(foreign, "num_hidden_layers", 12)
    return {
        "architecture": "decoder" if causal else "encoder",
        "width": width,
        "heads": heads,
        "kv_heads": heads,
        "head_size": fields.integer(foreign, "head_dim", width // heads),
        "feed_forward": fields.integer(foreign, "intermediate_size", 4 * width),
        "encoder_layers": 0 if causal else layers,
        "decoder_layers": layers if causal else 0,
        "norm": "layernorm",
        "norm_placement": "pre",
        "norm_epsilon": fields.number(foreign, "layer_norm_eps", 1e-5),
        "final_norm": True,
        "biases": True,
        "activation": fields.choice(foreign, "hidden_act", "gelu", ACTIVATIONS),
        "gated": False,
        "tied_head": False,
        "dropout": fields.number(foreign, "hidden_dropout_prob", 0.0),
        "attention_dropout": fields.number(
            foreign, "attention_dropout" if "attention_dropout" in foreign else "attention_probs_dropout_prob", 0.0),
        "initializer_range": fields.number(foreign, "initializer_range", 0.02),
    }


def part(foreign: Foreign, name: str) -> dict[str, Any]:
    """A configuration inside another; as old CLIP files have it, NAME_dict counts before NAME.

    Raises:
      ValueError: it is no object.
    """
    found = foreign.get(f"{name}_dict")
    found = foreign.get(name) if found is None else found
    found = {} if found is None else found
    if not isinstance(found, Mapping):
        raise ValueError(f"config.json: {name} is {found!r}; expected an object")
    return dict(found)


def text_shape(foreign: Foreign, defaults: Mapping[str, Any], causal: bool) -> dict[str, Any]:
    """ModelConfig values of a text encoder."""
    foreign = fields.filled(foreign, defaults)
    return shape(foreign, defaults, causal) | {
        "vocabulary": fields.integer(foreign, "vocab_size", 32000),
        "max_length": fields.integer(foreign, "max_position_embeddings", 64),
        "positions": "learned",
    }


def layers(theirs: str, ours: str) -> tuple[Row, ...]:
    """The rows of an encoder with CLIP's names, its last norm left out."""
    theirs, ours = f"{theirs}.encoder.layers.{{layer}}", f"{ours}/layer_{{layer}}"
    return (
        *linear(f"{theirs}.self_attn.q_proj", f"{ours}/attention/query"),
        *linear(f"{theirs}.self_attn.k_proj", f"{ours}/attention/key"),
        *linear(f"{theirs}.self_attn.v_proj", f"{ours}/attention/value"),
        *linear(f"{theirs}.self_attn.out_proj", f"{ours}/attention/out", inputs=2),
        *norm(f"{theirs}.layer_norm1", f"{ours}/attention_norm"),
        *linear(f"{theirs}.mlp.fc1", f"{ours}/feed_forward/up"),
        *linear(f"{theirs}.mlp.fc2", f"{ours}/feed_forward/down"),
        *norm(f"{theirs}.layer_norm2", f"{ours}/feed_forward_norm"),
    )


def text(stack: str) -> tuple[Row, ...]:
    """The rows of a text encoder; `stack` is encoder, or decoder where its tokens look back only."""
    return (
        Row("text_model.embeddings.token_embedding.weight", "embedding"),
        Row("text_model.embeddings.position_embedding.weight", f"{stack}/positions", "rows"),
        *layers("text_model", stack),
        *norm("text_model.final_layer_norm", f"{stack}/final_norm"),
    )


# Of an image encoder. Parameters that a family lacks are not asked for.
VISION = (
    Row("vision_model.embeddings.class_embedding", "patches/class_token"),
    Row("vision_model.embeddings.patch_embedding.weight", "patches/kernel", "convolution"),
    Row("vision_model.embeddings.patch_embedding.bias", "patches/bias"),
    Row("vision_model.embeddings.position_embedding.weight", "patches/positions"),
    *norm("vision_model.pre_layrnorm", "encoder/embedding_norm"),  # spelt so there
    *layers("vision_model", "encoder"),
    *norm("vision_model.post_layernorm", "encoder/final_norm"),
)

# Buffers that older folders keep, and what stands before an image encoder's own names in some only.
BUFFERS = (r"((text|vision)_model\.)?embeddings\.position_ids",)


def moved(rows: Iterable[Row], theirs: Callable[[str], str], ours: str) -> tuple[Row, ...]:
    """The rows under other names: `theirs` renames a foreign one, `ours` stands before each path."""
    return tuple(dataclasses.replace(row, foreign=theirs(row.foreign), ours=tuple(ours + path for path in row.parts))
                 for row in rows)


def beside_text(rows: Iterable[Row]) -> tuple[Row, ...]:
    """The rows of an image encoder that a text model holds."""
    return moved(rows, lambda name: name, "vision/")
