# SPDX-License-Identifier: Apache-2.0
"""T5 (arxiv.org/abs/1910.10683) and its relatives' folders: config.json in, `ModelConfig` values out; the table.

v1.0, v1.1, Flan-T5, mT5 (arxiv.org/abs/2010.11934) and UMT5 (arxiv.org/abs/2304.09151), and the
encoder of each alone. UMT5 has a table of relative positions in every layer, the others in the first.
"""

from collections.abc import Iterator
from typing import Any

from t5tasks.models.config import ModelConfig
from t5tasks.pretrained import fields
from t5tasks.pretrained.fields import Foreign
from t5tasks.pretrained.table import Family, Row, Table

# feed_forward_proj → gated, activation. Here "gated-gelu" alone means the tanh form.
FEED_FORWARDS = {kind: (False, ours) for kind, ours in fields.ACTIVATIONS.items()}
FEED_FORWARDS |= {f"gated-{kind}": (True, ours) for kind, ours in fields.ACTIVATIONS.items()}
FEED_FORWARDS["gated-gelu"] = (True, "gelu_tanh")


# What mT5 and UMT5 mean by a field that is absent.
LATER = {"vocab_size": 250112, "d_ff": 1024, "num_layers": 8, "num_heads": 6, "feed_forward_proj": "gated-gelu"}
# The reference takes either name.
ALIASES = {"hidden_size": "d_model", "num_attention_heads": "num_heads", "num_hidden_layers": "num_layers",
           "head_dim": "d_kv"}


def config(foreign: Foreign, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """ModelConfig values of a config.json of T5, mT5 or UMT5, the head's left out.

    Args:
      names: of the folder's tensors, None where they are not known.

    Raises:
      ValueError: a field that changes the result and that we do not honour.
    """
    foreign = fields.filled(fields.unaliased(foreign, ALIASES), LATER if foreign["model_type"] != "t5" else {})
    fields.only(foreign, "is_decoder", False)
    only_encoder = foreign.get("architectures") in (["T5EncoderModel"], ["MT5EncoderModel"], ["UMT5EncoderModel"])
    layers = fields.integer(foreign, "num_layers", 6)
    buckets = fields.integer(foreign, "relative_attention_num_buckets", 32)
    if buckets < 4:
        raise ValueError(f"config.json: relative_attention_num_buckets is {buckets}; expected 4 or more")
    heads = fields.integer(foreign, "num_heads", 8)
    return {
        "architecture": "encoder" if only_encoder else "encoder_decoder",
        "vocabulary": fields.integer(foreign, "vocab_size", 32128),
        "start_token": -1 if only_encoder else fields.start_token(foreign),
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
        "relative_per_layer": foreign["model_type"] == "umt5",
        "scaled_attention": False,
        "dropout": fields.number(foreign, "dropout_rate", 0.1),
        "attention_dropout": fields.number(foreign, "dropout_rate", 0.1),
        "initializer_range": 0.0,  # T5 begins from 1 / sqrt(fan in)
        **_feed_forward(foreign),
        **_head(foreign, names),
    }


def _feed_forward(foreign: Foreign) -> dict[str, Any]:
    gated, activation = fields.choice(foreign, "feed_forward_proj", "relu", FEED_FORWARDS)
    fields.only(foreign, "is_gated_act", gated)
    if fields.choice(foreign, "dense_act_fn", activation, _known_activations()) != activation:
        raise ValueError(f"config.json: dense_act_fn is {foreign['dense_act_fn']!r}, but "
                         f"feed_forward_proj asks for {activation}; correct one of them")
    return {"gated": gated, "activation": activation}


def _head(foreign: Foreign, names: tuple[str, ...] | None) -> dict[str, Any]:
    """Whether the head is the embedding table, and whether it is scaled.

    T5 v1.0 does both, every later one neither. Folders of the hub say so by `tie_word_embeddings`.
    Those that transformers 5 wrote say true there whatever they hold: whether there is an
    `lm_head.weight` tells if the head is tied, and of T5 `scale_decoder_outputs` if it is scaled. It
    scales no head of mT5 and every one of UMT5, though Google's UMT5 was trained without: a folder
    that says false is read as it was trained, and as transformers 4 reads it.
    """
    tied = fields.flag(foreign, "tie_word_embeddings", True)
    own = not tied if names is None else "lm_head.weight" in names
    if foreign["model_type"] == "t5":
        scaled = fields.flag(foreign, "scale_decoder_outputs", tied)
        own = not scaled and (own or names is None)
    else:
        scaled = tied and foreign["model_type"] == "umt5"
    return {"tied_head": not own, "scaled_head": scaled}


def written(config: ModelConfig) -> dict[str, Any]:
    """The fields of a config.json for a model that came from no folder."""
    name = fields.activation(config.activation)
    kind = {"gelu_tanh": "gated-gelu"}.get(config.activation, f"gated-{name}") if config.gated else name
    return {
        "vocab_size": config.vocabulary, "n_positions": config.max_length, "d_model": config.width,
        "num_heads": config.heads, "d_kv": config.head_size, "d_ff": config.feed_forward,
        "num_layers": config.encoder_layers, "num_decoder_layers": config.decoder_layers or config.encoder_layers,
        "layer_norm_epsilon": config.norm_epsilon, "feed_forward_proj": kind,
        "relative_attention_num_buckets": config.relative_buckets,
        "relative_attention_max_distance": config.relative_distance, "dropout_rate": config.dropout,
        "tie_word_embeddings": config.tied_head, "scale_decoder_outputs": config.scaled_head,
        "is_encoder_decoder": config.architecture == "encoder_decoder",
        **({"decoder_start_token_id": config.start_token} if config.start_token >= 0 else {}),
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
    # Of these two a model has one: its only table, or one of each layer.
    yield Row(f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
              f"{stack}/relative_bias/embedding")
    yield Row(f"{theirs}.0.SelfAttention.relative_attention_bias.weight", f"{ours}/relative_bias/embedding")
    yield Row(f"{theirs}.0.layer_norm.weight", f"{ours}/attention_norm/scale")
    yield from _attention(f"{theirs}.0.SelfAttention", f"{ours}/attention")
    if stack == "decoder":
        yield Row(f"{theirs}.1.layer_norm.weight", f"{ours}/cross_attention_norm/scale")
        yield from _attention(f"{theirs}.1.EncDecAttention", f"{ours}/cross_attention")
    yield Row(f"{theirs}.{last}.layer_norm.weight", f"{ours}/feed_forward_norm/scale")
    for name, map_name, where in (("wi", "up", lambda config: not config.gated), ("wi_0", "gate", None),
                                  ("wi_1", "up", None), ("wo", "down", None)):
        yield Row(f"{theirs}.{last}.DenseReluDense.{name}.weight",
                  f"{ours}/feed_forward/{map_name}/kernel", "transpose", where=where)
    yield Row(f"{stack}.final_layer_norm.weight", f"{stack}/final_norm/scale")


FAMILY = Family(
    model_types=("t5", "mt5", "umt5"),
    heads={"T5ForConditionalGeneration": "lm", "T5WithLMHeadModel": "lm", "T5Model": "none",
           "T5EncoderModel": "none",
           "MT5ForConditionalGeneration": "lm", "MT5Model": "none", "MT5EncoderModel": "none",
           "UMT5ForConditionalGeneration": "lm", "UMT5Model": "none", "UMT5EncoderModel": "none"},
    supported={"lm": {}, "none": {}},
    config=config,
    written=written,
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
