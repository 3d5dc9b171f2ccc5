# SPDX-License-Identifier: Apache-2.0
"""Text that comes in parts is, joined, the text decoded at once, and no part is ever taken back."""

import functools
import importlib.util
import pathlib
import random

import hypothesis
import pytest
import tokenizers
from hypothesis import strategies

from t5tasks.data import tokenizer as data_tokenizer
from t5tasks.decode import text_stream
from t5tasks.decode.stops import cut
from t5tasks.decode.text_stream import TextStream, continuation

CONVERT = pathlib.Path(__file__).parents[2] / "scripts" / "convert_llama2c.py"
KINDS = ["gpt2-bpe", "t5-sentencepiece", "stories260K", "byte fallback", "trained"]
TEXTS = ["Once upon a time, Lily's 🦊 ran.", "  two  spaces\n\n\ttab\r\n", "naïve café, Å = A\u030a",
         "日本語のテキスト 한국어 \u202bעברית", "👩‍👩‍👧‍👦👍🏽🏳️‍🌈", "<s> </s> <0x0A> ��", "𝔘𝔫𝔦 ﷽ e\u0301\u0323", ""]


@pytest.fixture(scope="module")
def load(request, tmp_path_factory):
    """load(kind): real tokenizers, one trained here, and one whose decoder shows runs of bytes whole or not at all."""

    @functools.cache
    def made(kind):
        folder = tmp_path_factory.mktemp("tokenizer")
        if kind == "trained":
            return data_tokenizer.train(TEXTS * 20, 400, folder, kind="bpe")
        if kind == "byte fallback":
            words = ["▁", "a", "b", "▁a", "▁b", "fox", "▁fox", "é"]
            vocabulary = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
            made = tokenizers.Tokenizer(tokenizers.models.BPE(
                {word: id for id, word in enumerate(vocabulary)}, [], unk_token="<unk>", byte_fallback=True))
            made.normalizer = tokenizers.normalizers.Replace(" ", "▁")
            made.decoder = tokenizers.decoders.Sequence([
                tokenizers.decoders.Replace("▁", " "), tokenizers.decoders.ByteFallback(),
                tokenizers.decoders.Fuse(), tokenizers.decoders.Strip(" ", 1, 0)])
            made.add_special_tokens(["</s>"])
            made.save(str(folder / "tokenizer.json"))
            return data_tokenizer.load(folder)
        weights = request.getfixturevalue("shared_weights") / kind
        if kind != "stories260K":
            return data_tokenizer.load(weights)
        spec = importlib.util.spec_from_file_location("convert_llama2c", CONVERT)
        script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(script)
        script.convert(weights / "stories260K.bin", weights / "tok512.bin", folder / "folder")
        return data_tokenizer.load(folder / "folder")

    return made


def parts_of(tokenizer, prompt, ids, sizes, stops=()):
    """The parts of a stream that is given so many ids at a time."""
    stream, parts, at = TextStream(tokenizer, prompt, stops), [], 0
    for size in sizes:
        parts.append(stream.push(ids[at:at + size]))
        at += size
    return [*parts, stream.push(ids[at:]), stream.finish()]


def some_ids(tokenizer, unreadable, seed):
    """A prompt's ids and those after it, of kinds that stand badly together; and cuts."""
    chance = random.Random(seed)
    spelled = [id for text in TEXTS for id in tokenizer.encode(text).ids]
    sources = [range(tokenizer.vocabulary_size), spelled, *([unreadable] if unreadable else []),
               sorted(tokenizer.special.values())]
    weights = [chance.choice([0, 1, 4]) for _ in sources]
    ids = [chance.choice(chance.choices(sources, weights if any(weights) else None)[0])
           for _ in range(chance.randrange(160))]
    at = chance.randrange(len(ids) + 1)
    return ids[:at], ids[at:], [chance.choice([0, 1, 1, 1, 3, 70]) for _ in range(chance.randrange(100))]


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_of_random_ids_are_their_text(load, kind):
    tokenizer = load(kind)
    unreadable = [id for id in range(tokenizer.vocabulary_size) if "\ufffd" in tokenizer.decode([id])]
    for seed in range(60):
        prompt, ids, sizes = some_ids(tokenizer, unreadable, seed)
        parts = parts_of(tokenizer, prompt, ids, sizes)
        assert "".join(parts) == continuation(tokenizer, prompt, ids), seed
        before, whole = tokenizer.decode(prompt), tokenizer.decode(prompt + ids)
        if whole.startswith(before):
            assert before + "".join(parts) == whole


