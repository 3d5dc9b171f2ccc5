# SPDX-License-Identifier: Apache-2.0
"""Pieces of text with roles in, token ids with their loss mask out.

Text becomes tokens once, as a whole; every token inherits the role of the piece its last
character came from, and the loss mask is a function of roles. Special tokens are pieces of their
own, placed by id, so text can never forge them:

    pieces   "Review: great\n" input | "Sentiment:" prompt | " positive" target | <eos> target
    ids      [ 10,  11,  12,           20,  21,              30,                  1 ]
    weights  [  0,   0,   0,            0,   0,               1,                  1 ]

    features.tokens  = [10, 11, 12, 20, 21, 30]
    features.targets = [11, 12, 20, 21, 30,  1]
    features.weights = [ 0,  0,  0,  0,  1,  1]

Heads that read one sequence have targets of their own: a class, a class for each token, or where a
span begins and ends. There a text that is too long is seen in overlapping windows, each with all
that stands around it:

    <cls> who ? <sep> a b c d e <sep>   →   <cls> who ? <sep> a b c <sep>
                                            <cls> who ? <sep> c d e <sep>
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from t5tasks.data.tokenizer import Encoding, Tokenizer

LossMask = Callable[[Sequence[str]], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Piece:
    """A stretch of text, or one special token, and what it is to the task."""

    text: str
    role: str
    special: str = ""  # a name of Tokenizer.special, BETWEEN or a text of Tokenizer.control; then text is empty
    trim: bool = False  # may lose its last tokens where an example is too long
    token_type: int = 0  # BERT's segment: 0 first sentence, 1 second
    # Not encoded together with the text before it; of a special token at the start, nor with the text after it.
    apart: bool = False
    window: bool = False  # seen in overlapping parts where an example is too long
    later_role: str = ""  # role of its tokens after the first, where that is another
    image: Any = None  # what `data.images` reads: the piece is that image, and has no text (`shown`)


@dataclasses.dataclass(frozen=True)
class Span:
    """Characters `start` to `end` of a piece's text; none, of a special token."""

    piece: int
    start: int = 0
    end: int = 0


@dataclasses.dataclass(frozen=True)
class Several:
    """Texts side by side in one sequence: a question, then G passages, each with positions of its own."""

    texts: tuple[int, ...]  # of each piece, the number of its text, from 1
    names: tuple[int, ...]  # of each passage, the same for the same passage and above 0; 0 where there is none
    right: bool  # whether the first passage is the right one, which others are compared with
    length: int  # tokens of a text at most; the end of a piece that may be trimmed is


@dataclasses.dataclass(frozen=True)
class Example:
    """A record as a task's form sees it."""

    pieces: tuple[Piece, ...]  # the sequence whose stack the head reads
    source: tuple[Piece, ...] = ()  # the encoder's side of an encoder-decoder
    label: int | None = None  # class of a cls head
    labels: tuple[int, ...] | None = None  # of a cls head with a sigmoid for each class: 1 where it holds, else 0
    classes: tuple[int, ...] | None = None  # of a token head: the class of each piece's graded tokens
    span: Span | None = None  # of a span head; Span(0), the first piece, is no answer
    overlap: int = 0  # tokens that neighbouring windows share; 0 for a third of the length
    several: "Several | None" = None  # where the pieces are several texts, each of them read by itself


@dataclasses.dataclass(frozen=True)
class Tokens:
    """T tokens and where each came from."""

    ids: np.ndarray  # int32[T]
    pieces: np.ndarray  # int32[T], index of the piece
    spans: np.ndarray  # int32[T, 2], characters within that piece's text
    roles: tuple[str, ...]  # T of them
    lost: Mapping[str, int] = dataclasses.field(default_factory=dict)  # role → tokens trimmed away


Features = dict[str, Any]  # arrays by their names; images are read later (picture_rows.py)

# A tokenizer without [CLS] and [SEP] uses its BOS and EOS for them, as RoBERTa's does
# (arxiv.org/abs/1907.11692).
STAND_INS = {"cls": "bos", "sep": "eos"}
# What stands between the two texts of a pair: as many [SEP] as the tokenizer says.
BETWEEN = "between"


def graded(*roles: str) -> LossMask:
    """The loss mask f32[T] that is 1 on tokens of these roles."""
    return lambda token_roles: np.asarray([role in roles for role in token_roles], np.float32)


def everything(token_roles: Sequence[str]) -> np.ndarray:
    """The loss mask f32[T] that is 1 on all tokens but an image's, which are no text to be learned."""
    return np.asarray([role != "image" for role in token_roles], np.float32)


