# SPDX-License-Identifier: Apache-2.0
"""A vocabulary's facts come in; what every tokenizer promises, and what all kinds share, goes out.

Text never makes a special token: "</s>" in a text is spelled in ordinary pieces. A special token is
placed by its id, and `encode_parts` is where the two meet:

    encode_parts([id of <s>, "Hi </s>", id of </s>])  one Encoding for each of the three parts
"""

import abc
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

SETTINGS_FILE = "tokenizer_config.json"

# The order in which transformers gives numbers to named tokens that no file numbers.
SPECIAL_NAMES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")

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

_FAIRSEQ = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "sep": "</s>", "pad": "<pad>", "cls": "<s>", "mask": "<mask>"}
_BERT = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
_GPT = {"bos": "<|endoftext|>", "eos": "<|endoftext|>", "unk": "<|endoftext|>"}

# What a class of transformers calls them when its folder does not: the defaults of its constructor.
CLASS_NAMES: dict[str, dict[str, str | None]] = {
    "BertTokenizer": {**_BERT},
    "RobertaTokenizer": {**_FAIRSEQ},
    "XLMRobertaTokenizer": {**_FAIRSEQ},
    "GPT2Tokenizer": {**_GPT},
    "GPTNeoXTokenizer": {**_GPT, "pad": "<|padding|>"},
    "Qwen2Tokenizer": {"bos": None, "eos": "<|endoftext|>", "unk": "<|endoftext|>", "pad": "<|endoftext|>"},
    "CLIPTokenizer": {**_GPT, "bos": "<|startoftext|>", "pad": "<|endoftext|>"},
    "T5Tokenizer": {"eos": "</s>", "unk": "<unk>", "pad": "<pad>"},
    "LlamaTokenizer": {"bos": "<s>", "eos": "</s>", "unk": "<unk>"},
    "GemmaTokenizer": {"bos": "<bos>", "eos": "<eos>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"},
    "MarianTokenizer": {"eos": "</s>", "unk": "<unk>", "pad": "<pad>"},
}

# Classes that differ in name only, and the name of the one that stands for them here.
SAME_CLASS = dict.fromkeys(("PreTrainedTokenizer", "TokenizersBackend"), "") | dict.fromkeys(
    ("DistilBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer", "ConvBertTokenizer", "SqueezeBertTokenizer",
     "LayoutLMTokenizer", "LxmertTokenizer", "RetriBertTokenizer", "DPRQuestionEncoderTokenizer",
     "DPRContextEncoderTokenizer", "DPRReaderTokenizer"), "BertTokenizer") | dict.fromkeys(
    ("BartTokenizer", "LongformerTokenizer", "LEDTokenizer"), "RobertaTokenizer") | {"MT5Tokenizer": "T5Tokenizer"}

# Classes that put <s> first </s></s> second </s> (arxiv.org/abs/1907.11692, section 4.2).
TWO_SEPARATORS = ("RobertaTokenizer", "XLMRobertaTokenizer", "CamembertTokenizer", "MPNetTokenizer")


@dataclasses.dataclass(frozen=True)
class Encoding:
    """The tokens of one text: ids in [0, vocabulary_size) and, beside each, its characters."""

    ids: list[int]
    offsets: list[tuple[int, int]]


class Tokenizer(Protocol):
    """What the rest of the project knows about a tokenizer."""

    vocabulary_size: int
    special: Mapping[str, int]  # by what it is for: "pad", "eos"
    fingerprint: str

    @property
    def control(self) -> Mapping[str, int]:
        """Every token that only an id can place, by its spelling: "<|im_start|>", "</s>"."""
        return {}

    @property
    def source(self) -> "Tokenizer":
        """The tokenizer of what an encoder reads: itself but where the two sides are spelled otherwise."""
        return self

    @property
    def words(self) -> Collection[str]:
        """Tokens added to the vocabulary that a text may spell, such as "<think>"."""
        return ()

    @property
    def separators(self) -> int:
        """How many [SEP] stand between the two texts of a pair: one, as in BERT, or two, as in RoBERTa."""
        return 1

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the folder's JSON says, the chat template included."""
        return {}

    def encode(self, text: str) -> Encoding: ...

    def encode_parts(self, parts: Sequence[str | int]) -> list[Encoding]:
        """Returns an Encoding for each part of one sequence: a text, or the id of a special token.

        A text is spelled as one that stands after what precedes it; offsets count within the part.
        """
        return [self.encode(part) if isinstance(part, str) else placed(part) for part in parts]

    def decode(self, ids: Sequence[int]) -> str: ...
    def piece(self, id: int) -> str: ...
    def save(self, folder: str | pathlib.Path) -> None: ...


