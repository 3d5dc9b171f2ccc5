# SPDX-License-Identifier: Apache-2.0
"""A tokenizer file comes in; text to ids with character offsets, and ids back to text, comes out.

Two kinds stand behind the one `Tokenizer` protocol: SentencePiece models (T5, Llama, and what
`train` makes) and the pipelines of the `tokenizers` library (WordPiece, byte-level BPE, any
tokenizer.json). Neither adds a special token, and in neither does "</s>" in a text become one.

Offsets are what question answering, entities and loss masks stand on: `text[start:end]` is what a
token covers. Starts and ends never decrease. An empty span is a token without text of its own,
such as the space that SentencePiece puts before the first word; the tokens that share one
character (bytes of an emoji, parts of an expanded ligature) all carry that character's span.
"""

import abc
import dataclasses
import hashlib
import io
import json
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import sentencepiece
import tokenizers

SPECIAL_NAMES = ("pad", "unk", "bos", "eos", "cls", "sep", "mask")
SETTINGS_FILE = "tokenizer_config.json"
SENTENCEPIECE_FILES = ("spiece.model", "tokenizer.model", "sentencepiece.model")
BYTE_LEVEL_FILES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))

# What the families call their special tokens, for folders that do not say.
CONVENTIONAL_NAMES = {
    "pad": ("<pad>", "[PAD]"),
    "unk": ("<unk>", "[UNK]"),
    "bos": ("<s>", "<bos>", "<|begin_of_text|>", "<|endoftext|>"),
    "eos": ("</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>"),
    "cls": ("[CLS]",),
    "sep": ("[SEP]",),
    "mask": ("[MASK]", "<mask>"),
}

# The trainer skips a sentence above its limit of 4,192 bytes; a character takes at most 4.
LONGEST_TRAINING_TEXT = 1000


@dataclasses.dataclass(frozen=True)
class Encoding:
    """The tokens of one text: ids in [0, vocabulary_size) and, beside each, its characters."""

    ids: list[int]
    offsets: list[tuple[int, int]]


class Tokenizer(Protocol):
    """What the rest of the project knows about a tokenizer."""

    vocabulary_size: int
    special: Mapping[str, int]
    fingerprint: str

    def encode(self, text: str) -> Encoding: ...
    def decode(self, ids: Sequence[int]) -> str: ...
    def piece(self, id: int) -> str: ...
    def save(self, folder: str | pathlib.Path) -> None: ...


class _Base(Tokenizer):
    """What both kinds share: special ids, the guard against forging, the fingerprint."""

    def _describe(
        self, content: bytes, settings: Mapping[str, Any], special: dict[str, int], hidden: set[int]
    ) -> None:
        self.settings = dict(settings)
        self.special = special
        self._hidden = hidden | set(special.values())  # never shown by decode
        self._reserved = self._hidden - {special.get("unk", -1)}  # never made from text
        described = content + json.dumps(special, sort_keys=True).encode()
        self.fingerprint = hashlib.sha256(described).hexdigest()

    @abc.abstractmethod
    def _encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]: ...

    def encode(self, text: str) -> Encoding:
        """Returns the text's tokens without special ones; raises ValueError on half a surrogate."""
        text.encode()  # raises UnicodeEncodeError; the libraries would raise something obscure
        ids, offsets = self._encode(text)
        return Encoding(self._unforged(ids), offsets)

    def _unforged(self, ids: list[int]) -> list[int]:
        """Replaces a reserved id that text alone produced (a vocabulary can hold such a word)."""
        if self._reserved.isdisjoint(ids):
            return ids
        if "unk" not in self.special:
            raise ValueError("the text spells a special token and no unknown one can replace it")
        return [self.special["unk"] if id in self._reserved else id for id in ids]

    def _shown(self, ids: Sequence[int]) -> list[int]:
        """The ids that decode to text: special ones and padded embedding rows do not."""
        if any(id < 0 for id in ids):
            raise ValueError(f"cannot decode id {min(ids)}: ids start at 0")
        return [int(i) for i in ids if i < self.vocabulary_size and int(i) not in self._hidden]

    @abc.abstractmethod
    def _piece(self, id: int) -> str | None: ...

    def piece(self, id: int) -> str:
        """Returns the piece as the vocabulary spells it, such as "▁the", "##ing" or "Ġthe"."""
        if not 0 <= id < self.vocabulary_size:
            raise ValueError(f"there is no piece {id}: ids are 0 to {self.vocabulary_size - 1}")
        return self._piece(id) or f"<{id}>"  # numbers between the added ones may be free

    def _write(self, folder: str | pathlib.Path, name: str, content: bytes) -> None:
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        named = {f"{name}_token": self.piece(id) for name, id in self.special.items()}
        settings = json.dumps(self.settings | named, indent=2, ensure_ascii=False, sort_keys=True)
        (folder / SETTINGS_FILE).write_text(settings + "\n", encoding="utf-8")


