# SPDX-License-Identifier: Apache-2.0
"""Chapter 4, natural language inference: a premise and a hypothesis in, how one bears on the other out.

For example, with the guide's prediction:

    premise      A man is eating pizza.             label        Contradiction
    hypothesis   The man is sleeping.               prediction   {"label": "Contradiction", "score": 0.998}

    encoder   [CLS] premise [SEP] hypothesis [SEP]  → the class of [CLS]; token types 0 and 1
    decoder   Premise: …\nHypothesis: …\nLabel:     → " Contradiction", graded with its EOS
"""

from collections.abc import Sequence

from t5tasks.data.features import Piece, special
from t5tasks.tasks import labelled
from t5tasks.tasks.task import Record, Task


def encoder_pieces(record: Record) -> Sequence[Piece]:
    """[CLS] premise [SEP] hypothesis [SEP]; of an overlong pair the longer one is cut."""
    return (special("cls", "premise"), Piece(record["premise"], "premise", trim=True), special("sep", "premise"),
            Piece(record["hypothesis"], "hypothesis", trim=True, token_type=1),
            special("sep", "hypothesis", token_type=1))


def decoder_pieces(record: Record) -> Sequence[Piece]:
    """Premise and hypothesis, each on a line with its name."""
    return (Piece("Premise: ", "prompt"), Piece(record["premise"], "premise", trim=True),
            Piece("\nHypothesis: ", "prompt"), Piece(record["hypothesis"], "hypothesis", trim=True))


TASK = Task(
    name="nli", chapter="4", fields={"premise": str, "hypothesis": str},
    options={"labels": ("entailment", "neutral", "contradiction"), "cue": "Label:"},
    forms=labelled.forms(encoder_pieces, decoder_pieces), **labelled.MACHINERY)
