# SPDX-License-Identifier: Apache-2.0
"""Nothing comes in; the cases of Phi-3 go out."""

import transformers
from case import VOCABULARY, Case

SIZES = dict(vocab_size=VOCABULARY, hidden_size=24, num_attention_heads=6, num_key_value_heads=2, head_dim=10,
             intermediate_size=41, max_position_embeddings=32, pad_token_id=3, bos_token_id=1, eos_token_id=2)

CASES = {
    "phi3_plain": Case(transformers.Phi3ForCausalLM, transformers.Phi3Config(**SIZES, num_hidden_layers=2)),
    "phi3_window": Case(transformers.Phi3ForCausalLM, transformers.Phi3Config(
        **SIZES, num_hidden_layers=3, sliding_window=3, tie_word_embeddings=True, hidden_act="gelu", rms_norm_eps=1e-2,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.6}), half=True),
    "phi3_bare": Case(transformers.Phi3Model, transformers.Phi3Config(
        **SIZES | {"num_key_value_heads": None}, num_hidden_layers=2), half=True),
}