class SentencePieceTokenizer(_Base):
    """A SentencePiece model: `proto` is the bytes of the file, `settings` its folder's JSON."""

    def __init__(self, proto: bytes, settings: Mapping[str, Any]) -> None:
        self._proto = proto
        self._model = sentencepiece.SentencePieceProcessor(model_proto=proto)
        size = self._model.get_piece_size()
        added = settings.get("added_tokens_decoder", {})
        # Ids past the model's own are known from the folder only, such as T5's <extra_id_0>.
        self._added = {int(id): t["content"] for id, t in added.items() if int(id) >= size}
        self.vocabulary_size = max([size - 1, *self._added]) + 1
        control = {id for id in range(size) if self._model.is_control(id)}
        own = {name: getattr(self._model, f"{name}_id")() for name in ("pad", "unk", "bos", "eos")}
        special = {name: id for name, id in own.items() if id >= 0}  # -1: the model has none
        special |= _special(settings, self._find, control | set(self._added), special)
        marked = {int(id) for id, token in added.items() if token.get("special")}
        self._describe(proto, settings, special, control | set(self._added) | marked)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._proto, self.settings)

    def _find(self, text: str) -> int | None:
        added = {content: id for id, content in self._added.items()}
        id = self._model.piece_to_id(text)  # the unknown id where there is no such piece
        return id if self._model.id_to_piece(id) == text else added.get(text)

    def _encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        found = self._model.encode(text, return_type="offset_mapping")
        offsets, last = [], 0
        for piece, (start, end) in zip(found["pieces"], found["offsets"], strict=True):
            # All but the last byte or part of one character come with an empty span.
            if start == end < len(text) and piece.strip("▁"):
                end += 1
            last = max(last, end)
            offsets.append((start, last))
        return found["ids"], offsets

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of the ids; special and added ids are skipped."""
        return self._model.decode(self._shown(ids))

    def _piece(self, id: int) -> str | None:
        known = id < self._model.get_piece_size()
        return self._model.id_to_piece(id) if known else self._added.get(id)

    def save(self, folder: str | pathlib.Path) -> None:
        """Writes spiece.model and tokenizer_config.json."""
        self._write(folder, SENTENCEPIECE_FILES[0], self._proto)


class PipelineTokenizer(_Base):
    """A pipeline of the `tokenizers` library: `content` is the text of a tokenizer.json."""

    def __init__(self, content: str, settings: Mapping[str, Any]) -> None:
        self._pipeline = tokenizers.Tokenizer.from_str(content)
        # A file may carry the lengths its model was trained with; batches are shaped elsewhere.
        self._pipeline.no_truncation()
        self._pipeline.no_padding()
        added = self._pipeline.get_added_tokens_decoder()
        marked = {id for id, token in added.items() if token.special}
        # Where nothing is marked as special, a piece with a conventional name is taken for it.
        special = _special(settings, self._pipeline.token_to_id, marked or None, {})
        for id in set(special.values()) - marked:
            token = tokenizers.AddedToken(self._pipeline.id_to_token(id), special=True)
            self._pipeline.add_special_tokens([token])
        # Special tokens in a text stay text. The library forgets this on pickling: `__reduce__`.
        self._pipeline.encode_special_tokens = True
        self.vocabulary_size = max(self._pipeline.get_vocab(with_added_tokens=True).values()) + 1
        canonical = json.dumps(json.loads(self._pipeline.to_str()), sort_keys=True)
        self._describe(canonical.encode(), settings, special, marked)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._pipeline.to_str(), self.settings)

    def _encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        found = self._pipeline.encode(text, add_special_tokens=False)
        return found.ids, found.offsets

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of the ids; special ids are skipped."""
        return self._pipeline.decode(self._shown(ids), skip_special_tokens=False)

    def _piece(self, id: int) -> str | None:
        return self._pipeline.id_to_token(id)

    def save(self, folder: str | pathlib.Path) -> None:
        """Writes tokenizer.json and tokenizer_config.json."""
        self._write(folder, "tokenizer.json", self._pipeline.to_str(pretty=True).encode())


