# SPDX-License-Identifier: Apache-2.0
"""Laws of sources: what is read, how it is edited, what is said of a wrong line; on real files too."""

import json
import os
import pathlib
import pickle
import time

import datasets
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet
import pytest

from t5tasks.data import sources, world

DATA = pathlib.Path(__file__).parents[2].parent / "shared" / "data"
ROWS = [{"text": f"text {n}", "label": n % 2} for n in range(6)]


@pytest.fixture
def rows(tmp_path) -> str:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in ROWS), encoding="utf-8")
    return f"file:{path}"


def _real(spec: str) -> str:
    """The source of a file in shared/data, given as "name/file?options"."""
    places, _, query = spec.partition("?")
    paths = [DATA / place for place in places.split(",")]
    if not paths[0].exists():
        pytest.skip(f"no {paths[0].name}: the folder shared/data is not beside the checkout")
    return f"file:{','.join(map(str, paths))}?{query}".removesuffix("?")


# source, how many records (as the data's own manifest counts them), the first, the last
REAL = [
    (
        "sst2/train.tsv?columns=text,label&values=label:0=negative|1=positive",
        6920,
        {
            "text": "a stirring , funny and finally transporting re imagining of beauty and the "
            "beast and 1930s horror films",
            "label": "positive",
        },
    ),
    (
        "banking77/train.csv?rename=category:label",
        10003,
        {"text": "I am still waiting on my card?", "label": "card_arrival"},
    ),
    (
        "multi30k/val.en.gz,multi30k/val.de.gz?format=parallel&columns=source,target",
        1014,
        {
            "source": "A group of men are loading cotton onto a truck",
            "target": "Eine Gruppe von Männern lädt Baumwolle auf einen Lastwagen",
        },
    ),
    ("wnut17/wnut17train.conll", 3394, None),
    (
        "wikiann_en/dev.gz?format=conll&strip_prefix=en:",
        10000,
        None,
    ),
    ("squad_v2/dev-v2.0-cs224n.json.gz?format=squad", 5452, None),
    (
        "esnli/test.jsonl.gz?columns=premise,hypothesis,label&values=label:0=entailment|1=neutral|2=contradiction",
        4955,
        {
            "premise": "An old man with a package poses in front of an advertisement .",
            "hypothesis": "A man poses in front of an ad .",
            "label": "entailment",
        },
    ),
    ("sms_spam/sms.tsv?columns=label,text", 4439, {"label": "ham", "text": "Ok lar... Joking wif u oni..."}),
    ("svamp/SVAMP.json", 784, None),
    ("wikitext2/valid.txt.gz", 2461, {"text": " = Homarus gammarus = "}),
]


@pytest.mark.parametrize(("spec", "count", "first"), REAL, ids=[spec for spec, _, _ in REAL])
def test_real_files(spec, count, first):
    spec = _real(spec)
    dataset = sources.load(spec)
    assert len(dataset) == count
    assert first is None or dataset[0] == first
    for index, record in enumerate(sources.read(spec)):
        if index % 97 == 0:
            assert dataset[index] == record
    assert index == count - 1


def test_real_answers_stand_where_squad_says():
    answered = 0
    for record in sources.read(_real("squad_v2/dev-v2.0-cs224n.json.gz?format=squad")):
        answers = record["answers"]
        for text, start in zip(answers["text"], answers["answer_start"], strict=True):
            assert record["context"][start : start + len(text)] == text
            answered += 1
    assert answered > 5000


def test_real_tags_are_iob2_and_beside_their_tokens():
    for record in sources.read(_real("wikiann_en/dev.gz?format=conll&strip_prefix=en:")):
        assert len(record["tokens"]) == len(record["tags"]) > 0
        assert not any(token.startswith("en:") for token in record["tokens"])
        assert {tag.partition("-")[0] for tag in record["tags"]} <= {"B", "I", "O"}


def test_real_mismatch_gives_both_counts():
    spec = _real("multi30k/val.en.gz,multi30k/train.de.gz?format=parallel&columns=source,target")
    with pytest.raises(ValueError, match=r"val\.en\.gz has 1014, .*train\.de\.gz has 29000"):
        sources.load(spec)


@pytest.mark.parametrize("task", world.tasks())
def test_builtin_is_the_world_itself(task):
    made = world.records(task, "validation", 20, 3)
    spec = "builtin:validation?size=20&seed=3"
    assert list(sources.read(spec, task)) == made
    assert list(sources.load(spec, task)) == made
    assert list(sources.read("builtin:validation?seed=3&limit=20", task)) == made


