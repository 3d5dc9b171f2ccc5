# SPDX-License-Identifier: Apache-2.0
"""A folder comes in; the tokenizer file to read and what the folder's JSON says of it go out.

Of what the JSON files say, the one dict that a tokenizer reads is made as transformers 5 makes it:
tokenizer_config.json; special_tokens_map.json and added_tokens.json only where it lists no added
tokens itself; the class from config.json where it names none; the files of chat templates.
"""

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from t5tasks.data.downloads import refuse_leftovers
from t5tasks.data.tokenizer_interface import SETTINGS_FILE, named_special, tokenizer_class

SENTENCEPIECE_FILES = ("spiece.model", "tokenizer.model", "sentencepiece.model", "sentencepiece.bpe.model")
BYTE_LEVEL_FILES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
MARIAN_FILES = ("source.spm", "target.spm", "vocab.json")
TEMPLATE_FILE, TEMPLATE_FOLDER = "chat_template.jinja", "additional_chat_templates"

# The class of a config.json's model_type, for folders whose JSON names no class.
MODEL_CLASSES = {
    "bert": "BertTokenizer",
    "distilbert": "DistilBertTokenizer",
    "electra": "ElectraTokenizer",
    "roberta": "RobertaTokenizer",
    "bart": "BartTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "t5": "T5Tokenizer",
    "mt5": "T5Tokenizer",
    "umt5": "T5Tokenizer",
    "gpt2": "GPT2Tokenizer",
    "gpt_neox": "GPTNeoXTokenizer",
    "qwen2": "Qwen2Tokenizer",
    "qwen3": "Qwen2Tokenizer",
    "clip": "CLIPTokenizer",
    "marian": "MarianTokenizer",
    "llama": "LlamaTokenizer",
    "gemma": "GemmaTokenizer",
    "gemma2": "GemmaTokenizer",
    "gemma3_text": "GemmaTokenizer",
}

# Which classes a bare vocabulary may belong to: it does not say itself how a text is cut.
READABLE = {
    "vocab.txt": ("", "BertTokenizer"),
    "vocab.json": ("", "GPT2Tokenizer", "RobertaTokenizer", "Qwen2Tokenizer", "GPTNeoXTokenizer", "CLIPTokenizer"),
    "encoder.json": ("", "GPT2Tokenizer"),
    "sentencepiece.bpe.model": ("", "XLMRobertaTokenizer"),
    "source.spm": ("", "MarianTokenizer"),
}

EXPORT = "in transformers, AutoTokenizer.from_pretrained(FOLDER).save_pretrained(NEW) writes a tokenizer.json"

# What else a folder may hold, and why it is not read.
PICKLE = "a pickle can run code and is never opened"
REFUSED = {
    "*.spm": "Marian needs source.spm, target.spm and vocab.json together",
    "tekken.json": f"Mistral's own format is not read; {EXPORT}",
    "*.tiktoken": f"tiktoken's format is not read; {EXPORT}",
    "tiktoken.model": f"tiktoken's format is not read; {EXPORT}",
    "tokenizer*.pkl": PICKLE,
    "tokenizer*.pickle": PICKLE,
    "tokenizer*.bin": PICKLE,
    "bpe.codes": "its class is written in Python only",
    "vocab.json": "there is no merges.txt beside it",
}


def find(folder: pathlib.Path) -> pathlib.Path:
    """The file that says most: a whole pipeline, then a model, then a bare vocabulary."""
    if all((folder / name).is_file() for name in MARIAN_FILES):
        return folder / MARIAN_FILES[0]
    pairs = [pair[0] for pair in BYTE_LEVEL_FILES if (folder / pair[1]).is_file()]
    for name in ("tokenizer.json", *SENTENCEPIECE_FILES, "vocab.txt", *pairs):
        if (folder / name).is_file():
            return folder / name
    # The pieces of a *.bpe.model are numbered otherwise by the models that use one.
    others = [p for p in sorted(folder.glob("*.model")) if not p.name.endswith((".bpe.model", "tiktoken.model"))]
    if len(others) == 1:
        return others[0]
    for pattern in REFUSED:
        if any(folder.glob(pattern)):
            raise ValueError(_refusal(folder, pattern))
    told = [" + ".join(pair) for pair in BYTE_LEVEL_FILES]
    wanted = ["tokenizer.json", *SENTENCEPIECE_FILES, "one other *.model", "vocab.txt", *told]
    raise ValueError(f"no tokenizer in {folder}: looked for {', '.join(wanted)}")


def _refusal(folder: pathlib.Path, pattern: str) -> str:
    name = min(path.name for path in folder.glob(pattern))
    return f"no tokenizer in {folder} that can be read, only {name}: {REFUSED[pattern]}"


def check_class(path: pathlib.Path, settings: Mapping[str, Any]) -> None:
    """Raises ValueError where only code that is not ours knows how the file is read."""
    if path.name == "tokenizer.json":
        return
    if "AutoTokenizer" in str(settings.get("auto_map") or ""):
        raise ValueError(f"{path.parent} has a tokenizer written in Python (auto_map), which is never run; {EXPORT}")
    kind = tokenizer_class(settings)
    if kind not in READABLE.get(path.name, (kind,)):
        raise ValueError(f"{path} belongs to a {kind}, whose rules are not known here; {EXPORT}")


def content(path: pathlib.Path) -> bytes:
    """The bytes of the file, refused where a download left something else under its name."""
    refuse_leftovers(path, "a tokenizer")
    found = path.read_bytes()
    if path.suffix == ".model" and re.match(rb"[A-Za-z0-9+/]+=* \d+\r?\n", found):
        raise ValueError(f"{path} is a tiktoken table, not a SentencePiece model; {EXPORT}")
    return found


def settings(folder: pathlib.Path) -> dict[str, Any]:
    """What the folder's JSON files say about special and added tokens, as one dict."""
    merged = _object(folder / SETTINGS_FILE)
    if "added_tokens_decoder" not in merged:
        merged |= _object(folder / "special_tokens_map.json")
        special = named_special(merged)
        added = {str(id): {"content": text, "special": text in special, "normalized": text not in special}
                 for text, id in _object(folder / "added_tokens.json").items()}
        merged |= {"added_tokens_decoder": added} if added else {}
    if not merged.get("tokenizer_class"):
        config = _object(folder / "config.json")
        known = config.get("tokenizer_class") or MODEL_CLASSES.get(str(config.get("model_type")))
        merged |= {"tokenizer_class": known} if known else {}
    return merged | _templates(folder)


def _object(path: pathlib.Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(content(path)))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is no readable JSON object: {error}") from error


def _templates(folder: pathlib.Path) -> dict[str, Any]:
    """The chat templates that have files of their own: they stand for those of the JSON."""
    files = {"default": folder / TEMPLATE_FILE} if (folder / TEMPLATE_FILE).is_file() else {}
    files |= {path.stem: path for path in sorted((folder / TEMPLATE_FOLDER).glob("*.jinja"))}
    try:
        texts = {name: path.read_text(encoding="utf-8") for name, path in files.items()}
    except UnicodeDecodeError as error:
        raise ValueError(f"a chat template in {folder} is not UTF-8: {error}") from error
    if list(texts) == ["default"]:
        return {"chat_template": texts["default"]}
    return {"chat_template": [{"name": name, "template": text} for name, text in texts.items()]} if texts else {}
