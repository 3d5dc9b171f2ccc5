# SPDX-License-Identifier: Apache-2.0
"""Nothing comes in; tiny tokenizers of every kind and what the reference makes of texts and chats go out.

    python tests/data/make_tokenizer_fixtures.py

needs transformers, tokenizers and sentencepiece (tried with 5.23, 0.23.3 and 0.2.3); the tests need only what
this writes to tests/data/fixtures/tokenizers:

    pool/           the files of the tokenizers; what several share is there once
    folders.json    which of them make up which folder, with the folder's JSON files
    texts.json      the texts
    expected.json.xz   ids and offsets of each text in each folder
    chats.json      dialogues as the reference's chat templates write and encode them

The ids of a SentencePiece model are those of the sentencepiece library: where transformers converts such a file,
it differs from it on some texts.
"""

import json
import logging
import lzma
import os
import pathlib
import shutil
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"

import sentencepiece
import tokenizers
import transformers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from tokenizer_corpus import (
    CHATML,
    CHATML_GENERATION,
    CORPUS,
    DIALOGUES,
    GEMMA,
    LLAMA_2,
    LLAMA_3,
    MARKERS,
    MISTRAL,
    PHI_3,
    PLAIN,
    THINKING,
    TRICKY,
    mixed_texts,
)
from tokenizer_folders import FIXTURES, POOL, build


