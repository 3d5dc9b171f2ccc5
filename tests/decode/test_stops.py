# SPDX-License-Identifier: Apache-2.0
"""Tokens whose bytes complete a stop string end the text at once, wherever the tokens' borders lie."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers

from t5tasks import decode
from t5tasks.data import tokenizer as data_tokenizer
from t5tasks.decode import stops

EOS, PAD, NEW = 1, 0, 12
SOURCES = [0, 1, 2, 3]
EURO = "€".encode()
PIECES = [b"", b"", b"a", b"b", b"ab", b"ba", b"aab", EURO[:1], EURO[1:], EURO + b"a", b" b a"]


def test_read_finds_what_a_search_in_the_text_finds():
    """Random tokens and strings; the table has no row for the ids of a padded embedding."""
    random = np.random.RandomState(0)
    rows, length = 96, 14
    texts = [[["a", "ab€", "ba", "b a", "€a€", "aaab", "abab", "€"][index] for index in
              random.choice(8, random.randint(0, 4), replace=False)] for _ in range(rows)]
    settings, table = decode.settings(rows, stop=texts), decode.pieces(PIECES)
    tokens = random.randint(0, len(PIECES) + 2, (rows, length))
    progress, read = stops.none_yet(settings), jax.jit(stops.read)
    found, expected = [], []
    for place in range(length):
        progress, complete = read(progress, jnp.asarray(tokens[:, place], jnp.int32), settings, table)
        found.append(np.asarray(complete))
        before, after = (["".join(map(chr, b"".join((PIECES + [b""] * 2)[token] for token in row[:end])))
                          for row in tokens] for end in (place, place + 1))
        expected.append([any(count(now, stop) > count(then, stop) for stop in map(as_bytes, mine))
                         for now, then, mine in zip(after, before, texts, strict=True)])
    assert np.array_equal(found, expected)
    assert 50 < np.sum(found) < rows * length / 2


def as_bytes(text):
    return "".join(map(chr, text.encode()))


def count(text, stop):
    """Occurrences, overlapping ones too."""
    return sum(text.startswith(stop, at) for at in range(len(text)))


def run(model, pad_right, settings, seeds, **options):
    tokens, lengths = pad_right(model.prompts)
    return jax.device_get(decode.generate(
        model.step, model.params, tokens, lengths, model.empty(SOURCES, 40), settings, decode.keys(seeds),
        max_new_tokens=NEW, eos=EOS, pad=PAD, pieces=decode.pieces(PIECES), **options))


def test_a_text_ends_with_the_first_token_that_completes_a_string(recency, pad_right):
    strings = [["ab"], ["€", "aa"], [" b"], ["bab", "a€a", "zzz"]]
    ended = 0
    for seed in range(12):
        seeds = [seed * 4 + row for row in range(4)]
        free = run(recency, pad_right, decode.settings(4, temperature=2.0, min_new=3), seeds)
        out = run(recency, pad_right, decode.settings(4, temperature=2.0, min_new=3, stop=strings), seeds)
        for row, mine in enumerate(strings):
            whole = free.tokens[row, :free.lengths[row]].tolist()
            texts = [b"".join(PIECES[token] for token in whole[:end]) for end in range(len(whole) + 1)]
            stopped = [end for end, text in enumerate(texts) if any(stop.encode() in text for stop in mine)]
            assert out.tokens[row, :out.lengths[row]].tolist() == whole[:(stopped or [len(whole)])[0]]
            if stopped:
                ended += 1
                at_eos = whole[stopped[0] - 1] == EOS
                assert out.reasons[row] == (decode.AT_EOS if at_eos else decode.AT_STOP)
                assert not out.tokens[row, stopped[0]:].any()
                text = texts[stopped[0]].decode(errors="replace")
                assert all(stop not in decode.cut(text, mine) for stop in mine)
    assert 10 < ended < 48


def test_cut_ends_where_a_string_is_complete_first():
    assert decode.cut("one\n\ntwo\n\n", ["\n\n"]) == "one"
    assert decode.cut("one\n\ntwo", ["\n\n"], keep=True) == "one\n\n"
    assert decode.cut("abcd", ["cd", "bcd", "d"]) == "a"  # complete together: the longest goes
    assert decode.cut("abcd", ["abcd", "bc"]) == "a"      # bc is complete before abcd
    assert decode.cut("abcd", ["x"]) == decode.cut("abcd", []) == "abcd"


WORDS = ["the cat sat on the mat", "naïve café €5", "the end\nof the cat  and the mat"]


def sentence_pieces(folder):
    return data_tokenizer.train(WORDS * 20, 300, folder, kind="bpe")


def byte_level(folder):
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.train_from_iterator(WORDS * 20, tokenizers.trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>"]))
    made.save(str(folder / "tokenizer.json"))
    return data_tokenizer.load(folder)


def word_pieces(folder):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "the", "cat", "##s", "sat", "naïve", "##é", "5"]
    (folder / "vocab.txt").write_text("\n".join(words))
    return data_tokenizer.load(folder)


@pytest.mark.parametrize("make", [sentence_pieces, byte_level])
def test_the_bytes_of_the_tokens_are_the_bytes_of_the_text(make, tmp_path):
    tokenizer = make(tmp_path)
    table = decode.token_bytes(tokenizer)
    assert len(table) == tokenizer.vocabulary_size
    for text in [*WORDS, "a zebra 🦓 of quartz", "mat\n\n\nthe  cat"]:
        ids = tokenizer.encode("a" + text).ids
        assert b"".join(table[id] for id in ids).strip() == ("a" + text).encode()
    assert {table[id] for name, id in tokenizer.special.items() if name != "unk"} == {b""}
    ids = tokenizer.encode("🦓").ids  # no piece of its own: a byte a token
    assert b"".join(table[id] for id in ids).strip() == "🦓".encode() and len(ids) >= 4


def test_the_bytes_of_word_pieces(tmp_path):
    table = decode.token_bytes(word_pieces(tmp_path))
    assert table[:4] == [b""] * 4
    assert table[5:] == [b" the", b" cat", b"s", b" sat", " naïve".encode(), "é".encode(), b" 5"]


def test_a_string_within_a_character_and_across_tokens_is_found(tmp_path):
    tokenizer = sentence_pieces(tmp_path)
    table = decode.pieces(decode.token_bytes(tokenizer))
    ids = tokenizer.encode("the cat 🦓 sat on the mat").ids
    settings = decode.settings(3, stop=[["🦓 s"], ["e ma"], ["cat sat"]])
    progress, hits = stops.none_yet(settings), []
    for id in ids:
        progress, complete = stops.read(progress, jnp.full(3, id, jnp.int32), settings, table)
        hits.append(np.asarray(complete))
    first = [int(np.argmax(row)) if row.any() else None for row in np.array(hits).T]
    texts = [tokenizer.decode(ids[:end + 1]) for end in range(len(ids))]
    expected = [next((end for end, text in enumerate(texts) if stop in text), None)
                for stop in ("🦓 s", "e ma", "cat sat")]
    assert first == expected and first[2] is None and first[0] is not None and first[1] is not None
