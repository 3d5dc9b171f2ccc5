# SPDX-License-Identifier: Apache-2.0
"""A line that says where records are comes in; records come out, indexed or streamed.

    builtin:train?size=4000&seed=0
    builtin:passages?seed=0               the documents that the questions of `rag` in builtin:test are about
    file:data/train.tsv?columns=text,label&values=label:0=negative|1=positive
    file:data/train.en.gz,data/train.de.gz?format=parallel&columns=source,target
    hub:NAME_OR_FOLDER?config=NAME&split=train

Every source understands the same edits. They are done in this order, so that all of them speak of
the fields as the source names them:

    convert=gsm8k                 makes a public data set's record the task's (`conversions`); done first
    where=label:0|1,lang:en       keeps the records that fit every condition
    unless=id:@test_ids.json      leaves out those that fit any; @ names a file with the values, a line
                                  each, or of a .json file the items of a list or an object's names
    values=label:0=no|1=yes       replaces values, in lists too; a value without a rule is an error
    columns=a,b                   keeps these fields (of csv and tsv without a header, parallel and
                                  conll it says instead what the columns are: `formats.Layout`)
    rename=old:new,old2:new2      renames fields
    skip=900                      leaves out the first records
    limit=100                     keeps the first of the rest

A `file:` also takes format=, encoding=, strip_prefix= and images= (`formats`), a `hub:` config= and split=.
A sign that separates (, : = | & ? %) is written %2C %3A %3D %7C %26 %3F %25 where it is meant, and
a value's first @ %40.
"""

import dataclasses
import pathlib
import re
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet

from t5tasks.data import formats, images, world
from t5tasks.data.edits import Edits, Spec, edited, parse, renamed, require_field
from t5tasks.data.formats import Located, Record
from t5tasks.data.text_files import nearest

SPLIT_WORDS = frozenset(("train", "training", "validation", "valid", "val", "dev", "test", "eval"))
FOLDER_FORMATS = (".parquet", ".arrow", ".json", ".jsonl", ".json.gz", ".jsonl.gz")


def load(spec: str, task: str = "", pictures: Sequence[str] = ()) -> datasets.Dataset:
    """Returns all records of a source, with len() and integer indexing.

    The records of `builtin:` and `file:` lie in memory as an Arrow table; an Arrow file of `hub:`
    is mapped. Nothing is cached under a file's name, so a changed file is read anew. A record is
    what `read` yields, with None for each field that another record has and it does not.

    Args:
      spec: the source; see the module's first lines.
      task: whose records `builtin:` makes.
      pictures: fields of images, whose paths are made whole: a record names them from its file's folder on.

    Raises:
      ValueError: what `read` raises, and a column whose values are not all of one type.
    """
    source, edits = parse(spec)
    if source.scheme != "hub" or edits.convert or edits.values or edits.where or edits.unless:
        return _in_memory(formats.table(_records(source, edits, task, pictures), spec))
    dataset = _hub(source)
    for name in edits.named:
        require_field(name, dataset.column_names, spec)
    if edits.columns:
        dataset = dataset.select_columns(list(edits.columns))
    renamed(dict.fromkeys(dataset.column_names), edits.rename, spec)
    dataset = dataset.rename_columns(edits.rename)
    if len(dataset) == 0:
        raise ValueError(f"no records in {spec}")
    stop = len(dataset) if edits.limit is None else min(edits.skip + edits.limit, len(dataset))
    if edits.skip >= stop:
        raise ValueError(f"no records in {spec}: it has {len(dataset)}")
    return dataset.select(range(edits.skip, stop))


def gathered(records: Iterable[Record], spec: str) -> datasets.Dataset:
    """Records made of a source's, as `load` returns them; ValueError where a column's values are not of one type."""
    return _in_memory(formats.table(((f"record {number}", record) for number, record in enumerate(records, 1)), spec))


def read(spec: str, task: str = "", pictures: Sequence[str] = ()) -> Iterator[Record]:
    """Yields the records of a source one by one, in order, without holding them all.

    Args:
      spec: the source; see the module's first lines.
      task: whose records `builtin:` makes.
      pictures: fields of images, as for `load`.

    Raises:
      ValueError: now for a line that names no source (unknown scheme, option or format, missing
        file); on the way for malformed content (with file and line), a field or value that an
        edit names in vain, and at the end if there was no record.
    """
    source, edits = parse(spec)
    return (record for _, record in _records(source, edits, task, pictures))


