# SPDX-License-Identifier: Apache-2.0
"""Chapter 5a: where an answer stands, the search for the best span, windows, and no answer."""

import itertools
import random

import numpy as np
import pytest

from t5tasks import tasks
from t5tasks.data import tokenizer as tokenizers
from t5tasks.data.features import Example, Piece, Span, special, windows
from t5tasks.metrics import counts as counting
from t5tasks.tasks.extractive_qa import best_spans, independent_span
from t5tasks.tasks.task import Window

TASK = tasks.get("extractive_qa")
FORM = TASK.form("encoder")
CONTEXT = "Marie Curie was born in Warsaw and moved to Paris."
RECORD = {"id": "q1", "question": " Where was Marie Curie born?", "context": CONTEXT,
          "answers": {"text": ["Warsaw"], "answer_start": [24]}}
UNANSWERABLE = {**RECORD, "answers": {"text": [], "answer_start": []}}
# Letters of one to four bytes, marks that join them, blanks of several kinds, signs beyond the first plane.
ALPHABET = "aZ é ß ñ ж 語 한 \u0301 👍🏽 𝔘 ﬁ ½ \u00a0 \t \n ' \" - . , ١ ة ไ"


def _windows(record, tokenizer, options=TASK.options, length=200):
    return windows(FORM.preprocess(record, options), tokenizer, FORM.loss_mask, length)


def _answer(made, height=9.0):
    """Logits that say what the targets do."""
    return [Window(tokens, height * (np.arange(len(tokens.ids)) == arrays["targets"][:, None]))
            for arrays, tokens, _ in made]


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """Byte-level BPE of the alphabet: tokens that are parts of characters, and blanks that begin tokens."""
    draw = random.Random(0)
    texts = ["".join(draw.choices(ALPHABET, k=40)) for _ in range(50)]
    return tokenizers.train(texts, 330, tmp_path_factory.mktemp("pieces"))


def test_the_guides_example(word_piece):
    context = ("The first iPhone was introduced by Apple CEO Steve Jobs on January 9, 2007, at the Macworld "
               "convention.")
    record = {"question": "Who introduced the first iPhone?", "context": context,
              "answers": {"text": ["Steve Jobs"], "answer_start": [context.index("Steve")]}}
    made = _windows(record, word_piece)
    (arrays, tokens, _), = made
    start, end = arrays["targets"]
    assert tokens.roles[start] == tokens.roles[end] == "context" and start < end
    found = TASK.postprocess(record, _answer(made), TASK.options)
    assert (found["answer"], found["start"], found["end"]) == ("Steve Jobs", 45, 55) and found["score"] > 0.9


def test_question_and_context_have_two_token_types(letters):
    (arrays, tokens, _), = _windows(RECORD, letters)
    question = len("Where was Marie Curie born?")
    assert [index for index, id in enumerate(tokens.ids) if id < 5] == [0, question + 1, len(tokens.ids) - 1]
    assert arrays["token_types"].tolist() == [0] * (question + 2) + [1] * (len(CONTEXT) + 1)
    assert arrays["targets"].tolist() == [question + 2 + 24, question + 2 + 29]
    assert arrays["weights"].tolist() == [1, 1]


def test_what_has_no_answer_points_at_cls(letters):
    (arrays, _, _), = _windows(UNANSWERABLE, letters)
    assert arrays["targets"].tolist() == [0, 0] and arrays["weights"].tolist() == [1, 1]


def test_the_score_is_a_softmax_over_the_whole_sequence(letters):
    (_, tokens, _), = _windows(RECORD, letters)
    draw = np.random.default_rng(0)
    values = draw.normal(size=(2, len(tokens.ids)))
    found = TASK.postprocess(RECORD, [Window(tokens, values)], TASK.options)
    probabilities = np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)
    best = found["n_best"][0]
    first = 2 + len("Where was Marie Curie born?")
    # A blank at an edge of a span is left out of it, so that several spans of tokens may be one of the text.
    reached = [probabilities[0, first + start] * probabilities[1, first + end - 1]
               for start in range(max(best["start"] - 1, 0), best["start"] + 1)
               for end in range(best["end"], min(best["end"] + 2, len(CONTEXT) + 1))]
    assert any(best["score"] == pytest.approx(each) for each in reached)
    nothing = values[:, 0].sum() - np.log(np.exp(values).sum(axis=1)).sum()
    assert found["no_answer"] == pytest.approx(nothing - np.log(best["score"]))
    refused = TASK.postprocess(RECORD, [Window(tokens, values)], {**TASK.options, "threshold": -99.0})
    assert (refused["answer"], refused["start"], refused["end"]) == ("", None, None)
    assert refused["score"] == pytest.approx(probabilities[:, 0].prod()) and refused["n_best"] == found["n_best"]


