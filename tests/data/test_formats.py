# SPDX-License-Identifier: Apache-2.0
"""What each file format reads, value by value, and what each says about a broken file."""

import gzip
import json
import pathlib

import hypothesis
import hypothesis.strategies as st
import pytest

from t5tasks.data import formats, sources

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def _write(folder: pathlib.Path, name: str, content: str | bytes) -> pathlib.Path:
    content = content.encode() if isinstance(content, str) else content
    path = folder / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def _read(path: pathlib.Path, format: str = "", **layout) -> list[dict]:
    return [record for _, record in formats.read([path], format, formats.Layout(**layout))]


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.json", '[{"a": 1}, {"a": null}]', [{"a": 1}, {"a": None}]),
        ("a.json", '{"data": [{"a": [1]}], "version": "1"}', [{"a": [1]}]),
        ("a.json", '[["q", "a", 3], ["r", "b", 4]]', [{"0": "q", "1": "a", "2": 3}, {"0": "r", "1": "b", "2": 4}]),
        ("a.jsonl", '{"a": "x"}\n\n  \n{"a": "\\u2028"}', [{"a": "x"}, {"a": "\u2028"}]),
        ("a.csv", 'a,b\r\n"x, y","say ""no"""\r\n', [{"a": "x, y", "b": 'say "no"'}]),
        ("a.csv", 'a,b\n"two\nlines",2\n\n3,4\n', [{"a": "two\nlines", "b": "2"}, {"a": "3", "b": "4"}]),
        ("a.tsv", 'a\tb\n"x\t"y"\n', [{"a": '"x', "b": '"y"'}]),
        ("a.txt", " one \n\n\u2028\u0085two\r\n", [{"text": " one "}, {"text": "\u2028\u0085two"}]),
        (
            "a.conll",
            "-DOCSTART- O\n\nEU B-ORG\nsaid O\n\t\n\n. O",
            [{"tokens": ["EU", "said"], "tags": ["B-ORG", "O"]}, {"tokens": ["."], "tags": ["O"]}],
        ),
        ("a.conll", "New York\tB-LOC\n", [{"tokens": ["New York"], "tags": ["B-LOC"]}]),
    ],
)
def test_values_of_each_format(tmp_path, name, content, expected, ending):
    path = _write(tmp_path, name + ending, content)
    assert _read(path) == expected


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    assert _read(_write(tmp_path, "a.csv", "\ufeffa\n1\n")) == [{"a": "1"}]


def test_a_field_longer_than_the_csv_module_allows_by_default(tmp_path):
    long = "x" * 200_000
    assert _read(_write(tmp_path, "a.csv", f"a\n{long}\n")) == [{"a": long}]


def test_columns_name_what_has_no_header(tmp_path):
    path = _write(tmp_path, "a.tsv", "good\t1\nbad\t0\n")
    assert _read(path, columns=("text", "label")) == [
        {"text": "good", "label": "1"},
        {"text": "bad", "label": "0"},
    ]


def test_conll_columns_and_prefix(tmp_path):
    path = _write(tmp_path, "a.conll", "en:EU NNP I-NP B-ORG\nen:said VBD I-VP O\n")
    assert _read(path, strip_prefix="en:") == [{"tokens": ["EU", "said"], "tags": ["B-ORG", "O"]}]
    assert _read(path, columns=("1", "2")) == [{"tokens": ["NNP", "VBD"], "tags": ["I-NP", "I-VP"]}]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32", "latin-1", "cp1252"])
def test_encodings(tmp_path, encoding):
    # U+0A0A has two bytes of value 10 in UTF-16: neither ends a line.
    text = "café\tné\n" + ("\u0a0a\tx\n" if encoding.startswith("utf") else "")
    path = _write(tmp_path, "a.tsv", text.encode(encoding))
    rows = [list(record.values()) for record in _read(path, encoding=encoding, columns=("a", "b"))]
    assert rows == [line.split("\t") for line in text.splitlines()]


@pytest.mark.parametrize("version", ["1.1", "2.0"])
def test_squad_is_flattened_to_a_record_a_question(tmp_path, version):
    answer = {"text": "Paris", "answer_start": 0}
    asked = {"id": "q1", "question": "Where?", "answers": [answer]}
    never = {"id": 2, "question": "When?", "answers": [], "plausible_answers": [answer]}
    never |= {"is_impossible": True} if version == "2.0" else {}
    paragraphs = [{"context": "Paris it is.", "qas": [asked, never]}]
    document = {"version": version, "data": [{"title": "T", "paragraphs": paragraphs}]}
    path = _write(tmp_path, "a.json.gz", json.dumps(document))
    shared = {"title": "T", "context": "Paris it is."}
    found = {"text": ["Paris"], "answer_start": [0]}
    assert _read(path, "squad") == [
        {"id": "q1", "question": "Where?", "answers": found, **shared},
        {"id": "2", "question": "When?", "answers": {"text": [], "answer_start": []}, **shared},
    ]


