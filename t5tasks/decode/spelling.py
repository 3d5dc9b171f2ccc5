# SPDX-License-Identifier: Apache-2.0
"""From a tokenizer to the bytes that each of its tokens adds to a text."""

import dataclasses
import hashlib
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


@dataclasses.dataclass(frozen=True)
class Spellings:
    """The bytes of a vocabulary's tokens, by what stands before them; two are equal by their fingerprint."""

    within: tuple[bytes, ...] = dataclasses.field(compare=False, repr=False)   # after other text
    opening: tuple[bytes, ...] = dataclasses.field(compare=False, repr=False)  # as the first of a text
    again: bool = dataclasses.field(compare=False)  # is a token after a first space that is not shown like a first one?
    fingerprint: str


def spellings(tokenizer: Speller) -> Spellings:
    """How a tokenizer's tokens are shown, at the beginning of a text too.

    SentencePiece does not show the first space: "▁the" is "the" there, and " the" elsewhere.
    """
    within = token_bytes(tokenizer)
    opening = [_opening_bytes(tokenizer, id, inside) for id, inside in enumerate(within)]
    unshown = [id for id, text in enumerate(opening) if within[id] and not text]
    changed = [id for id, text in enumerate(opening) if text and text != within[id]]
    # "▁" and then "▁the": T5 drops both spaces, Llama one.
    again = bool(unshown and changed) and tokenizer.decode([unshown[0], changed[0]]).encode() == opening[changed[0]]
    content = b"".join(len(text).to_bytes(4, "big") + text for text in [*within, *opening]) + bytes([again])
    return Spellings(tuple(within), tuple(opening), again, hashlib.sha256(content).hexdigest())


def _opening_bytes(tokenizer: Speller, id: int, within: bytes) -> bytes:
    text = tokenizer.decode([id]) if within else ""
    return within if UNREADABLE in text else text.encode()


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