def _double_loop(starts, ends, valid, longest, count):
    found = []
    for first in range(len(starts)):
        for last in range(first, min(first + longest, len(starts))):
            if valid[first] and valid[last]:
                found.append((starts[first] + ends[last], first, last))
    return sorted(found, key=lambda each: -each[0])[:count]  # stable: the earlier of equal ones first


@pytest.mark.parametrize("seed", range(20))
def test_an_independent_span_is_of_both_argmaxes_and_the_best_one_where_they_fit(seed):
    draw = np.random.default_rng(seed)
    starts, ends = draw.normal(size=(2, 6))
    valid, longest = draw.random(6) < 0.8, int(draw.integers(1, 7))
    allowed = np.flatnonzero(valid)
    first, last = (max(allowed, key=lambda place: logits[place]) for logits in (starts, ends))
    found = independent_span(starts, ends, valid, longest, 3)
    if not first <= last < first + longest:
        assert found == []
        return
    assert found == [(pytest.approx(starts[first] + ends[last]), first, last)]
    assert found[0][1:] == best_spans(starts, ends, valid, longest, 1)[0][1:]


def test_where_nothing_is_valid_there_is_no_independent_span():
    assert independent_span(np.zeros(3), np.zeros(3), np.zeros(3, bool), 3, 1) == []


@pytest.mark.parametrize("seed", range(40))
def test_the_search_is_the_double_loop(seed):
    draw = np.random.default_rng(seed)
    length, longest, count = (int(draw.integers(1, high)) for high in (40, 45, 30))
    starts, ends = draw.normal(size=(2, length))
    if seed % 2:
        starts, ends = starts.round(), ends.round()  # ties
    valid = draw.random(length) < 0.7
    assert best_spans(starts, ends, valid, longest, count) == [
        (pytest.approx(score), first, last) for score, first, last in _double_loop(starts, ends, valid, longest, count)]


@pytest.mark.parametrize(("kind", "length"), [("letters", 400), ("letters", 30), ("pieces", 400), ("pieces", 30)])
def test_random_spans_of_unicode_texts_come_back_exactly(kind, length, letters, pieces):
    """2,500 of each: in one window and in several, of characters and of parts of them."""
    tokenizer, draw = {"letters": letters, "pieces": pieces}[kind], random.Random(length)
    options = {**TASK.options, "max_answer_length": 99, "n_best": 1}
    for _ in range(25):
        context = "".join(draw.choices(ALPHABET, k=draw.randint(12, 32)))
        question = "".join(draw.choices(ALPHABET, k=6)).strip() or "?"
        record = {"question": question, "context": context}
        bounds = _token_edges(context, tokenizer)
        made = _windows(record, tokenizer, options, length)
        for _ in range(100):
            start, end = sorted(draw.sample(bounds, 2)) if length > 100 else _near(bounds, draw)
            span = context[start:end]
            lost = len(span) - len(span.lstrip())
            start, end = start + lost, end - (len(span) - len(span.rstrip()) if span.strip() else 0)
            if start >= end:
                continue
            found = TASK.postprocess(record, _pointed(made, start, end), options)
            assert (found["start"], found["end"]) == (start, end)
            assert found["answer"] == context[start:end]


def _token_edges(context, tokenizer):
    offsets = tokenizer.encode_parts([4, context])[1].offsets
    return sorted({edge for pair in offsets for edge in pair})


def _near(bounds, draw):
    first = draw.randrange(len(bounds) - 1)
    return bounds[first], bounds[min(first + draw.randint(1, 3), len(bounds) - 1)]


def _pointed(made, start, end):
    """Each window that holds the whole span points at it, the others at [CLS], a little less surely."""
    answers = []
    for _, tokens, _ in made:
        inside = np.flatnonzero((tokens.pieces == 3) & (tokens.spans[:, 0] < end) & (tokens.spans[:, 1] > start))
        whole = len(inside) and tokens.spans[inside[0], 0] <= start and tokens.spans[inside[-1], 1] >= end
        places = inside[[0, -1]] if whole else np.zeros(2, int)
        answers.append(Window(tokens, (9.0 if whole else 5.0) * (np.arange(len(tokens.ids)) == places[:, None])))
    return answers


def test_windows_cover_the_context_and_answers_come_from_any_of_them(letters):
    made = _windows(RECORD, letters, {**TASK.options, "overlap": 4}, length=60)
    assert len(made) > 1 and all(len(tokens.ids) <= 60 for _, tokens, _ in made)
    seen = [tokens.spans[tokens.pieces == 3][:, 0].tolist() for _, tokens, _ in made if (tokens.pieces == 3).any()]
    assert sorted({at for own in seen for at in own}) == list(range(len(CONTEXT)))
    assert all(len(set(one) & set(other)) == 4 for one, other in itertools.pairwise(seen))
    holding = [all(at in own for at in range(24, 30)) for own in seen]
    assert [bool(arrays["targets"].any()) for arrays, _, _ in made] == holding and 0 < sum(holding) < len(made)
    found = TASK.postprocess(RECORD, _answer(made), TASK.options)
    assert (found["answer"], found["start"], found["end"]) == ("Warsaw", 24, 30)
    assert all(tokens.roles[:29] == ("question",) * 29 for _, tokens, _ in made)


