# SPDX-License-Identifier: Apache-2.0
"""DistilBERT (arxiv.org/abs/1910.01108) folders: config.json in, `ModelConfig` values out; the table."""

from typing import Any

from t5tasks.pretrained import fields
from t5tasks.pretrained.fields import Foreign
from t5tasks.pretrained.table import Family, Row, Table, linear, norm

# Names of other families that this one also answers to.
ALIASES = {"hidden_size": "dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers"}


def config(foreign: Foreign, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """ModelConfig values of a DistilBERT config.json, the head's left out; `names` tells nothing here.

    `sinusoidal_pos_embds` says how the table of positions began, not what it holds now, which is read.

    Raises:
      ValueError: a field that changes the result and that we do not honour.
    """
    foreign = fields.unaliased(foreign, ALIASES)
    fields.only(foreign, "pruned_heads", {}, [])
    width = fields.integer(foreign, "dim", 768)
    heads = fields.integer(foreign, "n_heads", 12)
    if width % heads:
        raise ValueError(f"config.json: dim is {width}, not a multiple of n_heads {heads}")
    return {
        "architecture": "encoder",
        "vocabulary": fields.integer(foreign, "vocab_size", 30522),
        "max_length": fields.integer(foreign, "max_position_embeddings", 512),
        "width": width,
        "heads": heads,
        "kv_heads": heads,
        "head_size": width // heads,
        "feed_forward": fields.integer(foreign, "hidden_dim", 3072),
        "encoder_layers": fields.integer(foreign, "n_layers", 6),
        "decoder_layers": 0,
        "norm": "layernorm",
        "norm_placement": "post",
        "norm_epsilon": 1e-12,
        "embedding_norm": True,
        "final_norm": False,
        "biases": True,
        "positions": "learned",
        "activation": fields.choice(foreign, "activation", "gelu", fields.ACTIVATIONS),
        "gated": False,
        "tied_head": fields.flag(foreign, "tie_word_embeddings", True),
        "dropout": fields.number(foreign, "dropout", 0.1),
        "attention_dropout": fields.number(foreign, "attention_dropout", 0.1),
        "initializer_range": fields.number(foreign, "initializer_range", 0.02),
    }


_THEIRS, _OURS = "distilbert.transformer.layer.{layer}", "encoder/layer_{layer}"

FAMILY = Family(
    model_types=("distilbert",),
    heads={
        "DistilBertModel": "none",
        "DistilBertForMaskedLM": "lm",
        "DistilBertForSequenceClassification": "cls",
        "DistilBertForTokenClassification": "token",
        "DistilBertForQuestionAnswering": "span",
    },
    supported={"none": {}, "lm": {"head_transform": True, "head_bias": True}, "cls": {"pooler": "relu"},
               "token": {}, "span": {}},
    config=config,
    table=Table(
        prefix="distilbert.",
        ignored=(r"(distilbert\.)?embeddings\.position_ids",),
        rows=(
            Row("distilbert.embeddings.word_embeddings.weight", "embedding"),
            Row("distilbert.embeddings.position_embeddings.weight", "encoder/positions", "rows"),
            *norm("distilbert.embeddings.LayerNorm", "encoder/embedding_norm"),
            *linear(f"{_THEIRS}.attention.q_lin", f"{_OURS}/attention/query"),
            *linear(f"{_THEIRS}.attention.k_lin", f"{_OURS}/attention/key"),
            *linear(f"{_THEIRS}.attention.v_lin", f"{_OURS}/attention/value"),
            *linear(f"{_THEIRS}.attention.out_lin", f"{_OURS}/attention/out", inputs=2),
            *norm(f"{_THEIRS}.sa_layer_norm", f"{_OURS}/attention_norm"),
            *linear(f"{_THEIRS}.ffn.lin1", f"{_OURS}/feed_forward/up"),
            *linear(f"{_THEIRS}.ffn.lin2", f"{_OURS}/feed_forward/down"),
            *norm(f"{_THEIRS}.output_layer_norm", f"{_OURS}/feed_forward_norm"),
            *linear("pre_classifier", "head/pooler"),
            *linear("classifier", "head/classifier"),
            *linear("qa_outputs", "head/classifier", where=lambda config: config.head == "span"),
            *linear("vocab_transform", "head/transform"),
            *norm("vocab_layer_norm", "head/transform_norm"),
            Row("vocab_projector.bias", "head/bias"),
            Row("vocab_projector.weight", "embedding", tied=True),
            Row("vocab_projector.weight", "head/words/kernel", "transpose"),
        ),
    ),
)
