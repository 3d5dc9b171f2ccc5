# SPDX-License-Identifier: Apache-2.0
"""Chapter 3, text classification: a text in, one of a set of labels out.

The guide's example:

    text   I love this product! It works perfectly.                      label   Positive

    encoder   [CLS] I love this product! It works perfectly. [SEP]             → the class of [CLS]
    decoder   Review: I love this product! It works perfectly. Sentiment:      → " Positive", graded with its EOS

The decoder's is the template "Review: {text} {cue}" with the cue "Sentiment:".
"""

import dataclasses
from collections.abc import Sequence

from t5tasks.data.features import Piece, special
from t5tasks.tasks import labelled, multi_label
from t5tasks.tasks.task import Record


def encoder_pieces(record: Record) -> Sequence[Piece]:
    """[CLS] text [SEP]."""
    return special("cls", "input"), Piece(record["text"], "input", trim=True), special("sep", "input")


SINGLE = labelled.make(
    "classification", "3", encoder_pieces, roles={"text": "input"},
    options={"labels": (), "template": "{text}\n{cue}", "cue": "Label:", "multi_label": False, "threshold": 0.5})
SETS = multi_label.of(SINGLE, encoder_pieces)

TASK = dataclasses.replace(SINGLE, variant=lambda options: SETS if options.get("multi_label") else None)
