# SPDX-License-Identifier: Apache-2.0
"""Texts come in; a SentencePiece model trained on them goes out."""

import io
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence

import sentencepiece

from t5tasks.data.sentencepiece_tokenizer import SentencePieceTokenizer
from t5tasks.data.tokenizer_interface import Tokenizer

# The trainer skips a sentence above its limit of 4,192 bytes; a character takes at most 4.
LONGEST_TRAINING_TEXT = 1000


def train(texts: Iterable[str], size: int, folder: str | pathlib.Path, kind: str = "unigram",
          control: Sequence[str] = ()) -> Tokenizer:
    """Trains a SentencePiece model on the texts, saves it in the folder and returns it.

    Pad is 0, eos 1, unk 2, bos 3; what the texts do not spell is spelled in bytes, and nothing
    is normalised, so `decode(encode(text).ids) == text` for every text without U+2581, line
    breaks and indentation included. The same texts give the same model: one thread, no sampling.

    Args:
      texts: the corpus, held in memory while it trains.
      size: the exact number of pieces.
      folder: where spiece.model and tokenizer_config.json go.
      kind: "unigram" (T5) or "bpe" (Llama).
      control: tokens that no text can spell, placed by id alone (`Tokenizer.control`).

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
            control_symbols=list(control),
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
