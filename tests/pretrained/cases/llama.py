# SPDX-License-Identifier: Apache-2.0
"""Nothing comes in; the cases of Llama go out."""

import transformers
from case import VOCABULARY, Case

SIZES = dict(vocab_size=VOCABULARY, hidden_size=24, num_attention_heads=6, num_key_value_heads=2,
             head_dim=10, intermediate_size=41, num_hidden_layers=2, max_position_embeddings=32)

CASES = {
    "llama_tied": Case(transformers.LlamaForCausalLM, transformers.LlamaConfig(
        **SIZES, tie_word_embeddings=True, rms_norm_eps=1e-5)),
    "llama_untied": Case(transformers.LlamaForCausalLM, transformers.LlamaConfig(
        **SIZES, rope_parameters={"rope_type": "default", "rope_theta": 500.0}), sharded=True),
    "llama_bare": Case(transformers.LlamaModel, transformers.LlamaConfig(**SIZES), half=True),
}
