# SPDX-License-Identifier: Apache-2.0
"""Files of each kind come in; their ids, titles and texts come out as a reader sees them."""

import gzip
import json

import pytest

from t5tasks.data import documents

PAGE = """<!doctype html><html><head><title>Opening
 hours</title><style>p {}</style></head><body><nav>Home | About</nav><!-- a note -->
<h1>The market</h1><p>Anna has a <b>shop</b> in&nbsp;Lima.<br>It sells pears &amp; plums.</p><script>var x = 1</script>
<ul><li>one</li><li>two <i>x</i></li></ul><div>a<div>b</div>c</div>
<table><tr><th>Thing</th><th>Price</th></tr><tr><td>Pear</td><td>3</td></tr></table>
<pre>def f(x):
    return  x

print(1)</pre> tail <p>unclosed <p>café<form><input value=x><select><option>1</select><button>go</button></form>"""
SEEN = """The market

Anna has a shop in Lima.
It sells pears & plums.

- one
- two x

a
b
c

Thing | Price
Pear | 3

def f(x):
    return  x

print(1)

tail

unclosed

café"""


def test_a_page_is_read_as_it_is_seen():
    assert documents.page(PAGE.encode()) == ("Opening hours", SEEN)


def test_a_page_without_a_title_goes_by_its_heading():
    assert documents.page(b"<h1>The  shop</h1><p>text")[0] == "The shop"


@pytest.mark.parametrize("encoding", ["utf-8", "iso-8859-1", "utf-16"])
def test_pages_say_their_encoding(encoding):
    content = f'<meta charset="{encoding}"><p>café'.encode(encoding)
    assert documents.page(content)[1] == "café"


def test_signs_of_our_own_in_a_page_change_nothing():
    assert documents.page(b"<p>a\1b\2c<pre>d\0e</pre>")[1].replace("\ufffd", "") == "abc\n\nde"


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def test_a_folder_is_read_in_order_by_suffix(tmp_path):
    write(tmp_path, {
        "b/notes_of-Anna.txt": "One.\r\n\r\nTwo.", "a.md": "intro\n\n# The rules #\n\ntext", "c.HTML": "<p>seen",
        "d.markdown": "Setext\n======\ntext", "e.md": "no heading", "f.png": b"\x89PNG", ".hidden/g.txt": "no",
        "z.jsonl": '{"text": "one", "id": 7, "title": "T", "more": 1}\n\n{"text": "two", "title": null}\n'
                   '{"text": "two"}\n',
        "z2.jsonl.gz": gzip.compress(b'{"text": "three"}\n')})
    found = list(documents.read(str(tmp_path)))
    assert [(each["id"], each["title"], each["text"]) for each in found[:6]] == [
        ("a.md", "The rules", "intro\n\n# The rules #\n\ntext"),
        ("b/notes_of-Anna.txt", "notes of Anna", "One.\n\nTwo."), ("c.HTML", "", "seen"),
        ("d.markdown", "Setext", "Setext\n======\ntext"), ("e.md", "e", "no heading"), ("7", "T", "one")]
    assert [each["text"] for each in found[6:]] == ["two", "three"]  # the second "two" is the first
    assert documents.count(str(tmp_path)) == 9


def test_what_has_no_id_goes_by_its_content(tmp_path):
    write(tmp_path, {"a.jsonl": '{"text": "one"}\n{"text": "two"}\n', "b.jsonl": '{"text": "two"}\n{"text": "one"}\n'})
    ids = [[each["id"] for each in documents.read(str(tmp_path / name))] for name in ("a.jsonl", "b.jsonl")]
    assert ids[0] == ids[1][::-1] and len(set(ids[0])) == 2


def test_a_source_gives_documents_too(tmp_path):
    squad = {"data": [{"title": "T", "paragraphs": [{"context": "The text.", "qas": [
        {"id": number, "question": "?", "answers": []} for number in range(3)]}]}]}
    write(tmp_path, {"squad.json": json.dumps(squad)})
    line = f"file:{tmp_path}/squad.json?format=squad&columns=title,context&rename=context:text"
    assert documents.count(line) == 0
    assert [(each["title"], each["text"]) for each in documents.read(line)] == [("T", "The text.")]


@pytest.mark.parametrize(("files", "message"), [
    ({"a.png": b""}, "there are no documents in"),
    ({"a.txt": b"caf\xe9"}, r"a.txt: byte 4 \(0xe9\) is not UTF-8"),
    ({"a.jsonl": '{"txt": "one"}'}, r'a.jsonl:1: expected a document with a "text".*it has txt \(str\)'),
    ({"a.jsonl": '{"text": "one"}\n{"text": 2}'}, "a.jsonl:2: expected a document"),
    ({"a.jsonl": '{"text": "one", "id": 1}\n{"text": "two", "id": "1"}'},
     r"a.jsonl:2: there is another document with the id '1' at .*a.jsonl:1"),
    ({"a.html": b""}, "a.html cannot be read: Document is empty"),
    ({"a.html": b"<div>" * 5000 + b"deep"}, "a.html cannot be read: line 1: Excessive depth"),
])
def test_what_cannot_be_read_is_told_with_its_place(tmp_path, files, message):
    write(tmp_path, files)
    with pytest.raises(ValueError, match=message):
        list(documents.read(str(tmp_path)))


def test_a_file_of_another_kind_is_pointed_to_sources(tmp_path):
    write(tmp_path, {"a.csv": "x"})
    with pytest.raises(ValueError, match="other formats are read as sources"):
        documents.read(str(tmp_path / "a.csv"))
