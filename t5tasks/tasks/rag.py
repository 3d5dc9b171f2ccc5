# SPDX-License-Identifier: Apache-2.0
r"""Chapter 11, retrieval-augmented generation: a question and passages in, an answer that cites them out.

The guide's three steps: retrieve (`config.task.index`, or passages that a record brings along), augment, generate.

    question      What does the shop of Mia in Oslo sell?
    passages      [{"id": "leo-oslo", "title": "The shop of Leo in Oslo", "text": "It sells hats."},
                   {"id": "mia-oslo", "title": "The shop of Mia in Oslo", "text": "It sells kites."}]
    answers       ["kites"], the first is trained on, the best one counts; [] where no passage tells
    passage_ids   ["mia-oslo"], what the answer should cite, where that is known

    decoder           Answer from the passages and cite them.\n[1] The shop of Leo in Oslo: It sells hats.\n
                      [2] The shop of Mia in Oslo: It sells kites.\nQuestion: …\nAnswer:  → " kites [2]", graded with
                      its EOS; where no passage tells → " not in the passages"
    encoder-decoder   question: … passages: [1] … [2] …  → the answer

The best `passages` of them are shown, whole and in their order, as far as they fit: where the prompt would be longer
than config.batch.length (an encoder's: source_length), the last ones are left out, and how many is told (`left_out`).
With `refuse`, a record none of whose passage_ids is shown is trained to say that it is not in the passages.

A passage is one line, and nothing in it can pass for a citation or for the number of a passage: its bracketed
numbers come in round brackets. Special tokens are placed by id alone, and what is graded depends on the pieces'
roles, so that no text can forge either.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from t5tasks.data.features import Example, Piece, beginning, graded, special
from t5tasks.metrics import spans
from t5tasks.metrics.citations import citation_counts, citation_figures, cited, uncited
from t5tasks.metrics.counts import Counts, as_counts
from t5tasks.tasks.passages import numbered
from t5tasks.tasks.task import GENERATION, Answer, Form, Lines, Options, Prediction, Record, Task

OPENING, CLOSING = "\\[\uff3b\u27e6\u3010\u2045", "\\]\uff3d\u27e7\u3011\u2046"  # what reads as a square bracket
BRACKETED = re.compile(f"[{OPENING}]([^{OPENING}{CLOSING}]*)[{CLOSING}]")
NUMBERS_APART = frozenset(" ,;.-\u2013")  # what may stand between the numbers of one citation


def plain(text: str) -> str:
    """The text on one line, its bracketed numbers in round brackets: "as [1]\\n[ ２ ] says" → "as (1) (２) says".

    A sign that a tokenizer may drop or write otherwise counts as what it then is.
    """

    def replaced(found: re.Match[str]) -> str:
        seen = [sign for sign in unicodedata.normalize("NFKC", found[1])
                if sign.isspace() or unicodedata.category(sign)[0] != "C"]
        number = any(sign.isdigit() for sign in seen) and all(
            sign.isdigit() or sign.isspace() or sign in NUMBERS_APART for sign in seen)
        return f"({found[1].strip()})" if number else found[0]

    return " ".join(BRACKETED.sub(replaced, " ".join(text.split())).split())


def shown(record: Record, options: Options) -> list[dict[str, Any]]:
    """The passages that the prompt has, their texts as they came."""
    return numbered(record, options["passages"])


def _passages(record: Record, options: Options, after: str) -> list[Piece]:
    """Each passage after its number, a line or a blank (`after`) behind it."""
    pieces: list[Piece] = []
    for passage in shown(record, options):
        title = plain(passage["title"])
        pieces += [Piece(f"[{passage['number']}] ", "number"),
                   Piece((f"{title}: " if title else "") + plain(passage["text"]), "passage"), Piece(after, "prompt")]
    return pieces


def decoder_example(record: Record, options: Options) -> Example:
    """BOS, instruction, passages and question, then the answer with its citations and EOS."""
    instruction = f"{options['instruction']}\n" if options["instruction"] else ""
    pieces = [beginning("prompt"), *([Piece(instruction, "prompt")] if instruction else []),
              *_passages(record, options, "\n"), Piece("Question: ", "prompt"),
              Piece(plain(record["question"]), "question", trim=True), Piece("\nAnswer:", "prompt")]
    if (answer := _trained_on(record, options)) is not None:
        pieces += [Piece(f" {answer}", "target"), special("eos", "target")]
    return Example(tuple(pieces))


def encoder_decoder_example(record: Record, options: Options) -> Example:
    """Question and passages with EOS on one side, answer with EOS on the other."""
    source = [Piece("question: ", "prompt"), Piece(plain(record["question"]), "question", trim=True),
              Piece(" passages: ", "prompt"), *_passages(record, options, " "), special("eos", "prompt")]
    target: tuple[Piece, ...] = ()
    if (answer := _trained_on(record, options)) is not None:
        target = (Piece(answer, "target", trim=True), special("eos", "target"))
    return Example(target, source=tuple(source))


def _trained_on(record: Record, options: Options) -> str | None:
    """The answer with its citations, or that there is none; None for a record without answers."""
    answers = record.get("answers")
    if answers is None:
        return None
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise ValueError(f"field 'answers' of question {record['question']!r:.60} is {answers!r:.60}, expected a list "
                         "of texts, empty where the passages do not tell")
    right = _right(record)
    numbers = [passage["number"] for passage in shown(record, options) if passage["id"] in (right or ())]
    if not answers or (options["refuse"] and right and not numbers):
        return str(options["no_answer"])
    return plain(answers[0]) + "".join(f" [{number}]" for number in numbers)


def _right(record: Record) -> list[str] | None:
    """The ids that the answer should cite; None where nobody says."""
    ids = record.get("passage_ids")
    return None if ids is None else [str(id) for id in ids]


def asked(record: Record) -> Record:
    """The record without what only a trainer knows."""
    return {name: value for name, value in record.items() if name not in ("answers", "passage_ids")}


def shorten(record: Record, options: Options) -> tuple[Record, Options] | None:
    """The record without the last passage that is shown; None without any."""
    passages = record["passages"][:options["passages"]]
    if not passages:
        return None
    return {**record, "passages": passages[:-1], "left_out": record.get("left_out", 0) + 1}, options


def postprocess(record: Record, answer: Answer, options: Options) -> Prediction:
    """{"answer", "citations", "unknown_citations", "passages", "left_out"}.

    `answer` comes without its citations, and is empty where the model says that it is not in the passages;
    `citations` are those of the `passages` that were shown, in the order cited, `unknown_citations` numbers of none.
    """
    text, passages = str(answer).strip(), shown(record, options)
    by_number = {passage["number"]: passage for passage in passages}
    numbers, words = cited(text), uncited(text)
    none = spans.normalise(words) == spans.normalise(options["no_answer"])
    return {"answer": "" if none else words, "citations": [by_number[each] for each in numbers if each in by_number],
            "unknown_citations": [each for each in numbers if each not in by_number], "passages": passages,
            "left_out": record.get("left_out", 0)}


def count(record: Record, prediction: Prediction, options: Options) -> Counts:
    """One answer's exact match and F1 as in SQuAD 2.0, and its citations, where the record names the right ones."""
    ids = [passage["id"] for passage in prediction["citations"]]
    ids += [f"no passage {number}" for number in prediction["unknown_citations"]]
    right = _right(record)
    known = [] if right is None else [right]
    return {**spans.span_counts([prediction["answer"]], [list(record["answers"])]),
            **citation_counts([ids] * len(known), known),
            **as_counts({"left_out": prediction["left_out"]})}


