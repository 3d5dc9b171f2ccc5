# SPDX-License-Identifier: Apache-2.0
"""From prompts to the tokens that follow them, handed over while the rest is being made.

The loop of `generate` runs in segments on the device. A segment is dispatched before the tokens of
the one before it are read, so the device does not wait for the host; a stream that is closed
abandons at most that one:

    device   | read prompts | segment 1 | segment 2 | segment 3 |
    host                    dispatch 2, read 1 | dispatch 3, read 2 | close: the cache forgets 3
"""

import collections
import dataclasses
import types
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from t5tasks.decode import sample
from t5tasks.decode.constraint import Constraint
from t5tasks.decode.contract import Step, check_request
from t5tasks.decode.sample import Request, State
from t5tasks.decode.settings import Settings
from t5tasks.decode.spelling import Speller
from t5tasks.decode.stops import Pieces
from t5tasks.decode.text_stream import TextStream


@dataclasses.dataclass(frozen=True)
class News:
    """What each of B sequences has gained since the last news."""

    tokens: list[list[int]]      # B of 0 to `segment` ids
    logprobs: list[list[float]]  # the model's own, of each
    reasons: list[int | None]    # why it has ended (AT_EOS ...); None while it goes on


class Stream:
    """An iterator over `News`, made by `stream`; it ends with the last sequence, or when it is closed.

        with stream(...) as tokens:
            for news in tokens:
                ...

    Close it, or leave the `with`, to stop early: after an exception such as KeyboardInterrupt too.
    `cancel` may be called from another thread: the news then end. Afterwards `cache` has the prompts
    and of the new tokens those that were handed over, but for one that ended its sequence: the model
    has not read it.
    """

    def __init__(self, step: Step, params: Any, begun: tuple[jax.Array, State, Request, jax.Array], segment: int
                 ) -> None:
        self._logits, self._state, self._request, self._read = begun
        self._program = partial(_segment, step, params, steps=segment)
        self._coming: collections.deque[_Segment] = collections.deque()
        self._ids: list[list[int]] = [[] for _ in range(self._read.shape[0])]
        self._over = False
        self._cache: Any = None

    def __iter__(self) -> Iterator[News]:
        return self

    def __next__(self) -> News:
        if not self._coming and not self._over:
            self._dispatch()
        if not self._over:
            self._dispatch()
        news = None if self._over else jax.device_get(self._coming[0])
        if news is None or self._over:  # cancelled meanwhile
            self.close()
            raise StopIteration
        self._coming.popleft()
        self._over |= bool(news.ended.all())
        tokens, logprobs = ([row[:count].tolist() for row, count in zip(array, news.counts, strict=True)]
                            for array in (news.tokens, news.logprobs))
        self._ids = [ids + new for ids, new in zip(self._ids, tokens, strict=True)]
        ends = zip(news.reasons.tolist(), news.ended, strict=True)
        return News(tokens, logprobs, [reason if ended else None for reason, ended in ends])

    def _dispatch(self) -> None:
        self._logits, self._state, segment = self._program(self._logits, self._state, self._request)
        self._coming.append(segment)

    def cancel(self) -> None:
        """Ends the news after those that are being handed over."""
        self._over = True

    def close(self) -> None:
        """Abandons what has not been handed over."""
        self._over = True
        self._coming.clear()

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: types.TracebackType | None) -> None:
        self.close()

    @property
    def ids(self) -> list[list[int]]:
        """The tokens of each sequence that were handed over."""
        return self._ids

    @property
    def cache(self) -> Any:
        """The cache, which is the caller's from now on; closes the stream."""
        self.close()
        if self._cache is None:
            shown = np.asarray([len(ids) for ids in self._ids], np.int32)
            self._cache = _rewound(self._state.cache, self._read, shown)
        return self._cache


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Segment:
    """What a segment has written, apart from the state, which the next one works on."""

    tokens: jax.Array    # int32[B, W]
    logprobs: jax.Array  # f32[B, W]
    counts: jax.Array    # int32[B]  how many of W
    ended: jax.Array     # bool[B]
    reasons: jax.Array   # int32[B]


