# SPDX-License-Identifier: Apache-2.0
"""From logits and what each row has seen to logits with penalties, bans and forced tokens.

In the order of transformers 5.23 (`GenerationMixin._get_logits_processor`):

    repetition penalty   once for each distinct token of prompt and text: x < 0 is multiplied, x >= 0
                         divided (arXiv:1909.05858, section 4.1)
    presence, frequency  x - presence - frequency * count over the new tokens alone, as vLLM and
                         OpenAI define them; transformers has neither. vLLM's place: after repetition
    no_repeat_ngram = n  bans what would complete an n-gram of prompt and text (arXiv:1705.04304, 2.5)
    bad_words            bans a word's last token where the others stand at the end of prompt and text;
                         a word that is one EOS id is passed over
    min_new              bans EOS
    forced, forced_eos   bans all but one token, whose value becomes 0; stronger than every ban above

Beam search hands in log-probabilities, which are not normalised again. "Prompt" is what the request
gives: tokens that an older turn left in the cache are not seen. Padding is never seen.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from t5tasks.decode.prompts import history, written
from t5tasks.decode.settings import Settings


def process(logits: jax.Array, settings: Settings, prompt: jax.Array, tokens: jax.Array,
            lengths: jax.Array, eos: jax.Array) -> jax.Array:
    """f32[B, V] after all that the rows ask for; what nobody asks for now is not computed.

    Args:
      logits: f32[B, V]; settings: B rows.
      prompt: int32[B, T], as `prompts.at_the_end` makes it.
      tokens: int32[B, N], of which lengths int32[B] are written.
      eos: int32[E], ids below 0 name no token.
    """
    return jax.lax.cond(
        is_used(settings, tokens, lengths),
        lambda: process_all(logits, settings, prompt, tokens, lengths, eos), lambda: logits)


def is_used(settings: Settings, tokens: jax.Array, lengths: jax.Array) -> jax.Array:
    """bool[]: does a row ask for anything that acts on its next token?"""
    asks = ((settings.repetition_penalty != 1) | (settings.presence_penalty != 0)
            | (settings.frequency_penalty != 0) | (settings.no_repeat_ngram > 0)
            | (settings.bad_words[:, 0, -1] >= 0) | (lengths < settings.min_new)
            | (_forced_now(settings, tokens, lengths) >= 0))
    return jnp.any(asks)


def suppress(logits: jax.Array, tokens: jax.Array, rows: jax.Array) -> jax.Array:
    """Sets logits[b, tokens] to -inf in the rows bool[B]; token ids below 0 name no token."""
    tokens = jnp.where(tokens < 0, logits.shape[-1], tokens)
    kept = logits.at[:, tokens].get(mode="fill", fill_value=0)
    return logits.at[:, tokens].set(jnp.where(rows[:, None], -jnp.inf, kept), mode="drop")


def process_all(logits: jax.Array, settings: Settings, prompt: jax.Array, tokens: jax.Array,
                lengths: jax.Array, eos: jax.Array) -> jax.Array:
    """As `process`, for a caller who knows that something is used."""
    new = written(tokens, lengths)
    seen = history(prompt, tokens, lengths)
    ends = prompt.shape[1] + lengths
    early = lengths < settings.min_new
    forced = _forced_now(settings, tokens, lengths)
    repetition, ngram = settings.repetition_penalty, settings.no_repeat_ngram
    presence, frequency = settings.presence_penalty, settings.frequency_penalty
    steps: list[tuple[jax.Array, Callable[[jax.Array], jax.Array]]] = [
        (repetition != 1, lambda x: _repetition(x, seen, repetition)),
        (presence != 0, lambda x: _presence(x, new, presence)),
        (frequency != 0, lambda x: _frequency(x, new, frequency)),
        (ngram > 0, lambda x: _ban(x, _ngram_ends(seen, ends, ngram))),
        (settings.bad_words[:, 0, -1] >= 0, lambda x: _ban(x, _word_ends(seen, ends, settings, eos))),
        (early, lambda x: suppress(x, eos, early)),
        (forced >= 0, lambda x: _force(x, forced)),
    ]
    for rows, step in steps:
        logits = jax.lax.cond(jnp.any(rows), step, lambda x: x, logits)
    return logits


def _places(logits: jax.Array, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The indices of tokens int32[B, L] in the logits; those of NOTHING lie outside."""
    return jnp.arange(logits.shape[0])[:, None], jnp.where(tokens < 0, logits.shape[-1], tokens)


