# SPDX-License-Identifier: Apache-2.0
"""The name of a fixture comes in; the folder of that tokenizer, as a model's folder would hold it, goes out."""

import base64
import json
import lzma
import pathlib
import shutil

from sentencepiece import sentencepiece_model_pb2

FIXTURES = pathlib.Path(__file__).parent / "fixtures" / "tokenizers"
POOL = FIXTURES / "pool"


def names() -> list[str]:
    """Every folder that there is."""
    return list(json.loads((FIXTURES / "folders.json").read_text(encoding="utf-8")))


def build(name: str, folder: pathlib.Path) -> pathlib.Path:
    """Puts the files of a tokenizer into the folder, and returns the folder."""
    described = json.loads((FIXTURES / "folders.json").read_text(encoding="utf-8"))[name]
    folder.mkdir(parents=True, exist_ok=True)
    for there, here in described["files"].items():
        shutil.copy(POOL / here, folder / there)
        if here in ("t5.model", "xlmr.model"):
            model = sentencepiece_model_pb2.ModelProto.FromString((POOL / here).read_bytes())
            model.normalizer_spec.precompiled_charsmap = _table()
            (folder / there).write_bytes(model.SerializeToString())
        if here in ("t5.tokenizer.json", "xlmr.tokenizer.json"):
            pipeline = json.loads((POOL / here).read_text(encoding="utf-8"))
            pipeline["normalizer"]["precompiled_charsmap"] = base64.b64encode(_table()).decode()
            (folder / there).write_text(json.dumps(pipeline), encoding="utf-8")
    for there, content in described["json"].items():
        (folder / there).write_text(json.dumps(content), encoding="utf-8")
    return folder


def _table() -> bytes:
    """SentencePiece's table of characters (nmt_nfkc), which several models share."""
    return lzma.decompress((POOL / "charsmap.xz").read_bytes())
