# SPDX-License-Identifier: Apache-2.0
"""Nothing comes in; the cases of OLMo 2 go out."""

import transformers
from case import VOCABULARY, Case

SIZES = dict(vocab_size=VOCABULARY, hidden_size=24, num_attention_heads=6, num_key_value_heads=2, head_dim=10,
             intermediate_size=41, num_hidden_layers=2, max_position_embeddings=32, bos_token_id=1, eos_token_id=2)

CASES = {
    "olmo2_untied": Case(transformers.Olmo2ForCausalLM, transformers.Olmo2Config(
        **SIZES, rope_parameters={"rope_type": "default", "rope_theta": 500.0})),
    "olmo2_tied": Case(transformers.Olmo2ForCausalLM, transformers.Olmo2Config(
        **SIZES, tie_word_embeddings=True, rms_norm_eps=1e-2, hidden_act="gelu",
        rope_parameters={"rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0,
                         "original_max_position_embeddings": 8}), half=True),
    "olmo2_bare": Case(transformers.Olmo2Model, transformers.Olmo2Config(
        **SIZES | {"num_key_value_heads": None}), half=True),
}
