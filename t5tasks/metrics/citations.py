# SPDX-License-Identifier: Apache-2.0
"""Answers with the numbers of their sources come in; how many of these are right, and of the right ones cited, go out.

    "It opens on Monday [2], as do both [1][3]."   cites 2, 1, 3; without citations: "It opens on Monday, as do both."
    "[1, 3] and [2, 3]"                            cites 1, 3, 2

Precision is the share of what was cited that should be, recall the share of what should be that was, over all
citations of all answers. (ALCE, arxiv.org/abs/2305.14627, section 4, judges both by a model of entailment instead.)
"""

import re
from collections.abc import Collection, Sequence

from t5tasks.metrics.counts import Counts, as_counts, require_examples

CITATION = re.compile(r"\[(\d{1,6}(?:[ ,;]+\d{1,6})*)\]")


def cited(text: str) -> list[int]:
    """The numbers cited, in the order of their first places, each once."""
    return list(dict.fromkeys(int(number) for found in CITATION.findall(text) for number in re.findall(r"\d+", found)))


def uncited(text: str) -> str:
    """The text without citations and the blanks before them."""
    return " ".join(re.sub(rf"\s*{CITATION.pattern}", "", text).split())


def citation_counts(predictions: Sequence[Collection[str]], right: Sequence[Collection[str]]) -> Counts:
    """Counts the citations of N answers.

    Args:
      predictions: the ids cited by each, those of no passage included.
      right: the ids that each should cite; none where there is nothing to answer.

    Returns:
      {"citation_examples", "citations", "citations_right", "citations_wanted": int64}.

    Raises:
      ValueError: lengths that differ.
    """
    if len(predictions) != len(right):
        raise ValueError(f"citations of {len(predictions)} answers for {len(right)} questions; expected as many")
    pairs = [(set(found), set(wanted)) for found, wanted in zip(predictions, right, strict=True)]
    return as_counts({"citation_examples": len(pairs), "citations": sum(len(found) for found, _ in pairs),
                      "citations_right": sum(len(found & wanted) for found, wanted in pairs),
                      "citations_wanted": sum(len(wanted) for _, wanted in pairs)})


def citation_figures(counts: Counts) -> dict[str, float]:
    """citation_precision, of those there are, and citation_recall, of those there should be; 0 to 1.

    Raises ValueError where no answer was counted.
    """
    require_examples(float(counts["citation_examples"]), "citation precision")
    right = float(counts["citations_right"])
    shares = {"citation_precision": float(counts["citations"]), "citation_recall": float(counts["citations_wanted"])}
    return {name: right / number for name, number in shares.items() if number}
