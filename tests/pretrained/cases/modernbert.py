# SPDX-License-Identifier: Apache-2.0
"""Nothing comes in; the cases of ModernBERT go out."""

import transformers
from case import VOCABULARY, Case

SIZES = dict(vocab_size=VOCABULARY, hidden_size=18, num_attention_heads=3, intermediate_size=25, num_hidden_layers=4,
             max_position_embeddings=32, local_attention=6, pad_token_id=3, bos_token_id=1, eos_token_id=2,
             cls_token_id=1, sep_token_id=2, global_rope_theta=900.0, local_rope_theta=20.0)
STRETCHED = {"full_attention": {"rope_type": "yarn", "rope_theta": 900.0, "factor": 3.0,
                                "original_max_position_embeddings": 8},
             "sliding_attention": {"rope_type": "default", "rope_theta": 20.0}}
SLIDING, FULL = "sliding_attention", "full_attention"

CASES = {
    "modernbert_bare": Case(transformers.ModernBertModel, transformers.ModernBertConfig(**SIZES)),
    "modernbert_masked": Case(transformers.ModernBertForMaskedLM, transformers.ModernBertConfig(
        **SIZES | {"local_attention": 5}, hidden_activation="silu", classifier_activation="silu")),
    "modernbert_untied": Case(transformers.ModernBertForMaskedLM, transformers.ModernBertConfig(
        **SIZES | {"num_hidden_layers": 2}, tie_word_embeddings=False, decoder_bias=False), half=True),
    "modernbert_cls": Case(transformers.ModernBertForSequenceClassification, transformers.ModernBertConfig(
        **SIZES, num_labels=3, global_attn_every_n_layers=2)),
    "modernbert_mean": Case(transformers.ModernBertForSequenceClassification, transformers.ModernBertConfig(
        **SIZES, num_labels=4, classifier_pooling="mean", rope_parameters=STRETCHED)),
    "modernbert_token": Case(transformers.ModernBertForTokenClassification, transformers.ModernBertConfig(
        **SIZES, num_labels=5, layer_types=[SLIDING, SLIDING, FULL, SLIDING], attention_bias=True, mlp_bias=True,
        norm_bias=True, classifier_bias=True)),
    "modernbert_span": Case(transformers.ModernBertForQuestionAnswering, transformers.ModernBertConfig(
        **SIZES, norm_eps=1e-3), half=True),
}
