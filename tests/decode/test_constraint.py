# SPDX-License-Identifier: Apache-2.0
"""Every text under a constraint is one that it allows, drawn and ranked as if the others did not exist."""

import dataclasses
import itertools
import re

import jax
import numpy as np
import pytest

from t5tasks import decode
from t5tasks.decode.automaton import FAR

EOS, PAD, NEW, VOCABULARY = 1, 0, 8, 11
ROWS = 12  # of nearly every request, so that they share a program
EURO = "€".encode()
PIECES = (b"", b"", b"a", b"b", b"ab", b"ba", b"aab", EURO[:1], EURO[1:], EURO + b"a", b" b a")
TOY = decode.Spellings(PIECES, PIECES, False, "toy")
CONTINUATIONS = ([2, 3], [4, 4, 9], [7, 8], [7, 8, 2, EOS])
LANGUAGES = {pattern: decode.regex(pattern, TOY, [EOS]) for pattern in (
    "(ab|€)+", "a?b€a|€€", "(a|b){2,7}", "( b a)*b.*", "[^a ]{3}")}
LISTED = "ab|abab€a|€a?"
LANGUAGES[LISTED] = decode.trie(CONTINUATIONS, VOCABULARY, [EOS])


pytestmark = pytest.mark.usefixtures("quick_to_compile")


def spelled(tokens):
    return b"".join(PIECES[token] for token in tokens).decode()


def matches(pattern, tokens):
    try:
        return bool(re.fullmatch(pattern, spelled(tokens)))
    except UnicodeDecodeError:  # a part of a character
        return False


def accepts(automaton, tokens):
    """On the host: (is each token allowed?, is the text complete?)."""
    state = automaton.start
    for token in tokens:
        state = automaton.after(state, token)
        if state < 0:
            return False, False
    return True, automaton.remaining[state] == 0


def constraint(automata, **options):
    return decode.constrain(automata, vocabulary=VOCABULARY, **options)


def generate(model, settings, seeds, new=NEW, eos=(EOS, -1), **options):
    sources = np.arange(len(seeds)) % 4
    return jax.device_get(decode.generate(
        model.step, model.params, np.full((sources.size, 2), 3, np.int32), np.full(sources.size, 2), model.empty(
            sources, 2 + new), settings, decode.keys(seeds), max_new_tokens=new, eos=list(eos), pad=PAD, **options))


def test_an_automaton_is_its_language():
    """All token sequences up to four: allowed by the automaton as long as a match can follow, and no longer."""
    sequences = [tokens for size in range(5) for tokens in itertools.product(range(2, VOCABULARY), repeat=size)]
    for pattern, automaton in LANGUAGES.items():
        if pattern == LISTED:
            complete = {tuple(token for token in one if token != EOS) for one in CONTINUATIONS}
        else:
            complete = {tokens for tokens in sequences if matches(pattern, tokens)}
        for tokens in sequences:
            assert accepts(automaton, tokens)[1] == (tokens in complete), (pattern, tokens)
        for tokens in (tokens for tokens in complete if tokens):
            assert accepts(automaton, tokens[:-1])[0]
        fewest = min(map(len, complete))
        assert automaton.remaining[automaton.start] == fewest
        # No token is allowed that leads nowhere, and those without bytes never are.
        for tokens in sequences[:700]:
            assert not accepts(automaton, [*tokens, EOS])[0] and not accepts(automaton, [*tokens, PAD])[0]
        assert np.all(automaton.remaining[automaton.targets[automaton.owners >= 0]] < FAR)


