# SPDX-License-Identifier: Apache-2.0
"""A SentencePiece model and its folder's settings come in; a tokenizer comes out.

T5, Llama, Gemma, XLM-R and what `train` makes. Ids and offsets are those of the sentencepiece
library (arxiv.org/abs/1808.06226), renumbered where a family counts otherwise:

    XLM-R   pieces <unk> <s> </s> a b …   ids <s>=0 <pad>=1 </s>=2 <unk>=3 a=4 b=5 … <mask>
    T5      pieces <pad> </s> <unk> a …   ids the same, then <extra_id_99> … <extra_id_0>
"""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from t5tasks.data.tokenizer_interface import (
    Base,
    Encoding,
    is_marker,
    named_special,
    placed,
    special_ids,
    token_text,
    tokenizer_class,
)

# Where the classes of transformers look for their model.
FILE_NAMES = {
    "XLMRobertaTokenizer": "sentencepiece.bpe.model",
    "LlamaTokenizer": "tokenizer.model",
    "GemmaTokenizer": "tokenizer.model",
}

CONTROL, USER_DEFINED = 3, 4  # kinds of piece, as sentencepiece_model.proto numbers them

# Gemma's model holds these as words, which a text could spell.
TURNS = ("<start_of_turn>", "<end_of_turn>")


@dataclasses.dataclass(frozen=True)
class Numbers:
    """The id of everything that has a text: pieces of the model and what the folder adds."""

    pieces: list[int]  # by the number of the piece in the model
    added: dict[str, int]
    words: dict[str, Mapping[str, Any]]  # the added ones that a text may spell, as the folder's JSON has them
    all: dict[str, int]

    @property
    def size(self) -> int:
        return max(self.all.values()) + 1


