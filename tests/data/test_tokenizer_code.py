# SPDX-License-Identifier: Apache-2.0
"""A thousand files of Python code go through byte-level tokenizers and come back byte for byte."""

import pathlib
import random
import sysconfig

import pytest
from tokenizer_folders import build

from t5tasks.data import tokenizer as tokenizers

COUNT, LONGEST = 1000, 3000  # files; bytes of each that are read


def _sources() -> list[bytes]:
    """The same files on every run of the same Python: of its library and of what is installed."""
    folders = {sysconfig.get_path(name) for name in ("stdlib", "purelib")}
    paths = sorted({path for folder in folders for path in pathlib.Path(folder).rglob("*.py")})
    random.Random(0).shuffle(paths)
    found: list[bytes] = []
    for path in paths:
        try:
            content = path.read_bytes()
            content[:LONGEST].decode("utf-8")
        except (OSError, UnicodeDecodeError):  # unreadable, cut within a character, or in another encoding
            continue
        if content:
            found.append(content[:LONGEST])
        if len(found) == COUNT:
            break
    return found


@pytest.mark.parametrize("name", ["gpt2", "llama3"])
def test_code_comes_back_byte_for_byte(name, tmp_path):
    tokenizer = tokenizers.load(build(name, tmp_path))
    sources = _sources()
    assert len(sources) == COUNT
    assert sum(map(len, sources)) > 1_000_000
    for source in sources:
        text = source.decode("utf-8")
        ids = tokenizer.encode(text).ids
        assert tokenizer.decode(ids).encode("utf-8") == source
        assert set(tokenizer.control.values()).isdisjoint(ids)
