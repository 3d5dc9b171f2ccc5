# SPDX-License-Identifier: Apache-2.0
"""RoBERTa (arxiv.org/abs/1907.11692) and XLM-R (arxiv.org/abs/1911.02116) folders: config.json in,
`ModelConfig` values out; the table.

BERT's layers; positions begin after the padding id's row, and padding takes none.
"""

from typing import Any

from t5tasks.pretrained import bert, fields
from t5tasks.pretrained.fields import Foreign
from t5tasks.pretrained.table import Family, Table, linear

# model_type → the reference's default of vocab_size.
VOCABULARIES = {"roberta": 50265, "xlm-roberta": 30522}


def config(foreign: Foreign, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """ModelConfig values of a RoBERTa or XLM-R config.json, the head's left out.

    Args:
      names: of the folder's tensors, None where they are not known.

    Raises:
      ValueError: a field that changes the result and that we do not honour.
    """
    values = bert.config(foreign)
    rows, offset = values["max_length"], padding(foreign) + 1
    if rows <= offset:
        raise ValueError(f"config.json: max_position_embeddings is {rows}, which leaves no position after "
                         f"pad_token_id {offset - 1}; expected more than {offset}")
    if values["activation"] != "gelu" and _has_words(foreign, names):
        raise ValueError(f"config.json: hidden_act is {foreign['hidden_act']!r}, but the masked-language head "
                         "computes gelu, and we have one activation for both; this head loads with 'gelu'")
    return values | {
        "vocabulary": fields.integer(foreign, "vocab_size", VOCABULARIES[foreign["model_type"]]),
        "max_length": rows - offset,
        "position_offset": offset,
    }


def padding(foreign: Foreign) -> int:
    """The token id that takes no position; its row of the table is padding's."""
    return fields.integer(foreign, "pad_token_id", 1, least=0)


def _has_words(foreign: Foreign, names: tuple[str, ...] | None) -> bool:
    """Whether the folder has a masked-language head."""
    return "lm_head.dense.weight" in (names or ()) or "MaskedLM" in str(foreign.get("architectures"))


KINDS = {"Model": "none", "ForMaskedLM": "lm", "ForSequenceClassification": "cls",
         "ForTokenClassification": "token", "ForQuestionAnswering": "span"}

FAMILY = Family(
    model_types=tuple(VOCABULARIES),
    heads={name + kind: head for name in ("Roberta", "XLMRoberta") for kind, head in KINDS.items()},
    supported={"none": {}, "lm": {"head_transform": True, "head_bias": True}, "cls": {"pooler": "tanh"},
               "token": {}, "span": {}},
    config=config,
    padding=padding,
    table=Table(
        prefix="roberta.",
        renames=bert.OLDER,
        # The bare model's pooler is read by no head: a classifier has one of its own.
        ignored=(r"(roberta\.)?embeddings\.position_ids", r"(roberta\.)?pooler\.dense\..*"),
        rows=(
            *bert.encoder("roberta"),
            *linear("classifier.dense", "head/pooler"),
            *linear("classifier.out_proj", "head/classifier", where=lambda config: config.head == "cls"),
            *linear("classifier", "head/classifier", where=lambda config: config.head == "token"),
            *linear("qa_outputs", "head/classifier", where=lambda config: config.head == "span"),
            *bert.masked_head("lm_head.dense", "lm_head.layer_norm", "lm_head"),
        ),
    ),
)