def test_every_draw_matches_at_any_limit(recency):
    """480 draws: six languages, every temperature, limits from the tightest on, penalties and min_new."""
    random, rows, names = np.random.RandomState(0), ROWS, [*LANGUAGES]
    reasons, texts = set(), set()
    for _ in range(40):
        mine = [names[row % len(names)] for row in range(rows)]
        fewest = np.array([LANGUAGES[name].remaining[LANGUAGES[name].start] for name in mine])
        limits = fewest + random.choice([0, 0, 1, 2, 5], rows)
        settings = decode.settings(
            rows, temperature=random.choice([0.0, 0.7, 3.0, 1e6], rows), max_new=limits,
            min_new=np.minimum(random.choice([0, 0, 3], rows), limits), top_p=random.choice([1.0, 0.5], rows),
            top_k=random.choice([0, 2], rows), repetition_penalty=random.choice([1, 2.5], rows),
            frequency_penalty=random.choice([0, 1.5], rows))
        out = generate(recency, settings, random.randint(0, 2 ** 31, rows),
                       constraint=constraint([LANGUAGES[name] for name in mine]))
        for row, name in enumerate(mine):
            tokens = out.tokens[row, :out.lengths[row]].tolist()
            text = spelled(tokens)
            assert re.fullmatch(name, text), (name, text)
            texts.add((name, text))
            reasons.add(out.reasons[row])
            # Only min_new may stop a text that is complete and cannot go on.
            assert out.reasons[row] != decode.FORBIDDEN or settings.min_new[row] > out.lengths[row]
    assert len(texts) > 50 and reasons == {decode.AT_EOS, decode.AT_LIMIT, decode.FORBIDDEN}


@pytest.mark.parametrize("eos", [(-1, -1), (EOS, 5)])
def test_ends_of_any_ids(recency, eos):
    """Without EOS a text runs on; with two, both end it, and neither is text."""
    automaton = decode.regex("(ab|€)+", TOY, eos)
    settings = decode.settings(ROWS, temperature=5.0)
    for seed in range(5):
        out = generate(recency, settings, np.arange(ROWS) + ROWS * seed, eos=eos,
                       constraint=constraint([automaton] * ROWS))
        for tokens, length in zip(out.tokens, out.lengths, strict=True):
            text = [token for token in tokens[:length].tolist() if token not in eos]
            assert re.fullmatch("(ab|€)+", spelled(text)) and len(text) >= length - 1


def brute_force(model, automaton, prompt, source, limit):
    """{tokens: probability} of every text, each step renormalised over what may still end in time."""
    found, open_texts = {}, [((), automaton.start, 1.0)]
    while open_texts:
        tokens, state, mass = open_texts.pop()
        logits = model.logits([*prompt, *tokens], source)
        reached = {token: automaton.after(state, token) for token in range(VOCABULARY)}
        weights = {token: np.exp(logits[token]) for token, there in reached.items()
                   if there >= 0 and automaton.remaining[there] < limit - len(tokens)}
        if automaton.remaining[state] == 0:
            weights[EOS] = np.exp(logits[EOS])
        for token, weight in weights.items():
            share = mass * weight / sum(weights.values())
            if token == EOS or len(tokens) + 1 == limit:
                found[(*tokens, token)] = share
            else:
                open_texts.append(((*tokens, token), reached[token], share))
    return found


def test_draws_follow_the_renormalised_distribution(recency):
    draws, limit, automaton, source = 40_000, 3, LANGUAGES["(ab|€)+"], 2
    out = generate(recency, decode.settings(draws, temperature=1.0), np.arange(draws), limit,
                   constraint=constraint([automaton] * draws))
    out = jax.tree.map(lambda array: array[source::4], out)
    draws //= 4
    expected = brute_force(recency, automaton, [3, 3], source, limit)
    assert abs(sum(expected.values()) - 1) < 1e-9
    counts = dict.fromkeys(expected, 0)
    for tokens, length in zip(out.tokens.tolist(), out.lengths, strict=True):
        counts[tuple(tokens[:length])] += 1
    likely = [tokens for tokens, share in expected.items() if share * draws > 5]
    chi_square = sum((counts[tokens] - draws * expected[tokens]) ** 2 / (draws * expected[tokens]) for tokens in likely)
    freedom = len(likely) - 1
    assert freedom >= 3
    # Wilson and Hilferty's approximation; one run in a thousand exceeds it
    assert chi_square < freedom * (1 - 2 / (9 * freedom) + 3.1 * np.sqrt(2 / (9 * freedom))) ** 3


