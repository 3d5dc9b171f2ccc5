# SPDX-License-Identifier: Apache-2.0
"""A question in, an answer that cites passages of an index out; and questions with answers in, all figures out.

    python -m t5tasks.rag --index=DIR --workdir=RUN --query="What does the shop of Mia in Lima sell?"
    python -m t5tasks.rag --index=DIR --workdir=RUN --input=SOURCE [--nli=RUN] [--output=FILE.json]
    python -m t5tasks.rag --index=DIR --input=SOURCE

A run of `rag` writes its answer, a run of `extractive_qa` quotes it from a passage (`reading.py`). The records of the
source have a question and, as far as they are known, `answers` and `passage_ids`, the ids of the documents that hold
them; `convert=squad` makes them of SQuAD's. With these the second command tells recall@k, MRR and nDCG of the
retrieval, exact match and F1 of the answers, precision and recall of their citations and, with a run of nli, how many
answers the passages they cite entail (`entailment.py`, which tells what that is not). The third tells the retrieval's
figures alone.
"""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from absl import flags

from t5tasks import augmentation, command, experiment, index, reading, tasks
from t5tasks import trained as runs
from t5tasks.augmentation import Finder, described
from t5tasks.data import sources
from t5tasks.entailment import STATEMENT, Judge
from t5tasks.inference import Predictor
from t5tasks.metrics import counts as counting
from t5tasks.metrics.retrieval import retrieval_counts, retrieval_figures
from t5tasks.reading import Reader
from t5tasks.retrieval.store import Passage
from t5tasks.tasks.task import Options, Prediction, Record
from t5tasks.trained import Trained
from t5tasks.training.writers import ProgressLine

TASK = tasks.get("rag")
PLACES = (1, 5, 20)  # the k of recall@k
AT_ONCE = 256  # questions that are searched together

Answers = Callable[[Iterable[Record]], Iterator[tuple[Record, Prediction]]]


@dataclasses.dataclass(frozen=True)
class System:
    """What finds passages, and what answers from the first of them."""

    finder: Finder
    options: Options  # of the task rag
    answers: Answers | None  # None: passages are only found

    def find(self, records: Iterable[Record], depth: int = 0) -> Iterator[tuple[Record, list[Passage]]]:
        """Each record with the best of its question's passages, `depth` of them or as many as are read.

        What it brought along itself gives way to them.
        """
        waiting, count = iter(records), self.options["passages"]
        while group := list(itertools.islice(waiting, AT_ONCE)):
            found = self.finder.find([record["question"] for record in group], max(depth, count, 1))
            for record, passages in zip(group, found, strict=True):
                yield {**record, "passages": [described(passage) for passage in passages[:count]]}, passages


def system(trained: Trained | None, options: Options, rank_weight: float = reading.RANK_WEIGHT) -> System:
    """Puts a system together.

    Args:
      trained: a run of `rag` or of `extractive_qa`, or None.
      options: of the task rag; index, retriever, passages and the reranker's count, for a run of rag all of them.

    Raises:
      ValueError: a run of another task; what `Finder` raises.
    """
    finder = augmentation.finder(options)
    if trained is None:
        return System(finder, options, None)
    if trained.experiment.task.name == reading.TASK:
        return System(finder, options, Reader(trained, rank_weight).predictions)
    if trained.experiment.task.name != TASK.name:
        raise ValueError(f"a run of {trained.experiment.task.name} cannot answer from passages; expected one of "
                         f"{TASK.name} or {reading.TASK}")
    predictor = Predictor(dataclasses.replace(trained.experiment, options=options))
    return System(finder, options, lambda records: predictor.predictions(trained.parameters, records))


def evaluate(parts: System, source: str, judge: Judge | None = None) -> tuple[dict[str, Any], list[Prediction]]:
    """All figures of a source's questions, and the predictions in their order.

    Returns:
      {"source", "examples", "figures"}: recall@k, mrr@k and ndcg@k over the records with passage_ids; what the task
      `rag` counts over those with answers, an empty list of them included; faithfulness, the share of given answers
      that the judge finds entailed.

    Raises:
      ValueError: a record without a question, or none that has anything to be scored by.
    """
    source = source if ":" in source.split("/")[0] else f"file:{source}"
    records = list(sources.read(source, TASK.name))
    for number, record in enumerate(records):
        if not isinstance(record.get("question"), str):
            raise ValueError(f"{source} record {number} has no question; it has {', '.join(record) or 'none'}")
    found = list(parts.find(records, max(PLACES)))
    relevant = [(passages, record["passage_ids"]) for record, passages in found if record.get("passage_ids")]
    figures: dict[str, float] = {}
    if relevant:
        figures = retrieval_figures(retrieval_counts(
            [[passage.document for passage in passages] for passages, _ in relevant],
            [[str(id) for id in ids] for _, ids in relevant], PLACES))
    predictions = _told(parts.answers, [record for record, _ in found])
    scored = [(record, prediction) for record, prediction in predictions if record.get("answers") is not None]
    if scored:
        figures |= TASK.figures(counting.total(TASK.count(record, prediction, parts.options)
                                               for record, prediction in scored), parts.options)
    given = [(record, prediction) for record, prediction in predictions if prediction["answer"]]
    if judge is not None and given:
        entailed = list(judge.entailed(given))
        figures |= {"faithfulness": sum(entailed) / len(entailed), "answers_judged": float(len(entailed))}
    if not figures:
        raise ValueError(f"the records of {source} have neither passage_ids nor answers to be scored by")
    return {"source": source, "examples": len(records), "figures": figures}, [one for _, one in predictions]


