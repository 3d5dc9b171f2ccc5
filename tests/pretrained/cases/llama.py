# SPDX-License-Identifier: Apache-2.0
"""Nothing comes in; the cases of Llama go out."""

import transformers
from case import VOCABULARY, Case

SIZES = dict(vocab_size=VOCABULARY, hidden_size=24, num_attention_heads=6, num_key_value_heads=2,
             head_dim=10, intermediate_size=41, num_hidden_layers=2, max_position_embeddings=32)


def scaled(kind, theta=30.0, **parameters):
    """A bare model whose positions are stretched; 11 tokens reach every part of the ramps."""
    rope = {"rope_type": kind, "rope_theta": theta, **parameters}
    return Case(transformers.LlamaModel, transformers.LlamaConfig(
        **SIZES | {"max_position_embeddings": 128}, rope_parameters=rope), half=True)


def far(model, generator, left):
    """Positions of some thousands, padded on the left in one batch."""
    ids = generator.integers(0, VOCABULARY, (2, 11))
    mask = (generator.random(ids.shape) < 2).astype(ids.dtype)
    mask[1, :5] -= left
    positions = generator.integers(0, 3000, (2, 1)) + generator.integers(1, 300, ids.shape).cumsum(axis=1)
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions}


CASES = {
    "llama_tied": Case(transformers.LlamaForCausalLM, transformers.LlamaConfig(
        **SIZES, tie_word_embeddings=True, rms_norm_eps=1e-5)),
    "llama_untied": Case(transformers.LlamaForCausalLM, transformers.LlamaConfig(
        **SIZES, rope_parameters={"rope_type": "default", "rope_theta": 500.0}), sharded=True),
    "llama_bare": Case(transformers.LlamaModel, transformers.LlamaConfig(**SIZES), half=True),
    "llama_biased": Case(transformers.LlamaModel, transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=24, num_attention_heads=3, num_key_value_heads=1, intermediate_size=33,
        num_hidden_layers=3, hidden_act="gelu", attention_bias=True, mlp_bias=True), half=True),
    "llama_linear": scaled("linear", factor=2.5),
    # Kept, two between, and two stretched of five pairs.
    "llama_llama3": scaled("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                           original_max_position_embeddings=32),
    "llama_llama3_short": scaled("llama3", factor=3.0, low_freq_factor=0.2, high_freq_factor=1.0,
                                 original_max_position_embeddings=8),
    "llama_yarn": scaled("yarn", factor=4.0, original_max_position_embeddings=32),
    "llama_yarn_scales": scaled("yarn", theta=300.0, factor=6.0, original_max_position_embeddings=64, beta_fast=8.0,
                                beta_slow=0.5, mscale=0.7, mscale_all_dim=1.4),
    "llama_yarn_given": scaled("yarn", factor=4.0, original_max_position_embeddings=8, attention_factor=0.8),
    # Numbers of Llama 3.1.
    "llama_far": Case(transformers.LlamaModel, transformers.LlamaConfig(
        **SIZES | {"max_position_embeddings": 131072, "head_dim": 32}, rope_parameters={
            "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}), half=True, batch=far),
}
