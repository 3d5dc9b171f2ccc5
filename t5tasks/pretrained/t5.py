# SPDX-License-Identifier: Apache-2.0
"""T5 (arxiv.org/abs/1910.10683) folders: config.json in, `ModelConfig` values out; the table.

v1.0, v1.1 and Flan-T5, and the encoder alone.
"""

from collections.abc import Iterator
from typing import Any

from t5tasks.pretrained import fields
from t5tasks.pretrained.fields import Foreign
from t5tasks.pretrained.table import Family, Row, Table

# feed_forward_proj → gated, activation. Here "gated-gelu" alone means the tanh form.
FEED_FORWARDS = {kind: (False, ours) for kind, ours in fields.ACTIVATIONS.items()}
FEED_FORWARDS |= {f"gated-{kind}": (True, ours) for kind, ours in fields.ACTIVATIONS.items()}
FEED_FORWARDS["gated-gelu"] = (True, "gelu_tanh")


def config(foreign: Foreign, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """ModelConfig values of a T5 config.json, the head's left out.

    v1.0 ties its head to the embeddings and scales before it; v1.1 does neither. Folders of the
    hub say so by `tie_word_embeddings`, those that transformers 5 wrote by
    `scale_decoder_outputs` and by whether there is an `lm_head.weight`.

    Args:
      names: of the folder's tensors, None where they are not known.

    Raises:
      ValueError: a field that changes the result and that we do not honour.
    """
    fields.only(foreign, "is_decoder", False)
    gated, activation = fields.choice(foreign, "feed_forward_proj", "relu", FEED_FORWARDS)
    fields.only(foreign, "is_gated_act", gated)
    if fields.choice(foreign, "dense_act_fn", activation, _known_activations()) != activation:
        raise ValueError(f"config.json: dense_act_fn is {foreign['dense_act_fn']!r}, but "
                         f"feed_forward_proj asks for {activation}; correct one of them")
    scaled = fields.flag(foreign, "scale_decoder_outputs",
                         fields.flag(foreign, "tie_word_embeddings", True))
    only_encoder = foreign.get("architectures") == ["T5EncoderModel"]
    layers = fields.integer(foreign, "num_layers", 6)
    buckets = fields.integer(foreign, "relative_attention_num_buckets", 32)
    if buckets < 4:
        raise ValueError(f"config.json: relative_attention_num_buckets is {buckets}; expected 4 or more")
    heads = fields.integer(foreign, "num_heads", 8)
    return {
        "architecture": "encoder" if only_encoder else "encoder_decoder",
        "vocabulary": fields.integer(foreign, "vocab_size", 32128),
        "max_length": fields.integer(foreign, "n_positions", 512),  # no limit of the arithmetic
        "width": fields.integer(foreign, "d_model", 512),
        "heads": heads,
        "kv_heads": heads,
        "head_size": fields.integer(foreign, "d_kv", 64),
        "feed_forward": fields.integer(foreign, "d_ff", 2048),
        "encoder_layers": layers,
        "decoder_layers": 0 if only_encoder else fields.integer(foreign, "num_decoder_layers", layers),
        "norm": "rmsnorm",
        "norm_placement": "pre",
        "norm_epsilon": fields.number(foreign, "layer_norm_epsilon", 1e-6),
        "positions": "relative",
        "relative_buckets": buckets,
        "relative_distance": fields.integer(foreign, "relative_attention_max_distance", 128),
        "scaled_attention": False,
        "activation": activation,
        "gated": gated,
        "tied_head": scaled if names is None else scaled or "lm_head.weight" not in names,
        "scaled_head": scaled,
        "dropout": fields.number(foreign, "dropout_rate", 0.1),
        "initializer_range": 0.0,  # T5 begins from 1 / sqrt(fan in)
    }


def _known_activations() -> dict[str, str]:
    return fields.ACTIVATIONS | {name: name for name in fields.ACTIVATIONS.values()}


def _attention(foreign: str, ours: str) -> Iterator[Row]:
    for letter, name in zip("qkv", ("query", "key", "value"), strict=True):
        yield Row(f"{foreign}.{letter}.weight", f"{ours}/{name}/kernel", "transpose")
    yield Row(f"{foreign}.o.weight", f"{ours}/out/kernel", "transpose", inputs=2)


def _stack(stack: str) -> Iterator[Row]:
    """An encoder's or a decoder's tensors; a decoder's feed-forward comes after cross-attention."""
    theirs, ours = f"{stack}.block.{{layer}}.layer", f"{stack}/layer_{{layer}}"
    last = 1 if stack == "encoder" else 2
    yield Row(f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
              f"{stack}/relative_bias/embedding")
    yield Row(f"{theirs}.0.layer_norm.weight", f"{ours}/attention_norm/scale")
    yield from _attention(f"{theirs}.0.SelfAttention", f"{ours}/attention")
    if stack == "decoder":
        yield Row(f"{theirs}.1.layer_norm.weight", f"{ours}/cross_attention_norm/scale")
        yield from _attention(f"{theirs}.1.EncDecAttention", f"{ours}/cross_attention")
    yield Row(f"{theirs}.{last}.layer_norm.weight", f"{ours}/feed_forward_norm/scale")
    for name, map_name in (("wi", "up"), ("wi_0", "gate"), ("wi_1", "up"), ("wo", "down")):
        yield Row(f"{theirs}.{last}.DenseReluDense.{name}.weight",
                  f"{ours}/feed_forward/{map_name}/kernel", "transpose")
    yield Row(f"{stack}.final_layer_norm.weight", f"{stack}/final_norm/scale")


FAMILY = Family(
    model_types=("t5",),
    heads={"T5ForConditionalGeneration": "lm", "T5WithLMHeadModel": "lm", "T5Model": "none",
           "T5EncoderModel": "none"},
    supported={"lm": {}, "none": {}},
    config=config,
    table=Table(
        # A bias that the first converter wrote and no implementation reads.
        ignored=(r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",),
        rows=(
            Row("shared.weight", "embedding"),
            Row("encoder.embed_tokens.weight", "embedding"),
            Row("decoder.embed_tokens.weight", "embedding"),
            *_stack("encoder"),
            *_stack("decoder"),
            Row("lm_head.weight", "head/words/kernel", "transpose"),
            Row("lm_head.weight", "embedding", tied=True),
        ),
    ),
)
