# SPDX-License-Identifier: Apache-2.0
"""A model with its parameters in, a Hugging Face folder that others can load out.

The folder that a model came from says how it wants to be written: the same tensors by the same
names, each in its own number format, and every field of config.json that is still true.
"""

import collections
import dataclasses
import pathlib
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.experimental import multihost_utils

from t5tasks.models.config import ModelConfig
from t5tasks.models.model import Model, Parameters
from t5tasks.pretrained import families, fields, files
from t5tasks.pretrained.fields import Foreign
from t5tasks.pretrained.files import FLOATS, Tensors
from t5tasks.pretrained.parameters import running_shapes, shapes
from t5tasks.pretrained.table import Family, Row, Shape, Table
from t5tasks.pretrained.writing import Numbers, Target, new_folder, whole, write, write_json
from t5tasks.sharding import flat

LIMIT = 5 * 10**9  # bytes of one file, as the reference has it

# What belongs to a tokenizer, or to text and images on their way into a model and out of it.
TEXT_FILES = ("tokenizer*", "vocab.*", "merges.txt", "*.model", "*.spm", "encoder.json", "added_tokens.json",
              "special_tokens_map.json", "chat_template*", "*processor_config.json", "generation_config.json")

# How a model is run and trained, which a folder does not say, or says in other words.
RUNNING = ("dropout", "attention_dropout", "initializer_range", "compute_dtype", "layer_loop", "rematerialise")
NUMBERS = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


def save(folder: str | pathlib.Path, model: Model, parameters: Parameters,
         source: str | pathlib.Path | None = None, tokenizer_folder: str | pathlib.Path | None = None,
         labels: Sequence[str] | None = None, dtype: str | None = None, limit: int = LIMIT) -> None:
    """Writes config.json, safetensors and the tokenizer's files; all of them or nothing.

    With a source, the same tensors are written as lie there, by the same names and in the same
    formats: what `load` read comes out byte for byte, tied copies and buffers too. Under another
    head than the source's, they are the model's own parameters by the family's usual names. Of a
    table of positions of which the model kept only the first rows (max_length), the others come
    from the source. Without a source, the model is written as the first family that can express it.

    Host memory holds one tensor at a time. With several processes all must call it; the first one
    writes.

    Args:
      folder: must not exist, or be empty.
      parameters: in the model's running form, wherever they lie.
      source: the folder that the model was loaded from.
      tokenizer_folder: whose tokenizer files are copied; by default the source.
      labels: names of the C classes of a cls or token head; by default the source's, where the
        head is the same, else LABEL_0, LABEL_1 ...
      dtype: F32, BF16 or F16 for every parameter, in place of the source's formats (F32 without).
      limit: bytes of tensors in one file; beyond it there are several and an index.

    Raises:
      ValueError: the folder is not empty, or the model or its parameters cannot be expressed so.
    """
    folder = new_folder(folder)
    if dtype is not None and dtype not in FLOATS:
        raise ValueError(f"dtype is {dtype!r}; expected one of {', '.join(FLOATS)}")
    leaves = flat(parameters)
    _check(leaves, model)
    tensors = None if source is None else Tensors(pathlib.Path(source))
    if tensors is None:
        foreign, targets = _from_scratch(model.config, labels, dtype or "F32")
    else:
        foreign, targets = _like(pathlib.Path(str(source)), tensors, model.config, labels, dtype)
    here = jax.process_index() == 0
    with whole(folder, here) as partial:
        if here:
            write_json(partial / files.CONFIG, foreign)
            if texts := tokenizer_folder or source:
                _copy_texts(pathlib.Path(texts), partial)
        write(partial, targets, Numbers(leaves, tensors), limit, here)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"{folder} is written")


def _check(leaves: Mapping[str, jax.Array], model: Model) -> None:
    """Raises ValueError unless the parameters are the model's."""
    wanted = running_shapes(model)
    for path in sorted({*leaves, *wanted}):
        here = tuple(leaves[path].shape) if path in leaves else "absent"
        there = wanted.get(path, "no parameter of the model")
        if here != there:
            raise ValueError(f"parameter {path} is {here}; expected {there}: give the parameters in the form that "
                             "the model runs on, with adapters merged")


