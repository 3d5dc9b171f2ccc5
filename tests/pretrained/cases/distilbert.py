# SPDX-License-Identifier: Apache-2.0
"""Nothing comes in; the cases of DistilBERT go out."""

import transformers
from case import VOCABULARY, Case

SIZES = dict(vocab_size=VOCABULARY, dim=18, n_heads=3, hidden_dim=25, n_layers=2, max_position_embeddings=19)

CASES = {
    "distilbert_bare": Case(transformers.DistilBertModel, transformers.DistilBertConfig(
        **SIZES, sinusoidal_pos_embds=True)),
    "distilbert_masked": Case(transformers.DistilBertForMaskedLM, transformers.DistilBertConfig(
        **SIZES, activation="relu")),
    "distilbert_untied": Case(transformers.DistilBertForMaskedLM, transformers.DistilBertConfig(
        **SIZES, tie_word_embeddings=False), half=True),
    "distilbert_cls": Case(transformers.DistilBertForSequenceClassification, transformers.DistilBertConfig(
        **SIZES, num_labels=3)),
    "distilbert_token": Case(transformers.DistilBertForTokenClassification, transformers.DistilBertConfig(
        **SIZES, num_labels=5), half=True),
    "distilbert_span": Case(transformers.DistilBertForQuestionAnswering, transformers.DistilBertConfig(**SIZES)),
}
