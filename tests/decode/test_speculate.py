# SPDX-License-Identifier: Apache-2.0
"""Guesses of any quality go in; the texts of `generate`, token for token and draw for draw, come out.

`markov` looks its logits up and adds two of them, so that a pass over many tokens gives the bits of
passes over one: every comparison here is exact.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5tasks import decode
from t5tasks.decode import prompts as prompt_functions
from t5tasks.decode.sample import Request, start

EOS, PAD, NEW, ROWS = 1, 0, 12, 6
VOCABULARY = 11
PROMPTS = [[3, 2], [4, 5, 6, 7], [8, 2, 2], [9, 4], [5, 3, 10], [2, 7, 7, 2]]
SOURCES = [0, 1, 2, 3, 0, 1]
PIECES = [b"", b"", b"a", b"b", b"ab", b" ", b"c", b"ca", b"\n", b"d", b"e"]
PLAIN = {"temperature": [0, 1.0, 0, 0.8, 1.4, 0]}
MIXED = {  # one value a row: every setting there is, in one batch
    "temperature": [0, 1.3, 0.9, 1.6, 0, 1.1], "top_k": [0, 8, 0, 0, 0, 5], "top_p": [1, 0.95, 0.9, 1, 1, 1],
    "min_p": [0, 0, 0.02, 0.05, 0, 0], "typical_p": [1, 1, 0.95, 0.9, 1, 1],
    "repetition_penalty": [1.4, 1, 0.8, 1.2, 1, 1.1], "presence_penalty": [0.3, 0, -0.2, 1, 0, 0],
    "frequency_penalty": [0.2, 0, 0.4, 0, 0.5, 0], "no_repeat_ngram": [2, 0, 3, 0, 1, 2],
    "min_new": [4, 0, 2, 0, 3, 0], "max_new": [9, 12, 50, 7, 12, 3],
    "bad_words": [[[9], [2, 8]], [], [[4, 4]], [[1, 3]], [], []],
    "forced": [[5], [], [-1, 7], [], [], [2, 3, 4]], "forced_eos": [6, -1, 1, -1, -1, -1]}
STOPS = [["ab"], ["ca", "d\n"], [" b"], ["e"], [], ["a"]]


pytestmark = pytest.mark.usefixtures("quick_to_compile")


@pytest.fixture(scope="module")
def target(markov):
    return jax.tree.map(jnp.asarray, markov.tables(0, 4, VOCABULARY))


@pytest.fixture(scope="module")
def drafts(markov, target):
    """Parameters of draft models, from the best to the worst."""
    other = jax.tree.map(jnp.asarray, markov.tables(1, 4, VOCABULARY))
    return {"identical": target, "good": jax.tree.map(lambda ours, theirs: ours + 0.2 * theirs, target, other),
            "bad": other, "adversarial": jax.tree.map(jnp.negative, target)}


@pytest.fixture
def both(markov, target, pad_right):
    """both(rules, k, draft): what `generate` gives, what `speculate` gives, and its acceptance."""
    def run(rules, count, draft, seed=0, needs_cache=True, eos=(EOS, 6)):
        tokens, lengths = pad_right(PROMPTS)
        settings, keys = decode.settings(ROWS, **rules), decode.keys(np.arange(seed, seed + ROWS))
        ends = {"max_new_tokens": NEW, "eos": list(eos), "pad": PAD, "pieces": decode.pieces(PIECES),
                "alternatives": 2}
        plain = decode.generate(markov.step, target, tokens, lengths, markov.empty(SOURCES, 40), settings, keys, **ends)
        guessed, acceptance = decode.speculate(
            markov.step, markov.verify, target, tokens, lengths, markov.empty(SOURCES, 40), draft,
            markov.empty(SOURCES, 40) if needs_cache else None, settings, keys, draft_tokens=count, **ends)
        return jax.device_get((plain, guessed, acceptance))

    return run


def check(plain, guessed, acceptance):
    """The same texts in all that is said of them, and figures that fit together."""
    for name in ("tokens", "lengths", "reasons", "top_tokens"):
        np.testing.assert_array_equal(getattr(guessed, name), getattr(plain, name))
    for name in ("logprobs", "top_logprobs"):
        np.testing.assert_allclose(getattr(guessed, name), getattr(plain, name), atol=1e-6)
    assert (acceptance.accepted <= acceptance.drafted).all()
    # A pass writes the guesses it accepts and one token more, unless such a guess ends the text.
    spare = acceptance.accepted + acceptance.passes - np.maximum(plain.lengths - 1, 0)
    assert ((spare == 0) | (spare == 1)).all()


@pytest.mark.parametrize("count", [1, 3, 7])
def test_any_draft_model_leaves_every_text_as_generate_has_it(markov, drafts, both, count):
    reasons, rates = set(), {}
    for quality, params in drafts.items():
        accepted, drafted = 0, 0
        for seed, rules in enumerate((PLAIN, MIXED, {**MIXED, "temperature": 0}, {**MIXED, "stop": STOPS},
                                      {"temperature": 2.0, "stop": STOPS}, {})):
            found = both(rules, count, decode.ModelDraft(markov.step, params), seed * 10)
            check(*found)
            reasons |= set(found[0].reasons.tolist())
            accepted, drafted = accepted + found[2].accepted.sum(), drafted + found[2].drafted.sum()
            if quality == "identical":
                assert (found[2].accepted == found[2].drafted).all()
                assert (found[2].passes == -(-np.maximum(found[0].lengths - 1, 0) // (count + 1))).all()
        rates[quality] = accepted / drafted
    assert reasons >= {decode.AT_LIMIT, decode.AT_EOS, decode.AT_STOP}
    assert 1 == rates["identical"] > rates["good"] > 0.6 > rates["bad"] > rates["adversarial"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Oracle:
    """Guesses from texts int32[B, N] known beforehand, of which each row says so many at a time."""

    texts: jax.Array
    most: jax.Array  # int32[B]

    def read(self, prompt, prompt_lengths, memory, prefill_chunk):
        return memory

    def take(self, memory, rows):
        return memory

    def propose(self, state, request, count, memory):
        places = state.written.lengths[:, None] + jnp.arange(count)
        tokens = jnp.take_along_axis(self.texts, jnp.minimum(places, self.texts.shape[1] - 1), axis=1)
        return tokens, jnp.minimum(self.most, count), memory

    def rewind(self, state, memory):
        return memory


def test_as_many_guesses_are_accepted_as_are_right(both):
    """Each third token of a known text is guessed wrong; rows guess 0 to 5 tokens a turn."""
    rules, count = {"temperature": 1.0}, 5
    silent = Oracle(jnp.zeros((ROWS, NEW), jnp.int32), jnp.zeros(ROWS, jnp.int32))
    plain, guessed, acceptance = both(rules, count, silent, needs_cache=False)
    check(plain, guessed, acceptance)
    assert not acceptance.drafted.any() and (acceptance.passes == plain.lengths - 1).all()
    texts = np.where(np.arange(NEW) % 3 == 2, (plain.tokens + 1) % VOCABULARY, plain.tokens)
    most = np.arange(ROWS)
    found = both(rules, count, Oracle(jnp.asarray(texts), jnp.asarray(most)), needs_cache=False)
    check(*found)
    for row in range(ROWS):
        written, length, passes, drafted, accepted = 1, int(plain.lengths[row]), 0, 0, 0
        while written < length:
            guesses = min(most[row], NEW - written - 1)
            right = next((at for at in range(guesses) if texts[row, written + at] != plain.tokens[row, written + at]
                          or written + at == length), guesses)
            passes, drafted, accepted = passes + 1, drafted + guesses, accepted + min(right, length - written)
            written += right + 1
        assert (found[2].passes[row], found[2].drafted[row], found[2].accepted[row]) == (passes, drafted, accepted)
    assert found[2].accepted.sum() > 5


def test_draws_follow_the_distribution(markov, target, drafts):
    """Texts of three tokens by their exact probabilities; chi-square, at a critical value of about p = 0.001."""
    draws, tables = 10_000, jax.tree.map(np.asarray, target)
    guessed, acceptance = decode.speculate(
        markov.step, markov.verify, target, np.tile(np.array([[3, 4]], np.int32), (draws, 1)), np.full(draws, 2),
        markov.empty(np.zeros(draws), 12), decode.ModelDraft(markov.step, drafts["good"]),
        markov.empty(np.zeros(draws), 12), decode.settings(draws, temperature=0.8, top_k=4),
        decode.keys(np.arange(draws)), draft_tokens=2, max_new_tokens=3, eos=[], pad=PAD)

    def chances(before, last, place):
        logits = (tables["pairs"][0, before, last] + tables["places"][0, place]).astype(np.float64)
        weights = np.where(logits >= np.sort(logits)[-4], np.exp(logits / 0.8), 0)
        return weights / weights.sum()

    expected = {(one, two, three): chances(3, 4, 1)[one] * chances(4, one, 2)[two] * chances(one, two, 3)[three]
                for one, two, three in itertools.product(range(VOCABULARY), repeat=3)}
    texts, counts = np.unique(np.asarray(guessed.tokens), axis=0, return_counts=True)
    seen = dict(zip(map(tuple, texts.tolist()), counts, strict=True))
    assert all(expected[text] > 0 for text in seen)
    common = [text for text, chance in expected.items() if chance * draws >= 8]
    rest = draws - sum(seen.get(text, 0) for text in common), draws * (1 - sum(expected[text] for text in common))
    squares = [(seen.get(text, 0) - draws * expected[text]) ** 2 / (draws * expected[text]) for text in common]
    statistic, degrees = sum(squares) + (rest[0] - rest[1]) ** 2 / max(rest[1], 1), len(common)
    assert degrees > 20 and statistic < degrees + 3.1 * np.sqrt(2 * degrees) + 4
    # A biased acceptance would show: some guesses were accepted, others were not.
    rate = float(jnp.sum(acceptance.accepted) / jnp.sum(acceptance.drafted))
    assert 0.5 < rate < 0.98


def test_batch_mates_do_not_matter(markov, target, drafts, both, pad_right):
    """Each row among slower and faster mates, in another order."""
    draft = decode.ModelDraft(markov.step, drafts["good"])
    _, together, counted = both(PLAIN, 3, draft)
    order = [5, 0, 4, 2, 1, 3]
    tokens, lengths = pad_right([PROMPTS[row] for row in order])
    caches = [markov.empty([SOURCES[row] for row in order], 40) for _ in range(2)]
    mixed, recounted = decode.speculate(
        markov.step, markov.verify, target, tokens, lengths, caches[0], draft, caches[1],
        decode.settings(ROWS, temperature=[PLAIN["temperature"][row] for row in order]), decode.keys(order),
        draft_tokens=3, max_new_tokens=NEW, eos=[EOS, 6], pad=PAD, pieces=decode.pieces(PIECES), alternatives=2)
    for at, row in enumerate(order):
        assert mixed.tokens[at].tolist() == together.tokens[row].tolist()
        assert recounted.passes[at] == counted.passes[row] and recounted.accepted[at] == counted.accepted[row]


def copied(seen, longest, count):
    """Prompt look-up by its definition: the latest of the longest matches, copied on."""
    for size in range(longest, 0, -1):
        for at in range(len(seen) - 2, size - 2, -1):
            if seen[at - size + 1:at + 1] == seen[len(seen) - size:] and None not in seen[len(seen) - size:]:
                text = list(seen)
                while len(text) < len(seen) + count:
                    text.append(text[at + 1 + len(text) - len(seen)])
                guesses = text[len(seen):]
                return guesses[:guesses.index(None)] if None in guesses else guesses
    return []


@pytest.mark.parametrize("longest", [1, 2, 4])
def test_look_up_copies_what_followed_the_longest_match(longest):
    random, rows, width, new, count = np.random.RandomState(longest), 300, 7, 6, 4
    lengths, written = random.randint(1, width + 1, rows), random.randint(1, new, rows)
    prompt, tokens = random.randint(3, size=(rows, width)), random.randint(3, size=(rows, new))
    source = random.randint(3, size=(rows, 5)) * np.where(random.rand(rows, 5) < 0.9, 1, 0)
    source = np.where(np.arange(5) < random.randint(0, 6, rows)[:, None], source, -1)
    state = start(Request(decode.settings(rows), decode.keys(np.arange(rows)),
                          prompt_functions.at_the_end(jnp.asarray(prompt), jnp.asarray(lengths)),
                          jnp.zeros(0, jnp.int32), None), new, 0, PAD, None)
    request = Request(decode.settings(rows), decode.keys(np.arange(rows)), prompt_functions.at_the_end(
        jnp.asarray(prompt), jnp.asarray(lengths)), jnp.zeros(0, jnp.int32), None)
    state = dataclasses.replace(state, written=dataclasses.replace(
        state.written, tokens=jnp.asarray(tokens, jnp.int32), lengths=jnp.asarray(written, jnp.int32)))
    for sources in (None, source):
        memory = None if sources is None else jnp.asarray(sources)
        guesses, counts, _ = jax.device_get(decode.PromptLookup(longest).propose(state, request, count, memory))
        sizes = set()
        for row in range(rows):
            seen = [*prompt[row, :lengths[row]].tolist(), *tokens[row, :written[row]].tolist()]
            if sources is not None:
                seen = [*[None if token < 0 else token for token in sources[row].tolist()], None, *seen]
            expected = copied(seen, longest, count)
            assert guesses[row, :counts[row]].tolist() == expected
            sizes.add(len(expected))
        assert {0, count} <= sizes and (sources is None or len(sizes) > 2)


def test_samples_and_chunked_prompts_are_those_of_generate(markov, target, pad_right):
    """Three samples of each prompt, read in chunks of two tokens, their source to copy from."""
    tokens, lengths = pad_right(PROMPTS)
    choice = decode.settings(3 * ROWS, temperature=1.0), decode.keys(np.arange(ROWS), 3)
    ends = {"max_new_tokens": NEW, "eos": [EOS, 6], "pad": PAD, "samples": 3, "prefill_chunk": 2}
    plain = decode.generate(markov.step, target, tokens, lengths, markov.empty(SOURCES, 40), *choice, **ends)
    source = np.where(np.arange(8) < 6, np.asarray(plain.tokens)[::3, 2:10], -1)  # half of the first sample's own words
    out = decode.speculate(
        markov.step, markov.verify, target, tokens, lengths, markov.empty(SOURCES, 40), decode.PromptLookup(3),
        jnp.asarray(source), *choice, draft_tokens=3, **ends)
    check(*jax.device_get((plain, *out)))
    accepted = np.asarray(out[1].accepted).reshape(ROWS, 3)
    assert accepted[:, 0].sum() > 2 * accepted[:, 1:].mean(axis=1).sum()


@pytest.mark.parametrize(("change", "said"), [
    ({"draft_tokens": 0}, "draft_tokens is 0, expected at least 1; use generate"),
    ({"capacity": 11}, "a prompt of 4 and 5 new and 3 drafted tokens need 12 slots, the cache has 11"),
    ({"draft_capacity": 11}, "the draft's memory: a prompt of 4 and 5 new and 3 drafted tokens need 12 slots"),
    ({"held": 1}, "the cache already holds up to 1 tokens a row and would need 13 slots, it has 12"),
    ({"settings": decode.settings(3)}, "settings are for (3,) sequences"),
])
def test_a_request_that_does_not_fit_is_refused(markov, target, change, said):
    caches = [markov.empty([0, 1], change.get(name, 12)) for name in ("capacity", "draft_capacity")]
    caches[0] = dataclasses.replace(caches[0], lengths=caches[0].lengths + change.get("held", 0))
    with pytest.raises(ValueError) as error:
        decode.speculate(
            markov.step, markov.verify, target, np.full((2, 4), 3, np.int32), np.array([4, 4]), caches[0],
            decode.ModelDraft(markov.step, target), caches[1], change.get("settings", decode.settings(2)),
            decode.keys([0, 1]), draft_tokens=change.get("draft_tokens", 3), max_new_tokens=5, eos=[EOS], pad=PAD)
    assert said in str(error.value)
