# SPDX-License-Identifier: Apache-2.0
"""Target labels and label probabilities come in, accuracy, F1 and calibration go out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from t5tasks.metrics.counts import Counts, require_examples

# Guo et al. 2017, "On Calibration of Modern Neural Networks", section 5: M = 15 bins.
CALIBRATION_BINS = 15


def label_counts(
    targets: ArrayLike, probabilities: ArrayLike, valid: ArrayLike | None = None
) -> Counts:
    """Counts what `label_figures` needs; the predicted label is the most probable one.

    Args:
      targets: int[N], label indices from 0 to C − 1.
      probabilities: float[N, C], one distribution over the labels a row. Ties go to the lowest
        index, as in argmax.
      valid: bool[N]; rows that are False are padding and may hold anything. All count if None.

    Returns:
      The counts of `confusion_counts` and of `calibration_counts`.

    Raises:
      ValueError: shapes do not fit, a target is no label, or a row is no distribution.
    """
    chosen = np.asarray(probabilities, np.float64)
    if chosen.ndim != 2 or chosen.shape[1] == 0:
        raise ValueError(f"probabilities have shape {chosen.shape}; expected [N, C] with C > 0")
    # Padding may be NaN, whose argmax is still an index; it is dropped by `valid` below.
    predictions = chosen.argmax(axis=1)
    confusion = confusion_counts(targets, predictions, chosen.shape[1], valid)
    return confusion | calibration_counts(targets, chosen, valid)


def confusion_counts(
    targets: ArrayLike, predictions: ArrayLike, classes: int, valid: ArrayLike | None = None
) -> Counts:
    """Counts how often each label was answered by each label.

        targets   = [0, 0, 1, 2]
        predicted = [0, 1, 1, 1]        confusion = [[1, 1, 0],   row: target
                                                     [0, 1, 0],   column: prediction
                                                     [0, 1, 0]]

    Args:
      targets: int[N], from 0 to classes − 1.
      predictions: int[N], likewise.
      classes: C, the number of labels.
      valid: bool[N]; rows that are False are padding and may hold anything. All count if None.

    Returns:
      {"confusion": int64[C, C]}.

    Raises:
      ValueError: shapes differ, or an index is no label.
    """
    kept_targets, kept_predictions = _keep(valid, targets, predictions)
    _check_labels("target", kept_targets, classes)
    _check_labels("prediction", kept_predictions, classes)
    cells = kept_targets.astype(np.int64) * classes + kept_predictions.astype(np.int64)
    confusion = np.bincount(cells, minlength=classes * classes).reshape(classes, classes)
    return {"confusion": confusion.astype(np.int64)}


def calibration_counts(
    targets: ArrayLike, probabilities: ArrayLike, valid: ArrayLike | None = None
) -> Counts:
    """Counts answers, right answers and confidence in bins of the confidence.

    Bin m of M holds the confidences in ((m − 1) / M, m / M] (Guo et al. 2017, section 2); a
    confidence is the probability of the most probable label.

    Args:
      targets: int[N], label indices from 0 to C − 1.
      probabilities: float[N, C], one distribution over the labels a row.
      valid: bool[N]; rows that are False are padding and may hold anything. All count if None.

    Returns:
      {"bin_examples": int64[15], "bin_correct": int64[15], "bin_confidence": float64[15] (sums)}.

    Raises:
      ValueError: shapes do not fit, a target is no label, or a row is no distribution.
    """
    kept_targets, rows = _keep(valid, targets, np.asarray(probabilities, np.float64))
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ValueError(f"probabilities have shape {rows.shape}; expected [N, C] with C > 0")
    _check_labels("target", kept_targets, rows.shape[1])
    # 1e-2: a bfloat16 softmax over many labels is that far from 1. NaN fails both comparisons.
    wrong = ~((np.abs(rows.sum(axis=1) - 1) <= 1e-2) & (rows >= 0).all(axis=1))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"row {row} of the probabilities is {rows[row]}; expected numbers >= 0 that sum to "
            "1 (apply a softmax to logits first)"
        )
    confidence = rows.max(axis=1)
    correct = rows.argmax(axis=1) == kept_targets
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    bins = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, CALIBRATION_BINS - 1)
    return {
        "bin_examples": np.bincount(bins, minlength=CALIBRATION_BINS).astype(np.int64),
        "bin_correct": np.bincount(bins[correct], minlength=CALIBRATION_BINS).astype(np.int64),
        "bin_confidence": np.bincount(bins, weights=confidence, minlength=CALIBRATION_BINS),
    }


def label_figures(counts: Counts, names: Sequence[str]) -> dict[str, float]:
    """Turns summed counts into figures between 0 and 1.

    A precision, recall or F1 whose denominator is zero is 0, and macro F1 is the mean over all
    C labels, those that never occur included.

    Args:
      counts: sums of `confusion_counts` or `label_counts`.
      names: the C labels' names.

    Returns:
      accuracy; majority_baseline (the accuracy of always answering the label that is most frequent
      among the targets counted); macro_f1; precision/NAME, recall/NAME and f1/NAME of every label;
      expected_calibration_error, where its counts are there.

    Raises:
      ValueError: no example was counted, or the number of names is not C.
    """
    confusion = counts["confusion"]
    if confusion.shape != (len(names), len(names)):
        raise ValueError(
            f"{len(names)} label names were given for a confusion matrix of shape "
            f"{confusion.shape}; give one name for each of its rows"
        )
    examples = int(confusion.sum())
    require_examples(examples, "accuracy")
    right = np.diag(confusion)
    answered, present = confusion.sum(axis=0), confusion.sum(axis=1)
    precision, recall = _ratio(right, answered), _ratio(right, present)
    f1 = _ratio(2 * right, answered + present)
    figures = {
        "accuracy": float(right.sum() / examples),
        "majority_baseline": float(present.max() / examples),
        "macro_f1": float(f1.mean()),
    }
    for index, name in enumerate(names):
        figures[f"precision/{name}"] = float(precision[index])
        figures[f"recall/{name}"] = float(recall[index])
        figures[f"f1/{name}"] = float(f1[index])
    if "bin_examples" in counts:
        figures["expected_calibration_error"] = expected_calibration_error(counts)
    return figures


def label_set_counts(targets: ArrayLike, predictions: ArrayLike) -> Counts:
    """Counts how sets of labels agree.

        targets   = [[1, 1, 0],         label_hits   = [1, 0, 0]
                     [0, 0, 0]]         label_alarms = [0, 0, 1]
        predicted = [[1, 0, 0],         label_misses = [0, 1, 0]
                     [0, 0, 1]]         exact_sets   = 0, sets = 2

    Args:
      targets, predictions: bool or 0 and 1 [N, C], whether each label holds.

    Raises:
      ValueError: the shapes differ or are not [N, C], or something is neither 0 nor 1.
    """
    right, said = np.asarray(targets), np.asarray(predictions)
    if right.shape != said.shape or right.ndim != 2 or not right.shape[1]:
        raise ValueError(f"targets and predictions have shapes {right.shape} and {said.shape}; expected [N, C] of both")
    if not (np.isin(right, (0, 1)).all() and np.isin(said, (0, 1)).all()):
        raise ValueError("targets and predictions of label sets hold 0 and 1, whether each label holds")
    right, said = right.astype(bool), said.astype(bool)
    return {"label_hits": (right & said).sum(axis=0).astype(np.int64),
            "label_alarms": (~right & said).sum(axis=0).astype(np.int64),
            "label_misses": (right & ~said).sum(axis=0).astype(np.int64),
            "exact_sets": np.asarray((right == said).all(axis=1).sum(), np.int64),
            "sets": np.asarray(len(right), np.int64)}


def label_set_figures(counts: Counts, names: Sequence[str]) -> dict[str, float]:
    """Turns summed counts into figures between 0 and 1; one whose denominator is zero is 0.

    Returns:
      micro_f1 of all decisions together; macro_f1, the mean over all C labels; subset_accuracy, the share
      of examples whose set is right as a whole; precision/NAME, recall/NAME and f1/NAME of every label.

    Raises:
      ValueError: no example was counted, or the number of names is not C.
    """
    hits, alarms, misses = (counts[f"label_{name}"] for name in ("hits", "alarms", "misses"))
    if hits.shape != (len(names),):
        raise ValueError(f"{len(names)} label names were given for counts of shape {hits.shape}; give one for each")
    examples = int(counts["sets"])
    require_examples(examples, "subset accuracy")
    precision, recall = _ratio(hits, hits + alarms), _ratio(hits, hits + misses)
    f1 = _ratio(2 * hits, 2 * hits + alarms + misses)
    figures = {"micro_f1": float(_ratio(2 * hits.sum(), (2 * hits + alarms + misses).sum())),
               "macro_f1": float(f1.mean()), "subset_accuracy": int(counts["exact_sets"]) / examples}
    for index, name in enumerate(names):
        figures |= {f"precision/{name}": float(precision[index]), f"recall/{name}": float(recall[index]),
                    f"f1/{name}": float(f1[index])}
    return figures


def expected_calibration_error(counts: Counts) -> float:
    """Returns Σ_m |B_m| / n · |accuracy(B_m) − confidence(B_m)| (Guo et al. 2017, equation 3).

    With sums in place of means it is Σ_m |correct_m − confidence_m| / n. Raises ValueError when
    no example was counted.
    """
    examples = int(counts["bin_examples"].sum())
    require_examples(examples, "the expected calibration error")
    gaps = np.abs(counts["bin_correct"] - counts["bin_confidence"])
    return float(gaps.sum() / examples)


def _keep(valid: ArrayLike | None, *arrays: ArrayLike) -> list[np.ndarray]:
    """Returns the valid rows of `arrays`; raises ValueError when their first axes differ."""
    rows = [np.asarray(array) for array in arrays]
    mask = np.ones(rows[0].shape[:1], bool) if valid is None else np.asarray(valid).astype(bool)
    if len({array.shape[:1] for array in (mask, *rows)}) != 1 or mask.ndim != 1:
        shapes = [array.shape for array in rows]
        raise ValueError(
            f"arrays of shapes {shapes} and a validity mask of shape {mask.shape} do not fit; "
            "expected one row an example in each"
        )
    return [array[mask] for array in rows]


def _check_labels(what: str, indices: np.ndarray, classes: int) -> None:
    """Raises ValueError unless `indices` is int[N] with values from 0 to classes − 1."""
    if indices.ndim != 1 or not (indices.size == 0 or np.issubdtype(indices.dtype, np.integer)):
        raise ValueError(
            f"{what}s have dtype {indices.dtype} and shape {indices.shape}; expected int[N]"
        )
    wrong = (indices < 0) | (indices >= classes)
    if wrong.any():
        raise ValueError(
            f"{what} {int(indices[wrong.argmax()])} is not a label index; expected 0 to "
            f"{classes - 1}"
        )


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Returns numerator / denominator in float64, 0 where the denominator is 0."""
    return numerator / np.maximum(denominator, 1)