def _told(answers: Answers | None, records: Sequence[Record]) -> list[tuple[Record, Prediction]]:
    """The records with their answers, made under a line of progress."""
    if answers is None:
        return []
    found = []
    with ProgressLine("rag", len(records), 0) as progress:
        for number, pair in enumerate(answers(records), 1):
            found.append(pair)
            progress.tell(number)
    return found


def text(prediction: Prediction) -> str:
    """An answer and the passages that it cites, as a person reads them."""
    lines = [prediction["answer"] or "not in the passages that were found"]
    if prediction.get("start") is not None:
        lines[0] = f"\"{prediction['answer']}\" (characters {prediction['start']} to {prediction['end']} of " \
                   f"{prediction['citations'][0]['id']}, score {prediction['score']:.2f})"
    for passage in prediction["citations"]:
        title = f" {passage['title']}" if passage["title"] else ""
        lines += [f"[{passage['number']}] {passage['id']}{title}",
                  *(f"    {line}" for line in passage["text"].splitlines())]
    if prediction["unknown_citations"]:
        lines.append(f"cited, but not shown: {', '.join(map(str, prediction['unknown_citations']))}")
    if prediction["left_out"]:
        lines.append(f"{prediction['left_out']} of the passages found did not fit and were left out")
    return "\n".join(lines)


def define_flags() -> None:
    """The verb's flags; not defined on import, so that verbs can be imported together."""
    flags.DEFINE_string("index", "", "folder of the index; by default the one that the run was trained with")
    flags.DEFINE_string("workdir", None, "a run of rag or of extractive_qa, which answers")
    flags.DEFINE_enum("checkpoint", "best", ["best", "latest"], "which step to use")
    flags.DEFINE_string("query", None, "a question to answer")
    flags.DEFINE_string("input", None, "a source of questions with answers and passage_ids, to be scored")
    flags.DEFINE_enum("retriever", None, index.RETRIEVERS, "how passages are found; auto is hybrid with vectors, else "
                      "bm25")
    flags.DEFINE_integer("passages", None, "how many passages are read; 0 for none at all", lower_bound=0)
    flags.DEFINE_string("reranker", None, "a run of nli that orders the passages found anew")
    flags.DEFINE_string("reranker_label", None, "its label for a passage that answers")
    flags.DEFINE_float("rank_weight", reading.RANK_WEIGHT, "for a quote: how much the rank of its passage counts")
    flags.DEFINE_string("nli", None, "a run of nli, which judges whether answers follow from what they cite")
    flags.DEFINE_string("label", "entailment", "its label for that")
    flags.DEFINE_string("statement", STATEMENT, "what it is asked of, with {question} and {answer} in it")
    flags.DEFINE_string("output", None, "also write the figures to this JSON file")
    flags.DEFINE_string("predictions", None, "also write the answers to this JSON Lines file")


def main(_: list[str]) -> None:
    """The verb."""
    given = flags.FLAGS
    if not (given.query or given.input) or (given.query and not given.workdir):
        raise ValueError("rag needs --index=DIR, and --workdir=RUN with --query=TEXT, or --input=SOURCE")
    trained = runs.load(None, pathlib.Path(given.workdir), given.checkpoint) if given.workdir else None
    own = trained.experiment.options if trained and trained.experiment.task.name == TASK.name else TASK.options
    names = ("retriever", "passages", "reranker", "reranker_label")
    options = {**own, **{name: given[name].value for name in names if given[name].value is not None},
               "index": given.index or own["index"]}
    if not options["index"]:
        raise ValueError("rag needs --index=DIR: the run was trained without one")
    parts = system(trained, options, given.rank_weight)
    if given.query:
        assert parts.answers is not None
        [answered] = parts.answers([record for record, _ in parts.find([{"question": given.query}])])
        print(text(answered[1]))
    if given.input:
        judge = Judge(runs.load(None, pathlib.Path(given.nli)), given.label, given.statement) if given.nli else None
        result, predictions = evaluate(parts, given.input, judge)
        print(json.dumps(result, indent=2))
        if given.output:
            experiment.write_json(pathlib.Path(given.output), result)
        if given.predictions:
            pathlib.Path(given.predictions).write_text(
                "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in predictions), "utf-8")


if __name__ == "__main__":
    define_flags()
    command.run(main)
