# SPDX-License-Identifier: Apache-2.0
"""Chapter 12, images and text: images, or none, and a question in; an answer in words out. Or an image's caption.

The guide's example:

    image      (a photograph)   question   What kind of dog is this?   answer   This is a Golden Retriever.

    decoder    <bos><image>…<image>Question: What kind of dog is this? Answer:  → " ANSWER", graded with its EOS
    captions   <bos><image>…<image>Caption:  → " CAPTION" (config.task.captions: no question, and CIDEr)

A record has an `image`, or several as `images`, or none (data/images.py says what an image may be). Each takes as
many <image> tokens as the model reads of it, in their order. They are never graded and never cut off: where they
leave no room, a text that may be trimmed is, and else the record is refused. Of several `answers` the first is
trained on, and all count.

config.task.template words the prompt as a checkpoint knows it, with {bos}, {images} and {question} in their places:

    LLaVA 1.5   "{bos}USER: {images}\\n{question} ASSISTANT:"        PaliGemma   "{images}{bos}answer en {question}\\n"

With `blind` no image is shown: what the questions alone tell, which is the baseline of a data set of questions.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from t5tasks.data.features import Example, Piece, beginning, graded, special
from t5tasks.metrics import captions, vqa
from t5tasks.metrics import counts as counting
from t5tasks.metrics.counts import Counts
from t5tasks.tasks import prompts
from t5tasks.tasks.task import GENERATION, IMAGE, Answer, Form, Options, Prediction, Record, Task

QUESTION = "{bos}{images}Question: {question} Answer:"
CAPTION = "{bos}{images}Caption:"
# A small encoder of images for a model from scratch, whose every patch becomes one token.
VISION = {"projector": "mlp", "prefix": False, "tower": {
    "architecture": "encoder", "head": "none", "positions": "grid", "encoder_layers": 2, "decoder_layers": 0,
    "width": 128, "heads": 4, "kv_heads": 4, "head_size": 32, "feed_forward": 512,
    "patches": {"image_size": 32, "patch_size": 8, "class_token": False}}}


def decoder_example(record: Record, options: Options) -> Example:
    """The prompt as the template words it, then the answer and EOS."""
    shown = () if options["blind"] else images(record)
    template = options["template"] or (CAPTION if options["captions"] else QUESTION)
    fields = {"bos": (beginning("prompt") if template.startswith("{bos}") else special("bos", "prompt"),),
              "images": tuple(Piece("", "image", image=image) for image in shown)}
    if not options["captions"]:
        fields["question"] = (Piece(record["question"], "question", trim=True),)
    pieces: list[Piece] = []
    for text, name in prompts.parts(template, tuple(name for name in fields if name != "bos"), ("bos",)):
        pieces += [Piece(text, "prompt")] if text else []
        pieces += fields.get(name, ())
    if (answers := record.get("answers")) is not None:
        if not answers or not all(isinstance(answer, str) for answer in answers):
            raise ValueError(f"field 'answers' of {_told(record)} is {answers!r:.60}, expected a list of at least one "
                             "text")
        pieces += [Piece(f"{'' if template[-1:].isspace() else ' '}{answers[0]}", "target"), special("eos", "target")]
    return Example(tuple(pieces))


def images(record: Record) -> tuple[Any, ...]:
    """The record's images, in their order; ValueError where it has both `image` and `images`."""
    one, several = record.get("image"), record.get("images")
    if one is not None and several is not None:
        raise ValueError(f"{_told(record)} has a field 'image' and a field 'images'; expected one")
    return (one,) if one is not None else tuple(several or ())


def _told(record: Record) -> str:
    """What an error calls the record."""
    return f"question {record['question']!r:.60}" if record.get("question") else f"the record {record.get('id', '')}"


def postprocess(record: Record, answer: Answer, options: Options) -> Prediction:
    """{"answer"}, or {"caption"}."""
    return {"caption" if options["captions"] else "answer": str(answer).strip()}


def count(record: Record, prediction: Prediction, options: Options) -> Counts:
    """One answer's VQA accuracy, and whether one person gave it."""
    return vqa.vqa_counts([prediction["answer"]], [list(record["answers"])])


def figures(counts: Counts, options: Options) -> dict[str, float]:
    """vqa_accuracy and exact_match, 0 to 1."""
    return vqa.vqa_figures(counts)


def _frequent(records: Sequence[Record]) -> str:
    """The most frequent first answer."""
    firsts = [record["answers"][0] for record in records]
    return max(dict.fromkeys(firsts), key=firsts.count)


def baselines(records: Sequence[Record], options: Options) -> dict[str, float]:
    """VQA accuracy of the most frequent answer, and of the question as its answer."""
    def of(texts: list[str]) -> float:
        counts = counting.total(vqa.vqa_counts([text], [list(record["answers"])])
                                for record, text in zip(records, texts, strict=True))
        return vqa.vqa_figures(counts)["vqa_accuracy"]

    return {"majority": of([_frequent(records)] * len(records)),
            "question": of([record["question"] for record in records])}


def know_captions(records: Sequence[Record], options: Options) -> Options:
    """With the `frequencies` of what people wrote of all images that are evaluated."""
    return {**options, "frequencies": captions.frequencies(record["answers"] for record in records)}


def count_caption(record: Record, prediction: Prediction, options: Options) -> Counts:
    """One caption's CIDEr, with the evaluation's own frequencies, whether somebody wrote it, and what people reach:
    the mean of each one's caption against the others'."""
    caption, people, known = prediction["caption"], list(record["answers"]), options["frequencies"]
    left_out = [captions.cider_counts([one], [people[:place] + people[place + 1:]], known)
                for place, one in enumerate(people if len(people) > 1 else ())]
    return {**captions.cider_counts([caption], [people], known), **counting.as_counts({
        "caption_exact": captions.words(caption) in map(captions.words, people), "people": len(left_out) > 0,
        "people_cider": sum(float(one["cider_sum"]) for one in left_out) / max(len(left_out), 1)})}


def caption_figures(counts: Counts, options: Options) -> dict[str, float]:
    """cider and people_cider, 0 to 10, and exact_match, 0 to 1: how many captions have the words of one of people's."""
    people = {"people_cider": float(counts["people_cider"]) / int(counts["people"])} if counts["people"] else {}
    return {**captions.cider_figures(counts), **people,
            "exact_match": int(counts["caption_exact"]) / int(counts["cider_examples"])}


def caption_baselines(records: Sequence[Record], options: Options) -> dict[str, float]:
    """CIDEr of the most frequent caption."""
    frequent, known = _frequent(records), know_captions(records, options)["frequencies"]
    counts = captions.cider_counts([frequent] * len(records), [list(record["answers"]) for record in records], known)
    return {"majority": captions.cider_figures(counts)["cider"]}


TASK = Task(
    name="multimodal", chapter="12", fields={"question": str}, targets={"answers": list},
    options={"blind": False, "captions": False, "template": ""},
    forms={"decoder": Form("decoder", "lm", GENERATION, decoder_example, graded("target"))},
    postprocess=postprocess, count=count, figures=figures, metric="vqa_accuracy", baselines=baselines,
    control=(IMAGE,), pictures=("image", "images"), model={"vision": VISION})
CAPTIONS = dataclasses.replace(
    TASK, fields={}, count=count_caption, figures=caption_figures, metric="cider", baselines=caption_baselines,
    known=know_captions, notes=lambda counts, options: {"cider": captions.cider_signature()})
TASK = dataclasses.replace(TASK, variant=lambda options: CAPTIONS if options.get("captions") else None)
