# SPDX-License-Identifier: Apache-2.0
"""A task and a form come in, a small config of them out; an explanation comes in, its text and its tokens out."""

from __future__ import annotations

import io
import json
import pathlib

import ml_collections
from rich.console import Console

from t5tasks import explanation
from t5tasks.configuration import defaults
from t5tasks.explanation import Explanation, Token

RECORDS = "builtin:train?size=200"


def config_of(task: str, architecture: str, tokenizer_path: str = "", **batch: int) -> ml_collections.ConfigDict:
    config = defaults(task)
    config.architecture = architecture
    config.data.train = RECORDS
    config.tokenizer.size = 330
    config.tokenizer.path = tokenizer_path
    config.batch.update(size=8, evaluation_size=8, **batch)
    return config


def written(records: list[dict], folder: pathlib.Path) -> str:
    path = folder / "records.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return f"file:{path}"


def plain_text(found: Explanation, width: int = 200, **settings: bool) -> str:
    output = io.StringIO()
    explanation.show(found, Console(file=output, width=width, highlight=False, **settings))
    return output.getvalue()


def all_tokens(found: Explanation) -> list[Token]:
    return [token for view in found.views for sequence in view.sequences
            for document in sequence.documents for token in document.tokens]
