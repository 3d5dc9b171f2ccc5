# SPDX-License-Identifier: Apache-2.0
"""Chapter 12, images and text: images, or none, and a question in; an answer in words out.

The guide's example:

    image      (a photograph)   question   What kind of dog is this?   answer   This is a Golden Retriever.

    decoder    <bos><image>…<image>Question: What kind of dog is this? Answer:  → " ANSWER", graded with its EOS

A record has an `image`, or several as `images`, or none (data/images.py says what an image may be). Each takes as
many <image> tokens as the model reads of it, in their order, before the question. They are never graded and never cut
off: where they leave no room, a text that may be trimmed is, and else the record is refused.
With `blind` no image is shown: what the questions alone tell, which is the baseline of a data set of questions.
"""

from collections.abc import Sequence
from typing import Any

from t5tasks.data.features import Example, Piece, graded, special
from t5tasks.metrics import counts as counting
from t5tasks.metrics import vqa
from t5tasks.metrics.counts import Counts
from t5tasks.tasks.task import GENERATION, IMAGE, Answer, Form, Options, Prediction, Record, Task

# A small encoder of images for a model from scratch, whose every patch becomes one token.
VISION = {"projector": "mlp", "prefix": False, "tower": {
    "architecture": "encoder", "head": "none", "positions": "grid", "encoder_layers": 2, "decoder_layers": 0,
    "width": 128, "heads": 4, "kv_heads": 4, "head_size": 32, "feed_forward": 512,
    "patches": {"image_size": 32, "patch_size": 8, "class_token": False}}}


def decoder_example(record: Record, options: Options) -> Example:
    """BOS, the images, question and cue, then the answer and EOS."""
    shown = () if options["blind"] else images(record)
    pieces = [special("bos", "prompt"), *(Piece("", "image", image=image) for image in shown),
              Piece("Question: ", "prompt"), Piece(record["question"], "question", trim=True),
              Piece(" Answer:", "prompt")]
    if (answers := record.get("answers")) is not None:
        if not answers or not all(isinstance(answer, str) for answer in answers):
            raise ValueError(f"field 'answers' of question {record['question']!r:.60} is {answers!r:.60}, expected a "
                             "list of at least one text")
        pieces += [Piece(f" {answers[0]}", "target"), special("eos", "target")]
    return Example(tuple(pieces))


def images(record: Record) -> tuple[Any, ...]:
    """The record's images, in their order; ValueError where it has both `image` and `images`."""
    one, several = record.get("image"), record.get("images")
    if one is not None and several is not None:
        raise ValueError(f"question {record['question']!r:.60} has a field 'image' and a field 'images'; expected one")
    return (one,) if one is not None else tuple(several or ())


def postprocess(record: Record, answer: Answer, options: Options) -> Prediction:
    """{"answer"}."""
    return {"answer": str(answer).strip()}


def count(record: Record, prediction: Prediction, options: Options) -> Counts:
    """One answer's VQA accuracy, and whether one person gave it."""
    return vqa.vqa_counts([prediction["answer"]], [list(record["answers"])])


def figures(counts: Counts, options: Options) -> dict[str, float]:
    """vqa_accuracy and exact_match, 0 to 1."""
    return vqa.vqa_figures(counts)


def baselines(records: Sequence[Record], options: Options) -> dict[str, float]:
    """VQA accuracy of the most frequent answer, and of the question as its answer."""
    firsts = [record["answers"][0] for record in records]
    frequent = max(dict.fromkeys(firsts), key=firsts.count)

    def of(texts: list[str]) -> float:
        counts = counting.total(vqa.vqa_counts([text], [list(record["answers"])])
                                for record, text in zip(records, texts, strict=True))
        return vqa.vqa_figures(counts)["vqa_accuracy"]

    return {"majority": of([frequent] * len(records)), "question": of([record["question"] for record in records])}


TASK = Task(
    name="multimodal", chapter="12", fields={"question": str}, targets={"answers": list}, options={"blind": False},
    forms={"decoder": Form("decoder", "lm", GENERATION, decoder_example, graded("target"))},
    postprocess=postprocess, count=count, figures=figures, metric="vqa_accuracy", baselines=baselines,
    control=(IMAGE,), pictures=("image", "images"), model={"vision": VISION})
