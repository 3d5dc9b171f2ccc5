# SPDX-License-Identifier: Apache-2.0
"""Verdicts on a problem's samples come in, pass@k goes out; a record's tests come in, what they ask of a program out.

pass@k is the chance that one of k samples passes, estimated without bias from n >= k samples of which c pass (Chen et
al. 2021, arxiv.org/abs/2107.03374, equation 1):

    1 − C(n − c, k) / C(n, k)  =  1 − ∏_{i = n−c+1}^{n} (1 − k / i)
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Sequence

import numpy as np

from t5tasks.metrics.counts import Counts, require_examples
from t5tasks.metrics.sandbox import PASSED, STATUSES


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """The estimate for one problem, 0 to 1; ValueError unless 0 <= passed <= samples and 1 <= k <= samples."""
    if not (0 <= passed <= samples and 1 <= k <= samples):
        raise ValueError(f"pass@{k} of {samples} samples of which {passed} pass: expected 1 <= k <= samples and "
                         "0 <= passed <= samples")
    if samples - passed < k:
        return 1.0
    return float(1 - np.prod(1 - k / np.arange(samples - passed + 1, samples + 1)))


def pass_counts(statuses: Sequence[str], ks: Sequence[int]) -> Counts:
    """Counts one problem.

    Args:
      statuses: of its n samples, each of sandbox.STATUSES; none for a problem without tests.
      ks: K numbers.

    Returns:
      {"pass_at_k": float64[K] (sums of estimates), "pass_problems": int64[], "pass_statuses": int64[5] (samples)}.

    Raises:
      ValueError: fewer samples than the largest k.
    """
    if statuses and len(statuses) < max(ks):
        raise ValueError(f"pass@{max(ks)} needs at least {max(ks)} samples of a problem, there are {len(statuses)}; "
                         "set config.decode.samples (with method sample), or a smaller config.task.k")
    passed = sum(status == PASSED for status in statuses)
    return {"pass_at_k": np.asarray([pass_at_k(len(statuses), passed, k) if statuses else 0.0 for k in ks]),
            "pass_problems": np.asarray(int(bool(statuses))),
            "pass_statuses": np.asarray([sum(status == one for status in statuses) for one in STATUSES])}


def pass_figures(counts: Counts, ks: Sequence[int]) -> dict[str, float]:
    """Turns summed `pass_counts` into pass@K for each k, and samples/STATUS, the fraction of samples with it.

    Raises ValueError when no problem had tests.
    """
    problems = int(counts["pass_problems"])
    require_examples(problems, "pass@k")
    samples = int(counts["pass_statuses"].sum())
    return {**{f"pass@{k}": float(total / problems) for k, total in zip(ks, counts["pass_at_k"], strict=True)},
            **{f"samples/{status}": float(number / samples)
               for status, number in zip(STATUSES, counts["pass_statuses"], strict=True)}}


def interface(tests: Sequence[str], reference: str, given: str = "") -> tuple[tuple[str, ...], str]:
    """What tests ask of a program, and what they bring along themselves.

    A name in the tests is the program's where the reference defines it, or where nobody else does; so a program
    cannot slip in a `set` or an `abs` of its own. What `given` defines before the function that is to be completed,
    and what the reference imports, is the tests' own copy: a program may define it again, but only for itself.

    Args:
      tests: Python statements.
      reference: a right program, `given` included; "" or no Python where there is none.
      given: how every program begins, where programs are to be completed.

    Returns:
      names: the program's, that the tests speak of; before: the tests' own statements.
    """
    body = _parsed(reference)
    begun = given.rstrip().count("\n") + 1 if given.strip() else 0  # lines
    own = [statement for statement in body
           if isinstance(statement, ast.Import | ast.ImportFrom) or (statement.end_lineno or 0) < begun]
    rest = [statement for statement in body if statement not in own]
    brought, defined = _defined(own), _defined(rest)
    statements = [statement for test in tests for statement in _parsed(test)]
    read = {node.id for node in _walk(statements) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    free = read - _bound(statements)
    names = sorted(name for name in free if name in defined or not (name in brought or hasattr(builtins, name)))
    return tuple(names), "\n".join(map(ast.unparse, own))


def _parsed(source: str) -> list[ast.stmt]:
    try:
        return ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def _walk(statements: Iterable[ast.stmt]) -> Iterable[ast.AST]:
    return (node for statement in statements for node in ast.walk(statement))


def _defined(statements: Iterable[ast.stmt]) -> set[str]:
    """The names that top-level statements define."""
    names: set[str] = set()
    for statement in statements:
        inner = isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        names |= {statement.name} if inner else _bound([statement])  # type: ignore[attr-defined]
    return names


def _bound(statements: Iterable[ast.stmt]) -> set[str]:
    """Every name that is given a value somewhere in the statements."""
    names: set[str] = set()
    for node in _walk(statements):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
    return names
