# SPDX-License-Identifier: Apache-2.0
"""Texts come in; passages that cover them, are short enough and end where one would end them come out."""

import itertools

import hypothesis
import hypothesis.strategies as st
import pytest

from t5tasks.retrieval.cutting import Cutter, words

TEXTS = st.text(alphabet="ab .!?\n\t,é東。", max_size=400)


def characters(text):
    """Tokens of a character each, blanks as well."""
    return [(place, place + 1) for place in range(len(text))]


def with_blanks(text):
    """Tokens that have the blank before them, as SentencePiece's do."""
    return [(start - (start > 0 and text[start - 1] == " "), end) for start, end in words(text)]


@pytest.mark.parametrize("tokenise", [words, characters, with_blanks])
@hypothesis.given(text=TEXTS, size=st.integers(8, 40), share=st.floats(0, 0.5))
def test_passages_cover_all_and_have_at_most_so_many_tokens(tokenise, text, size, share):
    cutter = Cutter(size, int(size * share), tokenise)
    spans = cutter.cut(text)
    covered = {place for start, end in spans for place in range(start, end)}
    assert all(place in covered for place, sign in enumerate(text) if not sign.isspace())
    tokens = [token for token in tokenise(text) if text[slice(*token)].strip()]
    for start, end in spans:
        assert text[start:end] == text[start:end].strip() != ""
        assert sum(start <= first and last <= end for first, last in tokens) <= size
    for (start, end), (next_start, next_end) in itertools.pairwise(spans):
        assert start < next_start and end < next_end
        assert sum(next_start <= first and last <= end for first, last in tokens) <= cutter.overlap


def cut(text, *settings):
    return [text[start:end] for start, end in Cutter(*settings).cut(text)]


def test_the_overlap_begins_with_a_sentence_or_else_a_word():
    text = "One two three. Four five six. Seven eight nine."
    assert cut(text, 8, 4) == ["One two three. Four five six.", "Four five six. Seven eight nine."]
    assert cut("a b c d e f g h i j", 8, 3) == ["a b c d e f g h", "f g h i j"]
    assert cut("a b c d e f g h i j", 8, 0) == ["a b c d e f g h", "i j"]


def test_paragraphs_go_before_lines_sentences_and_words():
    assert cut("a b c d e f\n\ng. h i j", 8, 0) == ["a b c d e f", "g. h i j"]
    assert cut("a b c d e f\ng. h i j", 8, 0) == ["a b c d e f", "g. h i j"]
    assert cut("a b c d e f.\ng h i. j", 8, 0) == ["a b c d e f.", "g h i. j"]
    assert cut("a b c d e f. g h i j", 8, 0) == ["a b c d e f.", "g h i j"]


def test_words_are_not_cut_where_tokens_are_parts_of_them():
    halves = lambda text: [part for start, end in words(text) for part in  # noqa: E731
                           ((start, (start + end) // 2), ((start + end) // 2, end))]
    assert cut("aaaa bbbb cccc dddd eeee ffff", 9, 4, halves) == ["aaaa bbbb cccc dddd", "cccc dddd eeee ffff"]


def test_a_short_text_is_one_passage_and_a_blank_one_none():
    assert cut("  One. \n", 8, 0) == ["One."]
    assert cut(" \n ", 8, 0) == []


@pytest.mark.parametrize(("size", "overlap"), [(7, 0), (20, 11), (20, -1)])
def test_settings_that_cannot_be_are_refused(size, overlap):
    with pytest.raises(ValueError, match="expected at least 8 tokens, and an overlap from 0 to half"):
        Cutter(size, overlap)