def test_load_gives_len_and_indices(rows):
    dataset = sources.load(rows)
    assert len(dataset) == 6
    assert dataset[4] == ROWS[4] and dataset[-1] == ROWS[5]
    assert list(dataset) == list(sources.read(rows)) == ROWS
    assert list(pickle.loads(pickle.dumps(dataset))) == ROWS


def test_a_changed_file_is_read_anew(rows):
    before = sources.load(rows)
    path = pathlib.Path(rows.removeprefix("file:"))
    stamp = path.stat()
    path.write_text(path.read_text(encoding="utf-8").replace("text 0", "next 0"), encoding="utf-8")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # same size, same time
    after = sources.load(rows)
    assert (before[0]["text"], after[0]["text"]) == ("text 0", "next 0")
    assert before._fingerprint != after._fingerprint


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("columns=label", [{"label": row["label"]} for row in ROWS]),
        ("limit=2", ROWS[:2]),
        ("limit=100", ROWS),
        ("where=label:1", ROWS[1::2]),
        ("where=label:1,text:text 1|text 2", [ROWS[1]]),
        ("where=label:1&limit=1", [ROWS[1]]),
        ("unless=label:1", ROWS[::2]),
        ("unless=label:1,text:text 0", ROWS[2::2]),
        ("where=text:text 0|text 1&unless=label:0", [ROWS[1]]),
        ("unless=label:0&skip=1&limit=1", [ROWS[3]]),
        ("rename=text:a,label:b&limit=1", [{"a": "text 0", "b": 0}]),
        ("rename=text:label,label:text&limit=1", [{"label": "text 0", "text": 0}]),
        ("columns=text&rename=text:label&limit=1", [{"label": "text 0"}]),
        ("where=label:1&values=label:1=yes&columns=text&limit=1", [{"text": "text 1"}]),
        (
            "rename=label:l&values=label:1=a%2Cb%26%3D&where=label:1,text:text%201",
            [{"text": "text 1", "l": "a,b&="}],
        ),
    ],
)
def test_edits(rows, query, expected):
    spec = f"{rows}?{query}"
    assert list(sources.read(spec)) == expected
    assert list(sources.load(spec)) == expected


@pytest.mark.parametrize(("name", "content"), [
    ("ids.json", '["text 1", "text 3", "text 99"]'), ("ids.json", '{"text 1": "yes", "text 3": {}}'),
    ("ids.txt", "text 1\ntext 3\n")])
def test_a_file_names_the_records_of_a_split(rows, tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8")
    listed = [ROWS[1], ROWS[3]]
    assert list(sources.read(f"{rows}?where=text:@{tmp_path}/{name}")) == listed
    assert list(sources.load(f"{rows}?where=text:@{tmp_path}/{name}|text 0")) == [ROWS[0], *listed]
    assert list(sources.load(f"{rows}?unless=text:@{tmp_path}/{name}")) == [row for row in ROWS if row not in listed]


@pytest.mark.parametrize(("content", "message"), [("[1,", "cannot be read: Expecting value"),
                                                  ("7", "expected a JSON list or object, found 7")])
def test_a_file_that_lists_nothing_is_named(rows, tmp_path, content, message):
    (tmp_path / "ids.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"ids\.json in file:.*{message}"):
        sources.read(f"{rows}?where=text:@{tmp_path}/ids.json")


def test_an_at_sign_that_is_meant(tmp_path):
    (tmp_path / "a.txt").write_text("@b\nc\n", encoding="utf-8")
    assert list(sources.read(f"file:{tmp_path}/a.txt?where=text:%40b")) == [{"text": "@b"}]


def test_values_reach_into_lists(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"tags": [0, 1, 0]}', encoding="utf-8")
    spec = f"file:{tmp_path}/a.jsonl?values=tags:0=O|1=B-PER"
    assert sources.load(spec)[0] == {"tags": ["O", "B-PER", "O"]}


def test_a_path_with_the_signs_of_the_line(tmp_path):
    (tmp_path / "a,b?c%.txt").write_text("x\n", encoding="utf-8")
    assert sources.load(f"file:{tmp_path}/a%2Cb%3Fc%25.txt")[0] == {"text": "x"}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("fromat=json", r"unknown option 'fromat' of file:.*did you mean format\?"),
        ("format=jsnol", r"unknown format 'jsnol': did you mean jsonl"),
        ("split=train", "unknown option 'split' of file:"),
        ("limit=0", "limit=0 .*whole number >= 1"),
        ("limit=-1", "limit=-1 .*whole number >= 1"),
        ("limit=1&limit=2", "'limit' .*stands twice"),
        ("limit=", "'limit' .*no value"),
        ("columns=text,text", "columns=text,text .*twice"),
        ("columns=txet", r"rows\.jsonl:1: there is no field 'txet': did you mean text\?"),
        ("rename=text", "expected rename=field:"),
        ("rename=text:a,label:a", "two fields would share one name"),
        ("rename=text:", "a name is empty"),
        ("rename=text:label", r"rows\.jsonl:1: rename= would overwrite the field label"),
        ("rename=x:y", "there is no field 'x'"),
        ("columns=text&rename=label:l", "there is no field 'label'"),
        ("values=label:0", r"expected old=new\|old=new"),
        ("values=label:0=no", r"rows\.jsonl:2: no rule .* for '1' in field 'label': .* for 0"),
        ("where=lable:1", "no field 'lable': did you mean label"),
        ("where=label:7", r"no records in file:.*where=label:7"),
        ("unless=lable:1", "no field 'lable': did you mean label"),
        ("unless=label:0|1", r"no records in file:.*unless=label:0"),
        ("where=text:@no.json", r"@no\.json in file:.* cannot be read: No such file"),
        ("strip_prefix=en:", "strip_prefix .* is for format=conll, not jsonl"),
    ],
)
def test_wrong_options_are_one_clear_line(rows, query, message):
    with pytest.raises(ValueError, match=message) as caught:
        sources.load(f"{rows}?{query}")
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=message):
        list(sources.read(f"{rows}?{query}"))