def placed(id: int) -> Encoding:
    """The encoding of a special token: it covers no character."""
    return Encoding([id], [(0, 0)])


class Base(Tokenizer):
    """What all kinds share: special ids, the guard against forging, the fingerprint."""

    def _describe(
        self, content: bytes, settings: Mapping[str, Any], special: dict[str, int], control: dict[str, int]
    ) -> None:
        self._settings = dict(settings)
        self.special = special
        self._control = control
        self._hidden = {*control.values(), special.get("unk", -1)}  # never shown by decode
        self._reserved = frozenset(control.values())  # never made from text
        described = content + json.dumps(special, sort_keys=True).encode()
        self.fingerprint = hashlib.sha256(described).hexdigest()

    @property
    def control(self) -> Mapping[str, int]:
        return self._control

    @property
    def separators(self) -> int:
        return 2 if tokenizer_class(self._settings) in TWO_SEPARATORS else 1

    @property
    def settings(self) -> Mapping[str, Any]:
        return self._settings

    @abc.abstractmethod
    def _encode_parts(self, parts: Sequence[str | int]) -> list[Encoding]: ...

    def encode(self, text: str) -> Encoding:
        """Returns the text's tokens without special ones; raises ValueError on half a surrogate."""
        return self.encode_parts([text])[0]

    def encode_parts(self, parts: Sequence[str | int]) -> list[Encoding]:
        for part in parts:
            if isinstance(part, str):
                part.encode()  # raises UnicodeEncodeError; the libraries would raise something obscure
        found = self._encode_parts(parts)
        return [Encoding(self._unforged(encoding.ids), encoding.offsets) if isinstance(part, str) else encoding
                for part, encoding in zip(parts, found, strict=True)]

    def _unforged(self, ids: list[int]) -> list[int]:
        """Replaces a reserved id that text alone produced (a table of merges can spell such a word)."""
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
        settings = json.dumps(self._settings | named, indent=2, ensure_ascii=False, sort_keys=True)
        (folder / SETTINGS_FILE).write_text(settings + "\n", encoding="utf-8")


def token_text(token: Any) -> str | None:
    """A token as the folder's JSON writes it: its text, or an object with its content."""
    return token.get("content") if isinstance(token, dict) else token


def tokenizer_class(settings: Mapping[str, Any]) -> str:
    """The class of transformers that a folder names; "" where it names none or a general one."""
    name = str(settings.get("tokenizer_class") or "").removesuffix("Fast")
    return SAME_CLASS.get(name, name)


def special_ids(
    settings: Mapping[str, Any],
    find: Callable[[str], int | None],
    marked: set[int] | None,
    known: Mapping[str, int],
) -> dict[str, int]:
    """Special ids as the folder's JSON names them, else as its class does, else by convention.

    A name that the folder sets to null, or that its class does not have, has no token. Convention
    speaks only for `marked` ids, and of no name that the model has `known` by itself.
    """
    special = dict(known)
    usual = CLASS_NAMES.get(tokenizer_class(settings), dict.fromkeys(SPECIAL_NAMES, ""))
    for name in SPECIAL_NAMES:
        text = token_text(settings.get(f"{name}_token", usual.get(name)))
        id = find(text) if text else None
        if id is None and text is not None and name not in known:
            found = map(find, CONVENTIONAL_NAMES[name])
            id = next((one for one in found if one is not None and (marked is None or one in marked)), None)
        if id is not None:
            special[name] = id
    return special


def named_special(settings: Mapping[str, Any]) -> list[str]:
    """The texts of the tokens that a folder's JSON calls special, in the order of transformers."""
    named = [token_text(settings.get(f"{name}_token")) for name in SPECIAL_NAMES]
    more = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or []
    more = more.values() if isinstance(more, dict) else more
    return unique(text for text in [*named, *map(token_text, more)] if text)


def is_marker(text: str) -> bool:
    """Whether a special token's text is a sign of its own, unlike "!" (some pad token) or a run of spaces."""
    return len(text.replace("▁", " ").strip()) > 1


def unique(texts: Iterable[str]) -> list[str]:
    """The texts in their order, each once."""
    return list(dict.fromkeys(texts))
