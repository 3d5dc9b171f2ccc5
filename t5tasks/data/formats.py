# SPDX-License-Identifier: Apache-2.0
"""Data files come in, of a format of FORMATS, gzipped or not; records or a table come out.

Every record comes with the place it stands at, so that what is wrong with it can be found:

    read([Path("a.jsonl")])  ->  ("a.jsonl:1", {"text": "A fine film .", "label": "positive"}), ...

Files are read as they are asked for, line by line; only JSON documents are held whole.
"""

import csv
import dataclasses
import itertools
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from t5tasks.data.text_files import lines, nearest, require

Record = dict[str, Any]
Located = tuple[str, Record]

POSITIONAL = ("csv", "tsv", "conll", "parallel")  # their columns have names only if Layout says
ROWS_AT_ONCE = 10_000  # records held as Python objects while a table is built
LONGEST_CSV_FIELD = 2**31 - 1  # characters; the csv module stops at 131,072 unless told


@dataclasses.dataclass(frozen=True)
class Layout:
    """How to read a file whose content does not say it.

    columns: names of the columns of csv and tsv (which then have no header) and of the files of
      parallel; the numbers of the token's and the tag's column, from 0, of conll.
    encoding: of the text, a name Python knows.
    strip_prefix: what stands before every token of a conll file, such as "en:".
    images: the folder that a coco file's images lie in, from its own folder on.
    """

    columns: tuple[str, ...] = ()
    encoding: str = "utf-8"
    strip_prefix: str = ""
    images: str = ""


def common_format(paths: Sequence[pathlib.Path]) -> str:
    """Returns the format that the files' extensions tell; raises ValueError where they do not."""
    found = {}
    for path in paths:
        suffix = pathlib.Path(path.name.removesuffix(".gz")).suffix
        if suffix not in EXTENSIONS:
            raise ValueError(
                f"the extension of {path} tells no format: add ?format= with one of "
                f"{', '.join(FORMATS)} (by extension: {', '.join(EXTENSIONS)})"
            )
        found[EXTENSIONS[suffix]] = path
    if len(found) != 1:
        raise ValueError(f"expected files of one format, found {', '.join(sorted(found))}")
    return next(iter(found))


def read(paths: Sequence[pathlib.Path], format: str = "", layout: Layout | None = None) -> Iterator[Located]:
    """Yields (place, record) for every record of the files, one file after the other.

    Args:
      paths: the files. For "parallel" they are read side by side, a line of each a record.
      format: one of FORMATS; by the files' extension where empty.
      layout: see Layout.

    Raises:
      ValueError: now for a missing file, an unknown format or encoding; on the way for content
        that is not what the format asks for, with the file and its line.
    """
    layout = layout or Layout()
    if format and format not in FORMATS:
        raise ValueError(f"unknown format {format!r}: {nearest(format, FORMATS)}")
    for path in paths:
        require(path, layout.encoding)
    format = format or common_format(paths)
    if format == "parallel":
        return _parallel(paths, layout)
    return itertools.chain.from_iterable(READERS[format](path, layout) for path in paths)


def _json(text: str, path: pathlib.Path, first_line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise ValueError(f"{path}:{line}: not JSON: {error.msg} (column {error.colno})") from error


def _object(value: Any, place: str) -> Record:
    if not isinstance(value, dict):
        raise ValueError(f"{place}: expected a JSON object, found {json.dumps(value)[:40]}")
    return value


def _document(path: pathlib.Path, layout: Layout) -> list[Any]:
    """The list of a JSON file, the list under its "data", or its objects by their names, which become their "id"."""
    text = "".join(line for _, line in lines(path, layout.encoding))
    found = _json(text, path, 1)
    if isinstance(found, dict) and "data" not in found and all(isinstance(one, dict) for one in found.values()):
        return [{"id": name, **one} for name, one in found.items()]
    found = found.get("data") if isinstance(found, dict) else found
    if not isinstance(found, list):
        raise ValueError(f'{path}: expected a JSON list of objects, an object with it as "data", or an object of '
                         "objects")
    return found


def _read_json(path: pathlib.Path, layout: Layout) -> Iterator[Located]:
    """A record an object; a list is one whose fields are called "0", "1" ... by their places."""
    for number, value in enumerate(_document(path, layout), 1):
        place = f"{path}: record {number}"
        value = {str(index): item for index, item in enumerate(value)} if isinstance(value, list) else value
        yield place, _object(value, place)


def _read_jsonl(path: pathlib.Path, layout: Layout) -> Iterator[Located]:
    for number, line in lines(path, layout.encoding):
        if line.strip():
            place = f"{path}:{number}"
            yield place, _object(_json(line.strip(), path, number), place)


def _read_csv(path: pathlib.Path, layout: Layout) -> Iterator[Located]:
    """Comma-separated, fields quoted as in RFC 4180; a quoted field may hold line breaks."""
    csv.field_size_limit(LONGEST_CSV_FIELD)
    reader = csv.reader((line for _, line in lines(path, layout.encoding)), strict=True)

    def rows() -> Iterator[tuple[int, list[str]]]:
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader, None)
            except csv.Error as error:
                raise ValueError(f"{path}:{line}: not CSV: {error}") from error
            if row is None:
                return
            yield line, row

    return _records(path, rows(), layout)


