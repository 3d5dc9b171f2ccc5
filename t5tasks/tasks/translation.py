# SPDX-License-Identifier: Apache-2.0
"""Chapter 8, translation: a sentence of one language in, the same in another out.

The guide's example:

    source   The weather today is sunny and warm.      target   El clima hoy está soleado y cálido.
    from     English                                   to       Spanish

    encoder-decoder   the encoder reads "translate English to Spanish: The weather today is sunny and warm." and EOS;
                      the decoder's target tokens and EOS are graded

`source_language` and `target_language` are the options', or the record's own where one model translates between
several pairs. `prefix` says how they are written before the source: as T5 knows them (arxiv.org/abs/1910.10683,
section 2.4), or ">>{target_language}<< " say, as Marian's many-to-many models do. Where it speaks of a language
that nobody names, there is none.
"""

import string
from collections.abc import Sequence

from t5tasks.data.features import Example, Piece, graded, special
from t5tasks.metrics import counts as counting
from t5tasks.metrics import text as text_metrics
from t5tasks.metrics.counts import Counts
from t5tasks.tasks.task import GENERATION, Answer, Form, Lines, Options, Prediction, Record, Task

LANGUAGES = ("source_language", "target_language")


def prefix(record: Record, options: Options) -> str:
    """What stands before the source; ValueError where the option has fields that are no languages."""
    named = {name: record.get(name) or options[name] for name in LANGUAGES}
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(options["prefix"]) if name is not None}
        return options["prefix"].format_map(named) if all(named[name] for name in fields) else ""
    except (KeyError, ValueError) as error:
        raise ValueError(f"config.task.prefix {options['prefix']!r} cannot be filled: {error}; its fields are "
                         f"{' and '.join(f'{{{name}}}' for name in LANGUAGES)}") from error


def example(record: Record, options: Options) -> Example:
    """Prefix and source with EOS on one side, target with EOS on the other."""
    source = [Piece(record["source"], "input", trim=True), special("eos", "input")]
    if before := prefix(record, options):
        source = [Piece(before, "prompt"), *source]
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
    options={**dict.fromkeys(LANGUAGES, ""), "prefix": "translate {source_language} to {target_language}: ",
             "bleu_tokenizer": "13a"},
    forms={"encoder_decoder": Form("encoder_decoder", "lm", GENERATION, example, graded("target"))},
    postprocess=postprocess, count=count, figures=figures, metric="bleu", baselines=baselines, notes=notes,
    lines=Lines.of("source", "translation"))
