# SPDX-License-Identifier: Apache-2.0
"""Chapter 4, natural language inference: a premise and a hypothesis in, how one bears on the other out.

The guide's example:

    premise      The event is scheduled for Tuesday.
    hypothesis   The event is on the weekend.
    logits       [-4.6, 6.2, -3.1] of (Entailment, Contradiction, Neutral)
    prediction   {"label": "Contradiction", "score": 0.9999}, the softmax; 0.998 in the guide is the sigmoid of 6.2

    encoder   [CLS] premise [SEP] hypothesis [SEP]  → the class of [CLS]; token types 0 and 1
    decoder   Based on the Premise, determine if the Hypothesis is an entailment, contradiction, or neutral.

              Premise: …\nHypothesis: …\n\nThe logical relationship is:  → " Contradiction", graded with its EOS
"""

from collections.abc import Sequence

from t5tasks.data.features import BETWEEN, Piece, special
from t5tasks.tasks import labelled
from t5tasks.tasks.task import Record


def encoder_pieces(record: Record) -> Sequence[Piece]:
    """[CLS] premise [SEP] hypothesis [SEP]; of an overlong pair the longer one is cut."""
    return (special("cls", "premise"), Piece(record["premise"], "premise", trim=True), special(BETWEEN, "premise"),
            Piece(record["hypothesis"], "hypothesis", trim=True, token_type=1),
            special("sep", "hypothesis", token_type=1))


TEMPLATE = ("Based on the Premise, determine if the Hypothesis is an entailment, contradiction, or neutral.\n\n"
            "Premise: {premise}\nHypothesis: {hypothesis}\n\n{cue}")

TASK = labelled.make(
    "nli", "4", encoder_pieces, roles={"premise": "premise", "hypothesis": "hypothesis"},
    options={"labels": ("entailment", "neutral", "contradiction"), "template": TEMPLATE,
             "cue": "The logical relationship is:"})
