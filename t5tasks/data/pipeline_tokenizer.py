# SPDX-License-Identifier: Apache-2.0
"""A tokenizer.json and its folder's settings come in; a tokenizer comes out.

WordPiece, byte-level BPE, Unigram: any pipeline of the `tokenizers` library, run as its file says.

The library cannot place a special token by id beside text that spells the same token. So the
pipeline that encodes knows special tokens under secret names, and a sequence of parts is one text:

    parts            [1,                "Hi </s>",  2              ]
    the text         "<secret:</s>…>"    Hi </s>    "<secret:…>"        each part's tokens are told apart
                                                                        by the special tokens between
"""

import json
import pathlib
import secrets
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import tokenizers

from t5tasks.data.tokenizer_interface import (
    Base,
    Encoding,
    is_marker,
    named_special,
    placed,
    special_ids,
    tokenizer_class,
    unique,
)

# Classes that take the settings of their first steps from tokenizer_config.json, whatever the file says.
LEADING_SPACE = ("GPT2Tokenizer", "RobertaTokenizer")
BERT_SETTINGS = {"do_lower_case": "lowercase", "strip_accents": "strip_accents",
                 "tokenize_chinese_chars": "handle_chinese_chars"}


class PipelineTokenizer(Base):
    """A pipeline of the `tokenizers` library: `content` is the text of a tokenizer.json."""

    def __init__(self, content: str, settings: Mapping[str, Any]) -> None:
        pipeline = tokenizers.Tokenizer.from_str(_with_settings(content, settings))
        # A file may carry the lengths its model was trained with; batches are shaped elsewhere.
        pipeline.no_truncation()
        pipeline.no_padding()
        _add(pipeline, settings)
        marked = {id for id, token in pipeline.get_added_tokens_decoder().items() if token.special}
        # Where nothing is marked as special, a piece with a conventional name is taken for it.
        special = special_ids(settings, pipeline.token_to_id, marked or None, {})
        for id in sorted(set(special.values()) - marked):
            token = tokenizers.AddedToken(pipeline.id_to_token(id), special=True)
            pipeline.add_special_tokens([token])
        pipeline.encode_special_tokens = True
        self._pipeline = pipeline
        self.vocabulary_size = max(pipeline.get_vocab(with_added_tokens=True).values()) + 1
        unknown = special.get("unk")
        only_unknown = {unknown} - {id for name, id in special.items() if name != "unk"}
        control = {token.content: id for id, token in pipeline.get_added_tokens_decoder().items()
                   if token.special and id not in only_unknown and is_marker(token.content)}
        description = json.loads(pipeline.to_str())
        self._describe(json.dumps(description, sort_keys=True).encode(), settings, special, control)
        # CLIP's pieces say where a word ends, and its file does not say that this is a space.
        bare = (description["decoder"] or {}).get("type") == "ByteLevel"
        self._ends = (bare and description["model"].get("end_of_word_suffix")) or ""
        self._trims = any(step.get("trim_offsets") and step.get("add_prefix_space")
                          for step in _steps(description["post_processor"], "processors"))
        self._separators = _separators(description["post_processor"])
        self._prepare(description)

    @property
    def separators(self) -> int:
        return self._separators or super().separators

    def _prepare(self, description: dict[str, Any]) -> None:
        """Makes the pipeline that encodes: special tokens have names that no text can hold."""
        secret = secrets.token_hex(8)
        names = {text: f"<{secret}:{id}>" for text, id in self._control.items()}
        kept = [token for token in description["added_tokens"]
                if not token["special"] or not is_marker(token["content"])]
        placeable = [{**token, "content": names[token["content"]], "single_word": False, "normalized": False}
                     for token in description["added_tokens"] if token["content"] in names]
        self._gap = f"<{secret}>"
        description["added_tokens"] = []
        _rename(description["model"], names)
        self._encoder = tokenizers.Tokenizer.from_str(json.dumps(description))
        self._encoder.add_tokens([tokenizers.AddedToken(
            token["content"], single_word=token["single_word"], lstrip=token["lstrip"], rstrip=token["rstrip"],
            normalized=token["normalized"], special=False) for token in [*kept, *placeable]])
        self._encoder.add_tokens([tokenizers.AddedToken(self._gap, normalized=False)])
        self._names = {id: names[text] for text, id in self._control.items()}
        there = {self._encoder.token_to_id(token["content"]): token["id"] for token in kept}
        there |= {self._encoder.token_to_id(name): id for id, name in self._names.items()}
        self._placed = {self._encoder.token_to_id(name) for name in (*self._names.values(), self._gap)}
        # Numbers of added tokens that differ between the two pipelines.
        self._moved = {id: true for id, true in there.items() if id != true}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._pipeline.to_str(), self._settings)

    def _encode_parts(self, parts: Sequence[str | int]) -> list[Encoding]:
        if len(parts) == 1 and isinstance(parts[0], str):
            found = self._encoder.encode(parts[0], add_special_tokens=False)
            return [Encoding(self._true(found.ids), found.offsets)]
        text, starts, owners = self._joined(parts)
        found = self._encoder.encode(text, add_special_tokens=False)
        encodings = [Encoding([], []) if isinstance(part, str) else placed(part) for part in parts]
        marks = iter(owners)
        owner = next(marks)
        for id, (start, end) in zip(found.ids, found.offsets, strict=True):
            if id in self._placed:
                owner = next(marks)
                continue
            start, end = start - starts[owner], end - starts[owner]
            if self._trims and start == 1 and not encodings[owner].ids and not str(parts[owner])[:1].isspace():
                start = 0  # the library takes the space that it put before a later part for one of the text
            encodings[owner].ids.append(self._moved.get(id, id))
            encodings[owner].offsets.append((start, end))
        return encodings

    def _joined(self, parts: Sequence[str | int]) -> tuple[str, list[int], list[int]]:
        """One text of all parts, where each part starts in it, and whose the text after each mark is."""
        text, starts, owners = "", list[int](), [0]
        for index, part in enumerate(parts):
            if index and isinstance(part, str) and isinstance(parts[index - 1], str):
                text += self._gap
                owners.append(index)
            starts.append(len(text))
            if isinstance(part, str):
                text += part
                continue
            text += self._names.get(part, self._gap)
            owners.append(min(index + 1, len(parts) - 1))
        return text, starts, owners

    @property
    def words(self) -> Collection[str]:
        added = self._pipeline.get_added_tokens_decoder()
        return [token.content for token in added.values() if not token.special]

    def _true(self, ids: list[int]) -> list[int]:
        return [self._moved.get(id, id) for id in ids] if self._moved else ids

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of the ids; special ids are skipped."""
        text = self._pipeline.decode(self._shown(ids), skip_special_tokens=False)
        return text.replace(self._ends, " ").strip() if self._ends else text

    def _piece(self, id: int) -> str | None:
        return self._pipeline.id_to_token(id)

    def save(self, folder: str | pathlib.Path) -> None:
        """Writes tokenizer.json and tokenizer_config.json."""
        self._write(folder, "tokenizer.json", self._pipeline.to_str(pretty=True).encode())


def _with_settings(content: str, settings: Mapping[str, Any]) -> str:
    """The file with what its class lets tokenizer_config.json decide."""
    kind = tokenizer_class(settings)
    description = json.loads(content)
    if not isinstance(description, dict):
        raise ValueError(f"it holds a {type(description).__name__}: expected an object")
    for step in _steps(description.get("normalizer"), "normalizers"):
        if step["type"] == "BertNormalizer" and kind:
            changed = {there: settings[here] for here, there in BERT_SETTINGS.items() if here in settings}
            step |= changed
    leading = [*_steps(description.get("pre_tokenizer"), "pretokenizers"),
               *_steps(description.get("post_processor"), "processors")]
    for step in leading:
        if step["type"] in ("ByteLevel", "RobertaProcessing") and kind in LEADING_SPACE:
            step["add_prefix_space"] = bool(settings.get("add_prefix_space", False))
    return json.dumps(description)


def _steps(step: Any, inner: str) -> list[dict[str, Any]]:
    """The steps of a normalizer or a pre-tokenizer, those of a sequence one by one."""
    if not step:
        return []
    return [each for part in step[inner] for each in _steps(part, inner)] if step["type"] == "Sequence" else [step]


def _separators(post_processor: Any) -> int:
    """How many special tokens a post-processor puts between the texts of a pair; 0 where it does not say."""
    for step in _steps(post_processor, "processors"):
        if step["type"] == "RobertaProcessing":
            return 2
        if step["type"] == "TemplateProcessing":
            kinds = ["".join(part) for part in step["pair"]]
            texts = [place for place, kind in enumerate(kinds) if kind == "Sequence"]
            return texts[1] - texts[0] - 1 if len(texts) == 2 else 0
    return 0


def _add(pipeline: tokenizers.Tokenizer, settings: Mapping[str, Any]) -> None:
    """Adds the tokens that only the folder's JSON knows, under the numbers it gives them."""
    special = named_special(settings)
    declared = sorted((int(id), token) for id, token in settings.get("added_tokens_decoder", {}).items())
    for id, token in declared:
        content = token["content"]
        if pipeline.token_to_id(content) is None:
            flags = {name: bool(token[name]) for name in ("single_word", "lstrip", "rstrip", "normalized")
                     if name in token}
            marked = bool(token.get("special")) or content in special
            pipeline.add_tokens([tokenizers.AddedToken(content, special=marked, **flags)])
        if pipeline.token_to_id(content) != id:
            raise ValueError(f"the added token {content!r} has the number {pipeline.token_to_id(content)}, but "
                             f"the folder's JSON says {id}")
    known = {token.content for token in pipeline.get_added_tokens_decoder().values() if token.special}
    marked_texts = [token["content"] for _, token in declared if token.get("special")]
    for content in unique([*special, *marked_texts]):
        if content not in known:  # new ones are numbered as transformers numbers them
            pipeline.add_special_tokens([tokenizers.AddedToken(content, special=True, normalized=False)])


def _rename(model: dict[str, Any], names: Mapping[str, str]) -> None:
    """Gives special pieces of the vocabulary their secret names, where text could spell them.

    A piece that merges make keeps its name, or the table of merges would not fit.
    """
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model.get("merges", [])]
    merged = {text for left, right in merges for text in (left, right, left + right)}
    unknown = model.get("unk_token")
    names = {text: name for text, name in names.items() if text not in merged and text != unknown}
    if isinstance(model["vocab"], list):
        unknown_piece = model["vocab"][model["unk_id"]][0] if model.get("unk_id") is not None else None
        model["vocab"] = [[text if text == unknown_piece else names.get(text, text), score]
                          for text, score in model["vocab"]]
    else:
        model["vocab"] = {names.get(text, text): id for text, id in model["vocab"].items()}