def _like(source: pathlib.Path, tensors: Tensors, config: ModelConfig, labels: Sequence[str] | None,
          dtype: str | None) -> tuple[Foreign, list[Target]]:
    """config.json and the tensors of a model that came from a folder."""
    old = files.read_config(source)
    family = families.find(old, config.head)
    is_same_head = families.own_head(old, family) == _written_head(family, config)
    parts = shapes(config)
    found = {tensor: family.table.find(tensor, config, parts) for tensor in tensors.names}
    types = collections.Counter(tensors.stored(name).type for name, known in found.items() if known)
    targets, written = [], set[str]()
    for tensor, known in found.items():
        name, stored = tensor, tensors.stored(tensor)
        if known is None:
            targets += [Target(name, stored.type, stored.shape, tensor)] * is_same_head
            continue
        paths, row = known
        if not is_same_head:
            if paths[0].startswith("head/classifier/"):
                continue
            name = _bare(family.table.full_name(name, row), family, config)
        targets.append(_target(name, row, paths, parts, dtype or stored.type, tensor, stored.shape))
        written.update(paths)
    targets += [_target(*new, parts, dtype or types.most_common(1)[0][0])
                for new in _usual(family, config, parts, written)]
    names = tuple(target.name for target in targets)
    foreign = _config_like(old, family, config, names, labels, is_same_head)
    for field in ("torch_dtype", "dtype"):
        if dtype is not None and field in foreign:
            foreign[field] = NUMBERS[dtype]
    return foreign, targets


def _target(name: str, row: Row, paths: tuple[str, ...], parts: Mapping[str, Shape], type: str,
            base: str | None = None, shape: Shape | None = None) -> Target:
    """A tensor made of our parameters, shaped as its base is where that still fits."""
    ours = tuple(parts[path] for path in paths)
    shape = shape if shape is not None and row.fits(shape, ours) else row.foreign_shape(ours)
    return Target(name, type, shape, base, row, paths, ours)


def _usual(family: Family, config: ModelConfig, parts: Mapping[str, Shape], written: set[str]
           ) -> Iterator[tuple[str, Row, tuple[str, ...]]]:
    """The tensors of the parameters not yet written, by the first name that fits the head."""
    written = set(written)
    for path in parts:
        if path in written:
            continue
        name, row, paths = _named(path, family.table, config, parts)
        written.update(paths)
        yield _bare(name, family, config), row, paths


def _bare(name: str, family: Family, config: ModelConfig) -> str:
    """A row's name as the family's bare model has it, where the model is written as one."""
    return name.removeprefix(family.table.prefix) if _written_head(family, config) == "none" else name


def _written_head(family: Family, config: ModelConfig) -> str:
    """The head whose architecture a model is written as: some bare models hold a pooler too."""
    return config.head if config.head in family.heads.values() else "none"


def _named(path: str, table: Table, config: ModelConfig, parts: Mapping[str, Shape]
           ) -> tuple[str, Row, tuple[str, ...]]:
    layer = re.search(r"/layer_(\d+)/", path)
    number = layer[1] if layer else ""
    is_tied = config.head == "lm" and config.tied_head
    candidates = []
    for row in table.rows:
        paths = tuple(our.replace("{layer}", number) for our in row.parts)
        fits = path in paths and all(other in parts for other in paths)
        if fits and (is_tied or not row.tied) and (row.where is None or row.where(config)):
            candidates.append((row.foreign.replace("{layer}", number), row, paths))
    if not candidates:
        raise ValueError(f"this family has no tensor for parameter {path}; it cannot express the model")
    return min(candidates, key=lambda candidate: candidate[1].where is None)  # the most particular, else the first