def stream(step: Step, params: Any, prompt: jax.Array, prompt_lengths: jax.Array, cache: Any,
           settings: Settings, keys: jax.Array, *, max_new_tokens: int, eos: Any, pad: Any,
           samples: int = 1, pieces: Pieces | None = None, constraint: Constraint | None = None, segment: int = 1,
           prefill_chunk: int = 0) -> Stream:
    """The tokens that `generate` gives for the same request, as they come.

    Arguments and errors are those of `generate`; the cache is used up, and comes out as the stream's with
    a row a sequence.

    Args:
      segment: tokens of a sequence between two news: 1 to show each at once, more to lose less time
        between them. Compiles once for each.
    """
    check_request(prompt, prompt_lengths, cache, max_new_tokens, prefill_chunk)
    sample.check_choice(prompt.shape[0], settings, keys, pieces, samples, 0, constraint, max_new_tokens)
    return begin(step, params, prompt, prompt_lengths, cache, settings, keys, eos, pad, pieces, constraint,
                 segment=segment, max_new_tokens=max_new_tokens, samples=samples, prefill_chunk=prefill_chunk)


def begin(step: Step, params: Any, prompt: jax.Array, prompt_lengths: jax.Array, cache: Any, settings: Settings,
          keys: jax.Array, eos: Any, pad: Any, pieces: Pieces | None, constraint: Constraint | None, *, segment: int,
          held: jax.Array | None = None, seen: jax.Array | None = None, max_new_tokens: int, samples: int = 1,
          prefill_chunk: int = 0) -> Stream:
    """`stream` without its checks; `held` int32[P] rewinds the cache, `seen` is as in `sample.begin`."""
    if segment < 1:
        raise ValueError(f"segment is {segment}, expected at least 1 token.")
    run = _begin if samples > 1 else _begin_in_place
    begun = run(step, params, prompt, prompt_lengths, cache, held, settings, keys, jnp.asarray(eos, jnp.int32), pad,
                pieces, constraint, seen, max_new_tokens=max_new_tokens, samples=samples, prefill_chunk=prefill_chunk)
    return Stream(step, params, begun, segment)


def texts(tokens: Stream, tokenizer: Speller, prompts: Sequence[Sequence[int]], stops: Sequence[str] = ()
          ) -> Iterator[list[str]]:
    """The text that each sequence gains with each news; joined, `generate`'s, decoded and cut.

    Closes the stream at its end and when it is itself closed.

    Args: prompts: B lists of ids; stops: the strings that `settings` has.
    """
    streams = [TextStream(tokenizer, prompt, stops) for prompt in prompts]
    with tokens:
        for news in tokens:
            yield [text.push(ids) + (text.finish() if reason is not None else "")
                   for text, ids, reason in zip(streams, news.tokens, news.reasons, strict=True)]


def _run_begin(step: Step, params: Any, prompt: jax.Array, prompt_lengths: jax.Array, cache: Any,
               held: jax.Array | None, settings: Settings, keys: jax.Array, eos: jax.Array, pad: Any,
               pieces: Pieces | None, constraint: Constraint | None, seen: jax.Array | None, *, max_new_tokens: int,
               samples: int, prefill_chunk: int) -> tuple[jax.Array, State, Request, jax.Array]:
    cache = cache if held is None else cache.rewind(held)
    logits, state, request = sample.begin(
        step, params, prompt, prompt_lengths, cache, settings, keys, eos, pad, pieces, constraint, seen=seen,
        max_new_tokens=max_new_tokens, samples=samples, prefill_chunk=prefill_chunk)
    return logits, state, request, state.cache.lengths + 0  # what was read: the state is worked on


_STATIC = ("step", "max_new_tokens", "samples", "prefill_chunk")
_begin = partial(jax.jit, static_argnames=_STATIC)(_run_begin)
_begin_in_place = partial(jax.jit, static_argnames=_STATIC, donate_argnames=("cache",))(_run_begin)


@partial(jax.jit, static_argnames=("step", "steps"), donate_argnames=("logits", "state"))
def _segment(step: Step, params: Any, logits: jax.Array, state: State, request: Request, *, steps: int
             ) -> tuple[jax.Array, State, _Segment]:
    before = state.written.lengths
    logits, state = sample.extend(step, params, logits, state, request, steps)
    written = state.written
    columns = jnp.minimum(before[:, None] + jnp.arange(steps), written.tokens.shape[1] - 1)
    tokens, logprobs = (jnp.take_along_axis(array, columns, axis=1) for array in (written.tokens, written.logprobs))
    return logits, state, _Segment(tokens, logprobs, written.lengths - before, state.ended + False, written.reasons + 0)


@partial(jax.jit, donate_argnames=("cache",))
def _rewound(cache: Any, read: jax.Array, shown: jax.Array) -> Any:
    return cache.rewind(jnp.minimum(cache.lengths, read + shown))
