# SPDX-License-Identifier: Apache-2.0
"""A bare vocabulary (vocab.txt, or vocab.json and merges.txt) comes in; a tokenizer.json goes out.

Such files say nothing of how a text is cut. That is what the class does that the folder names:

    BertTokenizer                       clean, lower case, words and signs       WordPiece
    GPT2Tokenizer, RobertaTokenizer     words with the space before them         byte-level BPE
    Qwen2Tokenizer                      NFC, words, single digits, line breaks   byte-level BPE
    GPTNeoXTokenizer                    NFC, words with the space before them    byte-level BPE
    CLIPTokenizer                       NFC, lower case, words                   BPE, </w> ends a word
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from t5tasks.data.tokenizer_interface import token_text, tokenizer_class

# How Qwen2 and CLIP cut a text, as their tokenizer.json has it: one expression per kind of word.
QWEN2_WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
               r"|\s*[\r\n]+|\s+(?!\S)|\s+")
CLIP_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"

def pieces(content: str) -> list[str]:
    """The pieces of a vocab.txt, one a line."""
    return content.replace("\r\n", "\n").removesuffix("\n").split("\n")


def word_piece(pieces: list[str], settings: Mapping[str, Any]) -> str:
    """The pipeline of BERT's pieces, whose numbers are their ids; `settings` says what becomes of capitals."""
    vocabulary = {piece: id for id, piece in enumerate(pieces)}
    unknown = token_text(settings.get("unk_token", "[UNK]"))
    if unknown not in vocabulary:
        raise ValueError(f"no line {unknown!r} among {len(pieces)}: expected WordPiece pieces")
    pipeline = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    pipeline.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings["do_lower_case"],
    )
    pipeline.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pipeline.decoder = decoders.WordPiece()
    return pipeline.to_str()


def is_lower_case(pieces: list[str]) -> bool:
    """Whether a vocabulary was made by lower-casing: none of its words, signs like [CLS] aside, has a capital."""
    return all(piece == piece.lower() for piece in pieces if not piece.startswith(("[", "<")))


def byte_level(vocabulary: pathlib.Path, merges: pathlib.Path, settings: Mapping[str, Any]) -> str:
    """The pipeline of two files: pieces of bytes, merged in the order of a list."""
    kind = tokenizer_class(settings)
    words = {"end_of_word_suffix": "</w>", "unk_token": "<|endoftext|>"} if kind == "CLIPTokenizer" else {}
    pipeline = tokenizers.Tokenizer(models.BPE.from_file(str(vocabulary), str(merges), **words))
    prefix = bool(settings.get("add_prefix_space", False))
    pipeline.decoder = decoders.ByteLevel()
    pipeline.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    if kind in ("Qwen2Tokenizer", "GPTNeoXTokenizer"):
        pipeline.normalizer = normalizers.NFC()
    if kind == "Qwen2Tokenizer":
        pipeline.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(tokenizers.Regex(QWEN2_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False)])
    if kind == "CLIPTokenizer":
        _cut_like_clip(pipeline)
    if kind == "RobertaTokenizer":
        pipeline.post_processor = _without_spaces(pipeline, settings, prefix)
    return pipeline.to_str()


def _cut_like_clip(pipeline: tokenizers.Tokenizer) -> None:
    pipeline.normalizer = normalizers.Sequence([
        normalizers.NFC(), normalizers.Replace(tokenizers.Regex(r"\s+"), " "), normalizers.Lowercase()])
    pipeline.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(tokenizers.Regex(CLIP_WORDS), behavior="removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)])


def _without_spaces(pipeline: tokenizers.Tokenizer, settings: Mapping[str, Any], prefix: bool) -> Any:
    """RoBERTa's last step, which leaves the space before a word out of the word's offsets."""
    end, start = token_text(settings.get("sep_token")) or "</s>", token_text(settings.get("cls_token")) or "<s>"
    return processors.RobertaProcessing(
        (end, pipeline.token_to_id(end) or 0), (start, pipeline.token_to_id(start) or 0),
        trim_offsets=bool(settings.get("trim_offsets", True)), add_prefix_space=prefix)
