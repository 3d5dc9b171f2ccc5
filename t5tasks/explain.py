# SPDX-License-Identifier: Apache-2.0
"""A config and the number of an example in; what the model sees of it and what is graded out.

    python -m t5tasks.explain --config=FILE [--workdir=DIR] [--config.NAME=VALUE ...] [--split=train]
                              [--example=N] [--count=K] [--output=FILE.html]

Shown are the features that training and evaluation are given, read back token by token. Where a
config packs, an example of the train split is a row of the first training batches.
"""

import dataclasses
import itertools
import pathlib
import sys
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import flags
from ml_collections import config_flags
from rich.console import Console

from t5tasks import command, experiment, explanation
from t5tasks.data import batches
from t5tasks.data.features import Features, Tokens
from t5tasks.data.tokenizer import Tokenizer
from t5tasks.experiment import Experiment
from t5tasks.explanation import Document, Explanation, Token, View
from t5tasks.tasks.task import Record

SAMPLE = 1000  # records that are counted, spread over the split
UNSEEN = str.maketrans({" ": "·", "▁": "·", "\n": "⏎", "\t": "⇥"})


def explain(config: ml_collections.ConfigDict | None, workdir: pathlib.Path | None = None, name: str = "",
            split: str = "train", first: int = 0, count: int = 1) -> Explanation:
    """Reads examples as the model does.

    Args:
      config: settings; None for those saved in the workdir.
      workdir: of a run, for its tokenizer and labels; nothing is written there.
      name: what to call the config.
      split: train, validation, or test (which is validation where config.data.test is empty).
      first, count: the first example to show, from 0, and how many.

    Raises:
      ValueError: whatever does not fit, an example that there is not, or nothing graded at all.
    """
    if workdir is not None and not workdir.is_dir():
        raise ValueError(f"no folder {workdir}; --workdir names a run, leave it out to explain a config alone")
    config = experiment.given_or_saved(config, workdir)
    # Without a tokenizer of its own, a workdir would be given one; looking must not leave a trace.
    known = workdir if workdir is not None and (workdir / "tokenizer").exists() else None
    run = experiment.build(_for_any_mesh(config), known)
    source = config.data[split] or config.data.validation
    records = CheckedRecords(experiment.load_records(source, run.task, run.options), run, source)
    counts = count_sample(run, records)
    if not counts.graded:
        raise ValueError(_why_ungraded(run, counts, source))
    if split == "train" and run.shape.packing:
        views = packed_rows(run, records, first, count)
    else:
        views = [record_view(run, records[index], f"{source} record {index}")
                 for index in _chosen(first, count, len(records), source)]
    return Explanation(f"{run.task.name}, {run.form.architecture.replace('_', '-')}: what is seen, what is graded",
                       _facts(run, name, source, known), _count_texts(run, counts), tuple(views))


def _for_any_mesh(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config with a mesh of whatever devices are here: what is seen does not depend on it."""
    copied = config.copy_and_resolve_references()
    copied.mesh.update(data=-1, fsdp=1, tensor=1)
    return copied


def _chosen(first: int, count: int, total: int, source: str) -> range:
    if not 0 <= first < total:
        raise ValueError(f"--example={first}, but {source} has {total} records, numbered from 0")
    return range(first, min(first + count, total))


class CheckedRecords(Sequence[Record]):
    """Records of a source, each checked for the task's fields when it is read."""

    def __init__(self, records: Sequence[Record], run: Experiment, source: str) -> None:
        self._records, self._run, self.source = records, run, source

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: Any) -> Any:
        record = self._records[index]
        self._run.task.check(record, f"{self.source} record {index}")
        return record


@dataclasses.dataclass
class Counts:
    """Sums over a sample of a split."""

    total: int  # records of the split
    examples: int = 0  # of the sample
    seen: int = 0  # tokens of the stack that the head reads
    source_seen: int = 0  # tokens of the encoder beside it
    windows: int = 0  # of the examples: as many, but where long ones are cut
    graded: int = 0  # tokens with a weight; with a cls head, examples
    dropped: int = 0  # examples (windows) with nothing graded, which training leaves out
    lost: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)  # role → examples, tokens
    left_out: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)  # field → examples, items
    target_cut: int = 0  # examples that lost a token which would have been graded
    roles: set[str] = dataclasses.field(default_factory=set)
    longest: int = 0  # tokens before anything is cut


