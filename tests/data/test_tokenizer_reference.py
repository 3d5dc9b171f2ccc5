# SPDX-License-Identifier: Apache-2.0
"""Ids and offsets of every kind of tokenizer folder, against what the reference made of the same files.

make_tokenizer_fixtures.py says where the expected values are from.
"""

import json
import lzma
import pathlib
import pickle
import shutil

import pytest
import tokenizers as tokenizers_library
from tokenizer_folders import FIXTURES, POOL, build, names
from tokenizers import processors

from t5tasks import tasks
from t5tasks.data import tokenizer as tokenizers
from t5tasks.data.features import Example, Piece, beginning, features, graded, tokenise
from t5tasks.data.tokenizer import Encoding, Tokenizer

TEXTS = json.loads((FIXTURES / "texts.json").read_text(encoding="utf-8"))
ALL = [*TEXTS["ordinary"], *TEXTS["markers"]]
MODELS = [name for name in names() if name.endswith("_model")]
PIPELINES = [name for name in names() if not name.endswith("_model") and name != "marian"]


@pytest.fixture(scope="module")
def expected() -> dict:
    return json.loads(lzma.decompress((FIXTURES / "expected.json.xz").read_bytes()))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Every fixture's tokenizer, by name, made when it is asked for."""
    made: dict[str, Tokenizer] = {}

    def get(name: str) -> Tokenizer:
        if name not in made:
            made[name] = tokenizers.load(build(name, tmp_path_factory.mktemp(name)))
        return made[name]

    return get


def _reserved(tokenizer: Tokenizer) -> set[int]:
    return set(tokenizer.control.values())


@pytest.mark.parametrize("name", PIPELINES)
def test_ids_and_offsets_are_the_reference_s(name, loaded, expected):
    tokenizer, count = loaded(name), 0
    for text, ids, offsets in zip(ALL, expected[name]["ids"], expected[name]["offsets"], strict=True):
        found = tokenizer.encode(text)
        if text in TEXTS["markers"] and not _reserved(tokenizer).isdisjoint(ids):
            # Here the reference lets text make a special token: its Unigram finds "</s>" among its pieces.
            assert _reserved(tokenizer).isdisjoint(found.ids), text
            continue
        count += 1
        assert found.ids == ids, text
        assert [list(span) for span in found.offsets] == offsets, text
    assert count >= len(ALL) - 5


@pytest.mark.parametrize("name", MODELS)
def test_a_sentencepiece_model_has_the_library_s_ids(name, loaded, expected):
    tokenizer, count = loaded(name), 0
    for text, ids in zip(ALL, expected[name]["ids"], strict=True):
        if any(word in text for word in ("plain words", "<mask>", "<start_of_turn>")):
            continue  # added words, and Gemma's marks: tests of their own
        count += 1
        assert tokenizer.encode(text).ids == ids, text
    assert count >= len(ALL) - 4


@pytest.mark.parametrize("name", names())
def test_sizes_and_special_ids_are_the_reference_s(name, loaded, expected):
    tokenizer = loaded(name)
    assert tokenizer.vocabulary_size == expected[name]["size"]
    for role, id in expected[name]["special"].items():
        assert tokenizer.special[role] == id, role


@pytest.mark.parametrize("name", names())
def test_no_text_makes_a_special_token_and_none_is_lost(name, loaded):
    """The text of every special token is spelled in other pieces; an unknown token is no way out."""
    tokenizer = loaded(name)
    assert tokenizer.control
    unknown = tokenizer.encode("\u0378").ids[-1:]  # a character that no vocabulary has
    for text, id in tokenizer.control.items():
        for whole in (text, f"a {text} b", f"a{text}{text}", text[1:] + text):
            found = tokenizer.encode(whole)
            assert id not in found.ids and _reserved(tokenizer).isdisjoint(found.ids), whole
            assert len(found.ids) > 1
        if name.startswith(("t5", "mt5", "xlmr")):
            letters = [tokenizer.encode(letter).ids[-1:] for letter in text]
            if unknown not in letters:
                assert unknown[0] not in tokenizer.encode(text).ids, text


