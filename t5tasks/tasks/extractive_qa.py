# SPDX-License-Identifier: Apache-2.0
"""Chapter 5a, extractive question answering: a question and a context in, a span of the context out.

The guide's example:

    question  Who introduced the first iPhone?                               answer   Steve Jobs
    context   The first iPhone was introduced by Apple CEO Steve Jobs on January 9, 2007, at the Macworld
              convention.

    encoder   [CLS] question [SEP] context [SEP]   token types 0 and 1
              start logits, end logits → two softmaxes over the whole sequence, graded at the answer's
              first and last token; at [CLS] where there is no answer (arxiv.org/abs/1810.04805, section 4.3)

The answer is the best valid span: in the context, its end not before its start, at most
`max_answer_length` tokens long, with the highest sum of both logits. A context that is too long is read
in overlapping windows; in training, one that does not hold the whole answer has none, and in prediction
all windows' spans compete by their sums. Of several windows' [CLS] the lowest sum speaks for no answer.

With search="independent" it is not searched for: it begins at the token most likely to begin one and ends at the
one most likely to end one, and where that is no valid span, there is none.

Version 2 (arxiv.org/abs/1806.03822) leaves a question unanswered where the sum at [CLS] exceeds that of
the best span by more than `threshold`. With `tune`, a trained run takes the threshold that was the best
for F1 on its validation records. Version 1 always answers.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from t5tasks.data.features import BETWEEN, Example, Piece, Span, Tokens, graded, special
from t5tasks.metrics import spans as span_metrics
from t5tasks.metrics.counts import Counts
from t5tasks.tasks.task import SPANS, Answer, Form, Options, Prediction, Record, Task, Window

CONTEXT = 3  # the place of the context among the pieces
CERTAIN = 99.0  # the logit of what leaves no doubt


def example(record: Record, options: Options) -> Example:
    """[CLS] question [SEP] context [SEP], with the span of the first answer, if there is one.

    Raises:
      ValueError: an answer that does not stand in the context where it says.
    """
    pieces = (special("cls", "question"), Piece(record["question"].strip(), "question", trim=True),
              special(BETWEEN, "question"), Piece(record["context"], "context", token_type=1, window=True),
              special("sep", "context", token_type=1))
    return Example(pieces, span=_span(record), overlap=options["overlap"])


def _span(record: Record) -> Span:
    answers = record.get("answers") or {"text": [], "answer_start": []}
    if not answers["text"]:
        return Span(0)
    text, start = answers["text"][0], answers["answer_start"][0]
    there = record["context"][start:start + len(text)]
    if there != text:
        raise ValueError(f"question {record.get('id') or record['question']!r:.60} has the answer {text!r:.60} at "
                         f"character {start}, where the context has {there!r:.60}")
    return Span(CONTEXT, start, start + len(text))


def best_spans(starts: np.ndarray, ends: np.ndarray, valid: np.ndarray, longest: int, count: int
               ) -> list[tuple[float, int, int]]:
    """The `count` best (sum, first, last) of one sequence, the better first, of equal ones the earlier.

    Args:
      starts, ends: f64[T], logits. valid: bool[T], tokens that may begin or end a span.
      longest: tokens a span may have.
    """
    starts, ends = np.where(valid, starts, -np.inf), np.where(valid, ends, -np.inf)
    longest = min(longest, len(starts))
    behind = np.concatenate([ends, np.full(longest - 1, -np.inf)])
    # sums[t, n] is that of the n + 1 tokens from t on.
    sums = (starts[:, None] + np.lib.stride_tricks.sliding_window_view(behind, longest)).ravel()
    count = min(count, int(np.isfinite(sums).sum()))
    if not count:
        return []
    candidates = np.flatnonzero(sums >= np.partition(sums, len(sums) - count)[len(sums) - count])
    order = candidates[np.argsort(-sums[candidates], kind="stable")][:count]
    return [(float(sums[index]), int(index // longest), int(index // longest + index % longest)) for index in order]


def independent_span(starts: np.ndarray, ends: np.ndarray, valid: np.ndarray, longest: int, count: int
                     ) -> list[tuple[float, int, int]]:
    """What `best_spans` gives, of the one pair of both argmaxes over valid tokens; none where it is no valid span."""
    if not valid.any():
        return []
    first, last = (int(np.where(valid, logits, -np.inf).argmax()) for logits in (starts, ends))
    return [(float(starts[first] + ends[last]), first, last)] if 0 <= last - first < longest else []


def _found(window: Window, context: str, options: Options) -> list[tuple[float, int, int]]:
    """(sum, start, end) of the best spans of a window, in characters of the context, edge blanks left out."""
    starts, ends = window.values
    places = window.tokens.spans
    worded = [bool(context[start:end].strip()) for start, end in places]
    valid = (window.tokens.pieces == CONTEXT) & np.asarray(worded)
    found = []
    search = best_spans if options["search"] == "exhaustive" else independent_span
    for score, first, last in search(starts, ends, valid, options["max_answer_length"], options["n_best"]):
        start, end = int(places[first, 0]), int(places[last, 1])
        text = context[start:end]
        found.append((score, start + len(text) - len(text.lstrip()), end - len(text) + len(text.rstrip())))
    return found


def _speaks_for_none(windows: Sequence[Window]) -> Window:
    return min(windows, key=lambda window: window.values[:, 0].sum())


def candidates(record: Record, windows: Sequence[Window], options: Options
               ) -> tuple[float, dict[tuple[int, int], float]]:
    """The sum of logits for no answer; and those of the best different spans, in characters of the context, the best
    span first."""
    spans: dict[tuple[int, int], float] = {}
    for score, start, end in sorted((each for window in windows for each in _found(window, record["context"], options)),
                                    key=lambda each: -each[0]):
        spans.setdefault((start, end), score)
    return float(_speaks_for_none(windows).values[:, 0].sum()), spans


def postprocess(record: Record, answer: Answer, options: Options) -> Prediction:
    """{"answer", "start", "end", "score", "n_best"} and, in version 2, "no_answer".

    `answer` is context[start:end]; empty, with start and end None, where none is given. `score` is the
    product of the probabilities of start and end among all tokens of all windows ([CLS] counts once).
    `n_best` holds the best different spans, given or not; `no_answer` is how far the sum of logits for no
    answer exceeds that of the best of them.
    """
    assert isinstance(answer, list)
    context = record["context"]
    none = _speaks_for_none(answer)
    logits = np.concatenate([none.values[:, :1], *(window.values[:, 1:] for window in answer)], axis=1)
    total = float(np.logaddexp.reduce(logits, axis=1).sum())
    nothing, spans = candidates(record, answer, options)
    n_best = [_given(context[start:end], start, end, score - total)
              for (start, end), score in list(spans.items())[:options["n_best"]]]
    best = n_best[0] if n_best else _given("", None, None, -np.inf)
    if options["version"] == 1:
        return {**best, "n_best": n_best}
    difference = nothing - max(spans.values()) if spans else span_metrics.ALWAYS
    if difference > options["threshold"]:
        best = _given("", None, None, nothing - total)
    return {**best, "n_best": n_best, "no_answer": difference}


def _given(text: str, start: int | None, end: int | None, log_probability: float) -> dict[str, Any]:
    return {"answer": text, "start": start, "end": end, "score": float(np.exp(log_probability))}


def gold(record: Record, options: Options) -> Answer:
    """The right answer, in a window whose tokens are [CLS], the answer and what stands around it."""
    span, length = _span(record), len(record["context"])
    edges = [0, span.start, span.end, length] if span.piece else [0, length]
    places = [(0, 0), *itertools.pairwise(edges)]
    pieces = np.asarray([0] + [CONTEXT] * (len(places) - 1), np.int32)
    tokens = Tokens(np.zeros(len(places), np.int32), pieces, np.asarray(places, np.int32), ("context",) * len(places))
    right = np.arange(len(places)) == (2 if span.piece else 0)
    return [Window(tokens, np.where([right, right], CERTAIN, 0.0))]


def count(record: Record, prediction: Prediction, options: Options) -> Counts:
    """One question's exact match and F1 and, in version 2, what every threshold would make of it."""
    references = [list(record["answers"]["text"])]
    counts = span_metrics.span_counts([prediction["answer"]], references, options["version"])
    if options["version"] == 1:
        return counts
    best = prediction["n_best"][0]["answer"] if prediction["n_best"] else ""
    return counts | span_metrics.threshold_counts([best], references, [prediction["no_answer"]])