def count_sample(run: Experiment, records: CheckedRecords, size: int = SAMPLE) -> Counts:
    """Counts over at most `size` records, evenly spread."""
    counts = Counts(total=len(records))
    indices = experiment.spread(len(records), size)
    counts.examples = len(indices)
    chosen = [records[int(index)] for index in indices]
    for name, number in (each for record in chosen for each in _left_out(run, record).items()):
        examples, items = counts.left_out.get(name, (0, 0))
        counts.left_out[name] = (examples + 1, items + number)
    for features, tokens, source in (each for record in chosen for each in run.windows(record, training=True)):
        graded = int(np.count_nonzero(features["weights"]))
        counts.windows += 1
        counts.seen += len(features["tokens"])
        counts.source_seen += len(features.get("source_tokens", ()))
        counts.graded += graded
        counts.dropped += graded == 0
        counts.roles.update(tokens.roles, tokens.lost)
        counts.longest = max(counts.longest, len(tokens.ids) + sum(tokens.lost.values()))
        counts.target_cut += bool(_graded_roles(run, tokens.lost))
        for role, number in _lost(tokens, source).items():
            examples, lost = counts.lost.get(role, (0, 0))
            counts.lost[role] = (examples + 1, lost + number)
    return counts


def _lost(tokens: Tokens, source: Tokens | None) -> dict[str, int]:
    """Tokens that the length cut off, by role and side."""
    return dict(tokens.lost) | {f"source {role}": lost for role, lost in (source.lost if source else {}).items()}


def _left_out(run: Experiment, record: Record) -> dict[str, int]:
    """Items of the record's lists (turns, passages) that the form leaves out where all would be too long."""
    fitted = run.fitted(record, run.config.batch.length + 1)[0]
    return {name: len(value) - len(fitted[name]) for name, value in record.items()
            if isinstance(value, list) and len(fitted[name]) < len(value)}


def _graded_roles(run: Experiment, roles: Iterable[str]) -> list[str]:
    """Those of the roles whose tokens the loss mask grades."""
    names = sorted(roles)
    return [name for name, weight in zip(names, run.training_mask(names), strict=True) if weight]


def _why_ungraded(run: Experiment, counts: Counts, source: str) -> str:
    form = f"the {run.form.architecture} form of {run.task.name}"
    nothing = f"nothing is graded in the {counts.examples} examples of {source} that were looked at"
    if counts.target_cut:
        return (f"{nothing}: config.batch.length {run.config.batch.length} cuts off the whole target (the longest "
                f"example has {counts.longest} tokens before the cut); raise config.batch.length")
    roles = ", ".join(sorted(counts.roles)) or "none"
    return (f"{nothing}: their tokens have the roles {roles}, and the loss mask of {form} grades none of these; "
            f"check that the records have a target ({', '.join(run.task.targets)})")


def record_view(run: Experiment, record: Record, title: str) -> View:
    """One record as an unpacked batch holds it."""
    windows = run.windows(record, training=True)
    sequences: list[explanation.Sequence] = []
    notes = [f"{number} of {len(record[name])} {name} left out" for name, number in _left_out(run, record).items()]
    for number, (features, tokens, source) in enumerate(windows, 1):
        which = f"window {number} of {len(windows)}" if len(windows) > 1 else ""
        if not np.any(features["weights"]):
            notes.append(f"nothing of this {which or 'example'} is graded: training leaves it out")
        notes += run.sight.places(features) if run.sight else []
        notes += [f"{cut} tokens cut off: {role}{which and f' ({which})'}"
                  for role, cut in _lost(tokens, source).items()]
        sequences += [explanation.Sequence(which or name, (document,))
                      for name, document in _documents(run, features, (tokens, source)).items()]
    return View(title, tuple(sequences), tuple(notes))


def packed_rows(run: Experiment, records: CheckedRecords, first: int, count: int) -> list[View]:
    """Rows of the training batches, in the order in which one process trains on them."""
    made: dict[bytes, tuple[Tokens, Tokens | None]] = {}  # a row has no roles: they are found by its numbers

    def make(record: Record) -> Features | None:
        features, tokens, source = run.windows(record, training=True)[0]
        made[_key(features)] = tokens, source
        return features if np.any(features["weights"]) else None

    stream = batches.training_batches(records, make, run.shape, run.config.seed)
    rows = ((batch, index) for batch in stream for index in range(run.shape.size))
    return [_packed_view(run, batch, index, made, f"row {number} of the first training batches, packed")
            for number, (batch, index) in enumerate(itertools.islice(rows, first, first + count), first)]