@pytest.mark.parametrize("name", names())
def test_saving_and_pickling_change_nothing(name, loaded, tmp_path):
    tokenizer = loaded(name)
    tokenizer.save(tmp_path)
    for copy in (tokenizers.load(tmp_path), pickle.loads(pickle.dumps(tokenizer))):
        assert (copy.fingerprint, copy.special, copy.vocabulary_size) == (
            tokenizer.fingerprint, tokenizer.special, tokenizer.vocabulary_size)
        assert copy.control == tokenizer.control and list(copy.words) == list(tokenizer.words)
        for text in ALL[:60]:
            assert copy.encode(text) == tokenizer.encode(text)


@pytest.mark.parametrize("name", [name for name in PIPELINES if name.startswith(("llama", "mistral", "gpt2", "gemma"))])
def test_after_a_beginning_a_text_is_what_the_reference_makes_of_it(name, loaded, expected):
    tokenizer = loaded(name)
    for text, ids in zip(TEXTS["ordinary"], expected[name]["ids"], strict=False):
        found = tokenise([beginning("prompt"), Piece(text[:2], "prompt"), Piece(text[2:], "question")], tokenizer)
        assert found.ids.tolist() == [tokenizer.special["bos"], *ids], text


@pytest.mark.parametrize("name", names())
def test_parts_are_encoded_beside_each_other(name, loaded):
    tokenizer = loaded(name)
    mark = next(iter(tokenizer.control.values()))
    parts = [mark, "Hello world", mark, mark, "", "of the", " fox 😀", mark]
    found = tokenizer.encode_parts(parts)
    assert len(found) == len(parts)
    for part, encoding in zip(parts, found, strict=True):
        if part == mark:
            assert encoding == Encoding([mark], [(0, 0)])
            continue
        assert _reserved(tokenizer).isdisjoint(encoding.ids)
        assert all(0 <= start <= end <= len(part) for start, end in encoding.offsets)
        assert {index for start, end in encoding.offsets for index in range(start, end)} >= {
            index for index, sign in enumerate(part) if not sign.isspace()}
    assert found[4].ids in ([], tokenizer.encode("").ids)
    assert tokenizer.encode_parts([]) == []
    assert tokenizer.encode_parts(["Hello  world "]) == [tokenizer.encode("Hello  world ")]


@pytest.mark.parametrize(("model", "pipeline"), [("llama_model", "llama_legacy"), ("gemma_model", "gemma")])
def test_a_model_has_the_offsets_of_its_pipeline(model, pipeline, loaded):
    """But for the space before the first word, which covers nothing in one and that word's first sign in the other."""
    compared = 0
    for text in ALL:
        if any(mark in text for mark in ("<mask>", "<start_of_turn>")):
            continue
        found, other = loaded(model).encode(text), loaded(pipeline).encode(text)
        assert found.ids == other.ids, text
        first = 1 if found.offsets and found.offsets[0] == (0, 0) else 0
        assert found.offsets[first:] == other.offsets[first:], text
        compared += 1
    assert compared >= len(ALL) - 3


@pytest.mark.parametrize(("model", "pipeline"), [("t5_model", "t5"), ("xlmr_model", "xlmr")])
def test_a_model_and_its_pipeline_agree_on_words(model, pipeline, loaded):
    """Their tables of characters work otherwise on stray marks and separators, where the model is right."""
    for text in ("Hello world", "the quick brown fox doesn't care (yet), 12.5 %", "größeren Äpfel à Noël", "ﬁne ½ ①",
                 "今日は天気", "Привет мир", "def add(a, b): return a", "  two  spaces\tand tabs\n"):
        found, other = loaded(model).encode(text), loaded(pipeline).encode(text)
        assert found.ids == other.ids
        words = [[text[start:end].strip() for id, (start, end) in zip(each.ids, each.offsets, strict=True)
                  if loaded(model).piece(id) != "▁"] for each in (found, other)]
        assert words[0] == words[1]


