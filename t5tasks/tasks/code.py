# SPDX-License-Identifier: Apache-2.0
"""Chapter 9, code: what is given in, the code that is asked for out; graded by its tests, or by the reference.

The guide's four uses are four templates of one task. In each, a record's `instruction` is what is given and its
`code` what is to be written:

    template        instruction                                   code
    generation      a description                                 the program
    completion      how the program begins                        how it goes on
    documentation   a program                                     its docstring or comment
    translation     a program in one language                     the same in another

The guide's examples of the first two:

    instruction   Python function to calculate the nth Fibonacci number                  code   def fibonacci(n): …
    instruction   // A Javascript function that fetches data from a URL and logs it to the console

    decoder       the instruction is read, the code's tokens and EOS are graded

A record's field `kind` names its own template. Records may have `tests` (a list of Python statements; or the text that
defines HumanEval's check, with the function's name as `entry_point`) and `setup` (what stands before the tests). With
the option run_tests they are run, in `metrics/sandbox.py`, and pass@k is counted for each of the option k; the
smallest is then what the best checkpoint has most of, in place of exact match.
"""

import dataclasses
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from t5tasks.data.features import Example, Piece, beginning, graded, special
from t5tasks.metrics import code as code_metrics
from t5tasks.metrics import counts as counting
from t5tasks.metrics import sandbox
from t5tasks.metrics import text as text_metrics
from t5tasks.metrics.counts import Counts
from t5tasks.tasks.task import GENERATION, Answer, Form, Options, Prediction, Record, Task

# What is read before the code, by template; {languages} is empty unless the options name both.
WORDINGS = {
    "generation": "{instruction}\n",
    "completion": "{instruction}",
    "documentation": "{instruction}\n# What this code does:\n",
    "translation": "{languages}{instruction}\n# The same, translated:\n",
}
FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.MULTILINE | re.DOTALL)
TRIPLE_QUOTES = re.compile(r"\"\"\"|'''")


def kind_of(record: Record, options: Options) -> str:
    """The record's template, by its own field or the options; ValueError lists those there are."""
    kind = record.get("kind") or options["template"]
    if kind not in WORDINGS:
        raise ValueError(f"unknown template {kind!r} of code; expected one of {', '.join(WORDINGS)} in "
                         "config.task.template or the record's kind")
    return kind


def example(record: Record, options: Options) -> Example:
    """BOS, what is given, then the code and EOS.

    The option `wording` stands for the template's own words; its fields are the record's ({tests}: one a line).
    """
    kind = kind_of(record, options)
    names = [options["source_language"], options["target_language"]]
    languages = f"translate {names[0]} to {names[1]}:\n" if all(names) else ""
    wording = options["wording"] or WORDINGS[kind]
    try:
        prompt = wording.format_map({**record, "tests": "\n".join(statements(record, "tests")), "languages": languages})
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f"config.task.wording {wording!r} cannot be filled: {error}; the record has "
                         f"{', '.join(record)}") from error
    pieces = [beginning("prompt"), Piece(lines(prompt), "prompt", trim=True)]
    if record.get("code") is not None:
        pieces += [Piece(lines(record["code"]), "target"), special("eos", "target")]
    return Example(tuple(pieces))