def _config_like(old: Foreign, family: Family, config: ModelConfig, names: tuple[str, ...],
                 labels: Sequence[str] | None, is_same_head: bool) -> dict[str, Any]:
    """The source's config.json with what has changed; raises ValueError where it cannot say that."""
    new = dict(old)
    has_classes = config.head in ("cls", "token")
    before = families.config(old, family, names, config.head, config.classes if has_classes else None)
    if before.vocabulary != config.vocabulary:  # tokens have been added
        size = {"vocab_size": config.vocabulary}
        inside = isinstance(old.get("text_config"), dict) and "vocab_size" not in old
        new |= {"text_config": old["text_config"] | size} if inside else size
    if has_classes and (labels is not None or not is_same_head or fields.class_count(old) != config.classes):
        new.pop("num_labels", None)
        new |= _labelled(config.classes, labels)
    elif labels is not None:
        raise ValueError(f"labels are given, but a {config.head!r} head has none; leave them out")
    elif not is_same_head:  # the reference gives a span head as many outputs as there are labels
        new = {name: value for name, value in new.items() if name not in ("num_labels", "id2label", "label2id")}
    differences = []
    for architectures in [old.get("architectures")] if is_same_head else _architectures(
            old, family, _written_head(family, config)):
        new["architectures"] = architectures
        differences.append(_difference(new, family, config, names))
        if not differences[-1]:
            return new
    raise ValueError(f"a {old['model_type']} folder cannot express this model: "
                     f"{differences[0] if differences else f'no architecture there has the head {config.head!r}'}")


def _architectures(old: Foreign, family: Family, head: str) -> list[list[str]]:
    """The architectures with a head that a config.json of this model_type describes.

    Their names begin with the type's: RobertaModel and XLMRobertaModel share a family, and
    CLIPForImageClassification is not made from the fields of a clip_vision_model.
    """
    if families.find(old) is not family:
        return []  # a part of what the folder holds, which has fields of its own
    kind = re.sub(r"_text$|[-_]", "", old["model_type"].lower())
    return [[name] for name, own in family.heads.items() if own == head and name.lower().startswith(kind)]


def _labelled(classes: int, labels: Sequence[str] | None) -> dict[str, Any]:
    labels = [f"LABEL_{number}" for number in range(classes)] if labels is None else list(labels)
    if len(labels) != classes or len({*labels}) != classes:
        raise ValueError(f"labels are {labels}; expected {classes} different names, one for each class")
    return {"id2label": {str(number): label for number, label in enumerate(labels)},
            "label2id": {label: number for number, label in enumerate(labels)}}


def _difference(foreign: Foreign, family: Family, config: ModelConfig, names: tuple[str, ...]) -> str:
    """What the model would be otherwise if it were loaded from this config.json; empty for nothing."""
    read, ours = (dataclasses.asdict(one) for one in (families.config(foreign, family, names, config.head), config))
    ignored = {*RUNNING}
    if config.head in ("lm", "token", "span", "none"):
        ignored |= {"pooling", "pooler"}
    if config.head not in ("cls", "token"):
        ignored.add("classes")
    if config.head != "lm":
        ignored |= {"tied_head", "scaled_head"}
    for name, value in ours.items():
        if name == "max_length" and value <= read[name]:
            continue  # it was loaded so
        if name not in ignored and value != read[name]:
            return f"model.{name} is {value!r}, but would be read as {read[name]!r}"
    return ""


def _from_scratch(config: ModelConfig, labels: Sequence[str] | None, dtype: str) -> tuple[Foreign, list[Target]]:
    """config.json and the tensors of a model of our own, as the first family that can express it."""
    parts, differences = shapes(config), []
    for model_type, (family, *_) in sorted(families.known().items()):
        if family.written is None or config.head not in family.supported or model_type != family.model_types[0]:
            continue
        try:
            old = {"model_type": model_type, "torch_dtype": NUMBERS[dtype], **family.written(config)}
            targets = [_target(*new, parts, dtype) for new in _usual(family, config, parts, set())]
            names = tuple(target.name for target in targets)
            return _config_like(old, family, config, names, labels, False), targets
        except ValueError as error:
            differences.append(f"{model_type}: {error}")
    reasons = "; ".join(differences) or f"none of those that are written so has the head {config.head!r}"
    raise ValueError(f"no family can express this model: {reasons}")


def _copy_texts(source: pathlib.Path, folder: pathlib.Path) -> None:
    for pattern in TEXT_FILES:
        for path in sorted(source.glob(pattern)):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