def test_parallel_keeps_lines_beside_each_other(tmp_path):
    paths = [_write(tmp_path, "a.en.gz", "one\n\nthree"), _write(tmp_path, "a.de", "eins\r\n\r\ndrei\r\n")]
    layout = formats.Layout(columns=("source", "target"))
    assert list(formats.read(paths, "parallel", layout)) == [
        (f"{paths[0]}:1", {"source": "one", "target": "eins"}),
        (f"{paths[0]}:2", {"source": "", "target": ""}),
        (f"{paths[0]}:3", {"source": "three", "target": "drei"}),
    ]


@pytest.mark.parametrize(("first", "second"), [("1\n2\n3\n", "1\n"), ("1\n", "1\n2\n3\n"), ("", "1\n")])
def test_parallel_files_of_different_length_give_both_counts(tmp_path, first, second):
    paths = [_write(tmp_path, "a.en", first), _write(tmp_path, "a.de", second)]
    layout = formats.Layout(columns=("source", "target"))
    counts = rf"a\.en has {first.count(chr(10))}, .*a\.de has {second.count(chr(10))}"
    with pytest.raises(ValueError, match=counts):
        list(formats.read(paths, "parallel", layout))


def test_several_files_are_read_one_after_the_other(tmp_path):
    paths = [_write(tmp_path, f"{n}.jsonl", json.dumps({"n": n})) for n in (1, 2, 1)]
    assert [record["n"] for _, record in formats.read(paths)] == [1, 2, 1]


def test_lines_are_read_as_they_are_asked_for(tmp_path):
    path = _write(tmp_path, "a.jsonl", '{"a": 1}\n{"a": 2}\nbroken\n')
    records = formats.read([path])
    assert next(records) == (f"{path}:1", {"a": 1})
    assert next(records) == (f"{path}:2", {"a": 2})
    with pytest.raises(ValueError, match=r"a\.jsonl:3: not JSON"):
        next(records)


@hypothesis.given(rows=st.lists(st.tuples(TEXT, TEXT), min_size=1))
@hypothesis.settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
def test_json_lines_give_back_any_text(tmp_path, rows):
    records = [{"a": a, "b": b} for a, b in rows]
    lines = "\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    assert _read(_write(tmp_path, "a.jsonl", lines)) == records


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": \n', r"a\.jsonl:2: not JSON: .*column"),
        ("a.jsonl", '{"a": 1}\n[1, 2]\n', r"a\.jsonl:2: expected a JSON object, found \[1, 2\]"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', r"a\.jsonl:2: byte 8 .*0xff.* not utf-8"),
        ("a.json", '[\n{"a": 1},\n{"a" 2}]', r"a\.json:3: not JSON"),
        ("a.json", '{"a": 1}', r'a\.json: expected a JSON list .*"data"'),
        ("a.json", '["x"]', r'a\.json: record 1: expected a JSON object, found "x"'),
        ("a.json", "", r"a\.json:1: not JSON"),
        ("a.csv", "a,b\n1,2\n3\n", r"a\.csv:3: 1 columns, expected 2 \(a, b\)"),
        ("a.csv", 'a\n"open\n', r"a\.csv:2: not CSV"),
        ("a.csv", "a,a\n1,2\n", r"a\.csv:1: two columns of the header share a name"),
        ("a.csv", b"a\n\xe9\n", r"a\.csv:2: byte 1 .*0xe9"),
        ("a.tsv", "a\tb\n1\t2\t3\n", r"a\.tsv:2: 3 columns, expected 2 \(a, b\)"),
        ("a.conll", "EU\tB-ORG\nsaid\n", r"a\.conll:2: 1 columns, expected 2"),
        ("a.conll", "EU\n", r"a\.conll:1: 1 columns, expected 2"),
        ("a.txt", b"ok\n\xc3\n", r"a\.txt:2: byte 1 .*0xc3"),
        ("a.txt", "version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    ],
)
def test_broken_content_is_one_line_with_its_place(tmp_path, name, content, message):
    path = _write(tmp_path, name, content)
    with pytest.raises(ValueError, match=message) as caught:
        _read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"plain text", gzip.compress(b"x" * 9999)[:-9], b"\x1f\x8b\x08"],
                         ids=["not packed", "cut", "header cut"])  # packed bytes hold the time
def test_a_damaged_gzip_file(tmp_path, content):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.txt\.gz is a damaged gzip file"):
        _read(path)


def test_wrong_utf16_names_the_byte(tmp_path):
    path = _write(tmp_path, "a.txt", "ab".encode("utf-16") + b"\x00\xd8")
    with pytest.raises(ValueError, match=r"a\.txt: byte 7 .* utf-16"):
        _read(path, encoding="utf-16")


def test_squad_without_its_fields(tmp_path):
    path = _write(tmp_path, "a.json", '{"data": [{"paragraphs": [{"qas": [{"id": 1}]}]}]}')
    with pytest.raises(ValueError, match=r"a\.json: article 1 is not SQuAD JSON: KeyError"):
        _read(path, "squad")


def test_columns_that_only_repeat_the_header_are_refused(tmp_path):
    path = _write(tmp_path, "a.csv", "text,label\nx,1\n")
    with pytest.raises(ValueError, match=r"a\.csv:1 is a header"):
        _read(path, columns=("label", "text"))


