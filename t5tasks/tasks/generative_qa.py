# SPDX-License-Identifier: Apache-2.0
"""Chapter 5b, generative question answering: a question, and a context if there is one, in; an answer out.

The guide's example:

    decoder           Question: Why is the sky blue? Answer:  → " ANSWER", graded with its EOS
                      (a context stands before it, on lines of its own: Context: CONTEXT)
    encoder-decoder   question: QUESTION context: CONTEXT  → the answer (arxiv.org/abs/1910.10683, appendix D)

Of several answers the first is trained on, and the best one counts. A context that is too long loses its end.
"""

from collections.abc import Sequence

from t5tasks.data.features import Example, Piece, beginning, graded, special
from t5tasks.metrics import counts as counting
from t5tasks.metrics import rouge, spans
from t5tasks.metrics.counts import Counts
from t5tasks.tasks.summarization import lead
from t5tasks.tasks.task import GENERATION, Answer, Form, Lines, Options, Prediction, Record, Task


def decoder_example(record: Record, options: Options) -> Example:
    """BOS, the context if there is one, question and cue, then the answer and EOS."""
    pieces = [beginning("prompt")]
    if record.get("context"):
        pieces += [Piece("Context: ", "prompt"), Piece(record["context"], "context", trim=True), Piece("\n", "prompt")]
    pieces += [Piece("Question: ", "prompt"), Piece(record["question"], "question"), Piece(" Answer:", "prompt")]
    if (answer := _trained_on(record)) is not None:
        pieces += [Piece(f" {answer}", "target"), special("eos", "target")]
    return Example(tuple(pieces))


def encoder_decoder_example(record: Record, options: Options) -> Example:
    """Question and context with EOS on one side, answer with EOS on the other."""
    source = [Piece("question: ", "prompt"), Piece(record["question"], "question")]
    if record.get("context"):
        source += [Piece(" context: ", "prompt"), Piece(record["context"], "context", trim=True)]
    target: tuple[Piece, ...] = ()
    if (answer := _trained_on(record)) is not None:
        target = (Piece(answer, "target", trim=True), special("eos", "target"))
    return Example(target, source=(*source, special("eos", "prompt")))


def _trained_on(record: Record) -> str | None:
    answers = record.get("answers")
    if answers is None:
        return None
    if not answers or not all(isinstance(answer, str) for answer in answers):
        raise ValueError(f"field 'answers' of question {record['question']!r:.60} is {answers!r:.60}, expected a list "
                         "of at least one text")
    return str(answers[0])


def postprocess(record: Record, answer: Answer, options: Options) -> Prediction:
    """{"answer"}."""
    return {"answer": str(answer).strip()}


def count(record: Record, prediction: Prediction, options: Options) -> Counts:
    """One answer's exact match, F1 of words and ROUGE, each against the best of the record's answers."""
    texts, references = [prediction["answer"]], [list(record["answers"])]
    return {**spans.span_counts(texts, references, version=1),
            **rouge.rouge_counts(texts, references, options["rouge_tokenizer"])}


def figures(counts: Counts, options: Options) -> dict[str, float]:
    """exact_match and f1 as SQuAD 1.1 has them, 0 to 1; ROUGE 0 to 100."""
    return {**spans.span_figures(counts), **rouge.rouge_figures(counts)}


def notes(counts: Counts, options: Options) -> dict[str, str]:
    """How ROUGE was computed."""
    return {"rouge": rouge.rouge_signature(options["rouge_tokenizer"])}


def baselines(records: Sequence[Record], options: Options) -> dict[str, float]:
    """F1 of the most frequent answer, of repeating the question, of the whole context and of its first sentence."""
    firsts = [record["answers"][0] for record in records]
    frequent = max(dict.fromkeys(firsts), key=firsts.count)

    def of(texts: list[str]) -> float:
        counts = counting.total(spans.span_counts([text], [list(record["answers"])], version=1)
                                for record, text in zip(records, texts, strict=True))
        return spans.span_figures(counts)["f1"]

    contexts = [record.get("context") or "" for record in records]
    return {"majority": of([frequent] * len(records)), "question": of([record["question"] for record in records]),
            "context": of(contexts), "first sentence": of([lead(text) for text in contexts])}


TASK = Task(
    name="generative_qa", chapter="5b", fields={"question": str}, targets={"answers": list},
    options={"rouge_tokenizer": "english"},
    forms={"decoder": Form("decoder", "lm", GENERATION, decoder_example, graded("target")),
           "encoder_decoder": Form("encoder_decoder", "lm", GENERATION, encoder_decoder_example, graded("target"))},
    postprocess=postprocess, count=count, figures=figures, metric="f1", baselines=baselines, notes=notes,
    lines=Lines.of("question", "answer"))