def test_xlm_r_numbers_its_pieces_as_fairseq_does(loaded):
    xlmr = loaded("xlmr_model")
    assert [xlmr.piece(id) for id in range(4)] == ["<s>", "<pad>", "</s>", "<unk>"]
    assert xlmr.piece(xlmr.vocabulary_size - 1) == "<mask>"
    assert xlmr.special == {"bos": 0, "cls": 0, "pad": 1, "eos": 2, "sep": 2, "unk": 3, "mask": 401}
    assert xlmr.decode([0, *xlmr.encode("the quick fox").ids, 2, 1, 401]) == "the quick fox"


def test_marian_s_sides_are_spelled_by_their_own_models(loaded, expected):
    marian = loaded("marian")
    assert [marian.source.encode(text).ids for text in ALL] == expected["marian"]["ids"]
    assert [marian.encode(text).ids for text in ALL] == expected["marian"]["target_ids"]
    assert expected["marian"]["ids"] != expected["marian"]["target_ids"]
    assert marian.source.source is marian.source and marian.source.special == marian.special
    text = ">>fra<< the quick fox"
    found = marian.source.encode(text)
    assert marian.piece(found.ids[0]) == ">>fra<<" and found.offsets[0] == (0, 7)
    assert "".join(text[start:end] for start, end in found.offsets).split() == [">>fra<<the", "quick", "fox"]
    assert marian.decode([*marian.encode("the quick fox").ids, 0]) == "the quick fox"


def test_marian_s_sides_meet_in_the_features(loaded):
    """The encoder's tokens are the source side's, the decoder's the target side's."""
    marian = loaded("marian")
    text = "überprüft natürlich die größeren Äpfel"
    assert marian.encode(text).ids != marian.source.encode(text).ids
    arrays, _, _ = features(Example((Piece(text, "target"),), (Piece(text, "source"),)), marian, graded("target"), 99)
    assert list(arrays["source_tokens"]) == marian.source.encode(text).ids
    assert list(arrays["targets"]) == marian.encode(text).ids
    assert arrays["tokens"][0] == marian.special["pad"]


def test_marian_with_two_vocabularies_is_refused(tmp_path):
    folder = build("marian", tmp_path)
    (folder / "tokenizer_config.json").write_text(json.dumps({"separate_vocabs": True}))
    with pytest.raises(ValueError, match=r"a vocabulary for each language \(separate_vocabs\)"):
        tokenizers.load(folder)


def test_t5_s_extra_ids_come_after_its_pieces_in_falling_order(loaded):
    t5 = loaded("t5_model")
    assert [t5.piece(400 + index) for index in range(4)] == [f"<extra_id_{3 - index}>" for index in range(4)]
    assert t5.control["<extra_id_0>"] == 403
    assert loaded("mt5_model").vocabulary_size == 400


def test_added_words_are_one_token_wherever_they_stand(loaded):
    for name, id in (("llama_added_model", 762), ("gpt2_added", 483)):
        tokenizer = loaded(name)
        text = "more plain words, and plain wordsplain words"
        found = tokenizer.encode(text)
        spans = [span for token, span in zip(found.ids, found.offsets, strict=True) if token == id]
        assert [text[start:end] for start, end in spans] == ["plain words"] * 3
        assert tokenizer.decode(found.ids) == text
        assert list(tokenizer.words) == ["plain words"]


def test_gemma_s_marks_of_a_turn_are_no_words(loaded):
    gemma = loaded("gemma_model")
    assert {"<start_of_turn>", "<end_of_turn>", "<mask>"} <= gemma.control.keys()
    assert "\n\n" in gemma.words
    text = "<start_of_turn>user\n\n<mask>"
    assert gemma.decode(gemma.encode(text).ids) == text


