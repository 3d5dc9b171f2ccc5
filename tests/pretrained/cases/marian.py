# SPDX-License-Identifier: Apache-2.0
"""Nothing comes in; the cases of Marian go out."""

import torch
import transformers
from case import VOCABULARY, Case

# An odd width, of which the sines take one column more than the cosines; the last word is padding.
SIZES = dict(vocab_size=VOCABULARY, d_model=21, encoder_attention_heads=3, decoder_attention_heads=3,
             encoder_ffn_dim=29, decoder_ffn_dim=29, encoder_layers=2, decoder_layers=1,
             max_position_embeddings=17, pad_token_id=VOCABULARY - 1, decoder_start_token_id=VOCABULARY - 1)


def adjust(model):
    """Puts the sinusoids back, which are a parameter there, and draws the bias of the vocabulary."""
    with torch.no_grad():
        for stack in (model.get_encoder(), model.get_decoder()):
            stack.embed_positions.weight.copy_(stack.embed_positions.create_weight())
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.normal_(0, 0.4)


CASES = {
    "marian": Case(transformers.MarianMTModel, transformers.MarianConfig(
        **SIZES, scale_embedding=True, activation_function="swish"), adjust=adjust),
    "marian_even": Case(transformers.MarianMTModel, transformers.MarianConfig(
        **SIZES | {"d_model": 18, "encoder_layers": 1, "decoder_layers": 2}, activation_function="relu"),
        adjust=adjust),
    "marian_bare": Case(transformers.MarianModel, transformers.MarianConfig(
        **SIZES, scale_embedding=True), adjust=adjust),
}
