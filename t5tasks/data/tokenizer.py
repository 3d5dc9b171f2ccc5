# SPDX-License-Identifier: Apache-2.0
"""A tokenizer file comes in; text to ids with character offsets, and ids back to text, comes out.

Three kinds stand behind the one `Tokenizer` protocol: SentencePiece models (T5, Llama, and what
`train` makes), Marian's pair of them, and the pipelines of the `tokenizers` library (WordPiece,
byte-level BPE, any tokenizer.json). None adds a special token, and in none does "</s>" in a text
become one.

Offsets are what question answering, entities and loss masks stand on: `text[start:end]` is what a
token covers. Starts and ends never decrease. An empty span is a token without text of its own,
such as the space that SentencePiece puts before the first word; the tokens that share one
character (bytes of an emoji, parts of an expanded ligature) all carry that character's span.
"""

import pathlib
from typing import Any

from t5tasks.data import tokenizer_folder, vocabulary_files
from t5tasks.data.marian_tokenizer import MarianTokenizer
from t5tasks.data.pipeline_tokenizer import PipelineTokenizer
from t5tasks.data.sentencepiece_tokenizer import SentencePieceTokenizer
from t5tasks.data.tokenizer_interface import Encoding, Tokenizer
from t5tasks.data.tokenizer_training import train

__all__ = ["Encoding", "MarianTokenizer", "PipelineTokenizer", "SentencePieceTokenizer", "Tokenizer", "load", "train"]


def load(path: str | pathlib.Path) -> Tokenizer:
    """Returns the tokenizer of a folder (tokenizer.json first) or of one of its files.

    Raises ValueError for no file, no known file, or a file that is not what its name says.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise ValueError(f"no tokenizer at {path}: there is no such file or folder")
    path = tokenizer_folder.find(path) if path.is_dir() else path
    settings = tokenizer_folder.settings(path.parent)
    tokenizer_folder.check_class(path, settings)
    content = tokenizer_folder.content(path)
    try:
        return _read(path, content, settings)
    except Exception as error:  # `tokenizers` raises no narrower class
        kind = "SentencePiece model" if path.suffix == ".model" else "tokenizer"
        line = " ".join(str(error).split())
        raise ValueError(f"{path} is no {kind} that can be read: {line}") from error


def _read(path: pathlib.Path, content: bytes, settings: dict[str, Any]) -> Tokenizer:
    if path.name in tokenizer_folder.MARIAN_FILES[:2]:
        source, target, numbers = (tokenizer_folder.content(path.parent / name)
                                   for name in tokenizer_folder.MARIAN_FILES)
        return MarianTokenizer((source, target), numbers, settings)
    if path.name == "vocab.txt":
        pieces = vocabulary_files.pieces(content.decode("utf-8"))
        settings = {"do_lower_case": vocabulary_files.is_lower_case(pieces)} | settings
        return PipelineTokenizer(vocabulary_files.word_piece(pieces, settings), settings)
    for pair in tokenizer_folder.BYTE_LEVEL_FILES:
        if path.name in pair:
            vocabulary, merges = (path.parent / name for name in pair)
            for each in (vocabulary, merges):
                tokenizer_folder.content(each)
            return PipelineTokenizer(vocabulary_files.byte_level(vocabulary, merges, settings), settings)
    if path.suffix == ".json":
        return PipelineTokenizer(content.decode("utf-8"), settings)
    if path.name == "sentencepiece.bpe.model":
        settings = {"tokenizer_class": "XLMRobertaTokenizer"} | settings
    return SentencePieceTokenizer(content, settings)