def lines(text: str) -> str:
    """The text with a newline at the end of each line, whatever ended it before."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def statements(record: Record, field: str) -> list[str]:
    """A field that is a list of statements or one text, as a list."""
    value: Any = record.get(field)
    return [value] if isinstance(value, str) else list(value or ())


def extract(answer: str, kind: str, given: str) -> str:
    """The code in an answer.

    1. Of an answer with ``` fences, what stands in the first pair (to the end where the second is missing).
    2. Of a completion that goes on inside a function, what belongs to it: it ends before the first line that stands at
       the left margin outside of a text in triple quotes and does not close a bracket. An answer that itself begins at
       the margin, on a line of its own, is a program of its own and taken whole.
    3. Elsewhere the margin that all lines share is taken away, and empty lines around.
    """
    answer = lines(answer)
    fenced = FENCE.search(answer)
    if fenced and kind != "documentation":
        answer = fenced[1]
    if kind == "completion":
        if not fenced and _inside(given) and not _at_margin(answer, given):
            answer = _first_block(answer)
        return answer.rstrip()
    return textwrap.dedent(answer).strip()


def _inside(given: str) -> bool:
    """Whether the code that is given ends within an indented block."""
    last = lines(given).rstrip().rpartition("\n")[2]
    return last.startswith((" ", "\t")) or last.endswith(":")


def _at_margin(answer: str, given: str) -> bool:
    """Whether the answer begins at the left margin of a line of its own."""
    begins = answer.lstrip("\n")
    return (given.endswith("\n") or begins != answer) and bool(begins) and not begins[0].isspace()


def _first_block(answer: str) -> str:
    kept: list[str] = []
    quotes = ""
    for number, line in enumerate(answer.split("\n")):
        if number and not quotes and line.strip() and line[0] not in " \t)]}":
            break
        kept.append(line)
        for found in TRIPLE_QUOTES.findall(line):
            quotes = "" if found == quotes else quotes or found
    return "\n".join(kept)


def program(record: Record, code: str, options: Options) -> str:
    """The whole program that the tests are for: a completion with what it completes."""
    given = lines(record["instruction"])
    if kind_of(record, options) != "completion":
        return code
    if not (_inside(given) and _at_margin(code, given)):
        return given + code
    # The code stands for itself; what is given has to be Python without it.
    closed = given.rstrip()
    last = closed.rpartition("\n")[2]
    indent = last[: len(last) - len(last.lstrip())] + "    "
    return f"{closed}\n{indent}pass\n{code}" if closed.endswith(":") else f"{closed}\n{code}"


def judged(record: Record, code: str, options: Options) -> sandbox.Program:
    """A record's code with the record's tests, as the sandbox takes it."""
    tests = statements(record, "tests")
    if isinstance(record["tests"], str) and record.get("entry_point"):
        tests = [f"{tests[0]}\n\ncheck({record['entry_point']})"]
    tests = statements(record, "setup") + tests
    given = lines(record["instruction"]) if kind_of(record, options) == "completion" else ""
    names, before = code_metrics.interface(tests, given + lines(record["code"]), given)
    return sandbox.Program(program(record, code, options), tuple(tests), names, before)


def postprocess(record: Record, answer: Answer, options: Options) -> Prediction:
    """{"code"}, and of several answers {"samples"} too, of which `code` is the first."""
    kind, given = kind_of(record, options), record["instruction"]
    if isinstance(answer, tuple):
        samples = [extract(text, kind, given) for text in answer]
        return {"code": samples[0], "samples": samples}
    return {"code": extract(str(answer), kind, given)}


def normal(code: str) -> str:
    """Code as exact match compares it: without spaces at the ends of lines, empty lines around, a shared margin."""
    return textwrap.dedent("\n".join(line.rstrip() for line in lines(code).split("\n"))).strip("\n")


def reference(record: Record, options: Options) -> str:
    """The record's code, as `normal` has it, read as an answer is: some stand between ``` fences."""
    return normal(extract(record["code"], kind_of(record, options), record["instruction"]))


def count(record: Record, prediction: Prediction, options: Options) -> Counts:
    """Whether the code is the reference; with run_tests also how many samples pass the record's tests."""
    exact = text_metrics.exact_match_counts([normal(prediction["code"])], [[reference(record, options)]])
    if not options["run_tests"]:
        return exact
    samples = prediction.get("samples") or [prediction["code"]]
    limits = sandbox.Limits(seconds=options["seconds"], wall_seconds=4.0 * options["seconds"],
                            memory=options["memory"] << 20)
    different = list(dict.fromkeys(samples)) if record.get("tests") else []
    verdicts = sandbox.run([judged(record, sample, options) for sample in different], limits)
    status = {sample: verdict.status for sample, verdict in zip(different, verdicts, strict=True)}
    statuses = [status[sample] for sample in samples if sample in status]
    return {**exact, **code_metrics.pass_counts(statuses, options["k"])}


def figures(counts: Counts, options: Options) -> dict[str, float]:
    """Exact match; with run_tests pass@k and how samples ended."""
    exact = text_metrics.exact_match_figures(counts)
    return {**exact, **code_metrics.pass_figures(counts, options["k"])} if "pass_problems" in counts else exact


def notes(counts: Counts, options: Options) -> dict[str, str]:
    """What pass@k was measured under."""
    if not options["run_tests"]:
        return {}
    return {"sandbox": f"{options['seconds']} s of CPU, {options['memory']} MiB, {sandbox.describe()}"}


def baselines(records: Sequence[Record], options: Options) -> dict[str, float]:
    """Exact match of the most frequent code, of repeating what is given, and of nothing."""
    codes = [reference(record, options) for record in records]
    copies = sum(normal(record["instruction"]) == code for record, code in zip(records, codes, strict=True))
    return {"majority": max(map(codes.count, set(codes))) / len(codes), "copy": copies / len(codes),
            "empty": codes.count("") / len(codes)}


def tested_baselines(records: Sequence[Record], options: Options) -> dict[str, float]:
    """The share of records whose tests a program without code passes; a completion's is what it is to complete."""
    alone = {**options, "k": (1,)}
    counts = counting.total(count(record, {"code": ""}, alone) for record in records)
    return {"empty": figures(counts, alone)["pass@1"]}


def resolve(options: Options, load: Callable[[], Iterable[Record]]) -> Options:
    """The options as they are; ValueError where tests shall be run and cannot be."""
    if options["run_tests"]:
        if reason := sandbox.problem():
            raise ValueError(reason)
        if not options["k"] or min(options["k"]) < 1:
            raise ValueError(f"config.task.k is {tuple(options['k'])}, expected numbers of samples such as (1, 10)")
    return options


def variant(options: Options) -> Task | None:
    """The task whose metric is pass@k, of the smallest k, where tests are run."""
    if not options["run_tests"] or not options["k"]:
        return None
    return dataclasses.replace(TASK, metric=f"pass@{min(options['k'])}", baselines=tested_baselines)


TASK = Task(
    name="code", chapter="9", fields={"instruction": str}, targets={"code": str},
    # seconds: of CPU a program, and four times that by the clock. memory: MiB.
    options={"template": "generation", "wording": "", "source_language": "", "target_language": "", "run_tests": False,
             "k": (1,), "seconds": 10, "memory": 512},
    forms={"decoder": Form("decoder", "lm", GENERATION, example, graded("target"))},
    postprocess=postprocess, count=count, figures=figures, metric="exact_match", baselines=baselines, resolve=resolve,
    notes=notes, counters=sandbox.cores(), variant=variant)
