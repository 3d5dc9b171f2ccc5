# SPDX-License-Identifier: Apache-2.0
"""Nothing comes in; random tags of both sides, with seqeval's figures in both modes, go out as JSON.

    uv venv VENV; uv pip install --python VENV/bin/python seqeval==1.2.2
    VENV/bin/python tests/metrics/make_entity_fixtures.py > tests/metrics/fixtures/entities.json
"""

import json
import random

from seqeval.metrics import classification_report
from seqeval.scheme import IOB2

TAGS = ["O", "O", "O", *(f"{mark}-{kind}" for kind in ("LOC", "ORG", "PER") for mark in "BI")]


def sentences(draw):
    """Gold tags and predictions that agree in most places; ill-formed ones on both sides."""
    gold = [[draw.choice(TAGS) for _ in range(draw.randint(1, 14))] for _ in range(40)]
    return gold, [[tag if draw.random() < 0.7 else draw.choice(TAGS) for tag in tags] for tags in gold]


def figures(gold, predicted, **mode):
    report = classification_report(gold, predicted, output_dict=True, digits=12, zero_division=0, **mode)
    return {name: {key: float(value) for key, value in each.items()} for name, each in report.items()}


def main():
    draw, cases = random.Random(0), []
    for _ in range(12):
        gold, predicted = sentences(draw)
        cases.append({"gold": gold, "predicted": predicted, "lenient": figures(gold, predicted),
                      "strict": figures(gold, predicted, mode="strict", scheme=IOB2)})
    print(json.dumps(cases, separators=(",", ":")))


if __name__ == "__main__":
    main()