@pytest.mark.parametrize(
    ("spec", "task", "message"),
    [
        ("data/train.tsv", "", "names no source: expected builtin:…, file:…, hub:…"),
        ("flie:train.tsv", "", "names no source"),
        ("file:", "", "does not say where: expected file:PATH"),
        ("builtin:train", "", "makes records of a task"),
        ("builtin:train?size=x", "nli", "size=x .*whole number >= 1"),
        ("builtin:trian", "nli", "train"),
        ("builtin:train", "nil", "nli"),
        ("hub:./absent", "", "there is no file or folder"),
        ("hub:absent.parquet", "", "there is no file or folder"),
    ],
)
def test_lines_that_name_no_source(spec, task, message):
    with pytest.raises(ValueError, match=message):
        sources.load(spec, task)


def test_read_complains_before_the_first_record(tmp_path):
    with pytest.raises(ValueError, match="no file"):
        sources.read(f"file:{tmp_path}/absent.jsonl")


def test_an_empty_file_has_no_records(tmp_path):
    (tmp_path / "a.jsonl").touch()
    for run in (sources.load, lambda spec: list(sources.read(spec))):
        with pytest.raises(ValueError, match=r"no records in file:.*a\.jsonl"):
            run(f"file:{tmp_path}/a.jsonl")


def test_read_does_not_hold_the_file(tmp_path):
    # Ten thousand good lines, then a broken one: the first record comes before it is met.
    lines = [json.dumps({"n": n}) for n in range(10_000)]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, "broken"]), encoding="utf-8")
    stream = sources.read(f"file:{tmp_path}/a.jsonl")
    assert [next(stream)["n"] for _ in range(10_000)] == list(range(10_000))
    with pytest.raises(ValueError, match=r"a\.jsonl:10001: not JSON"):
        next(stream)


@pytest.fixture(params=["saved", "saved dict", "parquet", "arrow stream", "arrow file", "jsonl"])
def folder(request, tmp_path):
    """A folder with ROWS as split "train" (and two rows as "test", if it can hold splits)."""
    dataset = datasets.Dataset.from_list(ROWS)
    if request.param == "saved":
        dataset.save_to_disk(tmp_path)
    elif request.param == "saved dict":
        splits = {"train": dataset, "test": dataset.select(range(2))}
        datasets.DatasetDict(splits).save_to_disk(tmp_path)
    else:
        for name, rows in (("train-0", ROWS[:4]), ("train-1", ROWS[4:]), ("test-0", ROWS[:2])):
            _write_table(tmp_path, name, rows, request.param)
    return request.param, tmp_path


def _write_table(folder, name, rows, kind):
    table = pa.Table.from_pylist(rows)
    if kind == "parquet":
        pyarrow.parquet.write_table(table, folder / f"{name}.parquet")
    elif kind == "jsonl":
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    else:
        new = pa.ipc.new_stream if kind == "arrow stream" else pa.ipc.new_file
        with new(str(folder / f"{name}.arrow"), table.schema) as writer:
            writer.write_table(table)


