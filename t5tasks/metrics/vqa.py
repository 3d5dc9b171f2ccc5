# SPDX-License-Identifier: Apache-2.0
"""Answers to questions on images, and what people answered, come in; VQA accuracy, as counts that add up, goes out.

As the evaluation code of the VQA challenge computes it (arxiv.org/abs/1505.00468, section 4, and
github.com/GT-Vision-Lab/VQA), but from 0 to 1: an answer is right where three people gave it, and right in
part where fewer did; its accuracy is the mean over all sets of people with one left out.

    people   yes yes yes no no no no no no no      predicted   yes
    of the sets with one left out, seven hold three times "yes", three hold it twice: (7 * 1 + 3 * 2/3) / 10 = 0.9
"""

import re
from collections.abc import Sequence

import numpy as np

from t5tasks.metrics.counts import Counts, require_examples

# How many people make an answer right.
ENOUGH = 3
NUMBERS = {"none": "0"} | {word: str(number) for number, word in enumerate((
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"))}
ARTICLES = frozenset(("a", "an", "the"))
SIGNS = ";/[]\"{}()=+\\_-><@`,?!"
THOUSANDS = re.compile(r"\d,\d")
FULL_STOP = re.compile(r"\.(?!\d)")
# Words that lose an apostrophe in haste. Each stands for its spellings with one apostrophe missing.
APOSTROPHES = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've"""
CONTRACTIONS = {word[:place] + word[place + 1:]: word for word in APOSTROPHES.split()
                for place, sign in enumerate(word) if sign == "'"} | {"somebody'd": "somebodyd"}


def normalise(answer: str) -> str:
    """Lower case, numbers to ten as digits, no articles, no punctuation, apostrophes where they belong.

    A sign is dropped where a space stands beside one of its kind, or the answer has a number with a comma in
    it; else it becomes a space.

        "Two dogs." → "2 dogs"     "black-and-white" → "black and white"     "1,000" → "1000"     "dont" → "don't"
    """
    answer = re.sub("[\n\t]", " ", answer).strip()
    thousands, text = THOUSANDS.search(answer), answer
    for sign in SIGNS:
        dropped = thousands or f"{sign} " in answer or f" {sign}" in answer
        text = text.replace(sign, "" if dropped else " ")
    words = [NUMBERS.get(word, word) for word in FULL_STOP.sub("", text).lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def accuracy(prediction: str, answers: Sequence[str]) -> float:
    """How far the answer agrees with those of N people, 0 to 1; see the module's first lines.

    Both sides are normalised always; the challenge's code leaves them as they are where all people answered in
    the same words. Where there are fewer than four people, all but the one left out make an answer right, and
    a single answer, which is nobody's vote, has to be met.

    Raises:
      ValueError: nobody answered.
    """
    if isinstance(answers, str) or not answers:
        raise ValueError(f"answers is {answers!r}; expected a list of one text or more")
    predicted, people = normalise(prediction), [normalise(answer) for answer in answers]
    if len(people) == 1:
        return float(predicted == people[0])
    given = people.count(predicted)
    enough = min(ENOUGH, len(people) - 1)
    without, within = min(1.0, given / enough), min(1.0, max(given - 1, 0) / enough)
    return (given * within + (len(people) - given) * without) / len(people)


def vqa_counts(predictions: Sequence[str], answers: Sequence[Sequence[str]]) -> Counts:
    """Sums the accuracies of the answers, and how many meet one of the people's, all normalised.

    Args:
      predictions: N texts.
      answers: for each of them what people answered, one text or more.

    Returns:
      {"vqa_accuracy": float64[], "vqa_exact": int64[], "vqa_examples": int64[]}.

    Raises:
      ValueError: lengths differ, or nobody answered a question.
    """
    if isinstance(predictions, str) or len(predictions) != len(answers):
        raise ValueError(f"{len(predictions)} predictions and {len(answers)} lists of answers; expected as many")
    pairs = list(zip(predictions, answers, strict=True))
    return {"vqa_accuracy": np.asarray(sum(accuracy(*pair) for pair in pairs), np.float64),
            "vqa_exact": np.asarray(sum(normalise(one) in map(normalise, people) for one, people in pairs)),
            "vqa_examples": np.asarray(len(pairs))}


def vqa_figures(counts: Counts) -> dict[str, float]:
    """vqa_accuracy and exact_match, 0 to 1; ValueError when none was counted."""
    examples = int(counts["vqa_examples"])
    require_examples(examples, "VQA accuracy")
    return {"vqa_accuracy": float(counts["vqa_accuracy"]) / examples,
            "exact_match": int(counts["vqa_exact"]) / examples}
