# SPDX-License-Identifier: Apache-2.0
"""What a stream hands over is what `generate` writes, and the cache holds what was handed over."""

import dataclasses
import threading
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5tasks import decode
from t5tasks.decode.contract import check_request

SOURCES, NEW, EOS, PAD = [0, 1, 2, 3], 12, [1, 6], 0
PIECES = [b"x", b"y", b"a", b"b", b"e", b" the", b" cat", b"\xe2", b"\x82", b"\xac", b" "]
GIVEN = {"temperature": [0.0, 1.0, 0.8, 1.5], "top_k": [0, 5, 0, 0], "no_repeat_ngram": [0, 2, 0, 0],
         "min_new": [0, 0, 2, 9], "max_new": [12, 12, 5, 12], "stop": [["xyz"], [], ["a"], []]}


@pytest.fixture
def request_of(recency, pad_right):
    """request_of(samples): the arguments of `generate` and of `stream` for four sequences."""
    def arguments(samples=1, **given):
        prompts = 4 // samples  # so that one program of the loop serves all
        tokens, lengths = pad_right(recency.prompts[:prompts], 4)
        return ((recency.step, recency.params, tokens, lengths, recency.empty(SOURCES[:prompts], 40),
                 decode.settings(4, **(given or GIVEN)), decode.keys([5, 6, 7, 8][:prompts], samples)),
                {"max_new_tokens": NEW, "eos": EOS, "pad": PAD, "samples": samples,
                 "pieces": decode.pieces(PIECES)})
    return arguments


def read(stream):
    """All news of a stream, as (ids, logprobs, reasons) of each row."""
    ids, logprobs, reasons = ([[] for _ in stream.ids] for _ in range(3))
    for news in stream:
        for row, tokens in enumerate(news.tokens):
            assert not (tokens and any(reason is not None for reason in reasons[row]))  # nothing after the end
            ids[row] += tokens
            logprobs[row] += news.logprobs[row]
            reasons[row].append(news.reasons[row])
    return ids, logprobs, reasons


