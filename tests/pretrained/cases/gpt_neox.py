# SPDX-License-Identifier: Apache-2.0
"""Nothing comes in; the cases of GPT-NeoX go out."""

import transformers
from case import VOCABULARY, Case

SIZES = dict(vocab_size=VOCABULARY, hidden_size=30, num_attention_heads=3, intermediate_size=41,
             num_hidden_layers=2, max_position_embeddings=32)


def rope(**settings):
    plain = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25}
    return {"rope_parameters": plain | settings}


CASES = {
    "gpt_neox_parallel": Case(transformers.GPTNeoXForCausalLM, transformers.GPTNeoXConfig(**SIZES)),
    "gpt_neox_sequential": Case(transformers.GPTNeoXForCausalLM, transformers.GPTNeoXConfig(
        **SIZES, **rope(partial_rotary_factor=0.8, rope_theta=50.0), use_parallel_residual=False,
        hidden_act="gelu_fast", tie_word_embeddings=True, layer_norm_eps=1e-2), half=True),
    "gpt_neox_bare": Case(transformers.GPTNeoXModel, transformers.GPTNeoXConfig(
        **SIZES, **rope(partial_rotary_factor=0.4, rope_type="linear", factor=3.0)), half=True),
}