def _records(spec: Spec, edits: Edits, task: str, pictures: Sequence[str]) -> Iterator[Located]:
    if spec.scheme != "file":
        made = _hub(spec) if spec.scheme == "hub" else _made(spec, task)
        located = ((f"record {number}", record) for number, record in enumerate(made, 1))
        return edited(located, edits, spec.line)
    paths = [pathlib.Path(urllib.parse.unquote(p)).expanduser() for p in spec.place.split(",")]
    format = spec.options.get("format") or formats.common_format(paths)
    layout = formats.Layout(
        columns=edits.columns if format in formats.POSITIONAL else (),
        encoding=spec.options.get("encoding", "utf-8"),
        strip_prefix=urllib.parse.unquote(spec.options.get("strip_prefix", "")),
        images=urllib.parse.unquote(spec.options.get("images", "")),
    )
    if format in formats.POSITIONAL:
        edits = dataclasses.replace(edits, columns=())
    for name, only in (("strip_prefix", "conll"), ("images", "coco")):
        if getattr(layout, name) and format != only:
            raise ValueError(f"{name} in {spec.line} is for format={only}, not {format}")
    if not pictures or format == "parallel":
        return edited(formats.read(paths, format, layout), edits, spec.line)
    return _with_pictures(paths, lambda path: formats.read([path], format, layout), edits, spec.line, pictures)


def _with_pictures(paths: Sequence[pathlib.Path], read: Callable[[pathlib.Path], Iterator[Located]], edits: Edits,
                   line: str, pictures: Sequence[str]) -> Iterator[Located]:
    """The edited records of the files, their images' paths made whole: edits say which field holds one."""
    folder = paths[0].parent

    def all_files() -> Iterator[Located]:
        nonlocal folder
        for path in paths:
            folder = path.parent
            yield from read(path)

    for place, record in edited(all_files(), edits, line):  # which takes one record after the other
        found = {name: images.located(record[name], folder) for name in pictures if record.get(name)}
        yield place, {**record, **found}


def _made(spec: Spec, task: str) -> list[Record]:
    if not task and spec.place == "passages":
        return world.passages(spec.number("seed", 0) or 0)
    if not task:
        raise ValueError(f"{spec.line} makes records of a task: say which")
    return world.records(task, spec.place, spec.number("size", 1), spec.number("seed", 0) or 0)


