# SPDX-License-Identifier: Apache-2.0
"""Documents come in, processes are killed and settings changed; what was kept whole comes out."""

import pathlib
import signal
import sqlite3
import subprocess
import sys

import numpy as np
import pytest

from t5tasks.retrieval import terms
from t5tasks.retrieval.bm25 import Bm25
from t5tasks.retrieval.store import FILE, Document, Store

TEXT = "Anna has a shop. It sells pears. The door is red."
DOCUMENT = Document("anna", "The shop", TEXT, [(0, 16), (17, 32), (17, 49)])


def test_passages_come_back_with_their_place_and_title(store):
    with store.writing():
        assert store.put(DOCUMENT)
    found = store.passages([1, 3, 77])
    assert sorted(found) == [1, 3]
    last = found[3]
    assert (last.document, last.title, last.text) == ("anna", "The shop", "It sells pears. The door is red.")
    assert TEXT[last.start:last.stop] == last.text
    assert last.searched == "The shop\nIt sells pears. The door is red."
    assert [store.size(table) for table in ("documents", "passages", "vectors")] == [1, 3, 0]


def test_counts_are_those_of_title_and_text(store):
    with store.writing():
        store.put(DOCUMENT)
    numbers, sizes, counts = store.counts()
    assert numbers.tolist() == [1, 2, 3]
    for row, part in zip(DOCUMENT.searched, np.split(counts, np.cumsum(sizes)[:-1]), strict=True):
        np.testing.assert_array_equal(part, terms.counts(row))
    assert store.counts(after=2)[0].tolist() == [3]


def test_the_same_document_changes_nothing_and_another_replaces_it(store, put):
    with store.writing():
        store.put(DOCUMENT)
    before = store.generation
    with store.writing():
        assert not store.put(DOCUMENT)
    assert store.generation == before
    put(store, {"anna": "Closed."})
    assert list(store.ids()) == ["anna"] and store.numbers("passages").tolist() == [4]  # no number is given again
    assert store.counts()[0].tolist() == [4] and store.generation > before


def test_removed_documents_take_everything_with_them(store, put, letters):
    put(store, {"a": "one", "b": "two"}, letters)
    with store.writing():
        assert store.remove(["a", "nobody"]) == 1
    assert [store.size(table) for table in ("documents", "passages", "vectors", "counts")] == [1, 1, 1, 1]
    assert store.passages([1]) == {}


def test_vectors_are_kept_in_half_precision(store, put, letters):
    put(store, {"a": "abba", "b": "cab"}, letters)
    numbers, passages, vectors = store.vectors()
    assert numbers.tolist() == passages.tolist() == [1, 2]
    np.testing.assert_array_equal(vectors, letters.passages(["abba", "cab"]).astype(np.float16))


def test_vectors_of_another_embedder_are_refused_even_of_one_size(store, put, letters):
    put(store, {"a": "one"}, letters)
    with store.writing():
        store.claim("letters")  # the same one
        with pytest.raises(ValueError, match="another encoder .*fingerprint letters, this one's is LETTERS"):
            store.claim("LETTERS")
    with pytest.raises(ValueError, match="b comes without vectors"):
        put(store, {"b": "two"})


@pytest.mark.parametrize(("vectors", "message"), [
    (np.zeros((1, 25), np.float32), r"vectors \[1, 25\] for 1 passages"),
    (np.zeros((2, 26), np.float32), r"vectors \[2, 26\] for 1 passages"),
    (np.full((1, 26), np.nan, np.float32), "float16 cannot hold"),
    (np.full((1, 26), 1e6, np.float32), "float16 cannot hold"),
])
def test_vectors_that_do_not_fit_are_refused_and_the_document_with_them(store, put, letters, vectors, message):
    put(store, {"a": "one"}, letters)
    with pytest.raises(ValueError, match=message), np.errstate(over="ignore"), store.writing():
        store.put(Document("b", "", "two", [(0, 3)]), vectors)
    assert list(store.ids()) == ["a"] and store.size("passages") == 1


def test_vectors_need_a_claim(store):
    with pytest.raises(ValueError, match="of an embedder that was claimed"), store.writing():
        store.put(Document("b", "", "two", [(0, 3)]), np.zeros((1, 26), np.float32))


def test_passages_without_vectors_can_be_given_them_later(store, put, letters):
    put(store, {"a": "one", "b": "two", "c": "three"})
    with store.writing():
        store.claim(letters.fingerprint)
        some = store.without_vector(2)
        store.put_vectors([passage.number for passage in some], letters.passages([p.text for p in some]))
    assert [passage.text for passage in some] == ["one", "two"]
    assert [passage.text for passage in store.without_vector(2)] == ["three"]


def test_another_way_of_cutting_another_file_and_no_index_are_told_apart(store, tmp_path):
    with pytest.raises(ValueError, match="are cut to whole, not to half"):
        Store(tmp_path, "half")
    with pytest.raises(ValueError, match="there is no index in .*/elsewhere"):
        Store(tmp_path / "elsewhere")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / FILE).write_text("no database at all, but long enough to be one" * 20)
    with pytest.raises(ValueError, match="cannot be opened as an index"):
        Store(tmp_path / "text")
    (tmp_path / "other").mkdir()
    with sqlite3.connect(tmp_path / "other" / FILE) as other:
        other.execute("CREATE TABLE a (b)")
    with pytest.raises(ValueError, match="is not an index of passages"):
        Store(tmp_path / "other", "whole")
    store._connection.execute("PRAGMA user_version = 99")
    with pytest.raises(ValueError, match="made by another version"):
        Store(tmp_path)


def test_reading_sees_one_moment_while_another_connection_writes(store, put, tmp_path):
    put(store, {"a": "one"})
    with Store(tmp_path) as other:
        with other.reading():
            before = other.generation
            put(store, {"b": "two"})
            assert other.generation == before and list(other.ids()) == ["a"]
        assert sorted(other.ids()) == ["a", "b"] and other.generation > before


WRITER = """
import sys, itertools
from t5tasks.retrieval.store import Document, Store
store = Store(sys.argv[1], "whole")
for number in itertools.count():
    with store.writing():
        for each in range(20):
            text = f"shop {number} door {each} " + "word " * 50
            store.put(Document(f"{number}/{each}", "", text, [(0, 20), (5, len(text))]))
            if each == 10:
                print(number, flush=True)  # in the middle of a transaction
"""


def written_until_killed(folder: pathlib.Path, after: int) -> None:
    """Runs a process that writes and kills it in the middle of its transaction number `after`."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True,
                              cwd=pathlib.Path(__file__).parents[2])
    assert writer.stdout is not None
    for line in writer.stdout:
        if int(line) == after:
            break
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()


def test_a_killed_process_leaves_whole_transactions_and_the_old_index_serves(store, put, tmp_path, found):
    put(store, {"old": "the old shop"})
    searcher = Bm25(store)
    for after in (0, 3):
        with store.writing():
            store.remove(list(store.ids()))
        put(store, {"old": "the old shop"})
        written_until_killed(tmp_path, after)
        # The kill came after the signal of transaction `after`, which may have ended, and later ones with it.
        documents = store.size("documents") - 1
        assert documents % 20 == 0 and documents >= after * 20
        assert store.size("passages") == store.size("counts") == 2 * documents + 1
        assert found(store, searcher.search(["old"], 3)) == [["old"]]
        put(store, {"new": "written after the kill"})
        assert found(store, searcher.search(["kill"], 3)) == [["new"]]
        assert store._connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert store._connection.execute("PRAGMA foreign_key_check").fetchall() == []
