# SPDX-License-Identifier: Apache-2.0
"""Nothing comes in; the cases of BERT go out."""

import transformers
from case import VOCABULARY, Case

SIZES = dict(vocab_size=VOCABULARY, hidden_size=24, num_attention_heads=3, intermediate_size=41,
             num_hidden_layers=2, max_position_embeddings=19, type_vocab_size=2)

CASES = {
    "bert_bare": Case(transformers.BertModel, transformers.BertConfig(**SIZES)),
    "bert_cls": Case(transformers.BertForSequenceClassification,
                     transformers.BertConfig(**SIZES, num_labels=3, hidden_act="gelu_new")),
    "bert_token": Case(transformers.BertForTokenClassification,
                       transformers.BertConfig(**SIZES, num_labels=5, hidden_act="relu")),
    "bert_span": Case(transformers.BertForQuestionAnswering,
                      transformers.BertConfig(**SIZES, layer_norm_eps=1e-5)),
    "bert_masked": Case(transformers.BertForMaskedLM, transformers.BertConfig(**SIZES)),
    "bert_untied": Case(transformers.BertForMaskedLM, transformers.BertConfig(
        **SIZES | {"num_hidden_layers": 1}, tie_word_embeddings=False), half=True),
}
