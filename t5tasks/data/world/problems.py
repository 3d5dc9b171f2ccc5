# SPDX-License-Identifier: Apache-2.0
"""Solvable problems: a random stream, a split and a kind in, a code or reasoning record out."""

import random
from collections.abc import Callable
from typing import Any, NamedTuple

from t5tasks.data.world.combinations import (
    draw_amount,
    draw_other,
    draw_visit,
    split_of,
)
from t5tasks.data.world.facts import PEOPLE, THINGS

Record = dict[str, Any]

REASONING_KINDS = ("left", "two things", "shared", "given away", "change")


def reasoning(draw: random.Random, split: str, kind: str) -> Record:
    """Make a word problem of two or three steps (kind: one of REASONING_KINDS), worked out.

    Every step of "reasoning" writes one sum as "a + b = c"; "answer" is the last result.
    """
    person, place = draw_visit(draw, split)
    count, thing = draw_amount(draw, split)
    other = draw_other(draw, PEOPLE, person)
    total = count * thing.price
    bought = f"In {place.city}, {person} buys {count} {thing.plural} for {thing.price} coins each"
    product = f"The {thing.plural} cost {count} * {thing.price} = {total} coins."
    if kind == "left":
        money = total + draw.randint(1, 9)
        question = f"{person} has {money} coins. {bought}. How many coins are left?"
        steps = [product, f"What is left is {money} - {total} = {money - total}."]
        answer = money - total
    elif kind in ("two things", "change"):
        more, second = draw_amount(draw, split)
        while second == thing:
            more, second = draw_amount(draw, split)
        cost = more * second.price
        answer = total + cost
        question = f"{bought} and {more} {second.plural} for {second.price} coins each. "
        steps = [
            product,
            f"The {second.plural} cost {more} * {second.price} = {cost} coins.",
            f"Together that is {total} + {cost} = {answer} coins.",
        ]
        if kind == "two things":
            question += f"How many coins does {person} pay?"
        else:
            money = 10 * (answer // 10 + 1)
            question += f"{person} gives {money} coins. How many coins does {person} get back?"
            steps.append(f"What comes back is {money} - {answer} = {money - answer}.")
            answer = money - answer
    elif kind == "shared":
        tip = draw.randint(2, 6)
        half, odd = divmod(total + tip, 2)
        tip, half = (tip + 1, half + 1) if odd else (tip, half)
        question = (
            f"{bought} and pays {tip} coins for a bag. {other} pays half of it all. "
            f"How many coins does {other} pay?"
        )
        steps = [
            product,
            f"With the bag that is {total} + {tip} = {total + tip} coins.",
            f"Half of it is {total + tip} / 2 = {half} coins.",
        ]
        answer = half
    else:
        own, given = draw.randint(2, 6), draw.randint(1, count)
        question = (
            f"{bought}. {person} already had {own} of them and gives {given} to {other}. "
            f"How many {thing.plural} does {person} have now?"
        )
        answer = own + count - given
        steps = [
            f"At first {person} has {own} + {count} = {own + count} {thing.plural}.",
            f"Then {own + count} - {given} = {answer} {thing.plural} remain.",
        ]
    return {"question": question, "reasoning": " ".join(steps), "answer": str(answer)}


class Operation(NamedTuple):
    """Something a function can return: in words, as Python, and as what it must give.

    In `words` and `code`, {name} is the parameter and {number} the number; `result` takes both.
    """

    words: str
    code: str
    takes: str
    result: Callable[[Any, int], object]


OPERATIONS = {
    "plus": Operation("{name} plus {number}", "{name} + {number}", "number", lambda x, n: x + n),
    "minus": Operation("{name} minus {number}", "{name} - {number}", "number", lambda x, n: x - n),
    "from": Operation("{number} minus {name}", "{number} - {name}", "number", lambda x, n: n - x),
    "times": Operation("{name} times {number}", "{name} * {number}", "number", lambda x, n: x * n),
    "rest": Operation(
        "the rest of {name} divided by {number}",
        "{name} % {number}",
        "number",
        lambda x, n: x % n,
    ),
    "above": Operation("whether {name} is more than {number}", "{name} > {number}", "number", lambda x, n: x > n),
    "larger": Operation(
        "the larger of {name} and {number}",
        "max({name}, {number})",
        "number",
        lambda x, n: max(x, n),
    ),
    "smaller": Operation(
        "the smaller of {name} and {number}",
        "min({name}, {number})",
        "number",
        lambda x, n: min(x, n),
    ),
    "sum above": Operation(
        "the sum of the numbers in {name} that are more than {number}",
        "sum(item for item in {name} if item > {number})",
        "list",
        lambda values, n: sum(item for item in values if item > n),
    ),
    "sum below": Operation(
        "the sum of the numbers in {name} that are less than {number}",
        "sum(item for item in {name} if item < {number})",
        "list",
        lambda values, n: sum(item for item in values if item < n),
    ),
    "all above": Operation(
        "the list of the numbers in {name} that are more than {number}",
        "[item for item in {name} if item > {number}]",
        "list",
        lambda values, n: [item for item in values if item > n],
    ),
    "all below": Operation(
        "the list of the numbers in {name} that are less than {number}",
        "[item for item in {name} if item < {number}]",
        "list",
        lambda values, n: [item for item in values if item < n],
    ),
    "all plus": Operation(
        "the list of the numbers in {name} with {number} added to each",
        "[item + {number} for item in {name}]",
        "list",
        lambda values, n: [item + n for item in values],
    ),
    "all times": Operation(
        "the list of the numbers in {name} with each multiplied by {number}",
        "[item * {number} for item in {name}]",
        "list",
        lambda values, n: [item * n for item in values],
    ),
    "count": Operation(
        "how often {number} is in {name}",
        "{name}.count({number})",
        "list",
        lambda values, n: sum(item == n for item in values),
    ),
    "holds": Operation(
        "whether {number} is in {name}", "{number} in {name}", "list", lambda values, n: n in values
    ),
    "first": Operation(
        "the first {number} letters of {name}",
        "{name}[:{number}]",
        "text",
        lambda text, n: "".join(letter for place, letter in enumerate(text) if place < n),
    ),
    "last": Operation(
        "the last {number} letters of {name}",
        "{name}[-{number}:]",
        "text",
        lambda text, n: "".join(letter for place, letter in enumerate(text) if place >= len(text) - n),
    ),
    "longer": Operation(
        "whether {name} has more than {number} letters",
        "len({name}) > {number}",
        "text",
        lambda text, n: len(text) > n,
    ),
}
FUNCTION_NAMES = (
    "answer", "compute", "find", "give", "make", "result",
    "show", "solve", "step", "tell", "work", "write",
)  # fmt: skip
PARAMETERS = {
    "number": ("x", "number", "value"),
    "list": ("values", "numbers", "items"),
    "text": ("text", "word", "name"),
}


def code(draw: random.Random, split: str, kind: str) -> Record:
    """Make an instruction, the one-line function it asks for and three asserts (kind: OPERATIONS).

    (operation, number) is one of the split. The values in the asserts come from `Operation.result`,
    not from running the code.
    """
    operation = OPERATIONS[kind]
    known = [number for number in range(2, 22) if split_of(kind, number) == split]
    number = draw.choice(known)
    function, parameter = draw.choice(FUNCTION_NAMES), draw.choice(PARAMETERS[operation.takes])
    words = operation.words.format(name=parameter, number=number)
    body = operation.code.format(name=parameter, number=number)
    tests = []
    for _ in range(3):
        value = _argument(draw, operation.takes, number)
        tests.append(f"assert {function}({value!r}) == {operation.result(value, number)!r}")
    return {
        "instruction": f"Write a Python function {function}({parameter}) that returns {words}.",
        "code": f"def {function}({parameter}): return {body}",
        "tests": tests,
    }


def _argument(draw: random.Random, takes: str, number: int) -> Any:
    """Draw an argument near the number, so that off-by-one answers fail the asserts."""
    if takes == "number":
        return max(0, number + draw.randint(-4, 6))
    if takes == "list":
        return [max(0, number + draw.randint(-3, 3)) for _ in range(draw.randint(3, 6))]
    length = number + draw.randint(-1, 6)
    return "".join(draw.choice(THINGS).plural for _ in range(length))[:length]
