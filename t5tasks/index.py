# SPDX-License-Identifier: Apache-2.0
"""Documents in, an index of their passages out; and a question in, the passages that bear on it out.

    python -m t5tasks.index --input=FILE-or-folder --index=DIR [--encoder=FOLDER]
    python -m t5tasks.index --index=DIR --query="Who keeps the keys?"
    python -m t5tasks.index --index=DIR --delete=ID

The input is JSON Lines, text, Markdown or HTML (`data.documents`), or the line of a source. Run again, the command
takes in what is new or has changed; documents that are as they were cost next to nothing. It can be stopped at any
time and goes on from there, and whoever searches meanwhile finds the documents taken in so far.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import Any

from absl import flags

from t5tasks import command, embedding, sharding
from t5tasks.data import documents
from t5tasks.embedding import Embedder
from t5tasks.retrieval.bm25 import Bm25
from t5tasks.retrieval.cutting import Cutter
from t5tasks.retrieval.dense import Dense
from t5tasks.retrieval.fusion import Hybrid
from t5tasks.retrieval.ranking import Retriever
from t5tasks.retrieval.store import FILE, Document, Store
from t5tasks.training.writers import ProgressLine

AT_ONCE = 128  # passages, at least, that are embedded together and kept in one transaction
# BM25 and dense search in a hybrid: the best mean reciprocal rank on SQuAD 2.0's questions among constants from 1 to
# 60 and weights from 1 to 3, with all-MiniLM-L6-v2 (scripts/benchmarks/retrieval.py measures it on others).
FUSION: dict[str, Any] = {"constant": 1.0, "weights": (2.0, 1.0)}
RETRIEVERS = ("auto", "bm25", "dense", "hybrid")


@dataclasses.dataclass(frozen=True)
class Index:
    """An open index, and what its passages are made with."""

    store: Store
    cutter: Cutter
    embedder: Embedder | None  # None for an index without vectors

    def retriever(self, kind: str = "auto") -> Retriever:
        """What searches it: one of RETRIEVERS; `auto` is a hybrid where there are vectors, else BM25.

        Raises:
          ValueError: an unknown kind, or one that needs vectors.
        """
        if kind not in RETRIEVERS:
            raise ValueError(f"unknown retriever {kind!r}; expected one of {', '.join(RETRIEVERS)}")
        if kind == "bm25" or (kind == "auto" and self.embedder is None):
            return Bm25(self.store)
        if self.embedder is None:
            raise ValueError(f"{self.store.path} has no vectors, which {kind} search needs: run the command with "
                             "--encoder")
        dense = Dense(self.store, self.embedder, sharding.make_mesh())
        return dense if kind == "dense" else Hybrid([Bm25(self.store), dense], **FUSION)


def open_index(folder: str, encoder: str = "", changes: dict[str, Any] | None = None, size: int = 0,
               overlap: int = -1, create: bool = False) -> Index:
    """Opens an index with the encoder and the settings that it was made with.

    Args:
      encoder: its place, for an index that has none yet, or where it has moved.
      changes: of the embedding's Settings, given with the encoder.
      size, overlap: tokens of a passage; 0 and -1 for the index's own, 200 and 40 for a new one.
      create: whether a new one may be begun.

    Raises:
      ValueError: no such index; an encoder or settings that are not its own.
    """
    if encoder and not encoder.startswith("package:"):
        encoder = str(pathlib.Path(encoder).resolve())
    source: dict[str, Any] = {"encoder": encoder, "changes": changes or {}}
    cutting: dict[str, Any] = {}
    exists = not create or (pathlib.Path(folder) / FILE).exists()
    if exists:
        with Store(folder) as store:
            cutting = json.loads(store.fact("cutting"))
            source = source if encoder else json.loads(store.fact("encoder") or "null") or source
    embedder = embedding.load(source["encoder"], changes=source["changes"]) if source["encoder"] else None
    if exists:
        with Store(folder) as store:  # before the settings: a wrong encoder is the better known mistake
            _claim(store, embedder, source)
    store = Store(folder, (cutter := _cutter(embedder, cutting, size, overlap)).described)
    _claim(store, embedder, source)
    return Index(store, cutter, embedder)


def _claim(store: Store, embedder: Embedder | None, source: dict[str, Any]) -> None:
    """Notes the encoder and where it lies, if that is news."""
    described = json.dumps(source)
    if embedder is not None and (store.fact("embedder"), store.fact("encoder")) != (embedder.fingerprint, described):
        with store.writing():
            store.claim(embedder.fingerprint, described)


def _cutter(embedder: Embedder | None, cutting: dict[str, Any], size: int, overlap: int) -> Cutter:
    """What cuts as an index says (nothing, of a new one), but for what is given; by the encoder's tokens or words."""
    cutter = Cutter(size or cutting.get("size", Cutter.size),
                    overlap if overlap >= 0 else cutting.get("overlap", Cutter.overlap))
    if embedder is None or cutting.get("tokenizer", embedder.tokenizer.fingerprint) != embedder.tokenizer.fingerprint:
        return cutter
    tokenizer = embedder.tokenizer
    return dataclasses.replace(cutter, tokenise=lambda text: tokenizer.encode(text).offsets,
                               tokenizer=tokenizer.fingerprint)