@pytest.mark.parametrize("kind", KINDS)
@hypothesis.given(prompt=strategies.sampled_from(TEXTS), text=strategies.text() | strategies.sampled_from(TEXTS),
                  size=strategies.integers(1, 5))
@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_the_parts_of_a_text_are_the_text_and_hold_no_half_character(load, kind, prompt, text, size):
    tokenizer = load(kind)
    before, ids = tokenizer.encode(prompt).ids, tokenizer.encode("a" + text).ids
    parts = parts_of(tokenizer, before, ids, [size] * len(ids))
    joined = "".join(parts)
    assert joined == continuation(tokenizer, before, ids)
    assert joined.count("\ufffd") == tokenizer.decode(ids).count("\ufffd")
    if kind == "gpt2-bpe":
        assert joined == "a" + text


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_is_shown_as_soon_as_it_can_be(load, kind):
    """Held back is at most what a byte-fallback decoder may yet take back, or a part of a character."""
    tokenizer = load(kind)
    ids = tokenizer.encode("a fox 🦊🦊 a fox").ids
    stream, shown = TextStream(tokenizer), ""
    for count, id in enumerate(ids, 1):
        shown += stream.push([id])
        whole = tokenizer.decode(ids[:count])
        assert whole.startswith(shown)
        if kind != "byte fallback":
            assert shown == whole.rstrip("\ufffd")
    assert shown + stream.finish() == tokenizer.decode(ids)


def test_a_run_of_bytes_waits_where_its_decoder_shows_it_whole_or_not_at_all(load):
    tokenizer = load("byte fallback")
    fox = tokenizer.encode("🦊").ids
    assert tokenizer.decode(fox) == "🦊" and tokenizer.decode([*fox, fox[0]]) == "\ufffd" * 5
    assert parts_of(tokenizer, [], [*fox, *fox, *tokenizer.encode("a").ids], [1] * 9)[:9] == [""] * 8 + ["🦊🦊a"]
    assert parts_of(tokenizer, [], [*fox, fox[0]], [1] * 5)[-1] == "\ufffd" * 5


def test_spaces_at_the_beginning_belong_to_the_prompt_s_text(load):
    tokenizer = load("t5-sentencepiece")
    prompt, ids = tokenizer.encode("A fox").ids, tokenizer.encode("ran home").ids
    assert "".join(parts_of(tokenizer, prompt, ids, [1] * 9)) == " ran home"
    assert "".join(parts_of(tokenizer, [], ids, [1] * 9)) == "ran home"
    assert "".join(parts_of(tokenizer, [tokenizer.special["eos"]], ids, [1] * 9)) == "ran home"


def test_a_character_that_the_prompt_begins_is_the_continuation_s(load):
    tokenizer = load("gpt2-bpe")
    ids = tokenizer.encode("so 漢").ids
    assert tokenizer.decode(ids[:-1]).endswith("\ufffd")
    assert continuation(tokenizer, ids[:-1], ids[-1:]) == "漢"
    assert parts_of(tokenizer, ids[:-1], ids[-1:], [1]) == ["漢", "", ""]


@pytest.mark.parametrize("kind", KINDS)
def test_stop_strings_are_never_shown_nor_their_beginnings(load, kind):
    tokenizer, chance = load(kind), random.Random(0)
    stopped = 0
    for _ in range(80):
        text = "".join(chance.choice("ab a🦊") for _ in range(30))
        stops = ["".join(chance.choice("ab 🦊") for _ in range(chance.randrange(1, 5)))
                 for _ in range(chance.randrange(3))]
        ids = tokenizer.encode("b" + text).ids
        stream, shown, expected = TextStream(tokenizer, [], stops), "", cut(tokenizer.decode(ids), stops)
        for id in ids:
            shown += stream.push([id])
            assert expected.startswith(shown)
        assert shown + stream.finish() == expected
        assert stream.stopped == (expected != tokenizer.decode(ids))
        stopped += stream.stopped
    assert 10 < stopped < 70


def test_a_long_stream_is_decoded_in_short_windows(load, monkeypatch):
    tokenizer, lengths = load("gpt2-bpe"), []
    decode = type(tokenizer).decode
    monkeypatch.setattr(type(tokenizer), "decode", lambda self, ids: lengths.append(len(ids)) or decode(self, ids))
    ids = tokenizer.encode(TEXTS[0] * 60).ids
    stream = TextStream(tokenizer, ids)
    lengths.clear()
    for id in ids:
        stream.push([id])
    assert len(ids) > 500 and max(lengths) <= text_stream.WINDOW + text_stream.KEPT