def special(name: str, role: str, token_type: int = 0) -> Piece:
    """A special token as a piece."""
    return Piece("", role, special=name, token_type=token_type)


def beginning(role: str) -> Piece:
    """BOS as tokenizers add it themselves: to a text that has been encoded, which begins as if nothing stood before."""
    return Piece("", role, special="bos", apart=True)


def shown(example: Example, token: str, count: int) -> Example:
    """The example with so many special tokens in the place of each image, which is what a model reads of it."""
    pieces = tuple(one for piece in example.pieces
                   for one in ((special(token, piece.role),) * count if piece.image is not None else (piece,)))
    return dataclasses.replace(example, pieces=pieces)


def images(example: Example) -> list[Any]:
    """The images of an example, in their order."""
    return [piece.image for piece in example.pieces if piece.image is not None]


def tokenise(pieces: Sequence[Piece], tokenizer: Tokenizer, length: int = 0) -> Tokens:
    """Encodes neighbouring texts together; special tokens by id.

    Args:
      length: the most tokens to keep, 0 for all. The longest piece that may be trimmed loses
        its last token until the rest fits; where none is left to trim, the end is cut off.

    Raises:
      ValueError: a special token that the tokenizer does not have.
    """
    whole = _encoded(pieces, tokenizer)
    return _part(whole, _kept(whole.pieces, pieces, length))


def _encoded(pieces: Sequence[Piece], tokenizer: Tokenizer) -> Tokens:
    """All tokens of the pieces."""
    ids: list[int] = []
    owners: list[int] = []
    spans: list[tuple[int, int]] = []
    runs = _runs(pieces)
    parts = [_parts([pieces[index] for index in run], tokenizer) for run in runs]
    added = 1 if pieces and pieces[0].special and pieces[0].apart else 0
    encodings = itertools.chain.from_iterable(
        tokenizer.encode_parts([*itertools.chain(*some)]) for some in (parts[:added], parts[added:]))
    for run, some in zip(runs, parts, strict=True):
        for encoding in itertools.islice(encodings, len(some)):
            _own(run, pieces, encoding, ids, owners, spans)
    first = [index == 0 or owners[index - 1] != owner for index, owner in enumerate(owners)]
    roles = tuple(pieces[owner].role if begins else pieces[owner].later_role or pieces[owner].role
                  for owner, begins in zip(owners, first, strict=True))
    return Tokens(np.asarray(ids, np.int32), np.asarray(owners, np.int32),
                  np.asarray(spans, np.int32).reshape(-1, 2), roles)


def _parts(run: Sequence[Piece], tokenizer: Tokenizer) -> list[str | int]:
    """What `Tokenizer.encode_parts` is given of a run: its text, or the ids of its special token."""
    name = run[0].special
    if not name:
        return ["".join(piece.text for piece in run)]
    if name == BETWEEN:
        return [special_id(tokenizer, "sep")] * tokenizer.separators
    return [special_id(tokenizer, name)]


def _part(whole: Tokens, keep: np.ndarray, elsewhere: np.ndarray | None = None) -> Tokens:
    """The tokens of bool[T] keep; those that another window shows (bool[T] elsewhere) are not lost."""
    lost: dict[str, int] = {}
    for index in np.flatnonzero(~keep if elsewhere is None else ~keep & ~elsewhere):
        lost[whole.roles[index]] = lost.get(whole.roles[index], 0) + 1
    return Tokens(whole.ids[keep], whole.pieces[keep], whole.spans[keep],
                  tuple(whole.roles[index] for index in np.flatnonzero(keep)), lost)


def special_id(tokenizer: Tokenizer, name: str) -> int:
    """The id of a special token, or of what stands for it; ValueError where there is neither."""
    for known in (name, STAND_INS.get(name, name)):
        if known in tokenizer.special:
            return tokenizer.special[known]
    if name in tokenizer.control:
        return tokenizer.control[name]
    raise ValueError(f"the tokenizer has no {name!r} token, which this task's form needs; it has "
                     f"{', '.join(sorted(tokenizer.special))}")


def _runs(pieces: Sequence[Piece]) -> list[list[int]]:
    """The indices of the pieces that are encoded as one text; a special token is a run of its own."""
    runs: list[list[int]] = []
    for index, piece in enumerate(pieces):
        alone = piece.special or piece.apart or index == 0 or pieces[index - 1].special
        if alone:
            runs.append([index])
        else:
            runs[-1].append(index)
    return runs


