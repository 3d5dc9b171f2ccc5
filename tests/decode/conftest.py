# SPDX-License-Identifier: Apache-2.0
"""Two toy models under the decoding contract, small enough to be followed by hand in NumPy.

`recency`: logits from a sum over the whole prefix in which a token weighs half of its successor,
plus the row's source; so a wrong slot, order, length or source changes them.
`markov`: logits from a table by source and the last two tokens, plus one by source and position
(without it, paths through the same pairs in another order would tie); sequences can be enumerated.
"""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

VOCABULARY, WIDTH = 11, 8
PLACES = 16  # positions that `markov` knows


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class History:
    """A cache that remembers the tokens themselves."""

    tokens: jax.Array   # int32[B, capacity]
    lengths: jax.Array  # int32[B]
    source: jax.Array   # int32[B]  stands for cross-attention memory: `reorder` leaves it in place

    @property
    def capacity(self):
        return self.tokens.shape[1]

    def take(self, rows):
        return jax.tree.map(lambda array: array[rows], self)

    def expand(self, beams, new_tokens):
        return self.take(jnp.repeat(jnp.arange(self.lengths.shape[0]), beams))

    def reorder(self, rows):
        return dataclasses.replace(self, tokens=self.tokens[rows], lengths=self.lengths[rows])

    def place(self, rows, other):
        """What lies past the other's capacity stays, as garbage that nobody may read."""
        tokens = self.tokens.at[rows, :other.capacity].set(other.tokens)
        return History(tokens, self.lengths.at[rows].set(other.lengths), self.source.at[rows].set(other.source))

    def rewind(self, lengths):
        """What is taken back is forgotten, so that reading it would show."""
        kept = jnp.arange(self.capacity) < lengths[:, None]
        return dataclasses.replace(self, tokens=jnp.where(kept, self.tokens, -1), lengths=lengths)

    def grow(self, capacity):
        more = ((0, 0), (0, capacity - self.capacity))
        return dataclasses.replace(self, tokens=jnp.pad(self.tokens, more, constant_values=-1))


def empty(sources, capacity):
    sources = jnp.asarray(sources, jnp.int32)
    return History(jnp.full((sources.shape[0], capacity), -1, jnp.int32),
                   jnp.zeros_like(sources), sources)


def write(cache, tokens, counts):
    """Only valid tokens are written, so that a wrong count cannot hide."""
    offset = jnp.arange(cache.capacity) - cache.lengths[:, None]
    new = jnp.take_along_axis(tokens, jnp.clip(offset, 0, tokens.shape[1] - 1), axis=1)
    stored = jnp.where((offset >= 0) & (offset < counts[:, None]), new, cache.tokens)
    return dataclasses.replace(cache, tokens=stored, lengths=cache.lengths + counts)


def make_model(logits_at):
    """step, verify and score from logits_at(params, cache, positions int32[B, T]) -> f32[B, T, V]."""
    model = SimpleNamespace(traces=0, empty=empty)

    def step(params, tokens, counts, cache):
        model.traces += 1
        cache = write(cache, tokens, counts)
        return logits_at(params, cache, cache.lengths[:, None] - 1)[:, 0], cache

    def verify(params, tokens, counts, cache):
        positions = cache.lengths[:, None] + jnp.arange(tokens.shape[1])
        cache = write(cache, tokens, counts)
        return logits_at(params, cache, positions), cache

    def score(params, tokens, counts, targets, cache):
        positions = cache.lengths[:, None] + jnp.arange(tokens.shape[1])
        cache = write(cache, tokens, counts)
        logprobs = jax.nn.log_softmax(logits_at(params, cache, positions))
        return jnp.take_along_axis(logprobs, targets[..., None], axis=-1)[..., 0], cache

    model.step, model.verify, model.score = step, verify, score
    return model


def recency_logits(params, cache, positions):
    age = positions[..., None] - jnp.arange(cache.capacity)  # [B, T, capacity]
    weight = jnp.where(age >= 0, 0.5 ** jnp.maximum(age, 0), 0.0)
    # A slot never written holds -1: NaN would show if it were read.
    embedded = jnp.where(cache.tokens[..., None] < 0, jnp.nan, params["embed"][cache.tokens])
    held = jnp.arange(cache.capacity) < cache.lengths[:, None]
    embedded = jnp.where(held[..., None], embedded, 0)
    hidden = jnp.einsum("bts,bsd->btd", weight, embedded) + params["source"][cache.source][:, None]
    return jnp.tanh(hidden) @ params["head"]


def markov_logits(params, cache, positions):
    last, before = (jnp.take_along_axis(cache.tokens, jnp.maximum(positions - back, 0), axis=1)
                    for back in (0, 1))
    source = cache.source[:, None]
    return params["pairs"][source, before, last] + params["places"][source, positions]


@pytest.fixture(scope="session")
def recency():
    """A model, its .params and .prompts, and .logits(tokens, source) in float64 without a cache."""
    model = make_model(recency_logits)
    random = np.random.RandomState(0)
    model.params = {"embed": jnp.asarray(random.randn(VOCABULARY, WIDTH), jnp.float32),
                    "source": jnp.asarray(random.randn(4, WIDTH), jnp.float32),
                    "head": jnp.asarray(random.randn(WIDTH, VOCABULARY) * 1.5, jnp.float32)}
    embed, source, head = (np.asarray(model.params[name], np.float64)
                           for name in ("embed", "source", "head"))

    def logits(tokens, which):
        ages = np.arange(len(tokens))[::-1]
        return np.tanh((0.5 ** ages) @ embed[list(tokens)] + source[which]) @ head

    model.logits = logits
    model.prompts = [[3], [4, 5, 6, 7], [8, 2], [9, 9, 4]]
    return model


@pytest.fixture(scope="session")
def markov():
    """A model, and .tables(seed, sources, vocabulary) for its params; prompts need two tokens."""
    model = make_model(markov_logits)

    def tables(seed, sources, vocabulary):
        random = np.random.RandomState(seed)
        pairs = random.randn(sources, *[vocabulary] * 3) * 1.5
        return {"pairs": pairs.astype(np.float32),
                "places": random.randn(sources, PLACES, vocabulary).astype(np.float32)}

    model.tables = tables
    return model


@pytest.fixture(scope="session")
def pad_right():
    def pad(sequences, width=None):
        """(int32[B, T], int32[B]); the filler is a real token, so that reading it would show."""
        lengths = np.array([len(sequence) for sequence in sequences], np.int32)
        tokens = np.full((len(sequences), width or lengths.max()), 10, np.int32)
        for row, sequence in zip(tokens, sequences, strict=True):
            row[:len(sequence)] = sequence
        return tokens, lengths

    return pad


@pytest.fixture(scope="module")
def quick_to_compile():
    """Programs that are run a few times on toy sizes are compiled without optimisation, in half the time."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
