# SPDX-License-Identifier: Apache-2.0
"""From a tokenizer to the bytes that each of its tokens adds to a text."""

import re
from collections.abc import Sequence
from typing import Protocol

UNREADABLE = "\ufffd"  # what a decoder puts for bytes that are no character by themselves
ANCHOR = "a"  # a token in front, so that no decoder takes a piece's own space for a first word's


class Speller(Protocol):
    """What is asked of a tokenizer."""

    @property
    def vocabulary_size(self) -> int: ...
    def encode(self, text: str) -> "HasIds": ...
    def decode(self, ids: Sequence[int]) -> str: ...
    def piece(self, id: int) -> str: ...


class HasIds(Protocol):
    @property
    def ids(self) -> Sequence[int]: ...


def token_bytes(tokenizer: Speller) -> list[bytes]:
    """The UTF-8 bytes of every token within a text, b"" for those that are not shown.

        "▁the" " the"     "##ing" "ing"     "Ġthe" " the"     "<0xE2>" b"\\xe2"     "</s>" ""

    A text is the pieces' bytes in a row, which holds for SentencePiece and byte-level BPE; a
    WordPiece decoder may take spaces out before punctuation, which is not seen here.
    """
    anchor = tokenizer.encode(ANCHOR).ids[-1:]
    before = tokenizer.decode(anchor)
    return [_bytes(tokenizer, anchor, before, id) for id in range(tokenizer.vocabulary_size)]


def _bytes(tokenizer: Speller, anchor: Sequence[int], before: str, id: int) -> bytes:
    text = tokenizer.decode([*anchor, id])
    added = text[len(before):] if text.startswith(before) else tokenizer.decode([id])
    if UNREADABLE not in added:
        return added.encode()
    piece = tokenizer.piece(id)
    if (byte := byte_piece(piece)) is not None:
        return bytes([byte])
    if all(character in BYTE_OF for character in piece):
        return bytes(BYTE_OF[character] for character in piece)
    return added.encode()


def byte_piece(piece: str) -> int | None:
    """The byte that a piece such as "<0xE2>" stands for; None for any other."""
    found = re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", piece)
    return int(found[1], 16) if found else None


def _byte_characters() -> dict[str, int]:
    """The byte of each character of byte-level BPE: printable Latin-1 stands for itself, the other
    bytes for the characters from 256 on (GPT-2, github.com/openai/gpt-2, src/encoder.py)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + place): byte for place, byte in enumerate(others)}


BYTE_OF = _byte_characters()
