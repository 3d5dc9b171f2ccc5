# SPDX-License-Identifier: Apache-2.0
"""Chapter 8, translation: a sentence of one language in, the same in another out.

The guide's example:

    source   translate English to German: The house is wonderful.     target   Das Haus ist wunderbar.

    encoder-decoder   the encoder reads the source; the decoder's target tokens and EOS are graded
"""

from collections.abc import Sequence

from t5tasks.data.features import Example, Piece, graded, special
from t5tasks.metrics import counts as counting
from t5tasks.metrics import text as text_metrics
from t5tasks.metrics.counts import Counts
from t5tasks.tasks.task import GENERATION, Answer, Form, Options, Prediction, Record, Task


def example(record: Record, options: Options) -> Example:
    """Prefix and source with EOS on one side, target with EOS on the other."""
    source: list[Piece] = []
    if options["source_language"] and options["target_language"]:
        languages = f"translate {options['source_language']} to {options['target_language']}: "
        source.append(Piece(languages, "prompt"))
    source += [Piece(record["source"], "input", trim=True), special("eos", "input")]
    target: tuple[Piece, ...] = ()
    if record.get("target") is not None:
        target = (Piece(record["target"], "target", trim=True), special("eos", "target"))
    return Example(target, source=tuple(source))


def postprocess(record: Record, answer: Answer, options: Options) -> Prediction:
    """{"translation"}."""
    return {"translation": str(answer).strip()}


def count(record: Record, prediction: Prediction, options: Options) -> Counts:
    """One sentence's n-grams for BLEU and chrF."""
    texts, references = [prediction["translation"]], [[record["target"]]]
    return {**text_metrics.bleu_counts(texts, references, options["bleu_tokenizer"]),
            **text_metrics.chrf_counts(texts, references)}


def figures(counts: Counts, options: Options) -> dict[str, float]:
    """Corpus BLEU and chrF, 0 to 100, as sacreBLEU computes them."""
    return {**text_metrics.bleu_figures(counts), **text_metrics.chrf_figures(counts)}


def notes(counts: Counts, options: Options) -> dict[str, str]:
    """The signatures that sacreBLEU asks to be quoted with its scores."""
    return {"bleu": text_metrics.bleu_signature(counts, options["bleu_tokenizer"]),
            "chrf": text_metrics.chrf_signature(counts)}


def baselines(records: Sequence[Record], options: Options) -> dict[str, float]:
    """BLEU of copying the source."""
    copied = counting.total(count(record, {"translation": record["source"]}, options) for record in records)
    return {"copy": figures(copied, options)["bleu"]}


TASK = Task(
    name="translation", chapter="8", fields={"source": str}, targets={"target": str},
    options={"source_language": "", "target_language": "", "bleu_tokenizer": "13a"},
    forms={"encoder_decoder": Form("encoder_decoder", "lm", GENERATION, example, graded("target"))},
    postprocess=postprocess, count=count, figures=figures, metric="bleu", baselines=baselines, notes=notes)