def load(path: str | pathlib.Path) -> Tokenizer:
    """Returns the tokenizer of a folder (tokenizer.json first) or of one of its files.

    Raises ValueError for no file, no known file, or a file that is not what its name says.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise ValueError(f"no tokenizer at {path}: there is no such file or folder")
    path = _known_file(path) if path.is_dir() else path
    settings = _settings(path.parent)
    content = _content(path)
    try:
        if path.name == "vocab.txt":
            return PipelineTokenizer(_word_piece(content.decode("utf-8"), settings), settings)
        for pair in BYTE_LEVEL_FILES:
            if path.name in pair:
                vocabulary, merges = (path.parent / name for name in pair)
                return PipelineTokenizer(_byte_level(vocabulary, merges, settings), settings)
        if path.suffix == ".json":
            return PipelineTokenizer(content.decode("utf-8"), settings)
        return SentencePieceTokenizer(content, settings)
    except Exception as error:  # `tokenizers` raises no narrower class
        kind = "SentencePiece model" if path.suffix == ".model" else "tokenizer"
        raise ValueError(f"{path} is no {kind} that can be read: {error}") from error


def train(texts: Iterable[str], size: int, folder: str | pathlib.Path, kind: str = "unigram") -> Tokenizer:
    """Trains a SentencePiece model on the texts, saves it in the folder and returns it.

    Pad is 0, eos 1, unk 2, bos 3; what the texts do not spell is spelled in bytes, and nothing
    is normalised, so `decode(encode(text).ids) == text` for every text without U+2581, line
    breaks and indentation included. The same texts give the same model: one thread, no sampling.

    Args:
      texts: the corpus, held in memory while it trains.
      size: the exact number of pieces.
      folder: where spiece.model and tokenizer_config.json go.
      kind: "unigram" (T5) or "bpe" (Llama).

    Raises ValueError for an unknown kind, no text, or a size that the texts do not allow: it is
    never lowered silently, and the error says the largest possible one.
    """
    if kind not in ("unigram", "bpe"):
        raise ValueError(f'kind={kind!r} is not known: use "unigram" or "bpe"')
    model, lines = io.BytesIO(), list(_training_lines(texts))
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            vocab_size=size,
            model_type=kind,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=3,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,  # indentation of code is one piece
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(_training_error(str(error), size)) from error
    tokenizer = SentencePieceTokenizer(model.getvalue(), {})
    tokenizer.save(folder)
    return tokenizer


def _training_lines(texts: Iterable[str]) -> Iterator[str]:
    """Cuts the texts where the trainer would otherwise drop them: tabs, breaks, long lines."""
    for text in texts:
        for line in re.split(r"[\t\r\n\0]+", text):
            for start in range(0, len(line), LONGEST_TRAINING_TEXT):
                yield line[start : start + LONGEST_TRAINING_TEXT]


def _training_error(message: str, size: int) -> str:
    if limit := re.search(r"set it to a value <= (\d+)", message):
        return f"size={size} is too large for these texts: the largest possible is {limit[1]}"
    if limit := re.search(r"required_chars\. \d+ vs (\d+)", message):
        return f"size={size} is too small: bytes and characters alone need more than {limit[1]}"
    if "sentences_.empty()" in message:
        return "there is no text to train a tokenizer on: every text is empty"
    return f"SentencePiece could not train a vocabulary of size={size}: {message}"


def _known_file(folder: pathlib.Path) -> pathlib.Path:
    """The file that says most: a whole pipeline, then a model, then a bare vocabulary."""
    pairs = [pair[0] for pair in BYTE_LEVEL_FILES if (folder / pair[1]).is_file()]
    for name in ("tokenizer.json", *SENTENCEPIECE_FILES, "vocab.txt", *pairs):
        if (folder / name).is_file():
            return folder / name
    # The pieces of a *.bpe.model are numbered otherwise by the models that use one (XLM-R).
    others = [p for p in sorted(folder.glob("*.model")) if not p.name.endswith(".bpe.model")]
    if len(others) == 1:
        return others[0]
    pairs = [" + ".join(pair) for pair in BYTE_LEVEL_FILES]
    wanted = ["tokenizer.json", *SENTENCEPIECE_FILES, "one other *.model", "vocab.txt", *pairs]
    raise ValueError(f"no tokenizer in {folder}: looked for {', '.join(wanted)}")


def _content(path: pathlib.Path) -> bytes:
    """The bytes of the file, refused where a download left something else under its name."""
    content = path.read_bytes()
    if not content:
        raise ValueError(f"{path} is empty: expected a tokenizer")
    if content.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path} is a Git LFS pointer, not the file: fetch it with git lfs pull")
    if content[:64].lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise ValueError(f"{path} is an HTML page, not a tokenizer: download the raw file")
    return content


def _settings(folder: pathlib.Path) -> dict[str, Any]:
    """What the folder's JSON files say about special and added tokens, as one dict."""
    merged: dict[str, Any] = {}
    for name in ("added_tokens.json", "special_tokens_map.json", SETTINGS_FILE):
        if not (folder / name).is_file():
            continue
        try:
            found = dict(json.loads(_content(folder / name)))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{folder / name} is no readable JSON object: {error}") from error
        if name == "added_tokens.json":
            tokens = {str(id): {"content": text, "special": True} for text, id in found.items()}
            found = {"added_tokens_decoder": tokens}
        merged |= found
    return merged