class SentencePieceTokenizer(Base):
    """A SentencePiece model: `proto` is the bytes of the file, `settings` its folder's JSON."""

    def __init__(self, proto: bytes, settings: Mapping[str, Any]) -> None:
        self._proto = proto
        self._model = sentencepiece.SentencePieceProcessor(model_proto=proto)
        described = _description(proto)
        pieces = [piece.piece for piece in described.pieces]
        self._numbers = _numbers(pieces, settings)
        self.vocabulary_size = self._numbers.size
        own = {name: getattr(self._model, f"{name}_id")() for name in ("pad", "unk", "bos", "eos")}
        known = {name: self._numbers.pieces[id] for name, id in own.items() if id >= 0}  # -1: it has none
        fixed = {piece.piece for piece in described.pieces if piece.type == CONTROL}
        fixed |= self._numbers.added.keys() - self._numbers.words.keys()
        special = special_ids(settings, self._numbers.all.get, {self._numbers.all[text] for text in fixed}, known)
        fixed |= _called_special(settings, special, self._numbers.all)
        fixed |= {piece.piece for piece in described.pieces if piece.type == USER_DEFINED and piece.piece in TURNS}
        fixed -= {pieces[own["unk"]]}
        spelled = {piece.piece for piece in described.pieces if piece.type == USER_DEFINED}
        self._spelled = [*self._numbers.words, *sorted(spelled - fixed)]
        self._unspelled = frozenset(fixed.intersection(pieces))
        if any(piece.type != CONTROL for piece in described.pieces if piece.piece in self._unspelled):
            self._model = _without(proto, self._unspelled)
        # After a special token transformers 5 puts no space before a word of Llama's.
        self._spaced = not (tokenizer_class(settings) == "LlamaTokenizer" and not settings.get("legacy"))
        self._describe(proto, settings, special, {text: self._numbers.all[text] for text in fixed})

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._proto, self._settings)

    @property
    def words(self) -> Collection[str]:
        return self._spelled

    @functools.cached_property
    def _continuing(self) -> sentencepiece.SentencePieceProcessor:
        """The model for text that stands after other text: no space goes before its first word."""
        return _without(self._proto, self._unspelled, prefix=False)

    @functools.cached_property
    def _words(self) -> re.Pattern[str] | None:
        """What finds the words that the folder adds; None where it adds none."""
        longest_first = sorted(self._numbers.words, key=len, reverse=True)
        patterns = [_pattern(text, self._numbers.words[text]) for text in longest_first]
        return re.compile("|".join(patterns)) if patterns else None

    @functools.cached_property
    def _texts(self) -> dict[int, str]:
        return {id: text for text, id in self._numbers.all.items()}

    @functools.cached_property
    def _pieces(self) -> dict[int, int]:
        """The number of the piece by its id."""
        return {id: piece for piece, id in enumerate(self._numbers.pieces)}

    def _encode_parts(self, parts: Sequence[str | int]) -> list[Encoding]:
        found: list[Encoding] = []
        for index, part in enumerate(parts):
            if isinstance(part, int):
                found.append(placed(part))
                continue
            first = index == 0 or (self._spaced and isinstance(parts[index - 1], int))
            found.append(self._encode_text(part, first))
        return found

    def _encode_text(self, text: str, first: bool) -> Encoding:
        """One part: the added words in it and, between them, what the model makes of the text."""
        if self._words is None:
            return self._spell(text, 0, first)
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        at = 0
        for match in [*self._words.finditer(text), None]:
            start, end = match.span() if match else (len(text), len(text))
            if at < start or at == 0:
                spelled = self._spell(text[at:start], at, (first and at == 0) or (self._spaced and at > 0))
                ids += spelled.ids
                offsets += spelled.offsets
            if match:
                ids.append(next(self._numbers.added[word] for word in match.groups() if word is not None))
                offsets.append((start, end))
            at = end
        return Encoding(ids, offsets)

    def _spell(self, text: str, shift: int, first: bool) -> Encoding:
        _, ids, offsets = spell(self._model if first else self._continuing, text, shift)
        return Encoding([self._numbers.pieces[id] for id in ids], offsets)

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of the ids; special ids are skipped."""
        text, run = "", list[int]()
        words = {self._numbers.added[word] for word in self._numbers.words}
        for id in [*self._shown(ids), -1]:
            if id in self._pieces and id not in words:
                run.append(self._pieces[id])
                continue
            spelled = self._model.decode(run)
            # The model drops the space of a first word, which a later run keeps.
            again = text and run and self._model.id_to_piece(run[0]).startswith("▁") and not spelled.startswith(" ")
            text += (" " if again else "") + spelled + (self._texts.get(id, "") if id >= 0 else "")
            run = []
        return text

    def _piece(self, id: int) -> str | None:
        return self._texts.get(id)

    def save(self, folder: str | pathlib.Path) -> None:
        """Writes the model under the name that its class looks for, and tokenizer_config.json."""
        self._write(folder, FILE_NAMES.get(tokenizer_class(self._settings), "spiece.model"), self._proto)


def spell(model: sentencepiece.SentencePieceProcessor, text: str, shift: int = 0
          ) -> tuple[list[str], list[int], list[tuple[int, int]]]:
    """The pieces of a text, their numbers in the model and their characters, counted from `shift`."""
    found = model.encode(text, return_type="offset_mapping")
    offsets, last = list[tuple[int, int]](), shift
    for piece, (start, end) in zip(found["pieces"], found["offsets"], strict=True):
        # All but the last byte or part of one character come with an empty span, or with that of
        # the space before it.
        only_space = piece.startswith("▁") and not text[start:end].strip()
        if (start == end or only_space) and end < len(text) and piece.strip("▁"):
            end += 1
        last = max(last, shift + end)
        offsets.append((shift + start, last))
    return found["pieces"], found["ids"], offsets


def _numbers(pieces: list[str], settings: Mapping[str, Any]) -> Numbers:
    """Numbers the pieces, then what the family has beyond them, then what the folder adds."""
    size, kind = len(pieces), tokenizer_class(settings)
    ids, added = list(range(size)), dict[str, int]()
    if kind == "XLMRobertaTokenizer":
        if pieces[:3] != ["<unk>", "<s>", "</s>"]:
            raise ValueError(f"its first pieces are {pieces[:3]}: XLM-R's are <unk>, <s> and </s>")
        # <pad> has no piece, so that the others move up by one.
        ids = [3, 0, 2, *range(4, size + 1)]
        added = {"<pad>": 1, token_text(settings.get("mask_token")) or "<mask>": size + 1}
    if kind == "T5Tokenizer":
        count = int(settings.get("extra_ids", 100))
        added = {f"<extra_id_{index}>": size + count - 1 - index for index in range(count)}
    everything = dict(zip(pieces, ids, strict=True)) | added
    words: dict[str, Mapping[str, Any]] = {}
    called = set(named_special(settings))
    for number, token in settings.get("added_tokens_decoder", {}).items():
        if token["content"] not in everything:  # a new number, or a new name for a piece left for that
            added[token["content"]] = everything[token["content"]] = int(number)
            if not token.get("special") and token["content"] not in called:
                words[token["content"]] = token
    for text in named_special(settings):
        if text not in everything:  # as transformers numbers a token that no file does
            added[text] = everything[text] = max(everything.values()) + 1
    return Numbers(ids, added, words, everything)


def _called_special(settings: Mapping[str, Any], special: Mapping[str, int], all: Mapping[str, int]) -> set[str]:
    """The texts, among `all`, that a name or a mark in the folder's JSON makes special."""
    marked = [token["content"] for token in settings.get("added_tokens_decoder", {}).values() if token.get("special")]
    named = [text for text, id in all.items() if id in set(special.values())]
    return {text for text in (*marked, *named_special(settings), *named) if text in all and is_marker(text)}


def _without(proto: bytes, unspelled: Collection[str], prefix: bool = True) -> sentencepiece.SentencePieceProcessor:
    """The model in which no text spells these pieces and, at will, no space goes before a text."""
    described = _description(proto)
    for piece in described.pieces:
        if piece.piece in unspelled:
            piece.type = CONTROL
    if not prefix:
        described.normalizer_spec.add_dummy_prefix = False
    return sentencepiece.SentencePieceProcessor(model_proto=described.SerializeToString())


def _description(proto: bytes) -> Any:
    """The model's file as its protocol buffer, whose class is made when its module is imported."""
    return sentencepiece_model_pb2.ModelProto.FromString(proto)  # type: ignore[attr-defined]


def _pattern(text: str, token: Mapping[str, Any]) -> str:
    """A regular expression for an added token, with what the token says of its surroundings."""
    edge = r"\b" if token.get("single_word") else ""
    left, right = (r"\s*" if token.get(side) else "" for side in ("lstrip", "rstrip"))
    return f"{left}{edge}({re.escape(text)}){edge}{right}"
