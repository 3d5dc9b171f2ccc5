# SPDX-License-Identifier: Apache-2.0
r"""Chapter 10, reasoning: a problem in, the steps to its answer and the answer out.

The guide's example:

    question    If John has 5 apples and gives 2 to Mary, how many does he have left?
    reasoning   John starts with 5 apples. He gives away 2. So we need to subtract 2 from 5. 5 - 2 = 3.
    answer      3

    decoder     Question: QUESTION\nAnswer:  → " REASONING The answer is 3.", all of it graded with its EOS

`direct` leaves the reasoning out, for the ablation: → " The answer is 3.". With several samples a problem
(config.decode.samples) the majority of their answers is the answer (arxiv.org/abs/2203.11171).
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from t5tasks.data.features import Example, Piece, beginning, graded, special
from t5tasks.metrics import answers as answer_metrics
from t5tasks.metrics.answers import final_answer, majority, normalised
from t5tasks.metrics.counts import Counts, require_examples
from t5tasks.tasks.task import GENERATION, Answer, Form, Lines, Options, Prediction, Record, Task, samples


def example(record: Record, options: Options) -> Example:
    """BOS and the problem, then the reasoning, the answer and EOS."""
    pieces = [beginning("prompt"), Piece("Question: ", "prompt"), Piece(record["question"], "question", trim=True),
              Piece("\nAnswer:", "prompt")]
    if record.get("answer") is not None:
        if not options["direct"]:
            pieces.append(Piece(f" {_reasoning(record)}", "reasoning"))
        pieces += [Piece(f" The answer is {record['answer']}.", "target"), special("eos", "target")]
    return Example(tuple(pieces))


def _reasoning(record: Record) -> str:
    if not isinstance(record.get("reasoning"), str):
        raise ValueError(f"no field 'reasoning' in the record of question {record['question']!r:.60}; give it, or set "
                         "config.task.direct")
    return str(record["reasoning"]).strip()


def _split(text: str) -> Prediction:
    """What leads to the answer, and the answer."""
    reasoning = text.strip()
    for sign in ("####", "The answer is"):
        if sign in reasoning:
            reasoning = reasoning[:reasoning.rindex(sign)].strip()
            break
    return {"reasoning": reasoning, "answer": final_answer(text)}


def postprocess(record: Record, answer: Answer, options: Options) -> Prediction:
    """{"reasoning", "answer"}; of several samples the first that gives the majority's answer, with all
    "answers" in their order."""
    solutions = [_split(text) for text in samples(answer)]
    if len(solutions) == 1:
        return solutions[0]
    best = majority([solution["answer"] for solution in solutions])
    chosen = next((one for one in solutions if one["answer"] == best), solutions[0])
    return {**chosen, "answers": [solution["answer"] for solution in solutions]}


def count(record: Record, prediction: Prediction, options: Options) -> Counts:
    """Whether the answer is right, whether there is one, and how many of the samples are right."""
    gold = normalised(record["answer"])
    answers = prediction.get("answers", [prediction["answer"]])
    right = [normalised(answer) == gold for answer in answers]
    return {"reasoning_hits": np.asarray(int(normalised(prediction["answer"]) == gold)),
            "reasoning_answered": np.asarray(int(bool(prediction["answer"]))),
            "reasoning_samples": np.asarray(float(np.mean(right))), "reasoning_examples": np.asarray(1)}


def figures(counts: Counts, options: Options) -> dict[str, float]:
    """accuracy of the final answer (the majority's, with several samples), answered, the share of
    examples with an answer, and sample_accuracy, the mean over single samples; 0 to 1."""
    examples = int(counts["reasoning_examples"])
    require_examples(examples, "final-answer accuracy")
    return {"accuracy": int(counts["reasoning_hits"]) / examples,
            "answered": int(counts["reasoning_answered"]) / examples,
            "sample_accuracy": float(counts["reasoning_samples"]) / examples}


def baselines(records: Sequence[Record], options: Options) -> dict[str, float]:
    """Accuracy of always giving the most frequent answer, and of the last number in the question."""
    gold = [normalised(record["answer"]) for record in records]
    frequent = Counter(gold).most_common(1)[0][1]
    numbers = [answer_metrics.NUMBER.findall(record["question"]) for record in records]
    copies = sum(bool(found) and normalised(found[-1]) == answer for found, answer in zip(numbers, gold, strict=True))
    return {"majority": frequent / len(records), "last number": copies / len(records)}


TASK = Task(
    name="reasoning", chapter="10", fields={"question": str}, targets={"answer": str},
    options={"direct": False},
    forms={"decoder": Form("decoder", "lm", GENERATION, example, graded("reasoning", "target"))},
    postprocess=postprocess, count=count, figures=figures, metric="accuracy", baselines=baselines,
    lines=Lines.of("question", "answer"))