def _text(token: Any) -> str | None:
    """A token as the folder's JSON writes it: its text, or an object with its content."""
    return token.get("content") if isinstance(token, dict) else token


def _special(
    settings: Mapping[str, Any],
    find: Callable[[str], int | None],
    marked: set[int] | None,
    known: Mapping[str, int],
) -> dict[str, int]:
    """Special ids as the folder's JSON names them, else by convention.

    Convention speaks only for `marked` ids, and of no name that the model has `known` by itself.
    """
    special = {}
    for name in SPECIAL_NAMES:
        text = _text(settings.get(f"{name}_token"))
        if text is not None and (id := find(text)) is not None:
            special[name] = id
        elif name not in known:
            for id in map(find, reversed(CONVENTIONAL_NAMES[name])):
                if id is not None and (marked is None or id in marked):
                    special[name] = id  # the first of the names has the last word
    return special


def _word_piece(content: str, settings: Mapping[str, Any]) -> str:
    """The pipeline of a BERT vocab.txt: one piece a line, its number the id."""
    pieces = content.replace("\r\n", "\n").removesuffix("\n").split("\n")
    vocabulary = {piece: id for id, piece in enumerate(pieces)}
    unknown = _text(settings.get("unk_token", "[UNK]"))
    if unknown not in vocabulary:
        raise ValueError(f"no line {unknown!r} among {len(pieces)}: expected WordPiece pieces")
    # A vocabulary of lower-case words was made by lower-casing, should the folder not say.
    words = (piece for piece in pieces if not piece.startswith("["))
    lowercase = settings.get("do_lower_case", not any(word != word.lower() for word in words))
    pipeline = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token=unknown))
    pipeline.normalizer = tokenizers.normalizers.BertNormalizer(
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=lowercase,
    )
    pipeline.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    pipeline.decoder = tokenizers.decoders.WordPiece()
    return pipeline.to_str()


def _byte_level(vocabulary: pathlib.Path, merges: pathlib.Path, settings: Mapping[str, Any]) -> str:
    """The pipeline of GPT-2: pieces of bytes, merged in the order of a list."""
    for path in (vocabulary, merges):
        _content(path)
    pipeline = tokenizers.Tokenizer(tokenizers.models.BPE.from_file(str(vocabulary), str(merges)))
    prefix = settings.get("add_prefix_space", False)
    pipeline.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    pipeline.decoder = tokenizers.decoders.ByteLevel()
    added = sorted(settings.get("added_tokens_decoder", {}).items(), key=lambda item: int(item[0]))
    pipeline.add_tokens([tokenizers.AddedToken(t["content"], special=bool(t.get("special"))) for _, t in added])
    return pipeline.to_str()