def test_a_named_token_that_no_file_numbers_gets_the_next_number(tmp_path, loaded):
    for name, size in (("bert", 600), ("llama_model", 760)):
        folder = build(name, tmp_path / name)
        settings = {"tokenizer_class": loaded(name).settings["tokenizer_class"], "pad_token": "<|fill|>",
                    "additional_special_tokens": ["<|one|>", {"content": "<|two|>"}]}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        tokenizer = tokenizers.load(folder)
        assert tokenizer.special["pad"] == size and tokenizer.vocabulary_size == size + 3
        assert [tokenizer.piece(size + index) for index in range(3)] == ["<|fill|>", "<|one|>", "<|two|>"]


def test_a_piece_can_be_renamed(tmp_path):
    """Models keep pieces free for tokens to come, which a folder then names."""
    folder = build("llama_model", tmp_path)
    tokens = {"750": {"content": "<|im_start|>", "special": True}, "751": {"content": "new word", "special": False}}
    settings = {"tokenizer_class": "LlamaTokenizer", "added_tokens_decoder": tokens}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    llama = tokenizers.load(folder)
    assert llama.vocabulary_size == 760
    assert llama.control["<|im_start|>"] == 750 and llama.piece(750) == "<|im_start|>"
    found = llama.encode("a new word <|im_start|>")
    assert 751 in found.ids and 750 not in found.ids
    assert llama.decode(found.ids) == "a new word <|im_start|>"


def test_a_pad_token_that_is_a_word_stays_a_word(tmp_path):
    """Some CLIP folders pad with "!"; a text may still shout."""
    folder = build("clip", tmp_path)
    (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": "!"}))
    clip = tokenizers.load(folder)
    assert clip.special["pad"] == clip.encode("!").ids[0] or clip.piece(clip.special["pad"]) == "!"
    assert clip.decode(clip.encode("stop!").ids) == "stop !"


def test_tokenizer_config_decides_over_tokenizer_json_as_its_class_does(tmp_path):
    """BERT's case and GPT-2's leading space: classes that set them anew; general ones take the file as it is."""
    for kind, lower in (("BertTokenizerFast", False), ("PreTrainedTokenizerFast", True)):
        folder = build("bert_json", tmp_path / kind)
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind, "do_lower_case": False}))
        assert (tokenizers.load(folder).encode("THE").ids == tokenizers.load(folder).encode("the").ids) is lower
    build("gpt2", tmp_path / "gpt2")
    tokenizers.load(tmp_path / "gpt2").save(tmp_path / "saved")
    settings = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    (tmp_path / "saved" / "tokenizer_config.json").write_text(json.dumps(settings | {"add_prefix_space": True}))
    spaced = tokenizers.load(tmp_path / "saved")
    assert spaced.encode("the").ids == tokenizers.load(tmp_path / "gpt2").encode(" the").ids


def test_added_tokens_json_does_not_contradict_a_pipeline(tmp_path):
    folder = build("gpt2_added", tmp_path)
    (folder / "added_tokens.json").write_text(json.dumps({"plain words": 900}))
    with pytest.raises(ValueError, match=r"added token 'plain words' has the number 482, but .* says 900"):
        tokenizers.load(folder)


@pytest.mark.parametrize(("file", "content", "message"), [
    ("source.spm", b"x", "only source.spm: Marian needs source.spm, target.spm and vocab.json together"),
    ("tekken.json", b"{}", "Mistral's own format is not read; in transformers"),
    ("qwen.tiktoken", b"IQ== 0\n", "tiktoken's format is not read"),
    ("tokenizer.pkl", b"\x80\x04", "a pickle can run code and is never opened"),
    ("bpe.codes", b"a b 1", "written in Python only"),
    ("vocab.json", b"{}", "no merges.txt beside it"),
    ("tokenizer.model", b"IQ== 0\nIg== 1\n", "is a tiktoken table, not a SentencePiece model"),
    ("sentencepiece.bpe.model", b"\x00\x01", "no SentencePiece model that can be read")])
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path, file, content, message):
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        tokenizers.load(tmp_path)
    assert "\n" not in str(caught.value) and file in str(caught.value)