def _own(
    run: list[int],
    pieces: Sequence[Piece],
    encoding: Encoding,
    ids: list[int],
    owners: list[int],
    spans: list[tuple[int, int]],
) -> None:
    """Appends a run's tokens, each with the piece that its last character is from."""
    starts = np.cumsum([0] + [len(pieces[index].text) for index in run])
    for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
        last = max(end - 1, start)
        place = min(int(np.searchsorted(starts, last, side="right")) - 1, len(run) - 1)
        ids.append(token)
        owners.append(run[place])
        spans.append((max(start - int(starts[place]), 0), end - int(starts[place])))


def _kept(owners: np.ndarray, pieces: Sequence[Piece], length: int) -> np.ndarray:
    """bool[T], which tokens stay so that at most `length` do."""
    keep = np.ones(len(owners), bool)
    excess = len(owners) - length if length else 0
    if excess <= 0:
        return keep
    sizes = {index: int((owners == index).sum()) for index, piece in enumerate(pieces) if piece.trim}
    while excess > 0 and any(sizes.values()):
        longest = max(sizes, key=lambda index: (sizes[index], index))
        sizes[longest] -= 1
        excess -= 1
    for index, size in sizes.items():
        keep[np.flatnonzero(owners == index)[size:]] = False
    keep[np.flatnonzero(keep)[length:]] = False
    return keep


