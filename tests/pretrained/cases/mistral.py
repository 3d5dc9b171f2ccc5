# SPDX-License-Identifier: Apache-2.0
"""Nothing comes in; the cases of Mistral go out."""

import transformers
from case import VOCABULARY, Case

SIZES = dict(vocab_size=VOCABULARY, hidden_size=24, intermediate_size=41, max_position_embeddings=32)

CASES = {
    "mistral_window": Case(transformers.MistralForCausalLM, transformers.MistralConfig(
        **SIZES, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2, head_dim=10, sliding_window=3,
        rope_parameters={"rope_type": "default", "rope_theta": 300.0}), half=True),
    "mistral_whole": Case(transformers.MistralModel, transformers.MistralConfig(
        **SIZES, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=3, sliding_window=None)),
}