def test_beams_that_cover_the_language_rank_all_of_it(recency):
    """Scores are the model's own, not renormalised; the languages of the rows differ, one row is free."""
    limit, names = 4, ["(a|b){2,7}", "a?b€a|€€", LISTED, None]
    automata = [name and LANGUAGES[name] for name in names]
    prompts, lengths = np.full((4, 2), 3, np.int32), np.full(4, 2)
    request = {"beams": 60, "num_return": 60, "max_new_tokens": limit, "length_penalty": 1.0, "pad": PAD,
               "early_stopping": "never", "eos": [EOS], "keep_cache": True}
    cache = recency.empty(range(4), 8)
    out = jax.device_get(decode.search(
        recency.step, recency.params, prompts, lengths, cache, constraint=constraint(automata), **request))
    for row, automaton in enumerate(automata[:3]):
        ranked = []
        for size in range(1, limit + 1):
            for tokens in itertools.product(range(2, VOCABULARY), repeat=size):
                if not accepts(automaton, tokens)[1]:
                    continue
                whole = tokens if size == limit else (*tokens, EOS)
                steps = [recency.logits([3, 3, *whole[:place]], row) for place in range(len(whole))]
                logprobs = [step[token] - np.log(np.exp(step).sum()) for step, token in zip(steps, whole, strict=True)]
                ranked.append((np.mean(logprobs), list(whole)))
        ranked.sort(reverse=True)
        count = int(np.sum(out.lengths[row] > 0))
        assert count == min(len(ranked), 60)
        np.testing.assert_allclose(out.scores[row, :10 if count == 60 else count],
                                   [score for score, _ in ranked[:10 if count == 60 else count]], atol=1e-5)
        assert out.tokens[row, 0, :out.lengths[row, 0]].tolist() == ranked[0][1]
    texts = {tuple(tokens[:length]) for tokens, length in zip(out.tokens[3].tolist(), out.lengths[3], strict=True)}
    assert len(texts) == 60 and {token for text in texts for token in text} > {0, 2, 5}


def test_every_beam_matches_at_the_tightest_limit(recency):
    names = [name for name in LANGUAGES for _ in range(3)]
    fewest = np.array([LANGUAGES[name].remaining[LANGUAGES[name].start] for name in names])
    rows = len(names)
    for more, groups in ((0, 1), (1, 3), (4, 1)):
        out = jax.device_get(decode.search(
            recency.step, recency.params, np.full((rows, 2), 3, np.int32), np.full(rows, 2),
            recency.empty(np.arange(rows) % 4, 12), beams=3, num_return=3, max_new_tokens=NEW, length_penalty=1.0,
            early_stopping=False, eos=[EOS, -1], pad=PAD, settings=decode.settings(rows, max_new=fewest + more),
            groups=groups, diversity_penalty=0.0 if groups == 1 else 0.7,
            constraint=constraint([LANGUAGES[name] for name in names])))
        assert np.all(out.lengths[:, 0] > 0)
        for row, name in enumerate(names):
            for tokens, length in zip(out.tokens[row], out.lengths[row], strict=True):
                assert not length or re.fullmatch(name, spelled(tokens[:length]))


def test_rows_are_as_with_other_mates_and_free_ones_as_without_a_constraint(recency):
    automata = [LANGUAGES["(ab|€)+"], None, LANGUAGES[LISTED], None] * 3
    settings = decode.settings(ROWS, temperature=[0.0, 2.0, 2.0, 0.0] * 3, frequency_penalty=0.5)
    for seed in range(5):
        seeds = np.arange(ROWS) + ROWS * seed
        together = generate(recency, settings, seeds, constraint=constraint(automata))
        free = generate(recency, settings, seeds)
        alone = generate(recency, settings, seeds, constraint=constraint([None, None, LANGUAGES[LISTED]] + [None] * 9))
        assert np.array_equal(alone.tokens[2], together.tokens[2])
        for row in range(1, ROWS, 2):
            for mine, theirs, mates in zip(*map(jax.tree.leaves, (together, free, alone)), strict=True):
                assert np.array_equal(mine[row], theirs[row]) and np.array_equal(mates[row], theirs[row])  # bit for bit


def test_other_constraints_of_a_bucket_compile_nothing(recency):
    settings, names = decode.settings(ROWS, temperature=1.0), [*LANGUAGES]
    generate(recency, settings, range(ROWS), constraint=constraint([LANGUAGES[name] for name in names[:4] * 3]))
    traces = recency.traces
    for first, second in itertools.permutations(names, 2):
        automata = [LANGUAGES[first], None, LANGUAGES[second], LANGUAGES[first]] * 3
        out = generate(recency, settings, range(ROWS), constraint=constraint(automata))
        assert re.fullmatch(first, spelled(out.tokens[0, :out.lengths[0]]))
        assert re.fullmatch(second, spelled(out.tokens[2, :out.lengths[2]]))
    assert recency.traces == traces