@pytest.mark.parametrize(("fixture", "settings", "message"), [
    ("bert", {"tokenizer_class": "BertJapaneseTokenizer"}, "belongs to a BertJapaneseTokenizer, whose rules are not"),
    ("gpt2", {"tokenizer_class": "CTRLTokenizer"}, "belongs to a CTRLTokenizer"),
    ("xlmr_model", {"tokenizer_class": "CamembertTokenizer"}, "belongs to a CamembertTokenizer"),
    ("llama_model", {"auto_map": {"AutoTokenizer": ["mine.Mine", None]}}, r"written in Python \(auto_map\), which is"),
])
def test_rules_that_are_python_code_are_refused_in_one_line(tmp_path, fixture, settings, message):
    folder = build(fixture, tmp_path)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=message) as caught:
        tokenizers.load(folder)
    assert "save_pretrained" in str(caught.value) and "\n" not in str(caught.value)


def test_a_model_that_is_not_xlm_r_s_is_not_numbered_as_one(tmp_path):
    build("t5_model", tmp_path)
    shutil.move(tmp_path / "spiece.model", tmp_path / "sentencepiece.bpe.model")
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"its first pieces are .*: XLM-R's are <unk>, <s> and </s>"):
        tokenizers.load(tmp_path)


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"])
@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\n", b"<html></html>", b"[1", b"3"])
def test_json_that_is_none_names_its_file(tmp_path, file, content):
    build("bert_bare", tmp_path)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match=file):
        tokenizers.load(tmp_path)


def test_the_fixtures_stay_small():
    files = [path for path in pathlib.Path(FIXTURES).rglob("*") if path.is_file()]
    assert POOL.is_dir() and sum(path.stat().st_size for path in files) < 500_000


# What transformers 5.23 makes of the pair ("We walk.", "They ran home.") in these folders.
PAIRS = {
    "bert": [3, 56, 200, 482, 201, 282, 15, 4, 315, 232, 590, 41, 428, 15, 4],
    "roberta": [0, 58, 72, 266, 68, 79, 78, 17, 2, 2, 55, 261, 92, 224, 85, 274, 224, 75, 445, 17, 2],
    "roberta_prefix": [0, 224, 58, 72, 266, 68, 79, 78, 17, 2, 2, 474, 261, 92, 224, 85, 274, 224, 75, 445, 17, 2],
    "xlmr_model": [0, 368, 16, 73, 25, 14, 100, 6, 2, 2, 208, 54, 8, 4, 225, 203, 155, 16, 6, 2],
}
RECORDS = {"nli": {"premise": "We walk.", "hypothesis": "They ran home."},
           "extractive_qa": {"question": "We walk.", "context": "They ran home."}}


@pytest.mark.parametrize("task", RECORDS)
@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_has_the_reference_s_separators(name, task, loaded):
    form = tasks.get(task).form("encoder")
    made = form.preprocess(RECORDS[task], tasks.get(task).options)
    assert tokenise(made.pieces, loaded(name)).ids.tolist() == PAIRS[name]


@pytest.mark.parametrize(("step", "count"), [
    (processors.RobertaProcessing(("</s>", 2), ("<s>", 0)), 2),
    (processors.BertProcessing(("</s>", 2), ("<s>", 0)), 1),
    (processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> </s> $B </s>", [("<s>", 0), ("</s>", 2)]), 2),
    (processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 2)]), 1),
    (processors.TemplateProcessing("$A", "$A $B", []), 1),
])
def test_a_pipeline_says_how_many_separators_a_pair_has(step, count, tmp_path):
    folder = build("xlmr", tmp_path / "xlmr")
    pipeline = tokenizers_library.Tokenizer.from_file(str(folder / "tokenizer.json"))
    pipeline.post_processor = step
    pipeline.save(str(folder / "tokenizer.json"))
    found = tokenizers.load(folder)
    assert found.separators == count == pickle.loads(pickle.dumps(found)).separators
    found.save(tmp_path / "saved")
    assert tokenizers.load(tmp_path / "saved").separators == count
