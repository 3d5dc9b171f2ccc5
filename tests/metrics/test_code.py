# SPDX-License-Identifier: Apache-2.0
"""pass@k against exact rationals, and which names of a record's tests are the program's."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from t5tasks.metrics import code, counts
from t5tasks.metrics.sandbox import FAILED, MEMORY, PASSED, STATUSES, TIMEOUT


def exact(samples, passed, k):
    """1 − C(n − c, k) / C(n, k), as equation 1 of the paper has it, without rounding."""
    return 1 - Fraction(math.comb(samples - passed, k), math.comb(samples, k))


def test_the_estimate_is_the_paper_s():
    for samples in (*range(1, 13), 100, 200):
        for passed in {*range(0, samples + 1, max(samples // 12, 1)), 1, samples - 1, samples}:
            for k in {1, 2, 10, 100, samples} & set(range(1, samples + 1)):
                assert code.pass_at_k(samples, passed, k) == pytest.approx(float(exact(samples, passed, k)), abs=1e-12)
    # C(5000, 2500) overflows a float; the product does not.
    assert code.pass_at_k(5000, 3, 2500) == pytest.approx(float(exact(5000, 3, 2500)), abs=1e-12)


def test_the_estimate_is_the_mean_over_all_choices_of_k_samples():
    for passed, k in ((0, 3), (1, 3), (2, 2), (4, 3), (6, 1)):
        outcomes = [True] * passed + [False] * (6 - passed)
        chosen = [any(choice) for choice in itertools.combinations(outcomes, k)]
        assert code.pass_at_k(6, passed, k) == pytest.approx(np.mean(chosen), abs=1e-12)


@pytest.mark.parametrize("numbers", [(3, 4, 1), (3, 1, 4), (3, 1, 0), (3, -1, 1)])
def test_impossible_numbers_are_refused(numbers):
    with pytest.raises(ValueError, match="expected 1 <= k <= samples"):
        code.pass_at_k(*numbers)


def test_counts_of_problems_add_up():
    problems = [[PASSED, FAILED, TIMEOUT, PASSED], [FAILED] * 4, [], [PASSED] * 4, [MEMORY, FAILED, FAILED, PASSED]]
    ks = (1, 2, 4)
    summed = counts.total(code.pass_counts(statuses, ks) for statuses in problems)
    figures = code.pass_figures(summed, ks)
    for k in ks:
        wanted = sum((exact(4, passed, k) for passed in (2, 0, 4, 1)), Fraction()) / 4
        assert figures[f"pass@{k}"] == pytest.approx(float(wanted), abs=1e-12)
    assert [figures[f"samples/{status}"] for status in STATUSES] == [7 / 16, 7 / 16, 1 / 16, 1 / 16, 0]


def test_too_few_samples_and_no_tests_are_said():
    with pytest.raises(ValueError, match="pass@10 needs at least 10 samples of a problem, there are 2; set"):
        code.pass_counts([PASSED, FAILED], (1, 10))
    with pytest.raises(ValueError, match="pass@k was asked for, but no example was counted"):
        code.pass_figures(code.pass_counts([], (1,)), (1,))


def test_names_are_the_program_s_only_where_nobody_else_has_them():
    reference = ("import math\nR = 3\ndef area(r): return math.pi * r ** 2\nclass Pair: pass\n"
                 "def sum(a, b): return a + b")
    tests = ["import sys", "x = Pair()", "assert math.isclose(area(1), R, rel_tol=abs(sum(1, 2)))",
             "assert sorted(unknown([x])) == sys.path"]
    names, before = code.interface(tests, reference)
    assert names == ("Pair", "R", "area", "sum", "unknown") and before == "import math"


def test_what_is_given_before_the_function_is_the_tests_own():
    given = ('import math\n\n\ndef encode(text):\n    return text[::-1]\n\n\ndef decode(text: str):\n    """\n'
             '    takes encode back\n    """\n')
    check = "def check(candidate):\n    for text in 'ab':\n        assert candidate(encode(text)) == text\n\n"
    tests = [f"{check}check(decode)"]
    names, before = code.interface(tests, given + "    return text[::-1]\n", given)
    assert names == ("decode",)
    assert before == "import math\ndef encode(text):\n    return text[::-1]"
    # A whole program has no such part: there, every function is the program's.
    assert code.interface(tests, given + "    return text[::-1]\n")[0] == ("decode", "encode")


def test_a_reference_that_is_no_python_defines_nothing():
    assert code.interface(["assert f(len('a')) == 1"], "f = (") == (("f",), "")
