# SPDX-License-Identifier: Apache-2.0
"""Chapter 1, text generation: a prompt in, its completion out.

The guide's example:

    prompt       Write a short, optimistic phrase about the future.
    completion   The horizon ahead is bright and full of promise.

    decoder      the prompt is read, the completion's tokens and EOS are graded

A completion is what follows the prompt as it is, the blank between them included.
"""

import string
from collections.abc import Sequence

from t5tasks.data.features import Example, Piece, beginning, graded, special
from t5tasks.metrics import text as text_metrics
from t5tasks.metrics.counts import Counts
from t5tasks.tasks.task import GENERATION, Answer, Form, Lines, Options, Prediction, Record, Task


def example(record: Record, options: Options) -> Example:
    """BOS prompt, in the template, then completion and EOS.

    The template's fields are the record's: an instruction with an optional input, for example,
    is `template="{instruction}\\n{input}\\n"`.
    """
    try:
        prompt = options["template"].format_map(record)
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f"config.task.template {options['template']!r} cannot be filled: {error}; "
                         f"the record has {', '.join(record)}") from error
    pieces = [beginning("prompt"), Piece(prompt, "prompt", trim=True)]
    if record.get("completion") is not None:
        pieces += [Piece(record["completion"], "target"), special("eos", "target")]
    return Example(tuple(pieces))


def line(text: str, options: Options) -> Record:
    """A line of plain text as the template's one field; ValueError where it has others."""
    template = options["template"]
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise ValueError(f"config.task.template {template!r} cannot be filled: {error}") from error
    if len(fields) != 1:
        raise ValueError(f"config.task.template {template!r} has {len(fields)} fields ({', '.join(sorted(fields))}); a "
                         "line of plain text fills one")
    return dict.fromkeys(fields, text)


def postprocess(record: Record, answer: Answer, options: Options) -> Prediction:
    """{"completion"}, as generated, its leading space included."""
    return {"completion": str(answer)}


def count(record: Record, prediction: Prediction, options: Options) -> Counts:
    """Whether the completion is the record's, edge spaces apart."""
    return text_metrics.exact_match_counts([prediction["completion"]], [[record["completion"]]])


def figures(counts: Counts, options: Options) -> dict[str, float]:
    """Exact match over all examples."""
    return text_metrics.exact_match_figures(counts)


def baselines(records: Sequence[Record], options: Options) -> dict[str, float]:
    """Exact match of the most frequent completion, and of the prompt's last word."""
    completions = [record["completion"].strip() for record in records]
    majority = max(completions.count(text) for text in set(completions))
    prompts = [options["template"].format_map(record).split() for record in records]
    copies = sum(bool(words) and words[-1] == text.rstrip(".")
                 for words, text in zip(prompts, completions, strict=True))
    return {"majority": majority / len(records), "copy": copies / len(records)}


TASK = Task(
    name="text_generation", chapter="1", fields={}, targets={"completion": str},
    options={"template": "{prompt}"},
    forms={"decoder": Form("decoder", "lm", GENERATION, example, graded("target"))},
    postprocess=postprocess, count=count, figures=figures, metric="exact_match", baselines=baselines,
    lines=Lines(line, "completion"))
