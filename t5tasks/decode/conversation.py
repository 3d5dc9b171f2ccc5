# SPDX-License-Identifier: Apache-2.0
"""From the prompts of one dialogue, turn after turn, to replies; what the cache holds is not read again.

    turn 1   prompt  [s A B]              read 3                         reply [x y z]
    turn 2   prompt  [s A B x y z e C D]  kept 5 (z was never fed)       read 4: z e C D
    edited   prompt  [s A Q]              kept 2, the rest is forgotten  read 1: Q

A reply has the tokens that `generate` gives for the whole prompt. It may be abandoned at any token:
the cache then holds the prompt and what was handed over.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from t5tasks.decode.constraint import Constraint
from t5tasks.decode.contract import CacheType, Step, reads_whole
from t5tasks.decode.prompts import NOTHING, bucket, padded, widths
from t5tasks.decode.sample import check_choice
from t5tasks.decode.settings import Settings
from t5tasks.decode.stops import Pieces
from t5tasks.decode.stream import Stream, begin

SMALLEST = 256  # slots of the first cache; it doubles when they are full


class Conversation:
    """The ids and the cache of one dialogue with a decoder.

    An image may be anywhere in the prompt; all of them belong to the cache that `start` makes, and
    are seen once. An encoder-decoder, whose encoder would read a longer source anew each turn, and
    a model that must read its prompt in one step (PaliGemma) hold no conversation.

    Attributes:
      prefilled, reused: tokens of the last prompt that were read, and that the cache held.
    """

    def __init__(self, step: Step, params: Any, start: Callable[[int], CacheType], limit: int, *,
                 prefill_chunk: int = 256, image_token: int | None = None) -> None:
        """A dialogue without a turn.

        Args:
          step: see `contract.Step`; hashable, the same object from dialogue to dialogue.
          start: an empty cache of one row from its capacity.
          limit: tokens of a prompt and its reply together, at most; the model's.
          prefill_chunk: tokens read at once, at most; shorter parts are padded to a few widths.
          image_token: the id in whose places the images stand.

        Raises: ValueError where limit or chunk is not positive.
        """
        if limit < 2 or prefill_chunk < 1:
            raise ValueError(f"limit is {limit} and prefill_chunk {prefill_chunk}, expected at least 2 tokens and 1.")
        self._step, self._params, self._start = step, params, start
        self._limit, self._chunk, self._image_token = limit, prefill_chunk, image_token
        self._cache: Any = None
        self._held: list[int] = []  # the ids in the cache
        self._reply: tuple[list[int], Stream] | None = None  # the last prompt, and what has the cache since
        self.prefilled = self.reused = 0

    @property
    def params(self) -> Any:
        """What the model's step is given."""
        return self._params

    @property
    def limit(self) -> int:
        """Tokens of a prompt and its reply together, at most."""
        return self._limit

    @property
    def capacity(self) -> int:
        """Slots of the cache, 0 before the first turn."""
        self._settle()
        return 0 if self._cache is None else int(self._cache.capacity)

    @property
    def held(self) -> list[int]:
        """The ids that the cache holds; a reply that goes on is closed."""
        self._settle()
        return list(self._held)

    def reset(self) -> None:
        """Forgets all turns; the cache's memory and what it saw of images stay."""
        self._settle()
        self._held = []

    def reply(self, prompt: Sequence[int], settings: Settings, key: jax.Array, *, max_new_tokens: int, eos: Any,
              pad: Any, pieces: Pieces | None = None, constraint: Constraint | None = None, segment: int = 1) -> Stream:
        """The stream of what follows a prompt: all ids from the dialogue's beginning, not only the new ones.

        A reply that still goes on is closed.

        Args: settings: of one sequence; key: uint32[1, 2] (`keys`); the others as in `stream.stream`.

        Raises: ValueError where prompt and reply exceed the limit, or as `stream.stream`; the
          dialogue then stays as it was.
        """
        prompt = [int(id) for id in prompt]
        total = len(prompt) + max_new_tokens
        if not prompt or max_new_tokens < 1 or total > self._limit:
            raise ValueError(f"a prompt of {len(prompt)} and {max_new_tokens} new tokens were asked for, expected at "
                             f"least 1 of each and {self._limit} at most together; leave out old turns or ask for "
                             "fewer new tokens.")
        check_choice(1, settings, key, pieces, 1, 0, constraint, max_new_tokens)
        self._settle()
        kept = self._kept(prompt)
        self._make_room(kept, len(prompt), total)
        new, capacity = prompt[kept:], self._cache.capacity
        width = widths(self._chunk) if len(new) <= self._chunk else [-(-capacity // self._chunk) * self._chunk]
        tokens, lengths = padded([new], width)
        seen = np.full((1, capacity), NOTHING, np.int32)
        seen[0, capacity - len(prompt):] = prompt
        cache, self._cache, self._held = self._cache, None, []  # until the reply gives it back
        reply = begin(
            self._step, self._params, jnp.asarray(tokens), jnp.asarray(lengths), cache, settings, key, eos, pad, pieces,
            constraint, segment=segment, held=jnp.full(1, kept, jnp.int32), seen=jnp.asarray(seen),
            max_new_tokens=max_new_tokens, prefill_chunk=self._chunk)
        self._reply = prompt, reply
        self.prefilled, self.reused = len(new), kept
        return reply

    def _settle(self) -> None:
        """Takes the cache back from the last reply."""
        if self._reply is None:
            return
        (prompt, reply), self._reply = self._reply, None
        try:
            self._cache = reply.cache
        except RuntimeError:  # an interrupt while the device was handed the cache: it is lost, not the dialogue
            return
        self._held = [*prompt, *reply.ids[0]][:int(self._cache.lengths[0])]

    def _kept(self, prompt: list[int]) -> int:
        """How many of the held tokens begin the prompt too; at least one of it is left to be read."""
        pairs = zip(self._held, prompt[:-1], strict=False)
        kept = next((place for place, (held, wanted) in enumerate(pairs) if held != wanted),
                    min(len(self._held), len(prompt) - 1))
        # What was seen of images is counted from the first: half of them cannot be forgotten.
        return 0 if self._image_token in self._held[kept:] else kept

    def _make_room(self, kept: int, length: int, total: int) -> None:
        """A cache whose capacity, one of few, holds the turn and the padding of its last chunk."""
        new = length - kept
        blocks = -(-new // self._chunk) * self._chunk if new > self._chunk else bucket(new, widths(self._chunk))
        sizes = [SMALLEST]
        while sizes[-1] < self._limit + self._chunk:
            sizes.append(2 * sizes[-1])
        sizes[-1] = self._limit + self._chunk
        capacity = bucket(max(total, kept + blocks), sizes)
        if self._cache is None:
            self._cache, self._held = self._start(capacity), []
        elif self._cache.capacity < capacity:
            self._cache = _grow(self._cache, capacity=capacity)
        if reads_whole(self._cache):
            raise ValueError("the model reads its prompt in one step, which a conversation cannot; use generate.")


_grow = jax.jit(lambda cache, capacity: cache.grow(capacity), static_argnames="capacity")
