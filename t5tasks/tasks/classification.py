# SPDX-License-Identifier: Apache-2.0
"""Chapter 3, text classification: a text in, one of a set of labels out.

The guide's example:

    text   This movie was fantastic!                label   positive

    encoder   [CLS] This movie was fantastic! [SEP]  → the class of [CLS]
    decoder   This movie was fantastic!\nSentiment:  → " positive", graded with its EOS
"""

from collections.abc import Sequence

from t5tasks.data.features import Piece, special
from t5tasks.tasks import labelled
from t5tasks.tasks.task import Record, Task


def encoder_pieces(record: Record) -> Sequence[Piece]:
    """[CLS] text [SEP]."""
    return special("cls", "input"), Piece(record["text"], "input", trim=True), special("sep", "input")


def decoder_pieces(record: Record) -> Sequence[Piece]:
    """The text."""
    return (Piece(record["text"], "input", trim=True),)


TASK = Task(
    name="classification", chapter="3", fields={"text": str},
    options={"labels": (), "cue": "Label:"},
    forms=labelled.forms(encoder_pieces, decoder_pieces), **labelled.MACHINERY)