def test_a_question_takes_half_of_the_length_at_most(letters):
    (_, tokens, _), *more = _windows({**RECORD, "question": "q" * 99}, letters, length=50)
    assert more and tokens.lost == {"question": 99 - (25 - 3)} and sum(tokens.pieces == 3) == 25
    with pytest.raises(ValueError, match="50: it leaves room for windows of 25 tokens, which cannot share 25"):
        _windows(RECORD, letters, {**TASK.options, "overlap": 25}, length=50)


def test_a_span_that_a_window_cuts_is_not_in_it(letters):
    example = Example((special("cls", "a"), Piece("abcdefghij", "b", window=True)), span=Span(1, 3, 5), overlap=1)
    made = windows(example, letters, FORM.loss_mask, 5)
    assert [tokens.spans[1:, 0].tolist() for _, tokens, _ in made] == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert [arrays["targets"].tolist() for arrays, _, _ in made] == [[0, 0], [1, 2], [0, 0]]


def test_the_best_spans_differ_and_the_longest_answer_is_bounded(letters):
    made = _windows(RECORD, letters)
    draw = np.random.default_rng(3)
    answer = [Window(tokens, draw.normal(size=(2, len(tokens.ids)))) for _, tokens, _ in made]
    options = {**TASK.options, "max_answer_length": 4, "n_best": 7}
    found = TASK.postprocess(RECORD, answer, options)["n_best"]
    places = [(each["start"], each["end"]) for each in found]
    assert len(set(places)) == len(places) > 4 and all(0 < end - start <= 4 for start, end in places)
    assert all(CONTEXT[each["start"]:each["end"]] == each["answer"] == each["answer"].strip() for each in found)
    scores = [each["score"] for each in found]
    assert scores == sorted(scores, reverse=True)


def test_version_1_always_answers(letters):
    options = {**TASK.options, "version": 1}
    found = TASK.postprocess(RECORD, _answer(_windows(UNANSWERABLE, letters)), options)
    assert found["answer"] and "no_answer" not in found
    counts = TASK.count(RECORD, found, options)
    assert TASK.figures(counts, options)["exact_match"] == 0
    assert set(TASK.baselines([RECORD], options)) == {"context"}
    with pytest.raises(ValueError, match=r"cannot be scored as SQuAD 1.1"):
        TASK.count(UNANSWERABLE, found, options)


def test_the_threshold_is_tuned_on_the_validation_records(letters):
    """Differences 2, 1, −1, −2; questions with an answer at the last two and one more: best from −1 to below 1."""
    def prediction(difference, answer):
        return {"answer": "", "n_best": [{"answer": answer}] if answer else [], "no_answer": difference}

    pairs = [(UNANSWERABLE, prediction(2.0, "Paris")), (UNANSWERABLE, prediction(1.0, "Paris")),
             (RECORD, prediction(-1.0, "Warsaw")), (RECORD, prediction(-2.0, "in Warsaw"))]
    figures = TASK.figures(counting.total(TASK.count(*pair, TASK.options) for pair in pairs), TASK.options)
    assert figures["f1"] == 0.5 and figures["best_f1"] == pytest.approx((2 + 1 + 2 / 3) / 4)
    assert figures["best_f1_threshold"] == -1.0
    assert TASK.tune(TASK.options, figures)["threshold"] == -1.0
    assert TASK.tune({**TASK.options, "tune": False}, figures)["threshold"] == 0.0
    assert TASK.tune(TASK.options, {"f1": 1.0}) == TASK.options
    made = _answer(_windows(RECORD, letters))
    assert TASK.postprocess(RECORD, made, {**TASK.options, "threshold": -17.9})["answer"] == "Warsaw"
    assert TASK.postprocess(RECORD, made, {**TASK.options, "threshold": -18.1})["answer"] == ""


@pytest.mark.parametrize(("change", "message"), [
    ({"version": 3}, "config.task.version is 3, expected 1 .* or 2"), ({"n_best": 0}, "config.task.n_best is 0, expec"),
    ({"max_answer_length": 0}, "config.task.max_answer_length is 0, expected 1 or more")])
def test_options_out_of_range_are_told(change, message):
    with pytest.raises(ValueError, match=message):
        TASK.resolve({**TASK.options, **change}, list)


def test_an_answer_that_stands_elsewhere_is_told():
    with pytest.raises(ValueError, match="question 'q1' has the answer 'Warsaw' at character 23, where .* ' Warsa'"):
        FORM.preprocess({**RECORD, "answers": {"text": ["Warsaw"], "answer_start": [23]}}, TASK.options)