@pytest.mark.parametrize("columns", [("tokens", "tags"), ("0",), ("0", "9")])
def test_conll_columns_that_do_not_fit(tmp_path, columns):
    with pytest.raises(ValueError, match="does not fit conll|2 columns, expected 10"):
        _read(_write(tmp_path, "a.conll", "EU B-ORG\n"), columns=columns)


def test_missing_files_name_the_nearest(tmp_path):
    _write(tmp_path, "train.tsv", "a\n")
    with pytest.raises(ValueError, match=r"no file .*trian\.tsv: did you mean train\.tsv\?"):
        formats.read([tmp_path / "trian.tsv"])
    with pytest.raises(ValueError, match="there is no folder"):
        formats.read([tmp_path / "absent" / "train.tsv"])
    with pytest.raises(ValueError, match="is a folder"):
        formats.read([tmp_path])


def test_captions_of_coco_stand_with_their_images(tmp_path):
    document = {"images": [{"id": 7, "file_name": "7.jpg"}, {"id": 9, "file_name": "9.jpg"}],
                "annotations": [{"image_id": 9, "caption": "A dog. "}, {"image_id": 7, "caption": "A cat."},
                                {"image_id": 9, "caption": "One dog."}]}
    path = _write(tmp_path, "captions.json", json.dumps(document))
    assert [record for _, record in formats.read([path], "coco", formats.Layout(images="val2017"))] == [
        {"id": "7", "image": "val2017/7.jpg", "answers": ["A cat."]},
        {"id": "9", "image": "val2017/9.jpg", "answers": ["A dog.", "One dog."]}]
    (record,) = sources.read(f"file:{path}?format=coco&images=val2017&limit=1", pictures=("image",))
    assert record["image"] == f"{tmp_path}/val2017/7.jpg"
    with pytest.raises(ValueError, match="images in .* is for format=coco, not json"):
        list(sources.read(f"file:{path}?images=val2017"))
    for wrong in ({"images": document["images"]}, {**document, "images": document["images"][:1]}, []):
        path.write_text(json.dumps(wrong))
        with pytest.raises(ValueError, match="captions.json is not COCO captions JSON"):
            list(formats.read([path], "coco"))


def test_formats_that_are_not(tmp_path):
    path = _write(tmp_path, "a.data", "x\n")
    with pytest.raises(ValueError, match=r"unknown format 'jsnol': did you mean jsonl"):
        formats.read([path], "jsnol")
    with pytest.raises(ValueError, match=r"extension of .*a\.data tells no format.*parallel"):
        formats.read([path])
    with pytest.raises(ValueError, match="one format, found jsonl, text"):
        formats.read([_write(tmp_path, "a.txt", "x"), _write(tmp_path, "a.jsonl", "{}")])
    with pytest.raises(ValueError, match="unknown encoding 'utf-9'"):
        formats.read([path], "text", formats.Layout(encoding="utf-9"))
    with pytest.raises(ValueError, match="given 1 files, 0 names"):
        formats.read([path], "parallel")


def _table(*records: dict) -> list[dict]:
    located = ((f"f:{number}", record) for number, record in enumerate(records, 1))
    return formats.table(located, "file:f").to_pylist()


def test_a_table_keeps_every_field_of_every_record(monkeypatch):
    monkeypatch.setattr(formats, "ROWS_AT_ONCE", 2)  # parts of different fields join
    records = [{"a": 1}, {"a": None, "b": ["x"]}, {"b": []}, {"c": {"d": True}}]
    nothing = dict.fromkeys("abc")
    assert _table(*records) == [nothing | record for record in records]


@pytest.mark.parametrize(
    ("first", "second", "name"),
    [
        (1, "1", "a"),
        ("1", 1, "a"),
        (1, 2.5, "a"),  # a table would make 1 into 1.0, which is another answer as text
        (True, 1, "a"),
        ([1], ["x"], "a[]"),
        ([0, 0.5], [], "a[]"),
        ({"b": 1}, {"b": "x"}, "a.b"),
        ({"b": 1}, [1], "a"),
    ],
)
@pytest.mark.parametrize("between", [0, 3])
def test_a_column_of_mixed_types_is_refused(monkeypatch, first, second, name, between):
    monkeypatch.setattr(formats, "ROWS_AT_ONCE", 2)
    with pytest.raises(ValueError) as caught:
        _table({"a": first}, *[{"a": None}] * between, {"a": second})
    assert f"column {name!r} holds" in str(caught.value)
    assert "f:1" in str(caught.value)


@pytest.mark.parametrize("value", [2**70, "\ud800"])
def test_what_a_table_cannot_hold_names_the_column(value):
    with pytest.raises(ValueError, match="f:1 … f:1: column 'a' cannot be stored"):
        _table({"a": value})


def test_nothing_to_put_into_a_table():
    with pytest.raises(ValueError, match="no records in file:f"):
        _table()
    with pytest.raises(ValueError, match="f:2: the record has no field"):
        _table({"a": 1}, {})
