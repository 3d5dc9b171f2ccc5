# SPDX-License-Identifier: Apache-2.0
"""Nothing comes in; the cases of GPT-2 go out."""

import torch
import transformers
from case import VOCABULARY, Case

SIZES = dict(vocab_size=VOCABULARY, n_positions=19, n_embd=24, n_head=3, n_layer=2, bos_token_id=1, eos_token_id=2)


def scales(model):
    """Norms are named ln_1, ln_2 and ln_f here."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".ln_" in f".{name}" and name.endswith("weight"):
                parameter.uniform_(0.4, 1.6)


CASES = {
    "gpt2_tied": Case(transformers.GPT2LMHeadModel, transformers.GPT2Config(**SIZES), adjust=scales),
    "gpt2_untied": Case(transformers.GPT2LMHeadModel, transformers.GPT2Config(
        **SIZES, n_inner=41, activation_function="relu", scale_attn_weights=False, layer_norm_epsilon=1e-2,
        tie_word_embeddings=False), adjust=scales, half=True),
    "gpt2_bare": Case(transformers.GPT2Model, transformers.GPT2Config(
        **SIZES, activation_function="gelu", reorder_and_upcast_attn=True), adjust=scales, half=True),
}
