# SPDX-License-Identifier: Apache-2.0
"""Roles that tokens inherit, what is trimmed where an example is too long, and forged specials."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from t5tasks.data import tokenizer as tokenizers
from t5tasks.data.features import Example, Piece, Several, features, graded, prompt, special, start_id, tokenise
from t5tasks.data.tokenizer import Encoding, Tokenizer

TARGETS = graded("target")


class Words(Tokenizer):
    """A tokenizer by table: the docstring's words and their ids, joined without a gap."""

    vocabulary_size = 40
    special = {"pad": 0, "eos": 1, "unk": 2}  # noqa: RUF012
    fingerprint = "words"
    table = {"Review: ": 10, "great": 11, "\n": 12, "Sent": 20, "iment:": 21, " positive": 30}  # noqa: RUF012

    def encode(self, text):
        ids, offsets, at = [], [], 0
        while at < len(text):
            word = next(word for word in self.table if text.startswith(word, at))
            ids.append(self.table[word])
            offsets.append((at, at + len(word)))
            at += len(word)
        return Encoding(ids, offsets)


class Letters(Tokenizer):
    """Each character is a token, `a` is 10."""

    vocabulary_size = 200
    special = {"pad": 0, "eos": 1, "bos": 2, "cls": 3, "sep": 4}  # noqa: RUF012
    fingerprint = "letters"

    def encode(self, text):
        return Encoding([ord(letter) - 87 for letter in text], [(i, i + 1) for i in range(len(text))])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A SentencePiece model of a few English and German texts; other characters fall into bytes."""
    texts = ["Review: great film, a great story", "Sentiment: positive", "the house is wonderful",
             "das Haus ist wunderbar", "Label: negative, dull and slow", "translate English to German: "] * 4
    return tokenizers.train(texts, 300, tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def word_piece(tmp_path_factory):
    """BERT's kind: [CLS], [SEP] and a few words."""
    path = tmp_path_factory.mktemp("wordpiece") / "vocab.txt"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[", "]", "sep", "cls", "<", ">", "/", "s", "good",
              "film", "##s", "bad"]
    path.write_text("\n".join(pieces) + "\n")
    return tokenizers.load(path)


def test_the_picture_of_the_module():
    pieces = (Piece("Review: great\n", "input"), Piece("Sentiment:", "prompt"), Piece(" positive", "target"),
              special("eos", "target"))
    arrays, tokens, source = features(Example(pieces), Words(), TARGETS, length=10)
    assert list(tokens.ids) == [10, 11, 12, 20, 21, 30, 1]
    assert tokens.roles == ("input",) * 3 + ("prompt",) * 2 + ("target",) * 2
    assert list(tokens.pieces) == [0, 0, 0, 1, 1, 2, 3]
    assert tokens.spans.tolist() == [[0, 8], [8, 13], [13, 14], [0, 4], [4, 10], [0, 9], [0, 0]]
    assert list(TARGETS(tokens.roles)) == [0, 0, 0, 0, 0, 1, 1]
    assert {name: list(array) for name, array in arrays.items()} == {
        "tokens": [10, 11, 12, 20, 21, 30],
        "targets": [11, 12, 20, 21, 30, 1],
        "weights": [0, 0, 0, 0, 1, 1]}
    assert [array.dtype for array in arrays.values()] == [np.int32, np.int32, np.float32]
    assert source is None and dict(tokens.lost) == {}
    assert prompt(pieces, TARGETS) == pieces[:2]


def test_an_encoder_decoders_target_begins_with_the_start_token():
    example = Example((Piece(" positive", "target"), special("eos", "target")),
                      source=(Piece("great\n", "input"), special("eos", "input")))
    arrays, tokens, source = features(example, Words(), TARGETS, 10, 10)
    assert {name: list(array) for name, array in arrays.items()} == {
        "source_tokens": [11, 12, 1], "tokens": [0, 30], "targets": [30, 1], "weights": [1, 1]}
    assert list(tokens.ids) == [30, 1] and list(source.ids) == [11, 12, 1]
    assert start_id(Words()) == 0
    arrays, _, _ = features(example, Words(), TARGETS, 10, 10, start=2)  # BART begins with EOS
    assert list(arrays["tokens"]) == [2, 30]