def _read_tsv(path: pathlib.Path, layout: Layout) -> Iterator[Located]:
    """Tab-separated; quotes are ordinary characters, as in the data sets that come as TSV."""
    rows = ((number, line.rstrip("\r\n").split("\t")) for number, line in lines(path, layout.encoding))
    return _records(path, rows, layout)


def _records(path: pathlib.Path, rows: Iterator[tuple[int, list[str]]], layout: Layout) -> Iterator[Located]:
    columns = list(layout.columns)
    for line, row in rows:
        if row in ([], [""]):
            continue
        if not columns:
            columns = row
            if len(set(columns)) < len(columns):
                raise ValueError(f"{path}:{line}: two columns of the header share a name: {row}")
            continue
        if layout.columns and sorted(row) == sorted(columns):
            raise ValueError(f"{path}:{line} is a header: leave columns= out, it is for files without")
        if len(row) != len(columns):
            raise ValueError(f"{path}:{line}: {len(row)} columns, expected {len(columns)} ({', '.join(columns)})")
        yield f"{path}:{line}", dict(zip(columns, row, strict=True))


def _read_conll(path: pathlib.Path, layout: Layout) -> Iterator[Located]:
    """A token a line, its columns apart by tabs or else spaces, a blank line between sentences.

    The tag is the last column unless columns= says otherwise.
    """
    token, tag = _token_and_tag(layout.columns)
    width, start = 0, 0
    tokens: list[str] = []
    tags: list[str] = []
    for number, line in itertools.chain(lines(path, layout.encoding), [(0, "")]):
        if not line.strip() or line.startswith("-DOCSTART-"):
            if tokens:
                yield f"{path}:{start}", {"tokens": tokens, "tags": tags}
            tokens, tags = [], []
            continue
        fields = line.rstrip("\r\n").split("\t") if "\t" in line else line.split()
        width = width or max(len(fields), token + 1, tag + 1, 2)
        if len(fields) != width:
            raise ValueError(f"{path}:{number}: {len(fields)} columns, expected {width} (a token, …, a tag)")
        start = start if tokens else number
        tokens.append(fields[token].removeprefix(layout.strip_prefix))
        tags.append(fields[tag])


def _token_and_tag(columns: tuple[str, ...]) -> tuple[int, int]:
    if not columns:
        return 0, -1
    if len(columns) != 2 or not all(column.isdecimal() for column in columns):
        raise ValueError(
            f"columns={','.join(columns)} does not fit conll: expected the numbers of the token's "
            "and the tag's column, from 0, such as columns=0,3"
        )
    return int(columns[0]), int(columns[1])


def _read_squad(path: pathlib.Path, layout: Layout) -> Iterator[Located]:
    """SQuAD JSON, version 1.1 or 2.0: a record a question, no answers where it has none."""
    for number, article in enumerate(_document(path, layout), 1):
        place = f"{path}: article {number}"
        try:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    yield place, _question(article, paragraph, question)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{place} is not SQuAD JSON: {error!r}") from error


def _question(article: Record, paragraph: Record, question: Record) -> Record:
    answers = [] if question.get("is_impossible") else question["answers"]
    return {
        "id": str(question["id"]),
        "title": article.get("title", ""),
        "context": paragraph["context"],
        "question": question["question"],
        "answers": {
            "text": [answer["text"] for answer in answers],
            "answer_start": [answer["answer_start"] for answer in answers],
        },
    }


