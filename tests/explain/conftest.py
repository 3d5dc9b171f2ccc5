# SPDX-License-Identifier: Apache-2.0
"""The folder of these tests comes in; explain_cases.py, which they share, and small tokenizers go out."""

from __future__ import annotations

import pathlib
import re
import sys

import pytest

from t5tasks.data import sources, tokenizer

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from explain_cases import RECORDS


@pytest.fixture(scope="module")
def word_pieces(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A WordPiece vocabulary of every word of the classification records, [CLS] and [SEP] in it."""
    words = {word for record in sources.load(RECORDS, "classification")
             for word in re.findall(r"\w+|[^\w\s]", record["text"].lower())}
    path = tmp_path_factory.mktemp("words") / "vocab.txt"
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(words)]) + "\n", "utf-8")
    return str(path)


@pytest.fixture(scope="module")
def sentence_pieces(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small tokenizer with byte fallback, so that any text is spelled without loss."""
    folder = tmp_path_factory.mktemp("pieces")
    texts = [record["prompt"] + record["completion"] for record in sources.load(RECORDS, "text_generation")]
    tokenizer.train(texts, 330, folder)
    return str(folder)
