# SPDX-License-Identifier: Apache-2.0
"""Nothing comes in; the cases of BART and mBART go out."""

import torch
import transformers
from case import VOCABULARY, Case

SIZES = dict(vocab_size=VOCABULARY, d_model=24, encoder_attention_heads=3, decoder_attention_heads=3,
             encoder_ffn_dim=29, decoder_ffn_dim=29, encoder_layers=2, decoder_layers=2,
             max_position_embeddings=17)


def bias(model):
    """Draws the bias of the vocabulary, which is a buffer and begins at zero."""
    with torch.no_grad():
        model.final_logits_bias.normal_(0, 0.4)


def untie(model):
    """Draws that bias and makes the stacks' tables equal, where the configuration ties nothing."""
    bias(model)
    with torch.no_grad():
        for stack in (model.model.encoder, model.model.decoder):
            stack.embed_tokens.weight.copy_(model.model.shared.weight)


def left_padded(model, generator, left):
    """The usual batch; on the left, the decoder's tokens are padded there too."""
    from make_fixtures import text_batch

    batch = text_batch(model, generator, left)
    if left:
        batch |= {name: batch[name][:, ::-1].copy() for name in ("decoder_input_ids", "decoder_attention_mask")}
    return batch


CASES = {
    "bart": Case(transformers.BartForConditionalGeneration, transformers.BartConfig(**SIZES),
                 adjust=bias, batch=left_padded, half=True),
    "bart_scaled": Case(transformers.BartForConditionalGeneration, transformers.BartConfig(
        **SIZES | {"encoder_layers": 3, "decoder_layers": 1}, scale_embedding=True, activation_function="relu"),
        adjust=bias, half=True),
    "bart_untied": Case(transformers.BartForConditionalGeneration, transformers.BartConfig(
        **SIZES | {"encoder_layers": 1}, tie_word_embeddings=False, activation_function="gelu_new"),
        adjust=untie, half=True),
    "bart_bare": Case(transformers.BartModel, transformers.BartConfig(**SIZES | {"decoder_layers": 1})),
    "bart_span": Case(transformers.BartForQuestionAnswering, transformers.BartConfig(**SIZES), half=True),
    "mbart": Case(transformers.MBartForConditionalGeneration, transformers.MBartConfig(
        **SIZES, scale_embedding=True), adjust=bias, half=True),
    "mbart_bare": Case(transformers.MBartModel, transformers.MBartConfig(**SIZES | {"encoder_layers": 1})),
}
