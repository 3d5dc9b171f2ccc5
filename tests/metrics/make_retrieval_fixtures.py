# SPDX-License-Identifier: Apache-2.0
"""Nothing comes in; random rankings and relevant documents, with trec_eval's figures, go out as JSON.

    uv venv VENV; uv pip install --python VENV/bin/python pytrec-eval-terrier==0.5.11
    VENV/bin/python tests/metrics/make_retrieval_fixtures.py > tests/metrics/fixtures/retrieval.json
"""

import json
import random

import pytrec_eval

PLACES = (1, 5, 20)
MEASURES = {f"{ours}@{place}": f"{theirs}_{place}" for ours, theirs in (("recall", "recall"), ("ndcg", "ndcg_cut"))
            for place in PLACES}


def cases(draw):
    """One to 25 relevant documents of 40, with gains of 1 to 3; none to 30 found."""
    documents = [f"d{number}" for number in range(40)]
    for _ in range(60):
        right = draw.sample(documents, draw.choice((1, 1, 2, 5, 25)))
        yield {"relevant": {document: draw.choice((1, 1, 1, 2, 3)) for document in right},
               "found": draw.sample(documents, draw.choice((0, 3, 10, 30)))}


def main():
    made = list(cases(random.Random(3)))
    relevant = {str(number): case["relevant"] for number, case in enumerate(made)}
    found = {str(number): {document: -float(place) for place, document in enumerate(case["found"])}
             for number, case in enumerate(made)}
    evaluator = pytrec_eval.RelevanceEvaluator(relevant, {"recall.1,5,20", "ndcg_cut.1,5,20", "recip_rank"})
    measured = evaluator.evaluate(found)
    for number, case in enumerate(made):
        figures = measured.get(str(number), {})  # none where nothing was found
        case["expected"] = {ours: figures.get(theirs, 0.0) for ours, theirs in MEASURES.items()}
        case["reciprocal_rank"] = figures.get("recip_rank", 0.0)
    print(json.dumps(made, separators=(",", ":")))


if __name__ == "__main__":
    main()
