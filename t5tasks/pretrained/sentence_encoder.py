# SPDX-License-Identifier: Apache-2.0
"""A sentence-transformers folder in, what its files say about making one vector of a text out."""

import dataclasses
import json
import pathlib
from typing import Any

MODES = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first"}  # theirs → ours


@dataclasses.dataclass(frozen=True)
class SentenceSettings:
    """How a folder's model is meant to be used; what its files do not say is None."""

    pooling: str | None = None
    length: int | None = None  # tokens at most
    unit: bool | None = None  # whether vectors are scaled to length 1


def read(folder: pathlib.Path) -> SentenceSettings:
    """Reads modules.json, the pooling module's config.json and sentence_bert_config.json, where they are.

    Raises:
      ValueError: a way of pooling that is not known here.
    """
    modules = {str(module.get("type", "")).rpartition(".")[2]: module.get("path", "")
               for module in _json(folder / "modules.json", [])}
    if not modules:
        return SentenceSettings()
    length = _json(folder / "sentence_bert_config.json", {}).get("max_seq_length")
    if unknown := modules.keys() - {"Transformer", "Pooling", "Normalize"}:
        raise ValueError(f"{folder} makes its vectors with {', '.join(sorted(unknown))}, which is not known here; "
                         "use an encoder with Transformer, Pooling and Normalize alone")
    pooling = _json(folder / modules.get("Pooling", "") / "config.json", {}) if "Pooling" in modules else {}
    modes = [name for name, on in pooling.items() if name.startswith("pooling_mode_") and on is True]
    if len(modes) > 1 or set(modes) - MODES.keys():
        raise ValueError(f"{folder} pools by {', '.join(modes)}; known: one of {', '.join(MODES)}")
    return SentenceSettings(MODES[modes[0]] if modes else None, length, "Normalize" in modules)


def _json(path: pathlib.Path, absent: Any) -> Any:
    return json.loads(path.read_text("utf-8")) if path.is_file() else absent