def take_in(index: Index, place: str, mirror: bool = False) -> tuple[int, int, int]:
    """Brings an index up to date with its input.

    Args:
      place: what `documents.read` reads.
      mirror: whether documents are removed that the input does not have.

    Returns:
      How many documents were new or had changed, were as before, and were removed.

    Raises:
      ValueError: what `documents.read` raises; what was taken in before it stays.
    """
    total = documents.count(place)
    _fill(index)
    changed = seen = 0
    ids: set[str] = set()
    with ProgressLine("index", total, 0) as progress:
        for group, read in _groups(index, place, ids):
            vectors = _vectors(index, [text for document in group for text in document.searched])
            with index.store.writing():
                for document in group:
                    own = None if vectors is None else vectors[:len(document.spans)]
                    vectors = None if vectors is None else vectors[len(document.spans):]
                    changed += index.store.put(document, own)
            seen = read
            progress.tell(seen, "documents")
    if not seen:
        raise ValueError(f"there are no documents in {place}")
    removed = 0
    if mirror:
        with index.store.writing():
            removed = index.store.remove(set(index.store.ids()) - ids)
    return changed, seen - changed, removed


def _groups(index: Index, place: str, ids: set[str]) -> Iterator[tuple[list[Document], int]]:
    """Yields documents that are new or have changed, enough passages together, and how many were read; all ids too."""
    group: list[Document] = []
    read = passages = 0
    for read, record in enumerate(documents.read(place), 1):
        ids.add(record["id"])
        document = Document(**record, spans=())
        if not index.store.has(document):
            document = dataclasses.replace(document, spans=index.cutter.cut(document.text))
            group.append(document)
            passages += len(document.spans)
        if passages >= AT_ONCE or len(group) >= AT_ONCE:
            yield group, read
            group, passages = [], 0
    yield group, read


def _vectors(index: Index, texts: list[str]) -> Any:
    return None if index.embedder is None else index.embedder.passages(texts)


def _fill(index: Index) -> None:
    """Gives vectors to passages that have none, where an encoder has come to an index without one."""
    if index.embedder is None:
        return
    done, missing = 0, index.store.size("passages") - index.store.size("vectors")
    if not missing:
        return
    with ProgressLine("embed", missing, 0) as progress:
        while passages := index.store.without_vector(AT_ONCE):
            vectors = index.embedder.passages([passage.searched for passage in passages])
            with index.store.writing():
                index.store.put_vectors([passage.number for passage in passages], vectors)
            done += len(passages)
            progress.tell(done, "passages")


def answer(index: Index, question: str, count: int, kind: str) -> str:
    """The passages found, numbered, as a person reads them."""
    [row] = [index.retriever(kind).search([question], count).row(0)]
    passages = index.store.passages(number for number, _ in row)
    lines = []
    for place, (number, score) in enumerate(row, 1):
        found = passages[number]
        title = f" {found.title}" if found.title else ""
        lines.append(f"[{place}] {found.document}{title} (characters {found.start} to {found.stop}, score {score:.4f})")
        lines += [f"    {line}" for line in found.text.splitlines()]
    return "\n".join(lines) or "nothing found"


def define_flags() -> None:
    """The verb's flags; not defined on import, so that verbs can be imported together."""
    flags.DEFINE_string("index", None, "folder of the index")
    flags.DEFINE_string("input", None, "a file or folder of JSON Lines, text, Markdown or HTML, or a source "
                        "(file:, hub:) whose records have a text")
    flags.DEFINE_bool("mirror", False, "also remove documents that the input does not have")
    flags.DEFINE_multi_string("delete", [], "id of a document to remove; may be given several times")
    flags.DEFINE_string("encoder", "", "for dense search: folder of a pretrained encoder, package:NAME/FOLDER, or the "
                        "workdir of a run; an index remembers its own")
    flags.DEFINE_enum("pooling", None, ["mean", "first"], "how the encoder's tokens become one vector; by default as "
                      "its folder says, else mean")
    flags.DEFINE_integer("length", 0, "tokens that the encoder reads of a text; by default as its folder says, else "
                         f"{embedding.USUAL_LENGTH}")
    flags.DEFINE_string("question_prefix", "", "what the encoder wants before a question, as in 'query: '")
    flags.DEFINE_string("passage_prefix", "", "what it wants before a passage")
    flags.DEFINE_integer("size", 0, f"tokens of a passage at most; {Cutter.size} for a new index")
    flags.DEFINE_integer("overlap", -1, f"tokens that a passage may share with the last one; {Cutter.overlap} for a "
                         "new index")
    flags.DEFINE_string("query", None, "a question: its passages are printed")
    flags.DEFINE_enum("retriever", "auto", RETRIEVERS, "how they are found; auto is hybrid with vectors, else bm25")
    flags.DEFINE_integer("top", 5, "how many are printed")


def main(_: list[str]) -> None:
    """The verb."""
    given = flags.FLAGS
    if not given.index or not (given.input or given.delete or given.query):
        raise ValueError("index needs --index=DIR and --input=FILE-or-folder, --delete=ID or --query=TEXT")
    names = ("pooling", "length", "question_prefix", "passage_prefix")
    changes = {name: given[name].value for name in names if given[name].value}
    if changes and not given.encoder:
        raise ValueError(f"--{next(iter(changes))} is of an encoder: name it with --encoder")
    index = open_index(given.index, given.encoder, changes, given.size, given.overlap, create=bool(given.input))
    with index.store:
        if given.delete:
            with index.store.writing():
                removed = index.store.remove(given.delete)
            print(f"{given.index}: {removed} of {len(given.delete)} documents removed")
        if given.input:
            changed, same, removed = take_in(index, given.input, given.mirror)
            print(f"{given.index}: {changed} documents new or changed, {same} as before, {removed} removed; now "
                  f"{index.store.size('documents')} documents, {index.store.size('passages')} passages, "
                  f"{index.store.size('vectors')} vectors")
        if given.query:
            print(answer(index, given.query, given.top, given.retriever))


if __name__ == "__main__":
    define_flags()
    command.run(main)
