# SPDX-License-Identifier: Apache-2.0
"""Real questions come in; predictions of all sorts, scored by transformers' copy of SQuAD 2.0's evaluation, go out.

    VENV/bin/python tests/metrics/make_span_fixtures.py ../shared/data > tests/metrics/fixtures/spans.json

with transformers 4.55.4 (transformers 5 has no such module any more). SQuAD 1.1's figures, which it does not
have, are computed here, in words of our own.
"""

import collections
import gzip
import json
import pathlib
import random
import re
import string
import sys
from types import SimpleNamespace

from transformers.data.metrics import squad_metrics

COUNT = 400


def questions(path):
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        for article in json.load(stream)["data"]:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    answers = [] if question.get("is_impossible") else question["answers"]
                    yield paragraph["context"], answers


def predicted(draw, context, answers):
    """What models answer: the right span, more or less of it, something else, nothing."""
    words = context.split()
    if not answers or draw.random() < 0.2:
        begin = draw.randrange(len(words))
        return draw.choice(["", " ".join(words[begin:begin + draw.randint(1, 6)])])
    answer = draw.choice(answers)
    text, start = answer["text"], answer["answer_start"]
    kind = draw.randrange(5)
    if kind == 0:
        return context[max(0, start - draw.randint(1, 12)):start + len(text) + draw.randint(0, 12)]
    if kind == 1:
        return " ".join(text.split()[draw.randint(0, 1):])
    if kind == 2:
        return draw.choice(["The ", "a", "an. ", "«"]) + text.upper() + draw.choice([".", "!", " the", ""])
    return text


def version_1(prediction, texts):
    """(exact, F1) as SQuAD 1.1 defines them."""
    def words(text):
        text = "".join(sign for sign in text.lower() if sign not in string.punctuation)
        return re.sub(r"\b(?:a|an|the)\b", " ", text).split()

    best = [0.0, 0.0]
    for text in texts:
        wanted, given = words(text), words(prediction)
        shared = sum((collections.Counter(wanted) & collections.Counter(given)).values())
        precision, recall = (shared / len(side) if side else 0.0 for side in (given, wanted))
        f1 = 2 * precision * recall / (precision + recall) if shared else 0.0
        best = [max(best[0], float(wanted == given)), max(best[1], f1)]
    return best


def main():
    folder, draw = pathlib.Path(sys.argv[1]), random.Random(0)
    found = list(questions(folder / "squad_v2" / "dev-v2.0-cs224n.json.gz"))
    rows = []
    for context, answers in draw.sample(found, COUNT):
        rows.append({"answers": sorted({answer["text"] for answer in answers}),
                     "prediction": predicted(draw, context, answers)})
    # Thresholds lie 1/32 apart; no two questions share a difference, for then their order would count.
    for row, place in zip(rows, draw.sample(range(COUNT), COUNT), strict=True):
        row["difference"] = (place - COUNT // 2) / 32
    examples = [SimpleNamespace(qas_id=index, answers=[{"text": text} for text in row["answers"]])
                for index, row in enumerate(rows)]
    answers = {index: row["prediction"] for index, row in enumerate(rows)}
    differences = {index: row["difference"] for index, row in enumerate(rows)}
    plain = squad_metrics.squad_evaluate(examples, answers)
    tuned = squad_metrics.squad_evaluate(examples, answers, differences, 0.0)
    with_answers = [version_1(row["prediction"], row["answers"]) for row in rows if row["answers"]]
    exact, f1 = (100 * sum(column) / len(with_answers) for column in zip(*with_answers, strict=True))
    print(json.dumps({"rows": rows, "plain": plain, "threshold_0": tuned, "version_1": {"exact": exact, "f1": f1}},
                     separators=(",", ":"), ensure_ascii=False))


if __name__ == "__main__":
    main()