def _hub(spec: Spec) -> datasets.Dataset:
    """A saved data set, a folder or file of tables, or else a name on the Hugging Face hub."""
    name = urllib.parse.unquote(spec.place)
    root = pathlib.Path(name).expanduser()
    path = root / spec.options.get("config", "")
    saved = (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()
    if path.is_file() or saved:
        found = datasets.load_from_disk(str(path)) if saved else _tables([path], spec.line)
        split = spec.options.get("split")
        if isinstance(found, datasets.Dataset) and split not in (None, str(found.split)):
            raise ValueError(f"{spec.line}: {path} is one split ({found.split}): leave split= out")
    elif path.is_dir():
        found = _folder(path, spec)
    elif root.exists() or name.endswith(FOLDER_FORMATS) or name[0] in "./~" or name.count("/") > 1:
        raise ValueError(f"{spec.line}: there is no file or folder {path}")
    else:
        found = _download(name, spec)
    return _still_packed(_named_labels(_one_split(found, spec)))


def _download(name: str, spec: Spec) -> Any:
    offline = datasets.config.HF_HUB_OFFLINE
    try:
        return datasets.load_dataset(
            name,
            spec.options.get("config"),
            split=spec.options.get("split"),
            download_config=datasets.DownloadConfig(max_retries=0) if offline else None,
        )
    except Exception as error:  # what goes wrong on the way has no common class
        reason = f"{error}".partition("\n")[0]
        raise ValueError(
            f"{spec.line} could not be loaded: {reason} (and there is no folder {name} here)"
        ) from error


def _one_split(found: Any, spec: Spec) -> datasets.Dataset:
    split = spec.options.get("split")
    if not isinstance(found, datasets.DatasetDict):
        return found
    if split is None and len(found) == 1:
        return next(iter(found.values()))
    if split is None:
        raise ValueError(f"{spec.line} has several splits, {', '.join(found)}: add split=")
    if split not in found:
        raise ValueError(f"{spec.line}: there is no split {split!r}: {nearest(split, found)}")
    return found[split]


def _folder(folder: pathlib.Path, spec: Spec) -> datasets.Dataset:
    """The tables of a folder whose paths have the split's name as a word."""
    files = {
        path: set(re.split(r"[^A-Za-z0-9]+", str(path.relative_to(folder))))
        for path in sorted(folder.rglob("*"))
        if path.name.endswith(FOLDER_FORMATS) and not path.name.startswith("dataset_info")
    }
    if not files:
        raise ValueError(f"{spec.line}: no {', '.join(FOLDER_FORMATS)} file in {folder}")
    splits = {tuple(sorted(words & SPLIT_WORDS)) for words in files.values()}
    known = ", ".join(sorted({word for split in splits for word in split}))
    if (split := spec.options.get("split")) is not None:
        files = {path: words for path, words in files.items() if split in words}
        if not files:
            raise ValueError(f"{spec.line}: no file of {folder} is named after {split!r}: {known}")
    elif len(splits) > 1:
        raise ValueError(f"{spec.line} has files of several splits: add split= with one of {known}")
    return _tables(list(files), spec.line)


def _tables(paths: Sequence[pathlib.Path], line: str) -> datasets.Dataset:
    """Arrow files are mapped; Parquet and JSON are read into memory."""
    suffixes = {path.name.removesuffix(".gz").rpartition(".")[2] for path in paths}
    if len(suffixes) > 1:
        raise ValueError(f"{line}: expected files of one kind, found {', '.join(sorted(suffixes))}")
    suffix = suffixes.pop()
    try:
        if suffix == "parquet":
            parts = [_in_memory(pyarrow.parquet.read_table(path)) for path in paths]
        elif suffix == "arrow":
            parts = [_arrow(path) for path in paths]
        elif suffix in ("json", "jsonl"):
            return _in_memory(formats.table(formats.read(paths), line))
        else:
            raise ValueError(f"{line}: expected {', '.join(FOLDER_FORMATS)} (file: reads others)")
        return datasets.concatenate_datasets(parts)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{line} is not readable {suffix}: {error}") from error


def _in_memory(table: pa.Table) -> datasets.Dataset:
    return datasets.Dataset(datasets.table.InMemoryTable(table))


def _arrow(path: pathlib.Path) -> datasets.Dataset:
    with pa.memory_map(str(path)) as opened:
        if opened.read(6) != b"ARROW1":  # what `datasets` writes: a stream of record batches
            return datasets.Dataset.from_file(str(path))
    return _in_memory(pa.ipc.open_file(pa.memory_map(str(path))).read_all())


def _still_packed(dataset: datasets.Dataset) -> datasets.Dataset:
    """Images as files, which `data.images` reads: `datasets` would unpack them at every look at a record."""
    for name, feature in dataset.features.items():
        if isinstance(feature, datasets.Image):
            dataset = dataset.cast_column(name, datasets.Image(decode=False))
        elif isinstance(getattr(feature, "feature", None), datasets.Image):
            dataset = dataset.cast_column(name, datasets.List(datasets.Image(decode=False)))
    return dataset


def _named_labels(dataset: datasets.Dataset) -> datasets.Dataset:
    """Class numbers with names become the names, −1 (no label) None; lists of them too."""
    order = dataset.column_names
    for name, feature in dataset.features.items():
        inner = getattr(feature, "feature", feature)
        if not isinstance(inner, datasets.ClassLabel):
            continue
        names = [*inner.names, None]  # −1 is the last
        column = dataset.with_format("arrow")[:][name].to_pylist()
        values = [_numbered(names, value) for value in column]
        dataset = dataset.remove_columns(name).add_column(name, values)
    return dataset.select_columns(order)


def _numbered(names: list[str | None], value: Any) -> Any:
    if isinstance(value, list):
        return [_numbered(names, item) for item in value]
    return None if value is None else names[value]