def test_what_bans_every_allowed_token_ends_the_text_with_its_reason(recency):
    settings = decode.settings(ROWS, bad_words=[[8], [9]], temperature=1.0)
    out = generate(recency, settings, range(ROWS), constraint=constraint(
        [decode.regex("b€", TOY, [EOS]), decode.regex("ba", TOY, [EOS])] * 6))
    assert out.reasons.tolist() == [decode.FORBIDDEN, decode.AT_EOS] * 6
    assert out.tokens[0, :out.lengths[0]].tolist() == [3, 7]  # b and the first byte of €


def test_forced_tokens_count(recency):
    automaton = LANGUAGES["(ab|€)+"]
    forced = decode.settings(ROWS, forced=[[7, 8], [2], []] * 4, forced_eos=EOS, max_new=[5, 3, 2] * 4, temperature=2.0)
    for seed in range(5):
        out = generate(recency, forced, np.arange(ROWS) + ROWS * seed, constraint=constraint([automaton] * ROWS))
        for tokens, length in zip(out.tokens.tolist(), out.lengths, strict=True):
            assert tokens[length - 1] == EOS and re.fullmatch("(ab|€)+", spelled(tokens[:length]))


@pytest.mark.parametrize(("change", "said"), [
    ({"max_new": [8, 2]}, "sequence 1 needs at least 3 tokens to satisfy its constraint, its limit is 2"),
    ({"max_new": 3, "forced_eos": [-1, EOS]}, "sequence 1 needs at least 4 tokens"),
    ({"forced": [[], [2] * 7], "max_new": 8}, "sequence 1 needs at least 10 tokens"),
    ({"forced": [[], [2, 3, 3]]}, "sequence 1 has the forced token 3 at place 2, which its constraint does not allow"),
    ({"constrained": 3}, "the constraint is for (3,) sequences, the settings for (2,)"),
])
def test_a_request_that_cannot_end_in_time_is_refused(recency, change, said):
    change = {**change}
    made = constraint([decode.regex("a*b€", TOY, [EOS])] * change.pop("constrained", 2))
    with pytest.raises(ValueError) as error:
        generate(recency, decode.settings(2, **change), range(2), constraint=made)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(("make", "said"), [
    (lambda: constraint([None, None]), "no sequence has an automaton"),
    (lambda: decode.constrain([LANGUAGES["(ab|€)+"]], vocabulary=10), "knows 11 tokens, the vocabulary has 10"),
    (lambda: decode.trie([], 5), "the trie has no sequence"),
    (lambda: decode.trie([[2], [5]], 5), "sequence 1 of the trie has the id 5, expected ids of 0 to 4"),
    (lambda: decode.trie([[1, 2]], 5, [1]), "that do not end a text"),
])
def test_what_is_no_constraint(make, said):
    with pytest.raises(ValueError) as error:
        make()
    assert said in str(error.value)


def test_a_trie_of_many_labels_is_small_and_whole():
    random = np.random.RandomState(0)
    labels = {tuple(random.randint(2, 30_000, random.randint(1, 5)).tolist()) for _ in range(2000)}
    automaton = decode.trie(labels, 32_000)
    assert automaton.owners.size < 40_000  # a full table would have five million entries
    assert all(accepts(automaton, label) == (True, True) for label in labels)
    for label in sorted(labels)[:300]:
        wrong = (*label[:-1], label[-1] - 1)
        assert accepts(automaton, wrong)[1] == (wrong in labels)


def test_a_wider_vocabulary_than_the_tokenizer_s_is_not_allowed(recency):
    wide = dataclasses.replace(TOY, within=PIECES[:9], opening=PIECES[:9], fingerprint="narrow")
    made = constraint([decode.regex(".*", wide, [EOS])] * ROWS)
    out = generate(recency, decode.settings(ROWS, temperature=1e6), range(ROWS), constraint=made)
    assert np.all(out.tokens < 9) and made.classes.shape[1] == VOCABULARY
