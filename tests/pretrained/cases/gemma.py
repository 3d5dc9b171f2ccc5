# SPDX-License-Identifier: Apache-2.0
"""Nothing comes in; the cases of Gemma 1, 2 and 3 go out."""

import transformers
from case import VOCABULARY, Case

SIZES = dict(vocab_size=VOCABULARY, hidden_size=24, intermediate_size=41, max_position_embeddings=32)
HEADS = dict(num_attention_heads=6, num_key_value_heads=2, head_dim=10)
FULL, SLIDING = "full_attention", "sliding_attention"
ROTARY = {FULL: {"rope_type": "linear", "rope_theta": 200.0, "factor": 4.0},
          SLIDING: {"rope_type": "default", "rope_theta": 20.0}}


def spread(model):
    """Norms multiply by 1 + weight there: weights around 0, as they begin."""
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.uniform_(-0.6, 0.6)


def case(kind, config, half=False):
    return Case(kind, config, half=half, adjust=spread)


CASES = {
    "gemma_tied": case(transformers.GemmaForCausalLM, transformers.GemmaConfig(
        **SIZES, **HEADS, num_hidden_layers=2), half=True),
    "gemma_bare": case(transformers.GemmaModel, transformers.GemmaConfig(
        **SIZES, num_attention_heads=3, num_key_value_heads=1, head_dim=6, num_hidden_layers=3, hidden_act="gelu",
        rms_norm_eps=1e-2), half=True),
    "gemma2_capped": case(transformers.Gemma2ForCausalLM, transformers.Gemma2Config(
        **SIZES, **HEADS, num_hidden_layers=3, sliding_window=3, query_pre_attn_scalar=3, attn_logit_softcapping=2.5,
        final_logit_softcapping=9.0), half=True),
    "gemma2_types": case(transformers.Gemma2Model, transformers.Gemma2Config(
        **SIZES, **HEADS, num_hidden_layers=3, sliding_window=4, layer_types=[FULL, SLIDING, SLIDING],
        attn_logit_softcapping=None, final_logit_softcapping=None, hidden_activation="gelu"), half=True),
    "gemma2_untied": case(transformers.Gemma2ForCausalLM, transformers.Gemma2Config(
        **SIZES, **HEADS, num_hidden_layers=2, sliding_window=4, attn_logit_softcapping=None,
        final_logit_softcapping=None, tie_word_embeddings=False), half=True),
    "gemma3_tied": case(transformers.Gemma3ForCausalLM, transformers.Gemma3TextConfig(
        **SIZES, **HEADS, num_hidden_layers=3, sliding_window=3, query_pre_attn_scalar=3,
        layer_types=[SLIDING, FULL, SLIDING], rope_parameters=ROTARY), half=True),
    "gemma3_capped": case(transformers.Gemma3ForCausalLM, transformers.Gemma3TextConfig(
        **SIZES, num_attention_heads=3, num_key_value_heads=3, head_dim=6, num_hidden_layers=2, sliding_window=4,
        sliding_window_pattern=2, final_logit_softcapping=5.0), half=True),
    "gemma3_bare": case(transformers.Gemma3TextModel, transformers.Gemma3TextConfig(
        **SIZES | {"hidden_size": 12, "intermediate_size": 17}, num_attention_heads=3, num_key_value_heads=1,
        head_dim=6, num_hidden_layers=7, sliding_window=3), half=True),
}
