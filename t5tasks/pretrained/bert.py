# SPDX-License-Identifier: Apache-2.0
"""BERT (arxiv.org/abs/1810.04805) folders: config.json in, `ModelConfig` values out; the table.

With the masked-language, classification, token-classification and question-answering heads; of
pretraining checkpoints the encoder and the masked-language head.
"""

from typing import Any

from t5tasks.models.config import ModelConfig
from t5tasks.pretrained import fields
from t5tasks.pretrained.fields import Foreign
from t5tasks.pretrained.table import Family, Row, Table, linear, norm


def config(foreign: Foreign, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """ModelConfig values of a BERT config.json, the head's left out; `names` tells nothing here.

    The classifier's own dropout rate, which changes training only, is not kept apart.

    Raises:
      ValueError: a field that changes the result and that we do not honour.
    """
    fields.only(foreign, "position_embedding_type", "absolute")
    fields.only(foreign, "is_decoder", False)
    fields.only(foreign, "add_cross_attention", False)
    fields.only(foreign, "pruned_heads", {}, [])
    width = fields.integer(foreign, "hidden_size", 768)
    heads = fields.integer(foreign, "num_attention_heads", 12)
    if width % heads:
        raise ValueError(f"config.json: hidden_size is {width}, not a multiple of "
                         f"num_attention_heads {heads}")
    return {
        "architecture": "encoder",
        "vocabulary": fields.integer(foreign, "vocab_size", 30522),
        "max_length": fields.integer(foreign, "max_position_embeddings", 512),
        "width": width,
        "heads": heads,
        "kv_heads": heads,
        "head_size": width // heads,
        "feed_forward": fields.integer(foreign, "intermediate_size", 3072),
        "encoder_layers": fields.integer(foreign, "num_hidden_layers", 12),
        "decoder_layers": 0,
        "norm": "layernorm",
        "norm_placement": "post",
        "norm_epsilon": fields.number(foreign, "layer_norm_eps", 1e-12),
        "embedding_norm": True,
        "final_norm": False,
        "biases": True,
        "positions": "learned",
        "token_types": fields.integer(foreign, "type_vocab_size", 2),
        "activation": fields.choice(foreign, "hidden_act", "gelu", fields.ACTIVATIONS),
        "gated": False,
        "tied_head": fields.flag(foreign, "tie_word_embeddings", True),
        "dropout": fields.number(foreign, "hidden_dropout_prob", 0.1),
        "attention_dropout": fields.number(foreign, "attention_probs_dropout_prob", 0.1),
        "initializer_range": fields.number(foreign, "initializer_range", 0.02),
    }


def written(config: ModelConfig) -> dict[str, Any]:
    """The fields of a config.json for a model that came from no folder."""
    return {
        "vocab_size": config.vocabulary, "max_position_embeddings": config.max_length, "hidden_size": config.width,
        "num_attention_heads": config.heads, "intermediate_size": config.feed_forward,
        "num_hidden_layers": config.encoder_layers, "layer_norm_eps": config.norm_epsilon,
        "type_vocab_size": config.token_types, "hidden_act": fields.activation(config.activation),
        "tie_word_embeddings": config.tied_head, "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
    }


# Folders converted from TensorFlow name a norm's parameters as that did.
OLDER = ((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias"))


def encoder(name: str) -> tuple[Row, ...]:
    """The rows of the embeddings and layers, whose names begin with `NAME.`; RoBERTa has the same."""
    theirs, ours = f"{name}.encoder.layer.{{layer}}", "encoder/layer_{layer}"
    return (
        Row(f"{name}.embeddings.word_embeddings.weight", "embedding"),
        Row(f"{name}.embeddings.position_embeddings.weight", "encoder/positions", "rows"),
        Row(f"{name}.embeddings.token_type_embeddings.weight", "encoder/token_types"),
        *norm(f"{name}.embeddings.LayerNorm", "encoder/embedding_norm"),
        *linear(f"{theirs}.attention.self.query", f"{ours}/attention/query"),
        *linear(f"{theirs}.attention.self.key", f"{ours}/attention/key"),
        *linear(f"{theirs}.attention.self.value", f"{ours}/attention/value"),
        *linear(f"{theirs}.attention.output.dense", f"{ours}/attention/out", inputs=2),
        *norm(f"{theirs}.attention.output.LayerNorm", f"{ours}/attention_norm"),
        *linear(f"{theirs}.intermediate.dense", f"{ours}/feed_forward/up"),
        *linear(f"{theirs}.output.dense", f"{ours}/feed_forward/down"),
        *norm(f"{theirs}.output.LayerNorm", f"{ours}/feed_forward_norm"),
    )


def masked_head(transform: str, normed: str, head: str) -> tuple[Row, ...]:
    """The rows of the masked-language head: its linear map, its norm, and what leads to the words."""
    return (
        *linear(transform, "head/transform"),
        *norm(normed, "head/transform_norm"),
        # The bias has two names, of which an untied head reads only the second.
        Row(f"{head}.bias", "head/bias", tied=True),
        Row(f"{head}.decoder.bias", "head/bias"),
        Row(f"{head}.decoder.weight", "embedding", tied=True),
        Row(f"{head}.decoder.weight", "head/words/kernel", "transpose"),
    )


FAMILY = Family(
    model_types=("bert",),
    heads={
        "BertModel": "none",
        "BertForMaskedLM": "lm",
        "BertForPreTraining": "lm",
        "BertForSequenceClassification": "cls",
        "BertForTokenClassification": "token",
        "BertForQuestionAnswering": "span",
    },
    supported={"none": {}, "lm": {"head_transform": True, "head_bias": True}, "cls": {"pooler": "tanh"},
               "token": {}, "span": {}},
    config=config,
    written=written,
    table=Table(
        prefix="bert.",
        renames=OLDER,
        ignored=(r"(bert\.)?embeddings\.position_ids", r"cls\.seq_relationship\..*"),
        rows=(
            *encoder("bert"),
            *linear("bert.pooler.dense", "head/pooler"),
            *linear("classifier", "head/classifier"),
            *linear("qa_outputs", "head/classifier", where=lambda config: config.head == "span"),
            *masked_head("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions"),
        ),
    ),
)
