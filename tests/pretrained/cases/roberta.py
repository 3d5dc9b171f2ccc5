# SPDX-License-Identifier: Apache-2.0
"""Nothing comes in; the cases of RoBERTa and XLM-R go out."""

import numpy as np
import transformers
from case import VOCABULARY, Case

SIZES = dict(vocab_size=VOCABULARY, hidden_size=18, num_attention_heads=3, intermediate_size=25,
             num_hidden_layers=2, max_position_embeddings=17, type_vocab_size=1, pad_token_id=1)


def padding_inside(model, generator, left):
    """The padding id also inside the text, where it takes no position but is seen, and text behind no mask."""
    padding = model.config.pad_token_id
    ids = generator.integers(2, VOCABULARY, (3, 11))
    mask = np.ones_like(ids)
    hidden = slice(0, 3) if left else slice(8, 11)
    mask[:2, hidden] = 0
    ids[1, hidden] = ids[1, 4:6] = ids[2, 5] = padding
    return {"input_ids": ids, "attention_mask": mask}


def given_positions(model, generator, left):
    """Rows of the table in any order, the padding's and those before it too."""
    ids = generator.integers(2, VOCABULARY, (3, 11))
    positions = generator.integers(0, model.config.max_position_embeddings, ids.shape)
    return {"input_ids": ids, "position_ids": positions[:, ::-1 if left else 1].copy()}


CASES = {
    "roberta_bare": Case(transformers.RobertaModel, transformers.RobertaConfig(**SIZES), batch=padding_inside),
    "roberta_masked": Case(transformers.RobertaForMaskedLM, transformers.RobertaConfig(
        **SIZES | {"type_vocab_size": 2}), half=True),
    "roberta_untied": Case(transformers.RobertaForMaskedLM, transformers.RobertaConfig(
        **SIZES, tie_word_embeddings=False), half=True),
    "roberta_cls": Case(transformers.RobertaForSequenceClassification, transformers.RobertaConfig(
        **SIZES, num_labels=4, hidden_act="relu", layer_norm_eps=1e-5)),
    "roberta_token": Case(transformers.RobertaForTokenClassification, transformers.RobertaConfig(
        **SIZES | {"pad_token_id": 5}, num_labels=5), batch=given_positions),
    "roberta_span": Case(transformers.RobertaForQuestionAnswering, transformers.RobertaConfig(
        **SIZES | {"pad_token_id": 0})),
    "xlm_roberta_masked": Case(transformers.XLMRobertaForMaskedLM, transformers.XLMRobertaConfig(**SIZES)),
    "xlm_roberta_cls": Case(transformers.XLMRobertaForSequenceClassification, transformers.XLMRobertaConfig(
        **SIZES, num_labels=3)),
}
