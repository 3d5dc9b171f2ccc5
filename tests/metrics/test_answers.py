# SPDX-License-Identifier: Apache-2.0
"""Where a final answer stands, what is the same answer, and what most say."""

import pathlib

import pytest

from t5tasks.data import sources
from t5tasks.metrics.answers import final_answer, majority, normalised

DATA = pathlib.Path(__file__).parents[2].parent / "shared" / "data"


@pytest.mark.parametrize(("text", "answer"), [
    ("48/2 = 24. 48+24 = 72\n#### 72", "72"),
    ("#### 1,234.50 dollars", "1,234.50"),
    ("#### -3", "-3"),
    (r"Thus \boxed{42}.", "42"),
    (r"so \boxed{\frac{3}{4}} of it", "3/4"),
    (r"\boxed{\text{blue}}", r"\text{blue}"),
    ("5 - 2 = 3. The answer is 3.", "3"),
    ("The answer is 4. No: the answer is 5.", "5"),
    ("the final answer is: $18.", "18"),
    ("The answer is seven.", "seven"),
    ("First 3, then 12 are left.", "12"),
    ("Answer: 1/2 cup", "1/2"),
    ("#### 5\nThe answer is 6.", "5"),
    ("nothing", ""), ("", ""),
])
def test_the_final_answer_is_found(text, answer):
    assert final_answer(text) == answer


@pytest.mark.parametrize(("one", "two"), [
    ("1,200", "1200"), ("$1200.00", "1200"), ("50%", "50"), ("2.50", "5/2"), ("0.5", "1 / 2"), (" Seven. ", "seven"),
    (r"\frac{3}{4}", "0.75"), ("-3", "-3.0"), (".5", "0.5"), ("3.", "3"), ("The  Cat", "the cat"),
])
def test_equal_answers_are_equal(one, two):
    assert normalised(one) == normalised(two)


@pytest.mark.parametrize(("one", "two"), [
    ("3", "-3"), ("1/3", "0.33"), ("30", "3"), ("12", "1.2"), ("5/0", "5"), ("", "0")])
def test_different_answers_are_different(one, two):
    assert normalised(one) != normalised(two)


def test_the_majority_is_the_most_frequent_and_the_earliest_among_equals():
    assert majority(["4", "3", "", "3.0", "5"]) == "3"
    assert majority(["a", "b", "B", "A"]) == "a" and majority(["", ""]) == "" and majority([]) == ""


@pytest.mark.parametrize(("name", "count"), [("train.jsonl.gz", 7473), ("test.jsonl", 678)])
def test_every_gold_answer_of_gsm8k_parses(name, count):
    if not DATA.exists():
        pytest.skip(f"no {DATA}: the real data sets are not beside this checkout")
    records = sources.load(f"file:{DATA}/gsm8k/{name}")
    parsed = [final_answer(record["answer"]) for record in records]
    assert len(parsed) == count and all(normalised(answer).lstrip("-").replace("/", "").isdigit() for answer in parsed)
    assert parsed == [record["answer"].rpartition("#### ")[2].strip() for record in records]
