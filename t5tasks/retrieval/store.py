# SPDX-License-Identifier: Apache-2.0
"""Documents cut into passages come in and are kept in one SQLite file; passages, counts and vectors come out.

    documents   id, title, digest of title and text
    passages    number, document, its characters and text
    counts      of each passage the numbers of its terms, and how often each occurs
    vectors     number, passage and the passage's vector in float16

A transaction is written whole or not at all, and readers see the last one that was: a process killed at any moment
leaves the index as it was before. No number is ever given again, so that what was read of a table can be brought
up to date by its rows with greater numbers.
"""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from t5tasks.retrieval import terms

FILE = "passages.sqlite"
APPLICATION, FORMAT = 0x74357061, 1  # in the file's header: whose it is, and the version of the tables below
WAIT_S = 60.0  # for another process's transaction to end
VECTOR = np.dtype("<f2")
AT_ONCE = 500  # values in one query; old builds of SQLite take no more than 999

TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, title TEXT NOT NULL, digest BLOB NOT NULL);
CREATE TABLE passages (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    document INTEGER NOT NULL REFERENCES documents ON DELETE CASCADE,
    start INTEGER NOT NULL, stop INTEGER NOT NULL, text TEXT NOT NULL);
CREATE INDEX passages_of_document ON passages (document);
CREATE TABLE counts (passage INTEGER PRIMARY KEY REFERENCES passages ON DELETE CASCADE, terms BLOB NOT NULL);
CREATE TABLE vectors (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    passage INTEGER NOT NULL UNIQUE REFERENCES passages ON DELETE CASCADE, vector BLOB NOT NULL);
"""


@dataclasses.dataclass(frozen=True)
class Document:
    """What is put into a store. The passages are spans of `text`."""

    id: str
    title: str
    text: str
    spans: Sequence[tuple[int, int]]

    @property
    def digest(self) -> bytes:
        """Sixteen bytes that change with title and text."""
        content = json.dumps([self.title, self.text]).encode()
        return hashlib.blake2b(content, digest_size=16).digest()

    @property
    def searched(self) -> list[str]:
        """Of each passage what is looked for words and embedded."""
        return [searched(self.title, self.text[start:stop]) for start, stop in self.spans]


@dataclasses.dataclass(frozen=True)
class Passage:
    """A passage as it is found."""

    number: int
    document: str  # its id
    title: str
    start: int  # in the document's text, characters
    stop: int
    text: str

    @property
    def searched(self) -> str:
        return searched(self.title, self.text)


def searched(title: str, text: str) -> str:
    """A passage's text under its document's title, which alone may say what it is about."""
    return f"{title}\n{text}" if title else text


class Store:
    """One index. A store belongs to the thread that made it."""

    def __init__(self, folder: str | pathlib.Path, cutting: str = "") -> None:
        """Opens an index, or begins one.

        Args:
          folder: where it lies.
          cutting: how its documents are cut (`Cutter.described`); empty to open only what is there.

        Raises:
          ValueError: there is none and cutting is empty; the file is not an index, or one of another version; its
            documents were cut otherwise.
        """
        self.path = pathlib.Path(folder) / FILE
        if not cutting and not self.path.exists():
            raise ValueError(f"there is no index in {folder}: python -m t5tasks.index --input=FILE --index={folder} "
                             "makes one")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(self.path, timeout=WAIT_S, isolation_level=None)
        try:
            self._open(cutting)
        except BaseException:
            self.close()
            raise

    def _open(self, cutting: str) -> None:
        try:
            self._connection.execute("PRAGMA foreign_keys = ON")
            # Readers go on while one process writes. A power failure may take the last transactions, whole ones.
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            if cutting and self._is_empty():
                with self.writing():
                    if self._is_empty():  # and no other process has begun it meanwhile
                        self._begin(cutting)
            self._check(cutting)
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{self.path} cannot be opened as an index: {error}") from error

    def _is_empty(self) -> bool:
        return not self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]

    def _begin(self, cutting: str) -> None:
        for statement in TABLES.split(";"):
            self._connection.execute(statement)
        for name, value in (("cutting", cutting), ("terms", str(terms.VERSION)), ("generation", "0")):
            self._note(name, value)
        self._connection.execute(f"PRAGMA application_id = {APPLICATION}")
        self._connection.execute(f"PRAGMA user_version = {FORMAT}")

    def _check(self, cutting: str) -> None:
        owner, version = (self._connection.execute(f"PRAGMA {name}").fetchone()[0]
                          for name in ("application_id", "user_version"))
        if owner != APPLICATION:
            raise ValueError(f"{self.path} is not an index of passages; name another folder")
        if version != FORMAT or self.fact("terms") != str(terms.VERSION):
            raise ValueError(f"{self.path} was made by another version of this program (tables {version}, terms "
                             f"{self.fact('terms')}; expected {FORMAT} and {terms.VERSION}); make it anew")
        if cutting and cutting != self.fact("cutting"):
            raise ValueError(f"the documents of {self.path} are cut to {self.fact('cutting')}, not to {cutting}; "
                             "give the same settings, or name another folder")

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """All that is read inside is of one moment, whatever others write meanwhile."""
        if self._connection.in_transaction:
            yield
            return
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """All that is written inside is kept when it ends; nothing where it raises or the process dies."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def fact(self, name: str) -> str:
        """What is known of the index as a whole; empty where nothing was noted."""
        row = self._connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return row[0] if row else ""

    def _note(self, name: str, value: str) -> None:
        self._connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    @property
    def generation(self) -> int:
        """Greater after every change of the passages."""
        return int(self.fact("generation"))

    def _changed(self) -> None:
        self._connection.execute("UPDATE facts SET value = value + 1 WHERE name = 'generation'")

    # Writing, inside `writing`.

    def claim(self, embedder: str, described: str = "") -> None:
        """Notes whose vectors the index holds, before its first one.

        Args:
          embedder: the fingerprint of weights, tokenizer and pooling.
          described: how it can be loaded again.

        Raises:
          ValueError: the index holds those of another.
        """
        known = self.fact("embedder")
        if known and known != embedder:
            raise ValueError(f"{self.path} has vectors of another encoder (fingerprint {known}, this one's is "
                             f"{embedder}; weights, tokenizer and pooling count): give that one, or name another "
                             "folder")
        self._note("embedder", embedder)
        self._note("encoder", described)

    def put(self, document: Document, vectors: np.ndarray | None = None) -> bool:
        """Adds a document, or replaces the one of its id; returns whether anything had to change.

        Args:
          vectors: float[P, D] of its passages, needed once an embedder has been claimed; kept in float16.

        Raises:
          ValueError: vectors that do not fit the passages or those of the index, or are no numbers.
        """
        if self.has(document):
            return False
        if vectors is None and document.spans and self.fact("embedder"):
            raise ValueError(f"{document.id} comes without vectors, which all passages of {self.path} have")
        self.remove([document.id])
        added = self._connection.execute("INSERT INTO documents (id, title, digest) VALUES (?, ?, ?)",
                                         (document.id, document.title, document.digest)).lastrowid
        numbers = [self._connection.execute(
            "INSERT INTO passages (document, start, stop, text) VALUES (?, ?, ?, ?)",
            (added, start, stop, document.text[start:stop])).lastrowid for start, stop in document.spans]
        self._connection.executemany("INSERT INTO counts VALUES (?, ?)", (
            (number, terms.counts(text).tobytes())
            for number, text in zip(numbers, document.searched, strict=True)))
        if vectors is not None and len(document.spans):
            self.put_vectors([number for number in numbers if number is not None], vectors)
        self._changed()
        return True

    def put_vectors(self, numbers: Sequence[int], vectors: np.ndarray) -> None:
        """Keeps float[P, D] as the vectors of these passages; ValueError as for `put`."""
        dimension = int(self.fact("dimension") or vectors.shape[-1])
        if not self.fact("embedder") or vectors.shape != (len(numbers), dimension):
            raise ValueError(f"vectors {list(vectors.shape)} for {len(numbers)} passages of {self.path}; expected "
                             f"[{len(numbers)}, {dimension}] of an embedder that was claimed")
        rounded = vectors.astype(VECTOR)
        if not np.isfinite(rounded).all():
            raise ValueError("the embedder gave a vector that float16 cannot hold")
        self._note("dimension", str(dimension))
        self._connection.executemany("INSERT INTO vectors (passage, vector) VALUES (?, ?)", (
            (number, row.tobytes()) for number, row in zip(numbers, rounded, strict=True)))
        self._changed()

    def remove(self, ids: Iterable[str]) -> int:
        """Removes documents and all of their passages; returns how many of the ids there were."""
        removed = sum(self._connection.execute("DELETE FROM documents WHERE id = ?", (id,)).rowcount for id in ids)
        if removed:
            self._changed()
        return removed

    # Reading.

    def has(self, document: Document) -> bool:
        """Whether this very document is there: its id, title and text."""
        row = self._connection.execute("SELECT digest FROM documents WHERE id = ?", (document.id,)).fetchone()
        return row is not None and row[0] == document.digest

    def ids(self) -> Iterator[str]:
        """The ids of all documents, in no order."""
        return (id for (id,) in self._connection.execute("SELECT id FROM documents"))

    def size(self, table: str) -> int:
        """How many documents, passages or vectors there are."""
        return int(self._connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

    def numbers(self, table: str) -> np.ndarray:
        """int64[N], ascending: the numbers of all passages or vectors."""
        rows = self._connection.execute(f"SELECT number FROM {table}")
        return np.sort(np.fromiter((number for (number,) in rows), np.int64))

    def passages(self, numbers: Iterable[int]) -> dict[int, Passage]:
        """The passages of these numbers, those of them that there still are."""
        wanted, found = [int(number) for number in numbers], {}
        for first in range(0, len(wanted), AT_ONCE):
            part = wanted[first:first + AT_ONCE]
            for row in self._connection.execute(
                    "SELECT passages.number, id, title, start, stop, text FROM passages "
                    "JOIN documents ON documents.number = document "
                    f"WHERE passages.number IN ({','.join('?' * len(part))})", part):
                found[row[0]] = Passage(*row)
        return found

    def without_vector(self, most: int) -> list[Passage]:
        """Some of the passages that have no vector, `most` of them at most."""
        rows = self._connection.execute(
            "SELECT number FROM passages WHERE number NOT IN (SELECT passage FROM vectors) ORDER BY number LIMIT ?",
            (most,)).fetchall()
        return list(self.passages(number for (number,) in rows).values())

    def counts(self, after: int = -1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The terms of the passages with greater numbers than `after`.

        Returns:
          int64[N], the passages' numbers, ascending; int64[N], how many different terms each has; and
          `terms.COUNTS`[M], those of one passage after those of the other.
        """
        rows = self._connection.execute("SELECT passage, terms FROM counts WHERE passage > ? ORDER BY passage",
                                        (after,)).fetchall()
        sizes = np.asarray([len(blob) for _, blob in rows], np.int64) // terms.COUNTS.itemsize
        joined = np.frombuffer(b"".join(blob for _, blob in rows), terms.COUNTS)
        return np.asarray([number for number, _ in rows], np.int64), sizes, joined

    def vectors(self, after: int = -1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """int64[N], int64[N], float16[N, D]: number, passage and vector of those with greater numbers than `after`."""
        rows = self._connection.execute("SELECT number, passage, vector FROM vectors WHERE number > ? ORDER BY number",
                                        (after,)).fetchall()
        joined = np.frombuffer(b"".join(blob for _, _, blob in rows), VECTOR)
        return (np.asarray([number for number, _, _ in rows], np.int64),
                np.asarray([passage for _, passage, _ in rows], np.int64),
                joined.reshape(len(rows), int(self.fact("dimension") or 0)))