def _repetition(logits: jax.Array, seen: jax.Array, penalty: jax.Array) -> jax.Array:
    places = _places(logits, seen)
    values = logits.at[places].get(mode="fill", fill_value=0)
    by = penalty[:, None]
    # A token seen twice is written twice, with the same value.
    return logits.at[places].set(jnp.where(values < 0, values * by, values / by), mode="drop")


def _presence(logits: jax.Array, new: jax.Array, penalty: jax.Array) -> jax.Array:
    places = _places(logits, new)
    values = logits.at[places].get(mode="fill", fill_value=0)
    return logits.at[places].set(values - penalty[:, None], mode="drop")


def _frequency(logits: jax.Array, new: jax.Array, penalty: jax.Array) -> jax.Array:
    return logits.at[_places(logits, new)].add(-penalty[:, None], mode="drop")


def _ban(logits: jax.Array, tokens: jax.Array) -> jax.Array:
    """-inf at tokens int32[B, L]."""
    return logits.at[_places(logits, tokens)].set(-jnp.inf, mode="drop")


def _ngram_ends(seen: jax.Array, ends: jax.Array, size: jax.Array) -> jax.Array:
    """int32[B, T + N]: tokens that would repeat an n-gram, NOTHING elsewhere.

    seen[j] is one where the n - 1 tokens before j are the row's last n - 1. Each turn of the loop
    compares one of these, so n is a value, not a shape.
    """
    slots = jnp.arange(seen.shape[1])

    def compare(back: jax.Array, alike: jax.Array) -> jax.Array:
        last = jnp.take_along_axis(seen, jnp.maximum(ends - back, 0)[:, None], axis=1)
        before = jnp.where(slots < back, -1, jnp.roll(seen, back, axis=1))
        return alike & ((back >= size[:, None]) | ((before == last) & (last >= 0)))

    begun = (seen >= 0) & (size[:, None] > 0)
    # A row that has seen fewer tokens than n - 1 has nothing left long before its n is reached.
    turns = jnp.minimum(jnp.max(size), seen.shape[1] + 1)
    return jnp.where(jax.lax.fori_loop(1, turns, compare, begun), seen, -1)


def _word_ends(seen: jax.Array, ends: jax.Array, settings: Settings, eos: jax.Array) -> jax.Array:
    """int32[B, W]: the last token of each bad word that is complete but for it, else NOTHING."""
    starts, last = settings.bad_words[..., :-1], settings.bad_words[..., -1]
    slots = ends[:, None] - jnp.arange(starts.shape[-1], 0, -1)
    newest = jnp.where(slots >= 0, jnp.take_along_axis(seen, jnp.maximum(slots, 0), axis=1), -1)
    there = jnp.all((starts < 0) | (starts == newest[:, None]), axis=-1)
    end_of_text = jnp.all(starts < 0, axis=-1) & jnp.any(last[..., None] == eos, axis=-1)
    return jnp.where(there & ~end_of_text, last, -1)


def _forced_now(settings: Settings, tokens: jax.Array, lengths: jax.Array) -> jax.Array:
    """int32[B]: the id that the next token has to be, NOTHING where it is free."""
    width = settings.forced.shape[1]
    place = jnp.minimum(lengths, width - 1)[:, None]
    first = jnp.where(lengths < width, jnp.take_along_axis(settings.forced, place, axis=1)[:, 0], -1)
    last = lengths == jnp.minimum(settings.max_new, tokens.shape[1]) - 1
    return jnp.where(last & (settings.forced_eos >= 0), settings.forced_eos, first)


def _force(logits: jax.Array, forced: jax.Array) -> jax.Array:
    chosen = jnp.arange(logits.shape[-1]) == forced[:, None]
    return jnp.where(forced[:, None] < 0, logits, jnp.where(chosen, 0.0, -jnp.inf))