def _key(features: Features) -> bytes:
    """What tells one example's features from another's."""
    arrays = (features[name] for name in ("tokens", "targets", "weights", "source_tokens") if name in features)
    return b"|".join(np.ascontiguousarray(array).tobytes() for array in arrays)


def _packed_view(run: Experiment, batch: Features, index: int, made: dict[bytes, tuple[Tokens, Tokens | None]],
                 title: str) -> View:
    row = {name: array[index] for name, array in batch.items()}
    found: dict[str, list[Document]] = {}
    for segment in range(1, int(row["segments"].max()) + 1):
        # First fit keeps an example whole and its tokens together.
        features = {name: array[row["source_segments" if name.startswith("source_") else "segments"] == segment]
                    for name, array in row.items()}
        starts = {prefix: int(np.argmax(row[f"{prefix}segments"] == segment))
                  for prefix in ("", "source_") if f"{prefix}segments" in row}
        documents = _documents(run, features, made[_key(features)], segment, starts)
        for name, document in documents.items():
            found.setdefault(name, []).append(document)
    return View(title, tuple(
        explanation.Sequence(name, tuple(documents), int(np.sum(
            row["source_segments" if name == "source" else "segments"] == 0)))
        for name, documents in found.items()))


def _documents(run: Experiment, features: Features, origin: tuple[Tokens, Tokens | None], segment: int = 1,
               starts: Mapping[str, int] = types.MappingProxyType({})) -> dict[str, Document]:
    """What each stack reads of one example: {"sequence"}, or {"source", "target"}.

    Args:
      origin: tokens of the target side and of the source side, for their roles; the ids and
        weights are those of the features.
      starts: the position of the example's first token in its row, by prefix.
    """
    tokens, source = origin
    start = starts.get("", 0)
    if "token_types" in features or "texts" in features:
        weights, answer, targets = _told(run, features)
        kinds = features["texts" if "texts" in features else "token_types"]
        return {"sequence": Document(segment, start, _tokens(run, features["tokens"], tokens.roles, weights),
                                     answer=answer, types=tuple(int(kind) for kind in kinds),
                                     targets=targets)}
    # The first token is only read; every other one is the target of the position before it.
    ids = np.concatenate([features["tokens"][:1], features["targets"]])
    weights = np.concatenate([np.zeros(len(ids) - len(features["weights"])), features["weights"]])
    if source is None:
        return {"sequence": Document(segment, start, _tokens(run, ids, tokens.roles, weights), predicts=True)}
    read = _tokens(run, features["source_tokens"], source.roles)
    written = _tokens(run, ids, ("start", *tokens.roles), weights)
    return {"source": Document(segment, starts.get("source_", 0), read),
            "target": Document(segment, start, written, predicts=True)}


def _told(run: Experiment, features: Features) -> tuple[np.ndarray | None, str, tuple[str, ...]]:
    """What a head of one sequence has to say: the weight of each token, one answer, a target for each token."""
    targets, weights = features["targets"], features["weights"]
    if run.form.head == "cls":
        if run.form.independent:
            named = [label for label, holds in zip(run.options["labels"], targets, strict=True) if holds]
            return None, f"labels: {', '.join(named) or 'none'}", ()
        return None, f"class {int(targets)}: {run.options['labels'][int(targets)]}", ()
    length = len(features["tokens"])
    if run.form.head == "none":
        there = int(np.count_nonzero(features["names"]))
        return None, f"the first of {there} passages is to be nearer to the question than all others of the batch", ()
    if run.form.head == "token":
        labels = run.options["labels"]
        return weights, "", tuple(labels[index] if weight else "" for index, weight in
                                  zip(targets, weights, strict=True))
    names: list[list[str]] = [[] for _ in range(length)]
    graded = np.zeros(length)
    for place, weight, name in zip(targets, weights, ("start", "end"), strict=True):
        names[place].append(name)
        graded[place] += weight
    return graded, "" if targets.any() else "no answer here", tuple(", ".join(name) for name in names)


def _tokens(run: Experiment, ids: np.ndarray, roles: Sequence[str], weights: np.ndarray | None = None
            ) -> tuple[Token, ...]:
    weights = np.zeros(len(ids)) if weights is None else weights
    # An unknown token is not placed by a task: any text can hold it.
    special = {id for name, id in run.tokenizer.special.items() if name != "unk"}
    special |= set(run.tokenizer.control.values())
    return tuple(Token(visible(run.tokenizer, int(id)), int(id), role, int(id) in special, float(weight))
                 for id, role, weight in zip(ids, roles, weights, strict=True))


