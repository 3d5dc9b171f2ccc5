# SPDX-License-Identifier: Apache-2.0
"""Rankings of documents and the relevant ones come in; recall, reciprocal rank and discounted gain go out.

Of one question, with R relevant documents, gain g_i of the i-th document found (0 where it is not relevant):

    recall@k   relevant ones among the first k, of R
    mrr@k      1 / place of the first relevant one, 0 where none is among the first k
    ndcg@k     sum of g_i / log2(i + 1) over the first k, of the most that any order reaches
               (Järvelin and Kekäläinen 2002, doi.org/10.1145/582415.582418; gains as they are, as in trec_eval)

and over all questions the mean.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from t5tasks.metrics.counts import Counts, as_counts, require_examples

MEASURES = ("recall", "mrr", "ndcg")


def retrieval_counts(rankings: Sequence[Sequence[str]], relevant: Sequence[Collection[str] | Mapping[str, float]],
                     places: Sequence[int] = (1, 5, 20)) -> Counts:
    """Sums the measures of N questions.

    Args:
      rankings: of each question the documents found, best first; one that was found twice (by two of its
        passages) counts at its first place.
      relevant: of each the right ones, with their gains where they are not all 1.
      places: the k of the measures.

    Returns:
      {"retrieval_examples": int64, "recall@1": float64, "mrr@1" ...}.

    Raises:
      ValueError: lengths that differ, a question without a relevant document, a gain or place below its least.
    """
    if len(rankings) != len(relevant):
        raise ValueError(f"{len(rankings)} rankings for {len(relevant)} questions; expected one a question")
    if not places or min(places) < 1:
        raise ValueError(f"places are {tuple(places)}; expected one or more, each at least 1")
    sums = {f"{measure}@{place}": 0.0 for place in places for measure in MEASURES}
    for number, (found, right) in enumerate(zip(rankings, relevant, strict=True)):
        gains = dict(right) if isinstance(right, Mapping) else dict.fromkeys(right, 1.0)
        if not gains or min(gains.values()) <= 0:
            raise ValueError(f"question {number} has the relevant documents {gains}; expected one or more, with gains "
                             "above 0")
        gained = np.asarray([gains.get(document, 0.0) for document in dict.fromkeys(found)])
        best = np.sort(np.asarray(list(gains.values())))[::-1]
        for place in places:
            hits = np.flatnonzero(gained[:place])
            sums[f"recall@{place}"] += len(hits) / len(gains)
            sums[f"mrr@{place}"] += 1 / (hits[0] + 1) if len(hits) else 0.0
            sums[f"ndcg@{place}"] += _discounted(gained[:place]) / _discounted(best[:place])
    return as_counts({"retrieval_examples": len(rankings), **sums})


def _discounted(gains: np.ndarray) -> float:
    return float(np.sum(gains / np.log2(np.arange(len(gains)) + 2)))


def retrieval_figures(counts: Counts) -> dict[str, float]:
    """The means, from 0 to 1, by their names; raises ValueError when no question was counted."""
    examples = float(counts["retrieval_examples"])
    require_examples(examples, "recall")
    return {name: float(value) / examples for name, value in counts.items() if "@" in name}
