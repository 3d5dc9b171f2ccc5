# SPDX-License-Identifier: Apache-2.0
"""Nothing comes in; the cases of Qwen 2 and 3 go out."""

import transformers
from case import VOCABULARY, Case

SIZES = dict(vocab_size=VOCABULARY, hidden_size=24, num_attention_heads=6, num_key_value_heads=2,
             intermediate_size=41, max_position_embeddings=32)
YARN = {"rope_type": "yarn", "rope_theta": 30.0, "factor": 4.0, "original_max_position_embeddings": 8}

CASES = {
    "qwen2_tied": Case(transformers.Qwen2ForCausalLM, transformers.Qwen2Config(
        **SIZES, num_hidden_layers=2, tie_word_embeddings=True, rms_norm_eps=1e-2)),
    "qwen2_untied": Case(transformers.Qwen2ForCausalLM, transformers.Qwen2Config(
        **SIZES | {"num_key_value_heads": None}, num_hidden_layers=2, sliding_window=3, rope_parameters=YARN),
        half=True),
    "qwen2_window": Case(transformers.Qwen2Model, transformers.Qwen2Config(
        **SIZES, num_hidden_layers=4, use_sliding_window=True, sliding_window=4, max_window_layers=2), half=True),
    "qwen3_tied": Case(transformers.Qwen3ForCausalLM, transformers.Qwen3Config(
        **SIZES, head_dim=10, num_hidden_layers=2, tie_word_embeddings=True), half=True),
    "qwen3_untied": Case(transformers.Qwen3ForCausalLM, transformers.Qwen3Config(
        **SIZES, head_dim=10, num_hidden_layers=2, rms_norm_eps=1e-2, rope_parameters=YARN), half=True),
    "qwen3_types": Case(transformers.Qwen3Model, transformers.Qwen3Config(
        **SIZES, head_dim=6, num_hidden_layers=3, use_sliding_window=True, sliding_window=3,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"]), half=True),
}
