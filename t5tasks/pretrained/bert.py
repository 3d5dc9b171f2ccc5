# SPDX-License-Identifier: Apache-2.0
"""BERT (arxiv.org/abs/1810.04805) folders: config.json in, `ModelConfig` values out; the table.

With the masked-language, classification, token-classification and question-answering heads; of
pretraining checkpoints the encoder.
"""

from typing import Any

from t5tasks.pretrained import fields
from t5tasks.pretrained.fields import Foreign
from t5tasks.pretrained.table import Family, Row, Table, linear, norm


def config(foreign: Foreign, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """ModelConfig values of a BERT config.json, the head's left out; `names` tells nothing here.

    There is one dropout rate, `hidden_dropout_prob`; rates for attention weights and the
    classifier alone, which change training only, are not kept apart.

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
        "initializer_range": fields.number(foreign, "initializer_range", 0.02),
    }


_THEIRS, _OURS = "bert.encoder.layer.{layer}", "encoder/layer_{layer}"

FAMILY = Family(
    model_types=("bert",),
    heads={
        "BertModel": "none",
        "BertForMaskedLM": "lm",
        "BertForSequenceClassification": "cls",
        "BertForTokenClassification": "token",
        "BertForQuestionAnswering": "span",
    },
    supported={"none": {}, "lm": {"head_transform": True, "head_bias": True}, "cls": {"pooler": "tanh"},
               "token": {}, "span": {}},
    config=config,
    table=Table(
        prefix="bert.",
        # Folders converted from TensorFlow name a norm's parameters as that did.
        renames=((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias")),
        ignored=(r"(bert\.)?embeddings\.position_ids", r"cls\.seq_relationship\..*"),
        rows=(
            Row("bert.embeddings.word_embeddings.weight", "embedding"),
            Row("bert.embeddings.position_embeddings.weight", "encoder/positions", "rows"),
            Row("bert.embeddings.token_type_embeddings.weight", "encoder/token_types"),
            *norm("bert.embeddings.LayerNorm", "encoder/embedding_norm"),
            *linear(f"{_THEIRS}.attention.self.query", f"{_OURS}/attention/query"),
            *linear(f"{_THEIRS}.attention.self.key", f"{_OURS}/attention/key"),
            *linear(f"{_THEIRS}.attention.self.value", f"{_OURS}/attention/value"),
            *linear(f"{_THEIRS}.attention.output.dense", f"{_OURS}/attention/out", inputs=2),
            *norm(f"{_THEIRS}.attention.output.LayerNorm", f"{_OURS}/attention_norm"),
            *linear(f"{_THEIRS}.intermediate.dense", f"{_OURS}/feed_forward/up"),
            *linear(f"{_THEIRS}.output.dense", f"{_OURS}/feed_forward/down"),
            *norm(f"{_THEIRS}.output.LayerNorm", f"{_OURS}/feed_forward_norm"),
            *linear("bert.pooler.dense", "head/pooler"),
            *linear("classifier", "head/classifier"),
            *linear("qa_outputs", "head/classifier"),
            *linear("cls.predictions.transform.dense", "head/transform"),
            *norm("cls.predictions.transform.LayerNorm", "head/transform_norm"),
            Row("cls.predictions.bias", "head/bias"),
            Row("cls.predictions.decoder.bias", "head/bias"),
            Row("cls.predictions.decoder.weight", "embedding", tied=True),
            Row("cls.predictions.decoder.weight", "head/words/kernel", "transpose"),
        ),
    ),
)