def _windows(whole: Tokens, pieces: Sequence[Piece], length: int, overlap: int) -> list[np.ndarray]:
    """bool[T] of each window: the pieces that may be windowed in parts, what is left of the others in all.

    The others keep at least half of the length; beyond it, those of them that may be trimmed are.
    Neighbouring windows share `overlap` tokens; the last one is as short as it comes.
    """
    windowed = np.asarray([piece.window for piece in pieces], bool)[whole.pieces]
    total = int(windowed.sum())
    if len(whole.ids) <= length or not total:
        return [_kept(whole.pieces, pieces, length)]
    rest = whole.pieces[~windowed]
    fixed = sum(not pieces[owner].trim for owner in rest)
    around = np.zeros(len(windowed), bool)
    around[np.flatnonzero(~windowed)] = _kept(rest, pieces, max(length // 2, fixed, 1))
    room = length - int(around.sum())
    overlap = overlap or length // 3
    if room <= overlap:
        raise ValueError(f"config.batch.length is {length}: it leaves room for windows of {room} tokens, which cannot "
                         f"share {overlap} with the next; raise it, or lower config.task.overlap")
    places = np.flatnonzero(windowed)
    found = []
    for begin in range(0, max(total - overlap, 1), room - overlap):
        keep = around.copy()
        keep[places[begin:begin + room]] = True
        found.append(keep)
    return found


def prompt(pieces: Sequence[Piece], loss_mask: LossMask) -> tuple[Piece, ...]:
    """The pieces before the answer: what is left without the graded pieces at the end."""
    weights = loss_mask([piece.role for piece in pieces])
    ungraded = np.flatnonzero(weights == 0)
    return tuple(pieces[: int(ungraded[-1]) + 1]) if len(ungraded) else ()


def start_id(tokenizer: Tokenizer) -> int:
    """What an encoder-decoder's decoder begins with: pad, as T5 does, else BOS."""
    for name in ("pad", "bos"):
        if name in tokenizer.special:
            return tokenizer.special[name]
    raise ValueError(
        "the tokenizer has neither a pad nor a bos token for the decoder to begin with"
    )


def features(
    example: Example, tokenizer: Tokenizer, loss_mask: LossMask, length: int, source_length: int = 0,
    start: int | None = None,
) -> tuple[Features, Tokens, Tokens | None]:
    """The arrays one example trains on, not yet padded; of its first window, where it has several.

    Args:
      length, source_length: the most tokens of either side.
      start: the id that an encoder-decoder's tokens begin with, by default `start_id`.

    Returns:
      The features and the tokens (target side, source side) they were made from. Features hold
      tokens int32[T], targets int32[T] and weights f32[T] for a language-model head, as in the
      module's picture; for an encoder-decoder also source_tokens int32[S], and tokens begin with
      the start id. Those of the other heads, see `windows`, have token_types int32[T].
    """
    if _reads_one_sequence(example):
        return windows(example, tokenizer, loss_mask, length)[0]
    if example.source:
        source = tokenise(example.source, tokenizer.source, source_length)
        tokens = tokenise(example.pieces, tokenizer, length)
        first = start_id(tokenizer) if start is None else start
        shifted = np.concatenate([[first], tokens.ids[:-1]]).astype(np.int32)
        return (
            {
                "source_tokens": source.ids,
                "tokens": shifted[: len(tokens.ids)],
                "targets": tokens.ids,
                "weights": loss_mask(tokens.roles),
            },
            tokens,
            source,
        )
    tokens = tokenise(example.pieces, tokenizer, length + 1)
    return (
        {
            "tokens": tokens.ids[:-1],
            "targets": tokens.ids[1:],
            "weights": loss_mask(tokens.roles)[1:],
        },
        tokens,
        None,
    )


def _reads_one_sequence(example: Example) -> bool:
    told = example.label, example.labels, example.classes, example.span, example.several
    return any(each is not None for each in told)


def windows(
    example: Example, tokenizer: Tokenizer, loss_mask: LossMask, length: int, source_length: int = 0,
    start: int | None = None,
) -> list[tuple[Features, Tokens, Tokens | None]]:
    """As `features`, for every window of an example; most have one.

    Returns:
      Of each window its tokens int32[T], token_types int32[T] and, for a

        cls head    targets int32[], weights f32[]; with a sigmoid for each class targets int32[C]
        token head  targets int32[T], weights f32[T], the loss mask
        span head   targets int32[2], weights f32[2]: the span's first and last token, and the first
                    token of all where the window does not hold it whole (arxiv.org/abs/1901.08634,
                    section 2)
        several     texts int32[T], the number of the text that a token is of, positions int32[T] in it,
                    names int32[G], targets int32[], 0, and weights f32[]: 1 where the first is right
    """
    if not _reads_one_sequence(example):
        return [features(example, tokenizer, loss_mask, length, source_length, start)]
    whole = _encoded(example.pieces, tokenizer)
    if example.several is not None:
        return [_several(whole, example.pieces, example.several, length)]
    types = np.asarray([piece.token_type for piece in example.pieces], np.int32)
    windowed = np.asarray([piece.window for piece in example.pieces], bool)[whole.pieces]
    found: list[tuple[Features, Tokens, Tokens | None]] = []
    for keep in _windows(whole, example.pieces, length, example.overlap):
        tokens = _part(whole, keep, windowed)
        arrays = {"tokens": tokens.ids, "token_types": types[tokens.pieces]}
        if example.label is not None:
            arrays |= {"targets": np.int32(example.label), "weights": np.float32(1)}
        elif example.labels is not None:
            arrays |= {"targets": np.asarray(example.labels, np.int32), "weights": np.float32(1)}
        elif example.span is not None:
            arrays |= {"targets": _place(whole, keep, example.span), "weights": np.ones(2, np.float32)}
        else:
            classes = np.asarray(example.classes, np.int32)
            arrays |= {"targets": classes[tokens.pieces], "weights": loss_mask(tokens.roles)}
        found.append((arrays, tokens, None))
    return found


def _several(whole: Tokens, pieces: Sequence[Piece], several: Several, length: int) -> tuple[Features, Tokens, None]:
    """The features of several texts, each cut to its own length and then the longest to that of all."""
    numbers = np.asarray(several.texts, np.int32)[whole.pieces]
    keep = np.zeros(len(whole.ids), bool)
    for number in range(1, numbers.max() + 1):
        own = np.flatnonzero(numbers == number)
        keep[own[_kept(whole.pieces[own], pieces, several.length)]] = True
    left = np.flatnonzero(keep)
    keep[left[~_kept(whole.pieces[left], pieces, length)]] = False
    tokens, texts = _part(whole, keep), numbers[keep]
    begins = np.concatenate([[True], np.diff(texts) != 0])
    places = np.arange(len(texts))
    return {"tokens": tokens.ids, "texts": texts, "names": np.asarray(several.names, np.int32),
            "positions": (places - np.maximum.accumulate(np.where(begins, places, 0))).astype(np.int32),
            "targets": np.int32(0), "weights": np.float32(several.right)}, tokens, None


def _place(whole: Tokens, keep: np.ndarray, span: Span) -> np.ndarray:
    """int32[2]: the first and the last kept token that hold a character of the span, or twice the first of all."""
    begins, ends = whole.spans[:, 0], whole.spans[:, 1]
    holding = np.flatnonzero((whole.pieces == span.piece) & (begins < span.end) & (ends > span.start))
    if not len(holding) or not keep[holding].all():
        return np.zeros(2, np.int32)
    return (np.cumsum(keep)[holding[[0, -1]]] - 1).astype(np.int32)