@pytest.mark.parametrize(("segment", "samples", "chunk"), [(1, 1, 0), (3, 2, 2)])
def test_a_stream_hands_over_what_generate_writes(request_of, segment, samples, chunk):
    arguments, options = request_of(samples, **({"temperature": 1.0} if samples > 1 else GIVEN))
    whole = jax.device_get(decode.generate(*arguments, keep_cache=True, **options))
    stream = decode.stream(*arguments, segment=segment, prefill_chunk=chunk, **options)
    ids, logprobs, reasons = read(stream)
    for row, length in enumerate(whole.lengths):
        assert ids[row] == stream.ids[row] == whole.tokens[row, :length].tolist()
        np.testing.assert_allclose(logprobs[row], whole.logprobs[row, :length], atol=1e-5)
        assert reasons[row][-1] == whole.reasons[row]
        assert len(reasons[row]) == -(-max(whole.lengths) // segment)
    assert len(set(whole.lengths.tolist())) > 1
    prompts = np.repeat([len(prompt) for prompt in recency_prompts(arguments)], samples)
    np.testing.assert_array_equal(stream.cache.lengths, prompts + whole.lengths - 1)  # the last is never fed
    assert next(stream, None) is None


def recency_prompts(arguments):
    tokens, lengths = arguments[2:4]
    return [row[:length] for row, length in zip(tokens, lengths, strict=True)]


@pytest.mark.parametrize("segment", [1, 3])
def test_a_stream_that_is_left_holds_what_it_handed_over(recency, request_of, segment):
    """And goes on from there as if it had never been streamed."""
    arguments, options = request_of(temperature=1.3, min_new=NEW)
    whole = jax.device_get(decode.generate(*arguments, keep_cache=True, **options))
    with pytest.raises(KeyboardInterrupt), decode.stream(*arguments, segment=segment, **options) as stream:
        for count, _ in enumerate(stream, 1):
            if count == 2:
                raise KeyboardInterrupt
    shown = 2 * segment
    prompts = recency_prompts(arguments)
    cache = stream.cache
    assert [len(ids) for ids in stream.ids] == [shown] * 4
    assert cache.lengths.tolist() == [len(prompt) + shown for prompt in prompts]
    for row, prompt in enumerate(prompts):
        held = [*prompt, *whole.tokens[row, :shown]]
        assert cache.tokens[row, :len(held)].tolist() == held
    next_token = np.full((4, 1), 3, np.int32)
    logits, _ = recency.step(recency.params, next_token, np.ones(4, np.int32), cache)
    for row, prompt in enumerate(prompts):
        expected = recency.logits([*prompt, *whole.tokens[row, :shown], 3], SOURCES[row])
        np.testing.assert_allclose(logits[row], expected, atol=1e-5)
    assert next(stream, None) is None and stream.cache is cache


def test_another_thread_may_cancel(request_of):
    arguments, options = request_of(temperature=1.3, min_new=NEW)
    stream, seen = decode.stream(*arguments, **options), []
    for news in stream:
        seen.append(news)
        if len(seen) == 3:
            thread = threading.Thread(target=stream.cancel)
            thread.start()
            thread.join()
    assert len(seen) == 3 and stream.cache.lengths.tolist() == [4, 7, 5, 6]


def test_a_stream_is_one_segment_ahead_and_no_further(request_of):
    """So that what is done in vain by the time that it is left is one segment."""
    arguments, options = request_of(temperature=1.3, min_new=NEW)
    with decode.stream(*arguments, segment=3, **options) as stream:
        next(stream)
        fed = stream._state.cache.lengths - stream._read
        assert fed.tolist() == [6] * 4
    assert (stream.cache.lengths - stream._read).tolist() == [3] * 4


class Words:
    """A tokenizer of the toy's eleven ids, three of them bytes within a character."""

    vocabulary_size = len(PIECES)

    def encode(self, text):
        return SimpleNamespace(ids=[7])  # no text that is asked for has a piece

    def piece(self, id):
        return PIECES[id].decode() if id not in (7, 8, 9) else f"<0x{PIECES[id][0]:02X}>"

    def decode(self, ids):
        return b"".join(PIECES[id] for id in ids).decode(errors="replace").removeprefix(" ")


@pytest.mark.parametrize("stop", [[], ["e the", "ba", "€", " cat b"]])
@pytest.mark.parametrize("segment", [1, 3])
def test_the_texts_joined_are_the_text_cut(request_of, stop, segment):
    words, cuts = Words(), 0
    for seed in range(5):
        arguments, options = request_of(temperature=2.0, stop=stop, min_new=5)
        arguments = (*arguments[:-1], decode.keys(range(4 * seed, 4 * seed + 4)))
        whole = jax.device_get(decode.generate(*arguments, keep_cache=True, **options))
        prompts = [prompt.tolist() for prompt in recency_prompts(arguments)]
        shown = [""] * 4
        for parts in decode.texts(decode.stream(*arguments, segment=segment, **options), words, prompts, stop):
            shown = [text + part for text, part in zip(shown, parts, strict=True)]
            assert not any(string in text for string in stop for text in shown)
        for row, prompt in enumerate(prompts):
            text = decode.continuation(words, prompt, whole.tokens[row, :whole.lengths[row]].tolist())
            assert shown[row] == decode.cut(text, stop)
            cuts += shown[row] != text
    assert cuts > 3 if stop else cuts == 0


@pytest.mark.parametrize(("change", "said"), [
    ({"segment": 0}, "segment is 0, expected at least 1"),
    ({"prefill_chunk": -1}, "prefill_chunk is -1"),
    ({"max_new_tokens": 37}, "a prompt of 4 and 37 new tokens need 41 slots, the cache has 40"),
    ({"max_new_tokens": 36, "prefill_chunk": 3}, None),
    ({"pieces": None}, "settings have stop strings"),
])
def test_requests_that_do_not_fit_are_refused(request_of, change, said):
    arguments, options = request_of()
    if said is None:
        decode.stream(*arguments, **options | change)
        return
    with pytest.raises(ValueError, match=said):
        decode.stream(*arguments, **options | change)


def test_a_chunk_that_would_reach_past_the_end_of_the_cache_is_refused(recency, pad_right):
    """It would be shifted onto tokens that the row holds."""
    tokens, lengths = pad_right([[3] * 9, [4]], 9)

    def check(capacity, held, chunk):
        cache = dataclasses.replace(recency.empty([0, 1], capacity), lengths=jnp.asarray([held, 0]))
        check_request(tokens, lengths, cache, 1, chunk)

    assert [decode.capacity(9, 1, chunk) for chunk in (0, 2, 4, 5)] == [10] * 4
    assert decode.capacity(13, 1, 4) == 16  # four chunks of four
    check(10, 0, 4)
    check(12, 2, 4)
    with pytest.raises(ValueError, match="would need 12 slots, it has 11"):
        check(11, 2, 4)