def visible(tokenizer: Tokenizer, id: int) -> str:
    """A piece with · for a space, ⏎ for a line break, and nothing that a terminal would obey."""
    piece = tokenizer.piece(id)
    if "▁" not in piece and id not in tokenizer.special.values():
        # Byte-level pieces are spelled in stand-ins for bytes; part of a character has no text.
        text = tokenizer.decode([id])
        piece = text if text and "\ufffd" not in text else piece
    return "".join(sign if sign.isprintable() else f"<{ord(sign):04X}>" for sign in piece.translate(UNSEEN))


def _facts(run: Experiment, name: str, source: str, known: pathlib.Path | None) -> dict[str, str]:
    config = run.config
    origin = (known / "tokenizer" if known else config.tokenizer.path or config.pretrained
              or f"trained on {config.data.train}")
    lengths = f"length {config.batch.length}"
    if run.form.architecture == "encoder_decoder":
        lengths += f", source_length {config.batch.source_length}"
    return {"config": name or "defaults", "task": f"{run.task.name} (chapter {run.task.chapter})",
            "form": f"{run.form.architecture}, {run.form.head} head, answers by {run.form.answers_by}",
            "tokenizer": f"{origin}, {run.tokenizer.vocabulary_size} pieces, {run.tokenizer.fingerprint[:12]}",
            "records": source, "batch": lengths + (", packed" if run.shape.packing else "")}


def _count_texts(run: Experiment, counts: Counts) -> dict[str, str]:
    graded = _graded_roles(run, counts.lost)
    texts = {"examples": f"{counts.examples:,}"
             + (f", a sample of {counts.total:,}" if counts.examples < counts.total else "")}
    texts["tokens seen"] = f"{counts.seen:,}" + (
        f", and {counts.source_seen:,} of the source" if counts.source_seen else "")
    if run.form.head == "none":
        texts["graded"] = f"{counts.graded:,} examples: which passage of the batch is nearest to the question"
    elif run.form.head == "cls":
        texts["graded"] = f"{counts.graded:,} examples: the class, read at the first token"
    elif run.form.head == "span":
        texts["graded"] = (f"{counts.windows:,} windows: where the answer begins and ends, or the first token where "
                           "there is none")
    else:
        texts["tokens graded"] = f"{counts.graded:,} ({counts.graded / max(counts.seen, 1):.1%})"
        tokens = sum(counts.lost[role][1] for role in graded)
        texts["target truncated"] = f"{counts.target_cut:,} examples" + (f" ({tokens:,} tokens)" if tokens else "")
    texts |= {f"{role} truncated": f"{examples:,} examples ({tokens:,} tokens)"
              for role, (examples, tokens) in sorted(counts.lost.items()) if role not in graded}
    texts |= {f"{name} left out": f"{items:,} in {examples:,} examples"
              for name, (examples, items) in sorted(counts.left_out.items())}
    if counts.windows > counts.examples:
        texts["windows"] = f"{counts.windows:,}, as long examples are cut"
    texts["dropped"] = f"{counts.dropped:,} {'windows' if run.form.windowed else 'examples'}: nothing graded"
    return texts


def define_flags() -> None:
    """The verb's flags; defined here and not on import, so that verbs can be imported together."""
    command.config_flag()
    flags.DEFINE_string("workdir", None, "folder of a run, for its tokenizer, labels and config")
    flags.DEFINE_enum("split", "train", ["train", "validation", "test"], "whose records to show")
    flags.DEFINE_integer("example", 0, "the first to show, from 0", lower_bound=0)
    flags.DEFINE_integer("count", 1, "how many to show", lower_bound=1)
    flags.DEFINE_string("output", None, "also write one HTML file")


def main(_: list[str]) -> None:
    """The verb."""
    given = flags.FLAGS
    jax.config.update("jax_platforms", "cpu")  # an accelerator may be busy training; none is needed
    name = config_flags.get_config_filename(given["config"]) if given.config is not None else "the workdir's"
    found = explain(given.config, pathlib.Path(given.workdir) if given.workdir else None, name, given.split,
                    given.example, given.count)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal of few letters gets question marks
    explanation.show(found, Console(highlight=False))
    if given.output:
        output = pathlib.Path(given.output)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(explanation.page(found), "utf-8")
        print(f"written: {output}")


if __name__ == "__main__":
    define_flags()
    command.run(main)
