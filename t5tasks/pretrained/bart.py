# SPDX-License-Identifier: Apache-2.0
"""BART and mBART folders: config.json in, `ModelConfig` values out; the table.

BART (arxiv.org/abs/1910.13461) normalises after each residual sum, mBART (arxiv.org/abs/2001.08210)
before each sublayer and once more at the end of a stack. With the language-model and the
question-answering head; the classification head, which reads the last </s>, is not supported.
"""

from collections.abc import Iterator
from typing import Any

from t5tasks.pretrained import fields
from t5tasks.pretrained.fields import Foreign
from t5tasks.pretrained.table import Family, Row, Table, linear, norm

# The reference takes either name.
ALIASES = {"hidden_size": "d_model", "num_attention_heads": "encoder_attention_heads"}


def config(foreign: Foreign, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """ModelConfig values of a BART or mBART config.json, the head's left out; `names` tells nothing here.

    Old folders say in fields of their own what the two model types differ in; they must say the
    same. How a text begins and ends (forced_bos_token_id and the like) is left to decoding.

    Raises:
      ValueError: a field that changes the result and that we do not honour.
    """
    multilingual = foreign["model_type"] == "mbart"
    fields.only(foreign, "normalize_before", multilingual)
    fields.only(foreign, "add_final_layer_norm", multilingual)
    fields.only(foreign, "normalize_embedding", True)
    fields.only(foreign, "static_position_embeddings", False)
    fields.only(foreign, "extra_pos_embeddings", 2)
    return shared_values(foreign, 50265, -1 if multilingual else 2) | {
        "norm_placement": "pre" if multilingual else "post",
        "final_norm": multilingual,
        "embedding_norm": True,
        "positions": "learned",
        "position_offset": 2,
    }


def shared_values(foreign: Foreign, vocabulary: int, start: int = -1) -> dict[str, Any]:
    """The ModelConfig values that BART, mBART and Marian read alike.

    Args:
      vocabulary, start: the family's defaults of vocab_size and decoder_start_token_id.

    Raises:
      ValueError: a field that changes the result and that we do not honour, such as a decoder whose
        layers have another shape than the encoder's.
    """
    foreign = fields.unaliased(foreign, ALIASES)
    fields.only(foreign, "is_decoder", False)
    fields.only(foreign, "is_encoder_decoder", True)
    width = fields.integer(foreign, "d_model", 1024)
    heads = _of_both_stacks(foreign, "attention_heads", 16)
    if width % heads:
        raise ValueError(f"config.json: d_model is {width}, not a multiple of encoder_attention_heads {heads}")
    return {
        "architecture": "encoder_decoder",
        "vocabulary": fields.integer(foreign, "vocab_size", vocabulary),
        "start_token": fields.start_token(foreign, start),
        "max_length": fields.integer(foreign, "max_position_embeddings", 1024),
        "width": width,
        "heads": heads,
        "kv_heads": heads,
        "head_size": width // heads,
        "feed_forward": _of_both_stacks(foreign, "ffn_dim", 4096),
        "encoder_layers": fields.integer(foreign, "encoder_layers", 12),
        "decoder_layers": fields.integer(foreign, "decoder_layers", 12),
        "norm": "layernorm",
        "norm_epsilon": 1e-5,
        "biases": True,
        "scaled_embedding": fields.flag(foreign, "scale_embedding", False),
        "activation": fields.choice(foreign, "activation_function", "gelu", fields.ACTIVATIONS),
        "gated": False,
        "tied_head": fields.flag(foreign, "tie_word_embeddings", True),
        "dropout": fields.number(foreign, "dropout", 0.1),
        "attention_dropout": fields.number(foreign, "attention_dropout", 0.0),
        "initializer_range": fields.number(foreign, "init_std", 0.02),
    }


def _of_both_stacks(foreign: Foreign, name: str, default: int) -> int:
    """A number that our encoder and decoder share."""
    encoder, decoder = (fields.integer(foreign, f"{stack}_{name}", default) for stack in ("encoder", "decoder"))
    if encoder != decoder:
        raise ValueError(f"config.json: decoder_{name} is {decoder}, but encoder_{name} is {encoder}; "
                         "this family loads only where they are the same")
    return encoder


def shared_rows() -> Iterator[Row]:
    """The rows that BART, mBART and Marian have alike: embeddings, layers and head."""
    yield Row("model.shared.weight", "embedding")
    for stack in ("encoder", "decoder"):
        yield Row(f"model.{stack}.embed_tokens.weight", "embedding")
        yield from _layers(stack)
    yield Row("final_logits_bias", "head/bias", ones=1)
    yield Row("lm_head.weight", "head/words/kernel", "transpose")
    yield Row("lm_head.weight", "embedding", tied=True)


def _layers(stack: str) -> Iterator[Row]:
    theirs, ours = f"model.{stack}.layers.{{layer}}", f"{stack}/layer_{{layer}}"
    attentions = {"self_attn": "attention"} | ({"encoder_attn": "cross_attention"} if stack == "decoder" else {})
    for their, our in attentions.items():
        for letter, name in zip("qkv", ("query", "key", "value"), strict=True):
            yield from linear(f"{theirs}.{their}.{letter}_proj", f"{ours}/{our}/{name}")
        yield from linear(f"{theirs}.{their}.out_proj", f"{ours}/{our}/out", inputs=2)
        yield from norm(f"{theirs}.{their}_layer_norm", f"{ours}/{our}_norm")
    yield from linear(f"{theirs}.fc1", f"{ours}/feed_forward/up")
    yield from linear(f"{theirs}.fc2", f"{ours}/feed_forward/down")
    yield from norm(f"{theirs}.final_layer_norm", f"{ours}/feed_forward_norm")


def _around_layers(stack: str) -> Iterator[Row]:
    """What BART and mBART put before a stack's layers, and mBART after them."""
    yield Row(f"model.{stack}.embed_positions.weight", f"{stack}/positions", "rows")
    yield from norm(f"model.{stack}.layernorm_embedding", f"{stack}/embedding_norm")
    yield from norm(f"model.{stack}.layer_norm", f"{stack}/final_norm")


FAMILY = Family(
    model_types=("bart", "mbart"),
    heads={
        "BartModel": "none",
        "BartForConditionalGeneration": "lm",
        "BartForQuestionAnswering": "span",
        "MBartModel": "none",
        "MBartForConditionalGeneration": "lm",
        "MBartForQuestionAnswering": "span",
    },
    supported={"lm": {"head_bias": True}, "none": {}, "span": {}},
    config=config,
    table=Table(
        prefix="model.",
        # Format numbers of the first folders, and a head that is not ours.
        ignored=(r"(model\.)?(encoder|decoder)\.version", r"classification_head\..*"),
        rows=(
            *shared_rows(),
            *_around_layers("encoder"),
            *_around_layers("decoder"),
            *linear("qa_outputs", "head/classifier"),
        ),
    ),
)