def figures(counts: Counts, options: Options) -> dict[str, float]:
    """exact_match and f1, also of questions with an answer and without; citation_precision and citation_recall;
    left_out, the mean number of passages that did not fit."""
    found = spans.span_figures(counts)
    if counts["citation_examples"]:
        found |= citation_figures(counts)
    return {**found, "left_out": float(counts["left_out"]) / float(counts["span_examples"].sum())}


def baselines(records: Sequence[Record], options: Options) -> dict[str, float]:
    """Exact match of the most frequent answer and of never answering."""
    references = [list(record["answers"]) for record in records]
    firsts = [texts[0] for texts in references if texts] or [""]
    guesses = {"majority": max(dict.fromkeys(firsts), key=firsts.count), "no_answer": ""}
    return {name: spans.span_figures(spans.span_counts([guess] * len(references), references))["exact_match"]
            for name, guess in guesses.items()}


TASK = Task(
    name="rag", chapter="11", fields={"question": str, "passages": list}, targets={"answers": list},
    # index: a folder that `python -m t5tasks.index` made; retriever: how it is searched; reranker: the workdir of a
    # run of nli, which orders the first rerank_depth passages anew by the probability of reranker_label.
    options={"instruction": "Answer from the passages and cite them.", "no_answer": "not in the passages",
             "passages": 5, "refuse": True, "index": "", "retriever": "auto", "reranker": "", "reranker_label": "yes",
             "rerank_depth": 50},
    forms={"decoder": Form("decoder", "lm", GENERATION, decoder_example, graded("target"), asked=asked,
                           shorten=shorten),
           "encoder_decoder": Form("encoder_decoder", "lm", GENERATION, encoder_decoder_example, graded("target"),
                                   asked=asked, shorten=shorten)},
    postprocess=postprocess, count=count, figures=figures, metric="exact_match", baselines=baselines,
    lines=Lines.of("question", "answer"))
