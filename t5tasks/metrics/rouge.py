# SPDX-License-Identifier: Apache-2.0
"""Summaries and their references in; counts that add up, and from them ROUGE, out.

Scores are those of the package rouge-score (Lin 2004, aclanthology.org/W04-1013), 0 to 100: the mean over
examples of each example's F-measure. Where an example has several references, the best one counts, for
each kind of ROUGE by itself. ROUGE-Lsum compares sentence by sentence; a text in which nobody has broken
the lines is broken after ". ", "! " and "? ".
"""

import functools
import importlib.metadata
import re
from collections.abc import Sequence

import numpy as np
from rouge_score import rouge_scorer

from t5tasks.metrics.counts import Counts, require_examples

KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
TOKENIZERS = ("english", "unicode")
SENTENCE_END = re.compile(r"(?<=[.!?]) +(?=\S)")
# Scripts without spaces between words: each of their characters is a word.
WORDS = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
                   r"\uf900-\ufaff]+")


class UnicodeWords:
    """Lower-cased words of any script, which rouge-score's own tokenizer leaves out."""

    def tokenize(self, text: str) -> list[str]:
        """The words of a text, in order; a Chinese or Japanese character is one."""
        return WORDS.findall(text.lower())


def rouge_counts(predictions: Sequence[str], references: Sequence[Sequence[str]], tokenizer: str = "english"
                 ) -> Counts:
    """Sums the scores of the examples.

    Args:
      predictions: N texts.
      references: for each of them one text or more.
      tokenizer: english (rouge-score's: a-z and 0-9, Porter's stems) or unicode (words of any script, as
        they are).

    Returns:
      {"rouge_sums": float64[4] (F-measures by KINDS, 0 to 1), "rouge_examples": int64[]}.

    Raises:
      ValueError: lengths differ, a prediction has no reference, or an unknown tokenizer.
    """
    if len(predictions) != len(references) or not all(len(texts) for texts in references):
        raise ValueError(f"{len(predictions)} predictions and {len(references)} lists of references: expected as many, "
                         "and a reference in each")
    scorer = _scorer(tokenizer)
    sums = np.zeros(len(KINDS))
    for prediction, texts in zip(predictions, references, strict=True):
        scores = [scorer.score(_sentences(text), _sentences(prediction)) for text in texts]
        sums += [max(score[kind].fmeasure for score in scores) for kind in KINDS]
    return {"rouge_sums": sums, "rouge_examples": np.asarray(len(predictions))}


def rouge_figures(counts: Counts) -> dict[str, float]:
    """Turns summed counts into rouge1, rouge2, rougeL and rougeLsum, 0 to 100; ValueError when none was counted."""
    examples = int(counts["rouge_examples"])
    require_examples(examples, "ROUGE")
    return {kind: 100 * float(total) / examples for kind, total in zip(KINDS, counts["rouge_sums"], strict=True)}


def rouge_signature(tokenizer: str = "english") -> str:
    """What to quote with the scores: how words were found, and by which package."""
    stems, version = "porter" if tokenizer == "english" else "no", importlib.metadata.version("rouge-score")
    return f"tok:{tokenizer}|stems:{stems}|sentences:lines or .!?|refs:best|version:{version}"


@functools.cache
def _scorer(tokenizer: str) -> rouge_scorer.RougeScorer:
    if tokenizer not in TOKENIZERS:
        raise ValueError(f"no ROUGE tokenizer is called {tokenizer!r}: expected {' or '.join(TOKENIZERS)}")
    if tokenizer == "english":
        return rouge_scorer.RougeScorer(list(KINDS), use_stemmer=True)
    return rouge_scorer.RougeScorer(list(KINDS), tokenizer=UnicodeWords())


def _sentences(text: str) -> str:
    """The text with a sentence on each line, as ROUGE-Lsum wants it; the other kinds do not see lines."""
    text = text.strip()
    return text if "\n" in text else SENTENCE_END.sub("\n", text)
