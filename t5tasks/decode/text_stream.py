# SPDX-License-Identifier: Apache-2.0
"""From ids as they come to the text that they add, in parts that are never taken back.

    prompt "A fox"   ids  "▁ran"  "<0xF0>" "<0x9F>" "<0xA6>" "<0x8A>"  "!"  "</s>"
                     text " ran"  ""       ""       ""       "🦊"      "!"  ""

A part of a character is held back until it is whole, and so is what may be the beginning of a stop
string. The parts joined are `continuation` of all ids, cut at the first stop string. It holds for
SentencePiece, byte-level BPE and other tokenizers whose tokens never change the text before them;
WordPiece, whose decoder takes spaces out again, is not one.
"""

from collections.abc import Sequence

from t5tasks.decode.spelling import UNREADABLE, Speller, byte_piece
from t5tasks.decode.stops import cut

WINDOW, KEPT = 48, 8  # ids decoded at once at most, and those that stay in front of new ones
RARE = "\U000f5aa5"  # a character for private use: no vocabulary has it


def continuation(tokenizer: Speller, prompt: Sequence[int], ids: Sequence[int]) -> str:
    """The text that ids add to a prompt's; decoded alone, they could lose their leading space.

    Where the prompt ends within a character that the ids complete, the character is theirs.
    """
    before, whole = tokenizer.decode(prompt), tokenizer.decode([*prompt, *ids])
    return whole[len(_shared(before, whole)):]


class TextStream:
    """Turns the ids of one sequence into text, part by part: `push` them, then `finish`."""

    def __init__(self, tokenizer: Speller, prompt: Sequence[int] = (), stops: Sequence[str] = ()) -> None:
        """A stream of what follows the prompt's ids, up to the first of `stops`."""
        self._tokenizer = tokenizer
        self._stops = [stop for stop in stops if stop]
        self._held = ""  # decided, and perhaps the beginning of a stop string
        self.stopped = False  # whether a stop string has been found
        pieces = [id for id in tokenizer.encode(RARE).ids if byte_piece(tokenizer.piece(id)) is not None]
        self._byte = pieces[:1]  # the first byte of a character
        self._ids = list(prompt)
        self._before = tokenizer.decode(self._ids)  # the text of the ids that is not the stream's, or is out
        self._shorten()

    def push(self, ids: Sequence[int]) -> str:
        """The text that is decided after these ids and was not before."""
        for start in range(0, len(ids), WINDOW):
            self._ids += ids[start:start + WINDOW]
            self._held += self._new(self._decided())
            self._shorten()
        return self._released(everything=False)

    def finish(self) -> str:
        """What was held back, with the sign for unreadable bytes where a character never ended."""
        self._held += self._new(self._tokenizer.decode(self._ids))
        return self._released(everything=True)

    def _new(self, text: str) -> str:
        known = _shared(self._before, text)
        if len(text) > len(known):
            self._before = text
        return text[len(known):]

    def _decided(self) -> str:
        """The beginning of the window's text that no further id changes."""
        text = self._tokenizer.decode(self._ids)
        decided = text.rstrip(UNREADABLE)
        if self._byte and any(byte_piece(self._tokenizer.piece(id)) is not None for id in self._ids):
            # Some decoders show a run of bytes whole or, if one is no character's, as unreadable altogether.
            broken = self._tokenizer.decode([*self._ids, *self._byte])
            decided = _shared(decided, broken)
        return decided

    def _shorten(self) -> None:
        """Forgets ids whose text is out and does not bear on what follows."""
        if len(self._ids) < WINDOW or not self._before == self._decided() == self._tokenizer.decode(self._ids):
            return
        kept = KEPT
        while kept < len(self._ids) and not self._tokenizer.decode(self._ids[-kept:]).strip(UNREADABLE + " \n"):
            kept *= 2
        self._ids = self._ids[-kept:]
        self._before = self._tokenizer.decode(self._ids)

    def _released(self, everything: bool) -> str:
        """What of the held text may be shown: all, or all but what may begin a stop string."""
        if self.stopped:
            return ""
        shown = cut(self._held, self._stops)
        self.stopped = len(shown) < len(self._held)
        if not self.stopped and not everything:
            longest = max(map(len, self._stops), default=1) - 1
            tails = range(max(len(shown) - longest, 0), len(shown))
            begun = (at for at in tails if any(stop.startswith(shown[at:]) for stop in self._stops))
            shown = shown[:next(begun, len(shown))]
        self._held = self._held[len(shown):]
        return shown


def _shared(one: str, other: str) -> str:
    """What both begin with."""
    if other.startswith(one):
        return one
    differs = (place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1])
    return one[:next(differs, len(other))]