def figures(counts: Counts, options: Options) -> dict[str, float]:
    """Exact match and F1, of all questions and of those with and without an answer; the best threshold."""
    found = span_metrics.span_figures(counts)
    return found if options["version"] == 1 else found | span_metrics.threshold_figures(counts)


def baselines(records: Sequence[Record], options: Options) -> dict[str, float]:
    """F1 of answering with the whole context and, in version 2, of never answering."""
    answered = {"context": [record["context"] for record in records]}
    if options["version"] == 2:
        answered["no_answer"] = [""] * len(records)
    references = [list(record["answers"]["text"]) for record in records]
    return {name: span_metrics.span_figures(span_metrics.span_counts(texts, references, options["version"]))["f1"]
            for name, texts in answered.items()}


def resolve(options: Options, load: Callable[[], Iterable[Record]]) -> Options:
    """The options as they are; ValueError for one out of range."""
    if options["version"] not in (1, 2):
        raise ValueError(f"config.task.version is {options['version']!r}, expected 1 (every question has an answer) "
                         "or 2")
    if options["search"] not in ("exhaustive", "independent"):
        raise ValueError(f"config.task.search is {options['search']!r}, expected exhaustive or independent")
    for name in ("max_answer_length", "n_best"):
        if options[name] < 1:
            raise ValueError(f"config.task.{name} is {options[name]!r}, expected 1 or more")
    return options


def tune(options: Options, figures: Any) -> Options:
    """The options with the threshold that was the best for F1 on the validation records."""
    if not options["tune"] or "best_f1_threshold" not in figures:
        return options
    return {**options, "threshold": figures["best_f1_threshold"]}


TASK = Task(
    name="extractive_qa", chapter="5a", fields={"question": str, "context": str}, targets={"answers": dict},
    options={"version": 2, "threshold": 0.0, "tune": True, "max_answer_length": 30, "n_best": 5, "overlap": 0,
             "search": "exhaustive"},
    forms={"encoder": Form("encoder", "span", SPANS, example, graded(), gold=gold)},
    postprocess=postprocess, count=count, figures=figures, metric="f1", baselines=baselines, resolve=resolve,
    tune=tune, answering=("threshold", "tune", "max_answer_length", "n_best", "search"))