def _read_coco(path: pathlib.Path, layout: Layout) -> Iterator[Located]:
    """COCO captions JSON (arxiv.org/abs/1504.00325): a record an image, with all that people wrote of it."""
    found = _json("".join(line for _, line in lines(path, layout.encoding)), path, 1)
    try:
        captions: dict[Any, list[str]] = {image["id"]: [] for image in found["images"]}
        for annotation in found["annotations"]:
            captions[annotation["image_id"]].append(annotation["caption"].strip())
        for image in found["images"]:
            name = str(pathlib.PurePosixPath(layout.images) / image["file_name"])
            yield f"{path}: image {image['id']}", {"id": str(image["id"]), "image": name,
                                                   "answers": captions[image["id"]]}
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not COCO captions JSON: {error!r}") from error


def _read_text(path: pathlib.Path, layout: Layout) -> Iterator[Located]:
    """Plain text: a record a line, blank lines left out."""
    for number, line in lines(path, layout.encoding):
        if line.strip():
            yield f"{path}:{number}", {"text": line.rstrip("\r\n")}


def _parallel(paths: Sequence[pathlib.Path], layout: Layout) -> Iterator[Located]:
    """Line n of every file is record n; blank lines count, so that the files stay aligned."""
    if len(layout.columns) != len(paths) or len(paths) < 2:
        raise ValueError(
            f"parallel reads two files or more, each with its name in columns= (such as "
            f"columns=source,target): given {len(paths)} files, {len(layout.columns)} names"
        )
    return _parallel_records(paths, layout)


def _parallel_records(paths: Sequence[pathlib.Path], layout: Layout) -> Iterator[Located]:
    counts = [0] * len(paths)
    for row in itertools.zip_longest(*(lines(path, layout.encoding) for path in paths)):
        counts = [found[0] if found else count for found, count in zip(row, counts, strict=True)]
        if len(set(counts)) > 1:
            continue  # one file has ended: read on to count the lines of the others
        texts = [line.rstrip("\r\n") for _, line in row]
        yield f"{paths[0]}:{counts[0]}", dict(zip(layout.columns, texts, strict=True))
    if len(set(counts)) > 1:
        each = ", ".join(f"{path} has {n}" for path, n in zip(paths, counts, strict=True))
        raise ValueError(f"parallel files must have the same number of lines: {each}")


def table(located: Iterator[Located], line: str) -> pa.Table:
    """Returns the records as an Arrow table in memory; a field that a record lacks is null.

    Args:
      located: what `read` yields.
      line: where the records come from, for errors.

    Raises:
      ValueError: what `located` raises, no record, a record without fields, values of different
        types in one column (1 and 2.5, 1 and "1": a table would change one of them), or values
        that Arrow cannot hold.
    """
    kinds: dict[str, tuple[str, str]] = {}
    tables = []
    while part := list(itertools.islice(located, ROWS_AT_ONCE)):
        for place, record in part:
            if not record:
                raise ValueError(f"{place}: the record has no field")
            for name, value in record.items():
                _observe(name, value, place, kinds)
        names = dict.fromkeys(name for _, record in part for name in record)
        columns = {name: _column(name, part) for name in names}
        tables.append(pa.table(columns))
    if not tables:
        raise ValueError(f"no records in {line}")
    try:
        # Permissive: a part in which a field is absent or empty takes the type of the others.
        joined = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise ValueError(f"{line}: {error}") from error
    return joined


def _observe(name: str, value: Any, place: str, kinds: dict[str, tuple[str, str]]) -> None:
    """Notes the type of a value and of all within it."""
    if value is None:
        return
    kind = type(value).__name__
    first, where = kinds.setdefault(name, (kind, place))
    if first != kind:
        raise ValueError(
            f"{place}: column {name!r} holds {kind} here and {first} at {where}: expected one "
            "type throughout; mend the file, or leave the column out with columns="
        )
    if isinstance(value, dict):
        for key, item in value.items():
            _observe(f"{name}.{key}", item, place, kinds)
    elif isinstance(value, list):
        for item in value:
            _observe(f"{name}[]", item, place, kinds)


def _column(name: str, part: Sequence[Located]) -> pa.Array:
    try:
        return pa.array([record.get(name) for _, record in part])
    except (pa.ArrowException, OverflowError, UnicodeError) as error:
        places = f"{part[0][0]} … {part[-1][0]}"
        raise ValueError(f"{places}: column {name!r} cannot be stored: {error}") from error


READERS: dict[str, Callable[[pathlib.Path, Layout], Iterator[Located]]] = {
    "json": _read_json,
    "jsonl": _read_jsonl,
    "csv": _read_csv,
    "tsv": _read_tsv,
    "conll": _read_conll,
    "squad": _read_squad,
    "coco": _read_coco,
    "text": _read_text,
}
FORMATS = (*READERS, "parallel")
EXTENSIONS = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".conll": "conll",
    ".txt": "text",
}
