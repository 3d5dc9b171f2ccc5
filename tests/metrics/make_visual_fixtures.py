# SPDX-License-Identifier: Apache-2.0
"""Answers and captions come in; what the reference implementations make of them goes out.

    VENV/bin/python tests/metrics/make_visual_fixtures.py FOLDER ../shared/data > tests/metrics/fixtures/visual.json

Run by hand, with pycocoevalcap 1.2 and Java (its PTBTokenizer is a Java program), and in FOLDER the evaluation
code of github.com/GT-Vision-Lab/VQA (PythonEvaluationTools/vqaEvaluation/vqaEval.py, Python 3).
"""

import collections
import contextlib
import json
import pathlib
import random
import sys
import types

from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

ANSWERS = """Yes|yes|yes.|YES!|no|No, it isn't|no it isnt|two|2|Two dogs.|2 dogs|a dog|the dog|dog|an apple|apple
none|0|zero|ten|10|1,000|1000|1,000 people|10.5|.5|black-and-white|black and white|black & white|red/white|red / white
dont know|don't know|Its a cat|cant tell|can't tell|he'dve gone|somebody'd|oclock|5 o'clock|twas|Im here|lets go
U.S.A.|usa|u.s.a|left; right|left ;right|"quoted"|(in brackets)|what?|what ?|a|the|an||   |new york
T-shirt|t shirt|tshirt|50%|$5|5 dollars|@home|one-two|one two|1 2|3-4|3 - 4|over_there|y'allll|wheres|where's"""
CAPTIONS = """A man isn't riding a horse.|It's a dog's ball, and they're playing!|We can't, won't, don't and cannot see.
He said "hello" to the child.|A black-and-white cat (sleeping) on a bed...|Two dogs -- one big, one small -- run.
A sign reads 5:30 p.m. in the U.S. today.|Mr. Smith's car costs $5,000.50 or 30% less.|A red/white bus and/or truck.
Rock & roll, #1 fan @ home * + = done.|The kids' toys are 1/2 price.|She's gonna wanna go.|Café at 3pm with a crêpe.
What's that? A cat: yes; a dog, no.|A t-shirt, size XL, no. 5.|A plate of food [with fries] {on it}.|end of story ?
They'll've gone; I'd go; we've been; you're in.|Dr. Who and St. Paul vs. Mrs. Jones etc.|'Tis a boy's 'quoted' words.
He'll come at 4 o'clock.|A 5'10" tall man|A boy wearing an over-sized hat, i.e. big.|A girl w/ a hat & w/o shoes.
Look at www.example.com or a@b.org.|Stop sign:"STOP".|“Curly quotes” and ‘single’ — dash – n-dash… ellipsis
The man's the-best. No.1|10-year-old boy on a 4x4|A.J. plays|it is 5 ft. tall.|7up, 3D, 50s-era|a cat;a dog|hello,world
one.two three..four|100°F £5 €6|gotta lemme gimme|What a cat?!|cat|a dog|"It’s a dog’s"|."""


def vqa(folder):
    """Normalised answers, and accuracies where people differ; the code normalises nothing where they do not."""
    sys.path.insert(0, folder)
    import vqaEval

    draw, questions, results = random.Random(0), {}, {}
    pool = [*ANSWERS.replace("\n", "|").split("|"), "new\tyork", "new\nyork"]
    for number in range(300):
        near = draw.sample(pool, 4)
        people = [draw.choice(near) for _ in range(draw.choice((10, 10, 10, 7, 4)))]
        if len({" ".join(answer.split()) for answer in people}) > 1:
            questions[number] = {"answers": [{"answer": answer, "answer_id": at} for at, answer in enumerate(people)]}
            results[number] = {"answer": draw.choice(near)}
    asked = {number: [one["answer"] for one in question["answers"]] for number, question in questions.items()}
    evaluation = vqaEval.VQAEval(types.SimpleNamespace(qa=questions, getQuesIds=lambda: list(questions)),
                                 types.SimpleNamespace(qa=results), n=10)
    evaluation.evaluate()
    normal = {answer: evaluation.processDigitArticle(evaluation.processPunctuation(
        answer.replace("\n", " ").replace("\t", " ").strip())) for answer in pool}
    return {"normalised": normal, "contractions": evaluation.contractions, "questions": [
        [results[number]["answer"], people, evaluation.evalQA[number] / 100] for number, people in asked.items()]}


def tokenised(captions):
    found = PTBTokenizer().tokenize({at: [{"caption": caption}] for at, caption in enumerate(captions)})
    return [found[at][0] for at in range(len(captions))]


def score(predictions, references):
    """CIDEr of tokenised captions, and each image's."""
    mean, each = Cider().compute_score(dict(enumerate(references)), {at: [one] for at, one in enumerate(predictions)})
    return [float(mean), [float(one) for one in each]]


def captions(data):
    """The tokens of each caption; CIDEr of made-up images, and of the photographs of coco_captions_mini."""
    texts = CAPTIONS.replace("\n", "|").split("|")
    tokens = tokenised(texts)
    draw, images = random.Random(1), []
    for _ in range(40):
        words = draw.sample(range(len(texts)), 3)
        images.append([draw.choice([*words, draw.randrange(len(texts))]), words[:draw.randint(1, 3)]])
    made = score([tokens[one] for one, _ in images], [[tokens[at] for at in many] for _, many in images])
    written = collections.defaultdict(list)
    for split in ("train", "val"):
        for one in json.loads((data / "coco_captions_mini" / f"captions_{split}.json").read_text())["annotations"]:
            written[one["image_id"]].append(one["caption"])
    several = [found for found in written.values() if len(found) > 1]
    split = [tokenised(found) for found in several]
    photographs = score([found[0] for found in split], [found[1:] for found in split])
    return {"tokens": dict(zip(texts, tokens, strict=True)), "images": images, "cider": made,
            "photographs": photographs[0]}


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        made = {"vqa": vqa(sys.argv[1]), "captions": captions(pathlib.Path(sys.argv[2]))}
    print(json.dumps(made, ensure_ascii=False))