def word_piece(lowercase: bool) -> tokenizers.Tokenizer:
    """BERT's kind."""
    made = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.train_from_iterator(CORPUS, trainers.WordPieceTrainer(
        vocab_size=600, limit_alphabet=300, show_progress=False,
        special_tokens=["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
    return made


def lines_of(vocabulary: dict[str, int]) -> str:
    """A vocab.txt."""
    return "".join(f"{piece}\n" for piece in sorted(vocabulary, key=vocabulary.get))


def byte_pieces() -> tuple[dict[str, int], list[list[str]]]:
    """GPT-2's kind, with RoBERTa's special tokens too: vocabulary and merges."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=480, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    model = json.loads(made.to_str())["model"]
    vocabulary = model["vocab"]
    vocabulary |= {"<|endoftext|>": len(vocabulary), "<mask>": len(vocabulary) + 1}
    return vocabulary, model["merges"]


def clip_pieces() -> tuple[dict[str, int], list[list[str]]]:
    """CLIP's kind, whose words end in </w>."""
    made = tokenizers.Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(tokenizers.Regex(r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=640, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False))
    merges = json.loads(made.to_str())["model"]["merges"]
    pieces = [*alphabet, *(sign + "</w>" for sign in alphabet), *("".join(pair) for pair in merges)]
    pieces = [*dict.fromkeys(pieces), "<|startoftext|>", "<|endoftext|>"]
    return {piece: id for id, piece in enumerate(pieces)}, merges


def sentence_pieces(name: str, **settings) -> sentencepiece_model_pb2.ModelProto:
    """Trains a model, writes it to the pool (its table of characters apart) and returns it."""
    path = pathlib.Path(tempfile.mkdtemp()) / "model"
    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS), model_writer=file, minloglevel=2, num_threads=1,
            hard_vocab_limit=False, character_coverage=1.0, **settings)
    model = sentencepiece_model_pb2.ModelProto.FromString(path.read_bytes())
    table = model.normalizer_spec.precompiled_charsmap
    if table:
        (POOL / "charsmap.xz").write_bytes(lzma.compress(table, preset=9))
    model.normalizer_spec.precompiled_charsmap = b""
    (POOL / f"{name}.model").write_bytes(model.SerializeToString())
    model.normalizer_spec.precompiled_charsmap = table
    return model


def llama_pipeline(model: sentencepiece_model_pb2.ModelProto, scheme: str) -> tokenizers.Tokenizer:
    """A BPE model of SentencePiece as a pipeline: legacy (normalizer), first (Metaspace) or gemma (no prefix)."""
    vocabulary = {piece.piece: id for id, piece in enumerate(model.pieces)}
    words = {piece.piece: piece.score for piece in model.pieces if piece.type == 1}
    merges = [(-score, piece[:cut], piece[cut:]) for piece, score in words.items()
              for cut in range(1, len(piece)) if piece[:cut] in words and piece[cut:] in words]
    merges.sort(key=lambda merge: (merge[0], vocabulary[merge[1]], vocabulary[merge[2]]))
    made = tokenizers.Tokenizer(models.BPE(
        vocabulary, [(left, right) for _, left, right in merges], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    space, strip = decoders.Replace("▁", " "), [decoders.Strip(" ", 1, 0)]
    if scheme == "legacy":
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    elif scheme == "first":
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        made.normalizer = normalizers.Replace(" ", "▁")
        made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        strip = []
    made.decoder = decoders.Sequence([space, decoders.ByteFallback(), decoders.Fuse(), *strip])
    turns = ("<start_of_turn>", "<end_of_turn>")
    made.add_tokens([
        tokenizers.AddedToken(piece.piece, normalized=False, special=piece.type != 4 or piece.piece in turns)
        for piece in model.pieces if piece.type in (2, 3, 4)])
    return made


def unigram_pipeline(model: sentencepiece_model_pb2.ModelProto, pieces: list, unknown: int) -> tokenizers.Tokenizer:
    """T5's and XLM-R's tokenizer.json."""
    made = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=unknown))
    made.normalizer = normalizers.Precompiled(model.normalizer_spec.precompiled_charsmap)
    made.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")])
    made.decoder = decoders.Metaspace(prepend_scheme="always")
    return made


def keep(name: str, pipeline: tokenizers.Tokenizer) -> None:
    """Writes a tokenizer.json to the pool, its table of characters apart."""
    found = json.loads(pipeline.to_str())
    if found["normalizer"] and "precompiled_charsmap" in found["normalizer"]:
        found["normalizer"]["precompiled_charsmap"] = ""
    (POOL / f"{name}.tokenizer.json").write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")


def make_pool() -> None:
    """Trains everything."""
    uncased, cased = word_piece(True), word_piece(False)
    (POOL / "uncased.vocab.txt").write_text(lines_of(uncased.get_vocab()), encoding="utf-8")
    (POOL / "cased.vocab.txt").write_text(lines_of(cased.get_vocab()), encoding="utf-8")
    keep("uncased", uncased)
    for name, (vocabulary, merges) in {"bytes": byte_pieces(), "clip": clip_pieces()}.items():
        (POOL / f"{name}.vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
        lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
        (POOL / f"{name}.merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    keep("llama3", llama_3_pipeline())
    t5 = sentence_pieces("t5", vocab_size=400, model_type="unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    xlmr = sentence_pieces("xlmr", vocab_size=400, model_type="unigram", unk_id=0, bos_id=1, eos_id=2)
    plain = {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity", "vocab_size": 760,
             "remove_extra_whitespaces": False, "allow_whitespace_only_pieces": True, "split_digits": True}
    llama = sentence_pieces("llama", **plain)
    gemma = sentence_pieces(
        "gemma", add_dummy_prefix=False, pad_id=0, eos_id=1, bos_id=2, unk_id=3, bos_piece="<bos>", eos_piece="<eos>",
        pad_piece="<pad>", user_defined_symbols=["<mask>", "<start_of_turn>", "<end_of_turn>", "\n\n"], **plain)
    for scheme in ("legacy", "first"):
        keep(f"llama_{scheme}", llama_pipeline(llama, scheme))
    keep("gemma", llama_pipeline(gemma, "gemma"))
    marian()
    extra = [(f"<extra_id_{index}>", 0.0) for index in reversed(range(4))]
    keep("t5", unigram_pipeline(t5, [*((piece.piece, piece.score) for piece in t5.pieces), *extra], 2))
    pieces = [(text, 0.0) for text in ("<s>", "<pad>", "</s>", "<unk>")]
    pieces += [(piece.piece, piece.score) for piece in xlmr.pieces[3:]]
    keep("xlmr", unigram_pipeline(xlmr, [*pieces, ("<mask>", 0.0)], 3))


def marian() -> None:
    """A model a language and the vocabulary of both, which lacks some pieces and has others besides."""
    pieces: dict[str, None] = dict.fromkeys(("</s>", "<unk>"))
    for side, size in (("source", 300), ("target", 360)):
        model = sentence_pieces(
            f"marian_{side}", vocab_size=size, model_type="unigram", normalization_rule_name="identity")
        pieces |= dict.fromkeys(piece.piece for index, piece in enumerate(model.pieces) if index > 2 and index % 9)
    texts = dict.fromkeys([*pieces, ">>fra<<", "今", "<pad>"])
    (POOL / "marian.vocab.json").write_text(
        json.dumps({text: id for id, text in enumerate(texts)}, ensure_ascii=False), encoding="utf-8")


def llama_3_pipeline() -> tokenizers.Tokenizer:
    """Byte-level BPE as Llama 3 has it: its own way to cut words, whole words looked up first."""
    vocabulary, merges = byte_pieces()
    vocabulary = {piece: id for id, piece in enumerate(
        piece for piece in sorted(vocabulary, key=vocabulary.get) if not (piece[0] == "<" and piece[-1] == ">"
                                                                        and len(piece) > 1))}
    made = tokenizers.Tokenizer(models.BPE(vocabulary, [tuple(pair) for pair in merges], ignore_merges=True))
    words = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
             r"|\s*[\r\n]+|\s+(?!\S)|\s+")
    made.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(tokenizers.Regex(words), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    made.post_processor = processors.ByteLevel(trim_offsets=True)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([tokenizers.AddedToken(text, normalized=False, special=True) for text in (
        "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")])
    return made


def added(first: int, *tokens: str, special: bool = True, **flags: bool) -> dict:
    """An added_tokens_decoder."""
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": special} | flags
    return {str(first + index): {"content": text, **plain} for index, text in enumerate(tokens)}


def write_folders() -> None:
    """Says which files and which JSON make up each folder."""
    size = len(json.loads((POOL / "bytes.vocab.json").read_text(encoding="utf-8")))
    llama = len(sentencepiece.SentencePieceProcessor(model_file=str(POOL / "llama.model")))
    bytes_ = {"vocab.json": "bytes.vocab.json", "merges.txt": "bytes.merges.txt"}
    cased, general = {"vocab.txt": "cased.vocab.txt"}, {"tokenizer_class": "PreTrainedTokenizerFast"}
    chat = added(size, "<|im_start|>", "<|im_end|>") | added(
        size + 2, "<think>", "</think>", "<tool_call>", "</tool_call>", special=False)
    qwen = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
            "bos_token": None, "added_tokens_decoder": chat}
    ends = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    phi = added(llama, "<|user|>", "<|assistant|>", "<|system|>", "<|end|>", rstrip=True)
    control = added(llama, "[INST]", "[/INST]")

    def folder(files: dict, settings: dict | None = None, model: str = "", **more: dict) -> dict:
        found = {"tokenizer_config.json": settings} if settings is not None else {}
        found |= {"config.json": {"model_type": model}} if model else {}
        return {"files": files, "json": found | {f"{name}.json": value for name, value in more.items()}}

    folders = {
        "bert": folder({"vocab.txt": "uncased.vocab.txt"}, {"do_lower_case": True}, "bert"),
        "bert_bare": folder({"vocab.txt": "uncased.vocab.txt"}, None, "bert"),
        "bert_cased": folder(cased, {"do_lower_case": False, "tokenizer_class": "BertTokenizer"}),
        "bert_strip": folder(cased, {"do_lower_case": False, "strip_accents": True}, "distilbert"),
        "bert_keep": folder(cased, {"do_lower_case": True, "strip_accents": False, "tokenize_chinese_chars": False},
                            "bert"),
        "bert_json": folder({"tokenizer.json": "uncased.tokenizer.json"}, general),
        "gpt2": folder(bytes_, {"tokenizer_class": "GPT2Tokenizer"}),
        "gpt2_prefix": folder(bytes_, {"add_prefix_space": True}, "gpt2"),
        "gpt2_added": folder(bytes_, {"tokenizer_class": "GPT2Tokenizer"}, "gpt2",
                             added_tokens={"<|im_end|>": size, "plain words": size + 1},
                             special_tokens_map={"eos_token": "<|im_end|>", "additional_special_tokens": ["<|more|>"]}),
        "roberta": folder(bytes_, None, "roberta"),
        "roberta_prefix": folder(bytes_, {"tokenizer_class": "BartTokenizer", "add_prefix_space": True}),
        "gpt_neox": folder(bytes_, {"pad_token": "<pad>"}, "gpt_neox"),
        "clip": folder({"vocab.json": "clip.vocab.json", "merges.txt": "clip.merges.txt"}, None, "clip"),
        "qwen2": folder(bytes_, qwen | {"chat_template": CHATML}),
        "qwen2_generation": folder(bytes_, qwen | {"chat_template": CHATML_GENERATION}),
        "qwen3": folder(bytes_, qwen | {"chat_template": THINKING}),
        "plain_chat": folder(bytes_, qwen | {"chat_template": PLAIN}),
        "llama3": folder({"tokenizer.json": "llama3.tokenizer.json"},
                         general | {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>",
                                    "chat_template": LLAMA_3}),
        "llama_legacy": folder({"tokenizer.json": "llama_legacy.tokenizer.json"},
                               general | ends | {"chat_template": LLAMA_2}),
        "llama_first": folder({"tokenizer.json": "llama_first.tokenizer.json"},
                              ends | {"tokenizer_class": "LlamaTokenizer", "chat_template": LLAMA_2}, "llama"),
        "mistral": folder({"tokenizer.json": "llama_first.tokenizer.json"},
                          general | ends | {"added_tokens_decoder": control, "chat_template": MISTRAL}),
        "phi3": folder({"tokenizer.json": "llama_legacy.tokenizer.json"},
                       general | ends | {"added_tokens_decoder": phi, "chat_template": PHI_3}),
        "gemma": folder({"tokenizer.json": "gemma.tokenizer.json"},
                        general | {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>",
                                   "unk_token": "<unk>", "chat_template": GEMMA}),
        "t5": folder({"tokenizer.json": "t5.tokenizer.json"},
                     general | {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>",
                                "additional_special_tokens": [f"<extra_id_{index}>" for index in range(4)]}),
        "xlmr": folder({"tokenizer.json": "xlmr.tokenizer.json"},
                       general | ends | {"pad_token": "<pad>", "mask_token": "<mask>", "cls_token": "<s>",
                                         "sep_token": "</s>"}),
        "t5_model": folder({"spiece.model": "t5.model"}, {"extra_ids": 4}, "t5"),
        "mt5_model": folder({"spiece.model": "t5.model"}, {"tokenizer_class": "T5Tokenizer", "extra_ids": 0}),
        "xlmr_model": folder({"sentencepiece.bpe.model": "xlmr.model"}, None, "xlm-roberta"),
        "gemma_model": folder({"tokenizer.model": "gemma.model"}, None, "gemma"),
        "llama_model": folder({"tokenizer.model": "llama.model"}, {"tokenizer_class": "LlamaTokenizer",
                                                                   "chat_template": LLAMA_2}),
        "llama_added_model": folder({"tokenizer.model": "llama.model"},
                                    ends | {"pad_token": "<pad>", "eos_token": "<|im_end|>",
                                            "tokenizer_class": "LlamaTokenizer"}, "",
                                    added_tokens={"<pad>": llama, "<|im_end|>": llama + 1, "plain words": llama + 2}),
    }
    folders["marian"] = folder(
        {"source.spm": "marian_source.model", "target.spm": "marian_target.model", "vocab.json": "marian.vocab.json"},
        {"source_lang": "eng", "target_lang": "fra"}, "marian")
    (FIXTURES / "folders.json").write_text(json.dumps(folders, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def reference(name: str, folder: pathlib.Path, texts: list[str]) -> tuple[dict, transformers.PreTrainedTokenizerBase]:
    """Ids and offsets, special tokens left as text, and the size and the special ids."""
    loaded = transformers.AutoTokenizer.from_pretrained(folder)
    found: dict = {"size": len(loaded), "ids": [], "offsets": [], "special": {
        name.removesuffix("_token"): loaded.convert_tokens_to_ids(text) for name, text in
        loaded.special_tokens_map.items()}}
    if name == "marian":  # written in Python: no offsets; its target side apart
        plain = {"add_special_tokens": False, "split_special_tokens": True}
        found["ids"] = [loaded(text, **plain)["input_ids"] for text in texts]
        found["target_ids"] = [loaded(text_target=text, **plain)["input_ids"] for text in texts]
        return found, loaded
    for text in texts:
        encoded = loaded(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
        found["ids"].append(encoded["input_ids"])
        found["offsets"].append([list(offset) for offset in encoded["offset_mapping"]])
    return found, loaded


def sentencepiece_ids(folder: pathlib.Path, texts: list[str]) -> list[list[int]]:
    """The ids of the library itself, in XLM-R's numbers where the folder is XLM-R's."""
    path = next(path for path in folder.iterdir() if path.suffix == ".model")
    model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    moved = {0: 3, 1: 0, 2: 2}
    if "bpe" in path.name:
        return [[moved.get(id, id + 1) for id in model.encode(text)] for text in texts]
    return [model.encode(text) for text in texts]


def chats(name: str, loaded: transformers.PreTrainedTokenizerBase) -> list[dict]:
    """What the reference writes and encodes for each dialogue; null where its template refuses."""
    found = []
    for turns in DIALOGUES:
        messages = [{"role": role, "content": text} for role, text in turns]
        for prompt in (False, True):
            entry: dict = {"folder": name, "turns": [{"role": role, "text": text} for role, text in turns],
                           "prompt": prompt, "text": None, "ids": None}
            try:
                entry["text"] = loaded.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
            except Exception as error:
                entry["refused"] = str(error)
            else:
                masks = "generation" in name
                encoded = loaded.apply_chat_template(
                    messages, add_generation_prompt=prompt, return_dict=True, return_assistant_tokens_mask=masks)
                entry["ids"] = encoded["input_ids"]
                if masks:
                    entry["mask"] = encoded["assistant_masks"]
            found.append(entry)
    return found


def main() -> None:
    logging.disable(logging.WARNING)
    shutil.rmtree(FIXTURES, ignore_errors=True)
    POOL.mkdir(parents=True)
    make_pool()
    write_folders()
    (FIXTURES / "texts.json").write_text(json.dumps(
        {"ordinary": TRICKY + mixed_texts(60), "markers": MARKERS}, indent=0), encoding="utf-8")
    texts = TRICKY + mixed_texts(60) + MARKERS
    expected, dialogues = {}, []
    for name in json.loads((FIXTURES / "folders.json").read_text(encoding="utf-8")):
        folder = build(name, pathlib.Path(tempfile.mkdtemp()))
        expected[name], loaded = reference(name, folder, texts)
        if name.endswith("_model"):
            expected[name]["ids"] = sentencepiece_ids(folder, texts)
            expected[name]["offsets"] = None
        if loaded.chat_template:
            dialogues += chats(name, loaded)
        print(name, type(loaded).__name__, expected[name]["size"])
    content = json.dumps(expected, separators=(",", ":")).encode()
    (FIXTURES / "expected.json.xz").write_bytes(lzma.compress(content, preset=9))
    (FIXTURES / "chats.json").write_text(json.dumps(dialogues, ensure_ascii=False) + "\n", encoding="utf-8")
    sizes = sum(path.stat().st_size for path in FIXTURES.rglob("*") if path.is_file())
    print(f"{sizes / 1000:.0f} KB, {len(texts)} texts, {len(expected)} folders, {len(dialogues)} chats")


if __name__ == "__main__":
    main()
