# SPDX-License-Identifier: Apache-2.0
"""A task's name and form in, records of the built-in world, options and small tokenizers out."""

import functools
import re
from types import SimpleNamespace

import pytest

from t5tasks import tasks
from t5tasks.data import tokenizer as tokenizers
from t5tasks.data import world
from t5tasks.data.tokenizer import Encoding, Tokenizer
from t5tasks.tasks.task import LABEL_SCORING

COUNT = 60


@functools.cache
def _case(name: str, architecture: str) -> SimpleNamespace:
    task = tasks.get(name)
    records = world.records(name, "train", COUNT)
    return SimpleNamespace(task=task, form=task.form(architecture), records=records,
                           options=task.resolve(dict(task.options), lambda: records))


def _form(name: str, architecture: str):
    return tasks.get(name).form(architecture)


CASES = [(name, architecture) for name in tasks.names() for architecture in tasks.get(name).forms]


@pytest.fixture(params=CASES, ids="-".join)
def case(request):
    """Each form of each task of the registry."""
    return _case(*request.param)


@pytest.fixture(params=[names for names in CASES if _form(*names).head == "lm"], ids="-".join)
def language_case(request):
    """Those forms that answer in words."""
    return _case(*request.param)


@pytest.fixture(params=[names for names in CASES if _form(*names).answers_by == LABEL_SCORING], ids="-".join)
def label_case(request):
    """Those whose answers are the words of a label."""
    return _case(*request.param)


class Letters(Tokenizer):
    """Each character is a token, blanks too."""

    special = {"pad": 0, "eos": 1, "bos": 2, "cls": 3, "sep": 4}  # noqa: RUF012
    fingerprint = "letters"
    vocabulary_size = 0x110000

    def encode(self, text):
        return Encoding([5 + ord(letter) for letter in text], [(at, at + 1) for at in range(len(text))])


@pytest.fixture(scope="session")
def letters():
    """A tokenizer of characters, which every text survives."""
    return Letters()


@functools.cache
def _texts() -> list[str]:
    """The texts of every form."""
    examples = [case.form.preprocess(record, case.options)
                for case in (_case(*names) for names in CASES) for record in case.records]
    return ["".join(piece.text for piece in pieces)
            for example in examples for pieces in (example.source, example.pieces)]


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    """A SentencePiece model of the texts of every form."""
    return tokenizers.train(_texts(), 400, tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def word_piece(tmp_path_factory):
    """BERT's kind, which has [CLS] and [SEP], of the words in the texts of every form."""
    path = tmp_path_factory.mktemp("wordpiece") / "vocab.txt"
    words = sorted({word for text in _texts() for word in re.findall(r"\w+|[^\w\s]", text)} - {"[", "]"})
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[", "]", "SEP", *words]) + "\n")
    return tokenizers.load(path)