def test_folders_of_hub(folder):
    kind, path = folder
    spec = f"hub:{path}" + ("" if kind == "saved" else "?split=train")
    join = "&" if "?" in spec else "?"
    assert list(sources.load(spec)) == list(sources.read(spec)) == ROWS
    for query in ("limit=3&columns=text&rename=text:t", "where=label:1&values=label:1=one"):
        edited = list(sources.load(f"{spec}{join}{query}"))
        assert edited == list(sources.read(f"{spec}{join}{query}"))
    assert edited == [{**row, "label": "one"} for row in ROWS[1::2]]
    for query, message in (
        ("columns=txet", "did you mean text"),
        ("rename=text:label", "overwrite"),
        ("columns=text&rename=label:l", "there is no field 'label'"),
    ):
        with pytest.raises(ValueError, match=message):
            sources.load(f"{spec}{join}{query}")


def test_splits_of_a_folder_must_be_named(folder):
    kind, path = folder
    if kind == "saved":
        with pytest.raises(ValueError, match="is one split .None.: leave split= out"):
            sources.load(f"hub:{path}?split=test")
        return
    assert len(sources.load(f"hub:{path}?split=test")) == 2
    with pytest.raises(ValueError, match=r"several splits.*"):
        sources.load(f"hub:{path}")
    with pytest.raises(ValueError, match="'trian'"):
        sources.load(f"hub:{path}?split=trian")


@pytest.mark.parametrize("kind", ["parquet", "arrow stream", "arrow file"])
def test_single_files_of_hub_and_damaged_ones(tmp_path, kind):
    _write_table(tmp_path, "rows", ROWS, kind)
    path = next(tmp_path.iterdir())
    assert list(sources.load(f"hub:{path}")) == ROWS
    path.write_bytes(b"no table at all" * 9)
    with pytest.raises(ValueError, match="is not readable"):
        sources.load(f"hub:{path}")


def test_config_is_a_folder_within(tmp_path):
    (tmp_path / "en").mkdir()
    _write_table(tmp_path / "en", "rows", ROWS, "parquet")
    assert list(sources.load(f"hub:{tmp_path}?config=en")) == ROWS
    with pytest.raises(ValueError, match="there is no file or folder .*fr"):
        sources.load(f"hub:{tmp_path}?config=fr")


def test_class_numbers_become_their_names(tmp_path):
    names = datasets.ClassLabel(names=["no", "yes"])
    features = datasets.Features(label=names, tags=datasets.List(names), text=datasets.Value("string"))
    columns = {"label": [0, 1, -1], "tags": [[0, 1], [], [1]], "text": ["a", "b", "c"]}
    datasets.Dataset.from_dict(columns, features).save_to_disk(tmp_path)
    assert list(sources.load(f"hub:{tmp_path}")) == [
        {"label": "no", "tags": ["no", "yes"], "text": "a"},
        {"label": "yes", "tags": [], "text": "b"},
        {"label": None, "tags": ["yes"], "text": "c"},
    ]
    assert sources.load(f"hub:{tmp_path}?where=label:null")[0]["text"] == "c"


def test_an_arrow_file_is_mapped_not_read(tmp_path):
    rows = [{"text": "x" * 1000}] * 5000
    _write_table(tmp_path, "rows", rows, "arrow stream")
    before = pa.total_allocated_bytes()
    dataset = sources.load(f"hub:{tmp_path}?limit=4000")
    assert len(dataset) == 4000 and len(dataset[3999]["text"]) == 1000
    assert pa.total_allocated_bytes() - before < 1_000_000


def test_a_name_offline_fails_at_once_and_says_so(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it waits to try again"))
    with pytest.raises(ValueError, match="hub:nobody/nothing.split=train could not be") as caught:
        sources.load("hub:nobody/nothing?split=train")
    assert "there is no folder nobody/nothing" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_name_is_asked_for_with_its_config_and_split(monkeypatch):
    asked = []

    def answer(*arguments, **options):
        asked.append((arguments, options))
        return datasets.DatasetDict(only=datasets.Dataset.from_list(ROWS))

    monkeypatch.setattr(datasets, "load_dataset", answer)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    assert list(sources.load("hub:nobody/nothing-v1.0?config=en")) == ROWS
    ((arguments, options),) = asked
    assert arguments == ("nobody/nothing-v1.0", "en") and options["split"] is None
    assert options["download_config"].max_retries == 0


def test_skip_and_limit_cut_neighbouring_slices(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "ten.jsonl"
    path.write_text("".join(f'{{"text": "{n}"}}\n' for n in range(10)))

    def texts(options: str) -> list[str]:
        streamed = [record["text"] for record in sources.read(f"file:{path}{options}")]
        assert sources.load(f"file:{path}{options}")["text"][:] == streamed
        return streamed

    assert texts("?limit=7") + texts("?skip=7&limit=2") + texts("?skip=9") == [str(n) for n in range(10)]
    assert texts("?where=text:1|3|5&skip=1") == ["3", "5"]
    with pytest.raises(ValueError, match="no records"):
        list(sources.read(f"file:{path}?skip=10"))
