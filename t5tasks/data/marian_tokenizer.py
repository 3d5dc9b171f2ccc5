# SPDX-License-Identifier: Apache-2.0
"""Marian's two SentencePiece models and their one vocabulary come in; a tokenizer with two sides goes out.

The model spells the language it reads with source.spm and the one it writes with target.spm, and vocab.json
numbers the pieces of both (arxiv.org/abs/1804.00344). The tokenizer is the written language's; its `source` is
the read one's:

    tokenizer.source.encode("a fox")    [▁a, ▁fox]         for the encoder
    tokenizer.encode("ein Fuchs")       [▁ein, ▁Fuchs]     for the decoder, and to decode
"""

import functools
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import sentencepiece

from t5tasks.data.sentencepiece_tokenizer import spell
from t5tasks.data.tokenizer_folder import MARIAN_FILES
from t5tasks.data.tokenizer_interface import Base, Encoding, placed, special_ids

# A text may begin with the language to translate into, such as ">>fra<<", where the model knows several.
LANGUAGE = re.compile(r">>.*?<<", re.DOTALL)


class MarianTokenizer(Base):
    """One side of a pair: `protos` are the bytes of source.spm and target.spm, `content` those of vocab.json."""

    def __init__(self, protos: tuple[bytes, bytes], content: bytes, settings: Mapping[str, Any], side: int = 1
                 ) -> None:
        if settings.get("separate_vocabs"):
            raise ValueError("it has a vocabulary for each language (separate_vocabs): expected one for both")
        self._files = (protos, content)
        self._side = side
        self._numbers: dict[str, int] = json.loads(content)
        if not isinstance(self._numbers, dict) or "<unk>" not in self._numbers:
            raise ValueError("vocab.json has no <unk>: expected an object that gives each piece its number")
        self._model = sentencepiece.SentencePieceProcessor(model_proto=protos[side])
        self._texts = {id: text for text, id in self._numbers.items()}
        self.vocabulary_size = max(self._texts) + 1
        settings = {"tokenizer_class": "MarianTokenizer"} | dict(settings)
        special = special_ids(settings, self._numbers.get, None, {})
        self._unknown = self._numbers["<unk>"]
        control = {self._texts[id]: id for id in special.values() if id != self._unknown}
        self._describe(b"".join((*protos, content)), settings, special, control)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self._files, self._settings, self._side)

    @functools.cached_property
    def _source(self) -> "MarianTokenizer":
        return self if self._side == 0 else MarianTokenizer(*self._files, self._settings, 0)

    @property
    def source(self) -> "MarianTokenizer":
        return self._source

    def _encode_parts(self, parts: Sequence[str | int]) -> list[Encoding]:
        return [self._encode_text(part) if isinstance(part, str) else placed(part) for part in parts]

    def _encode_text(self, text: str) -> Encoding:
        language = LANGUAGE.match(text)
        start = language.end() if language else 0
        pieces, _, offsets = spell(self._model, text[start:], start)
        if language:
            pieces, offsets = [language[0], *pieces], [(0, start), *offsets]
        return Encoding([self._numbers.get(piece, self._unknown) for piece in pieces], offsets)

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of the ids; special ids are skipped."""
        return self._model.decode_pieces([self._texts[id] for id in self._shown(ids) if id in self._texts])

    def _piece(self, id: int) -> str | None:
        return self._texts.get(id)

    def save(self, folder: str | pathlib.Path) -> None:
        """Writes source.spm, target.spm, vocab.json and tokenizer_config.json."""
        protos, content = self._files
        for name, each in zip(MARIAN_FILES, (*protos, content), strict=True):
            self._write(folder, name, each)
