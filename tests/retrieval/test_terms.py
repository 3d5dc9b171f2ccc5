# SPDX-License-Identifier: Apache-2.0
"""Texts of several scripts come in; the terms that BM25 counts in them come out."""

import numpy as np
import pytest

from t5tasks.retrieval import terms


@pytest.mark.parametrize(("text", "expected"), [
    ("", []),
    ("... !?", []),
    ("The doors, THE door's", ["the", "doors", "the", "door", "s"]),
    ("Beyoncé naïve—Straße ﬁne", ["beyonce", "naive", "strasse", "fine"]),
    ("東京都へ。Tokyo2020", ["東京", "京都", "都へ", "tokyo2020"]),
    ("東", ["東"]),
    ("हिन्दी में", ["हिन्दी", "में"]),  # vowels are marks, and stay
    ("한국어 위키", ["한국어", "위키"]),
    ("snake_case 1,024", ["snake_case", "1", "024"]),
])
def test_terms(text, expected):
    assert terms.terms(text) == expected


def test_plain_texts_are_split_as_others_are():
    text = "It's 4 o'clock; snake_case, x=1.5e-3 (really?)"
    assert terms.terms(text + " é")[:-1] == terms.terms(text)


def test_counts_say_how_often_and_are_sorted():
    counted = terms.counts("b a b c b")
    assert sorted(counted["count"].tolist()) == [1, 1, 3]
    assert np.all(np.diff(counted["term"]) > 0)
    [often] = terms.counts("b")["term"]
    assert counted["count"][counted["term"] == often].tolist() == [3]
