# SPDX-License-Identifier: Apache-2.0
"""LLaVA (arxiv.org/abs/2310.03744) folders: config.json in, `ModelConfig` values out; the table.

A CLIP or SigLIP image encoder, a projector, and a decoder of Llama's kin. The encoder is read below
its last layer: what lies above is not loaded.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from t5tasks.models.config import Vision, from_mapping
from t5tasks.pretrained import clip, fields, llama, mistral, qwen2, siglip, towers
from t5tasks.pretrained.fields import Foreign
from t5tasks.pretrained.table import Config, Family, Row, Table, linear

TEXTS = {"llama": llama.config, "mistral": mistral.config, "qwen2": qwen2.config}
TOWERS = {"clip_vision_model": clip.image_shape, "siglip_vision_model": siglip.image_shape}
# Of a file without a vision_config; one that has it leaves out CLIP's own defaults.
TOWER: Foreign = {"intermediate_size": 4096, "hidden_size": 1024, "patch_size": 14, "image_size": 336,
                  "num_hidden_layers": 24, "num_attention_heads": 16}
UPPER_LAYERS = r"vision_tower\.encoder\.layers\.\d+\..*"


def config(foreign: Foreign, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """ModelConfig values of a LLaVA config.json, the head's left out.

    Args:
      names: of the folder's tensors, None where they are not known.

    Raises:
      ValueError: a field that changes the result and that we do not honour.
    """
    foreign = fields.unaliased(foreign, {"image_token_id": "image_token_index"})
    values = text(foreign, "llama", TEXTS)
    values["tied_head"] = fields.flag(foreign, "tie_word_embeddings", False) or values["tied_head"]
    tower = towers.part(foreign, "vision_config") or dict(TOWER)
    tower = fields.choice(tower, "model_type", "clip_vision_model", TOWERS)(tower)
    depth = tower["encoder_layers"]
    check_depth(names, depth)
    tower |= {"head": "none", "final_norm": False, "encoder_layers": _layer(foreign, depth)}
    return values | {"vision": Vision(
        from_mapping(tower),
        projector="mlp",
        activation=fields.choice(foreign, "projector_hidden_act", "gelu", towers.ACTIVATIONS),
        biases=fields.flag(foreign, "multimodal_projector_bias", True),
        class_feature=fields.choice(foreign, "vision_feature_select_strategy", "default",
                                    {"default": False, "full": True}) and tower["patches"].class_token,
        image_token=fields.integer(foreign, "image_token_index", 32000, least=0))}


def text(foreign: Foreign, model_type: str, texts: Mapping[str, Config]) -> dict[str, Any]:
    """ModelConfig values of the decoder that a file's text_config describes.

    Args:
      model_type: of a text_config that says none; texts: the model_types that are supported.
    """
    own = towers.part(foreign, "text_config")
    values: dict[str, Any] = fields.choice(own, "model_type", model_type, texts)(own, None)
    return values


def check_depth(names: Iterable[str] | None, depth: int) -> None:
    """Raises ValueError where the image encoder's tensors are of another depth than its config.json says."""
    found = [re.search(r"vision_tower\..*encoder\.layers\.(\d+)\.", name) for name in names or ()]
    numbers = {int(layer[1]) for layer in found if layer}
    if numbers and max(numbers) + 1 != depth:
        raise ValueError(f"config.json: num_hidden_layers of vision_config is {depth}, but the weights have "
                         f"{max(numbers) + 1} layers; do they belong together?")


def _layer(foreign: Foreign, depth: int) -> int:
    """How many layers of the image encoder are read: vision_feature_layer counts the embeddings as 0."""
    layer = foreign.get("vision_feature_layer")
    layer = -2 if layer is None else layer
    if isinstance(layer, bool) or not isinstance(layer, int) or layer % (depth + 1) == 0 or abs(layer) > depth:
        raise ValueError(f"config.json: vision_feature_layer is {layer!r}, which is not supported; expected a layer "
                         f"from 1 to {depth}, or from -{depth} to -1")
    return layer % (depth + 1)


# Three layouts of names: of the hub, of transformers 4.52 and later, and of what 5 writes.
RENAMES = (
    (r"^model\.language_model\.", "language_model.model."),
    (r"^lm_head\.", "language_model.lm_head."),
    (r"^model\.(vision_tower|multi_modal_projector)\.", r"\1."),
    (r"^vision_tower\.vision_model\.", "vision_tower."),
)
IGNORED = (r"vision_tower\.embeddings\.position_ids", r"vision_tower\.head\..*",
           r"language_model\.model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")


def rows(decoder: Iterable[Row], projector: Iterable[Row]) -> tuple[Row, ...]:
    """The rows of an image encoder, a projector and a decoder, under the names of the hub."""
    tower = towers.moved(towers.VISION, lambda name: name.replace("vision_model.", "vision_tower."), "vision/")
    return (*tower, *projector, *towers.moved(decoder, lambda name: f"language_model.{name}", ""))


FAMILY = Family(
    model_types=("llava",),
    heads={"LlavaForConditionalGeneration": "lm"},
    supported={"lm": {}},
    config=config,
    table=Table(
        renames=RENAMES,
        ignored=(*IGNORED, UPPER_LAYERS, r"vision_tower\.post_layernorm\..*"),
        rows=rows(llama.FRAME + llama.NORMS + llama.ATTENTION + llama.FEED_FORWARD, (
            *linear("multi_modal_projector.linear_1", "projector/map_0"),
            *linear("multi_modal_projector.linear_2", "projector/map_1"),
        )),
    ),
)
