# SPDX-License-Identifier: Apache-2.0
"""Nothing comes in; the cases of T5, mT5 and UMT5 go out."""

import torch
import transformers
from case import VOCABULARY, Case

SIZES = dict(vocab_size=VOCABULARY, d_model=20, d_kv=6, num_heads=3, d_ff=33, num_layers=2,
             num_decoder_layers=3, relative_attention_num_buckets=7, relative_attention_max_distance=9,
             decoder_start_token_id=0)


def untie(model):
    """Gives the head numbers of its own, which transformers 5 would otherwise tie."""
    model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight).normal_(0, 0.25))


def encoder_batch(model, generator, left):
    """The usual batch without the decoder's tokens, which UMT5's encoder alone takes and leaves unread."""
    from make_fixtures import text_batch

    batch = text_batch(model, generator, left)
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


CASES = {
    "t5_v1_0": Case(transformers.T5ForConditionalGeneration, transformers.T5Config(
        **SIZES, feed_forward_proj="relu")),
    "t5_v1_1": Case(transformers.T5ForConditionalGeneration, transformers.T5Config(
        **SIZES, feed_forward_proj="gated-gelu", tie_word_embeddings=False), adjust=untie),
    "t5_encoder": Case(transformers.T5EncoderModel, transformers.T5Config(
        **SIZES | {"num_layers": 3}, feed_forward_proj="gated-silu")),
    "mt5": Case(transformers.MT5ForConditionalGeneration, transformers.MT5Config(**SIZES), adjust=untie, half=True),
    "mt5_tied": Case(transformers.MT5ForConditionalGeneration, transformers.MT5Config(
        **SIZES | {"d_kv": 8}, feed_forward_proj="relu"), half=True),
    "mt5_encoder": Case(transformers.MT5EncoderModel, transformers.MT5Config(**SIZES)),
    "umt5": Case(transformers.UMT5ForConditionalGeneration, transformers.UMT5Config(**SIZES), half=True),
    "umt5_untied": Case(transformers.UMT5ForConditionalGeneration, transformers.UMT5Config(
        **SIZES | {"num_layers": 3, "num_decoder_layers": 2}), adjust=untie, half=True),
    "umt5_bare": Case(transformers.UMT5Model, transformers.UMT5Config(**SIZES), half=True),
    "umt5_encoder": Case(transformers.UMT5EncoderModel, transformers.UMT5Config(**SIZES | {"d_kv": 9}),
                         batch=encoder_batch),
}