def test_a_cls_heads_features_are_its_tokens_their_types_and_one_label():
    pieces = (special("cls", "input"), Piece("ab", "premise"), special("sep", "input"),
              Piece("cd", "hypothesis", token_type=1), special("sep", "input", token_type=1))
    arrays, _, _ = features(Example(pieces, label=2), Letters(), graded(), 16)
    assert list(arrays["tokens"]) == [3, 10, 11, 4, 12, 13, 4]
    assert list(arrays["token_types"]) == [0, 0, 0, 0, 1, 1, 1]
    assert (arrays["targets"], arrays["weights"]) == (2, 1)


def test_a_token_over_two_pieces_belongs_to_the_one_of_its_last_character():
    """`Sent` + `iment:` cut inside a word: ` positive` starts in the prompt and ends in the target."""
    tokens = tokenise((Piece("Sentiment: posi", "prompt"), Piece("tive", "target")), Words())
    assert list(tokens.ids) == [20, 21, 30]
    assert tokens.roles == ("prompt", "prompt", "target")
    assert tokens.spans.tolist() == [[0, 4], [4, 10], [0, 4]]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["", " ", "\n", "great", " positive", "e\u0301", "\U0001f468\u200d\U0001f469", "ﬁ", "</s>", "▁"])


@hypothesis.given(st.lists(st.tuples(TEXT, st.sampled_from(["prompt", "input", "target"])), max_size=6))
@hypothesis.settings(max_examples=40, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_roles_follow_the_characters_of_any_text(trained, drawn):
    """By the offsets of the whole text alone: a character's piece is looked up in a plain list."""
    pieces = [Piece(text, role) for text, role in drawn]
    whole = "".join(text for text, _ in drawn)
    owner = [index for index, (text, _) in enumerate(drawn) for _ in text]
    tokens, encoding = tokenise(pieces, trained), trained.encode(whole)
    assert list(tokens.ids) == (encoding.ids if whole else [])
    starts = np.cumsum([0] + [len(text) for text, _ in drawn])
    for index, (start, end) in enumerate(encoding.offsets if whole else []):
        last = max(end - 1, start)
        if last < len(whole):
            assert tokens.pieces[index] == owner[last]
        assert tokens.roles[index] == drawn[tokens.pieces[index]][1]
        first, after = tokens.spans[index] + starts[tokens.pieces[index]]
        assert whole[first:after] == whole[max(start, starts[tokens.pieces[index]]):end]
    assert trained.decode([int(id) for id in tokens.ids]) == trained.decode(encoding.ids)


@hypothesis.given(TEXT, st.sampled_from(["</s>", "<pad>", "<s>", "[SEP]", "[CLS]", "[MASK]", "<unk>"]), TEXT)
@hypothesis.settings(max_examples=25, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_text_cannot_forge_a_special_token(trained, word_piece, before, forged, after):
    """Specials stand where special pieces put them and nowhere else."""
    for tokenizer, end in ((trained, "eos"), (word_piece, "sep")):
        pieces = (special(end, "input"), Piece(before + forged + after, "input"), special(end, "target"))
        tokens = tokenise(pieces, tokenizer)
        reserved = {id for name, id in tokenizer.special.items() if name != "unk"}
        assert [index for index, id in enumerate(tokens.ids) if int(id) in reserved] == [0, len(tokens.ids) - 1]
        assert list(tokens.pieces[[0, -1]]) == [0, 2]


def _lengths(tokens, pieces):
    return [int((tokens.pieces == index).sum()) for index in range(len(pieces))]


@pytest.mark.parametrize(("length", "kept"), [
    (0, [1, 9, 3, 6, 2, 1]), (22, [1, 9, 3, 6, 2, 1]), (20, [1, 7, 3, 6, 2, 1]), (19, [1, 6, 3, 6, 2, 1]),
    (18, [1, 6, 3, 5, 2, 1]), (17, [1, 5, 3, 5, 2, 1]), (9, [1, 1, 3, 1, 2, 1]), (7, [1, 0, 3, 0, 2, 1]),
    (5, [1, 0, 3, 0, 1, 0]), (2, [1, 0, 1, 0, 0, 0])])
def test_the_longest_piece_that_may_be_trimmed_loses_its_end_first(length, kept):
    """Of equals the later; what may not be trimmed goes only when nothing else is left, from the end."""
    pieces = (special("bos", "prompt"), Piece("abcdefghi", "context", trim=True), Piece("xyz", "prompt"),
              Piece("abcdef", "question", trim=True), Piece("uv", "target"), special("eos", "target"))
    tokens, whole = tokenise(pieces, Letters(), length), tokenise(pieces, Letters())
    assert _lengths(tokens, pieces) == kept
    for index, count in enumerate(kept):
        assert list(tokens.ids[tokens.pieces == index]) == list(whole.ids[whole.pieces == index][:count])
    roles = [piece.role for piece in pieces]
    lost = {}
    for role, before, after in zip(roles, [1, 9, 3, 6, 2, 1], kept, strict=True):
        lost[role] = lost.get(role, 0) + before - after
    assert dict(tokens.lost) == {role: count for role, count in lost.items() if count}


def test_a_decoder_keeps_one_token_more_than_it_reads():
    """`length` inputs and their targets need length + 1 tokens; the answer is never cut for the text."""
    pieces = (Piece("abcdefghijklm", "input", trim=True), Piece("xy", "target"), special("eos", "target"))
    arrays, tokens, _ = features(Example(pieces), Letters(), TARGETS, length=6)
    assert len(arrays["tokens"]) == len(arrays["targets"]) == 6
    assert list(tokens.ids) == [10, 11, 12, 13, 33, 34, 1]
    assert list(arrays["weights"]) == [0, 0, 0, 1, 1, 1]


def test_a_missing_special_token_is_named():
    with pytest.raises(ValueError, match="no 'cls' token, which this task's form needs; it has eos, pad, unk"):
        tokenise((special("cls", "input"),), Words())
    nameless = Words()
    nameless.special = {"eos": 1}
    with pytest.raises(ValueError, match="neither a pad nor a bos"):
        start_id(nameless)


def test_a_prompt_ends_before_the_graded_end():
    pieces = (Piece("a", "user"), Piece("b", "target"), Piece("c", "user"), Piece("d", "target"),
              special("eos", "target"))
    assert prompt(pieces, TARGETS) == pieces[:3]
    assert prompt(pieces[:3], TARGETS) == pieces[:3]
    assert prompt(pieces[1:2], TARGETS) == ()


def test_several_texts_stand_side_by_side_each_with_its_own_positions_and_length():
    def text(words):
        return special("cls", "text"), Piece(words, "text", trim=True), special("sep", "text")

    example = Example((*text("ab"), *text("abcdefgh"), *text("c")), several=Several(
        (1, 1, 1, 2, 2, 2, 3, 3, 3), (7, 9, 0), True, length=6))
    arrays, tokens, _ = features(example, Letters(), graded(), 20)
    assert arrays["tokens"].tolist() == [3, 10, 11, 4, 3, 10, 11, 12, 13, 4, 3, 12, 4]
    assert arrays["texts"].tolist() == [1] * 4 + [2] * 6 + [3] * 3
    assert arrays["positions"].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 0, 1, 2]
    assert arrays["names"].tolist() == [7, 9, 0] and (arrays["targets"], arrays["weights"]) == (0, 1)
    assert tokens.lost == {"text": 4}
    shorter, tokens, _ = features(example, Letters(), graded(), 11)
    assert shorter["tokens"].tolist() == [3, 10, 11, 4, 3, 10, 11, 4, 3, 12, 4] and tokens.lost == {"text": 6}
