# SPDX-License-Identifier: Apache-2.0
"""Chapter 7, summarization: a long text in, a short one that says what matters out.

The guide's two forms, the second in its template:

    encoder-decoder   the encoder reads the document; the summary's tokens and EOS are graded
    decoder           Summarize the following article:\n\nDOCUMENT\n\nSummary:  → "\nSUMMARY", graded with its EOS

Where a document is too long, its end is left out.
"""

import re
from collections.abc import Sequence

from t5tasks.data.features import Example, Piece, beginning, graded, special
from t5tasks.metrics import counts as counting
from t5tasks.metrics import rouge
from t5tasks.metrics.counts import Counts
from t5tasks.tasks.task import GENERATION, Answer, Form, Lines, Options, Prediction, Record, Task

SENTENCE = re.compile(r".+?(?:[.!?](?=\s)|$)", re.DOTALL)


def encoder_decoder_example(record: Record, options: Options) -> Example:
    """Prefix and document with EOS on one side, summary with EOS on the other."""
    source = (Piece(options["prefix"], "prompt"), Piece(record["document"], "document", trim=True),
              special("eos", "document"))
    target: tuple[Piece, ...] = ()
    if record.get("summary") is not None:
        target = (Piece(record["summary"], "target", trim=True), special("eos", "target"))
    return Example(target, source=source if options["prefix"] else source[1:])


def decoder_example(record: Record, options: Options) -> Example:
    """BOS, the guide's template, then the summary and EOS."""
    pieces = [beginning("prompt"), Piece(f"{options['instruction']}\n\n", "prompt"),
              Piece(record["document"], "document", trim=True), Piece("\n\nSummary:", "prompt")]
    if record.get("summary") is not None:
        pieces += [Piece(f"\n{record['summary']}", "target"), special("eos", "target")]
    return Example(tuple(pieces))


def references(record: Record) -> list[str]:
    """All summaries that the record has: `summaries` where there are several, or the one."""
    return list(record.get("summaries") or [record["summary"]])


def postprocess(record: Record, answer: Answer, options: Options) -> Prediction:
    """{"summary"}."""
    return {"summary": str(answer).strip()}


def count(record: Record, prediction: Prediction, options: Options) -> Counts:
    """One document's ROUGE."""
    return rouge.rouge_counts([prediction["summary"]], [references(record)], options["rouge_tokenizer"])


def figures(counts: Counts, options: Options) -> dict[str, float]:
    """ROUGE-1, 2, L and Lsum, 0 to 100."""
    return rouge.rouge_figures(counts)


def notes(counts: Counts, options: Options) -> dict[str, str]:
    """How ROUGE was computed."""
    return {"rouge": rouge.rouge_signature(options["rouge_tokenizer"])}


def lead(document: str, sentences: int = 1) -> str:
    """The first sentences of a document."""
    return "".join(SENTENCE.findall(document.strip())[:sentences]).strip()


def baselines(records: Sequence[Record], options: Options) -> dict[str, float]:
    """ROUGE-L of the document itself, of its first sentence and of its first three."""
    def of(texts: list[str]) -> float:
        counts = counting.total(count(record, {"summary": text}, options)
                                for record, text in zip(records, texts, strict=True))
        return figures(counts, options)["rougeL"]

    documents = [record["document"] for record in records]
    return {"copy": of(documents), "first sentence": of([lead(text) for text in documents]),
            "first three sentences": of([lead(text, 3) for text in documents])}


TASK = Task(
    name="summarization", chapter="7", fields={"document": str}, targets={"summary": str},
    options={"prefix": "summarize: ", "instruction": "Summarize the following article:",
             "rouge_tokenizer": "english"},
    forms={"encoder_decoder": Form("encoder_decoder", "lm", GENERATION, encoder_decoder_example, graded("target")),
           "decoder": Form("decoder", "lm", GENERATION, decoder_example, graded("target"))},
    postprocess=postprocess, count=count, figures=figures, metric="rougeL", baselines=baselines, notes=notes,
    lines=Lines.of("document", "summary"))
