# SPDX-License-Identifier: Apache-2.0
"""Prompts through refilled slots give, in their order, what each gives alone; no slot idles; nothing recompiles."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5tasks import decode, sharding
from t5tasks.models.config import ModelConfig, Patches, Vision
from t5tasks.models.model import Model

EOS, PAD, NEW, WIDTHS = [1, 6], 0, 6, (4, 8)
PIECES = [b"%c" % character for character in b"abcdefghijk"]
COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture(scope="module")
def tables(markov):
    """`markov` with its params, and a `start` that is the same object from call to call."""
    markov.params = jax.tree.map(jnp.asarray, markov.tables(3, 4, 11))
    markov.start = lambda params, rows, capacity, inputs: markov.empty(inputs["source"], capacity)
    return markov


def random_prompts(count, seed=0):
    """Prompts, seeds and settings of every kind."""
    random = np.random.RandomState(seed)
    for number in range(count):
        minimum = random.randint(3)
        given = {"temperature": random.choice([0, 0.7, 1.5]), "top_k": random.choice([0, 4]), "min_new": minimum,
                 "max_new": minimum + random.randint(1, NEW), "no_repeat_ngram": random.choice([0, 2]),
                 "repetition_penalty": random.choice([1, 1.4]), "bad_words": [[5], [4, 7]][: random.randint(3)],
                 "stop": [[], ["a"], ["cd", "k"]][random.randint(3)]}
        yield decode.Prompt(random.randint(0, 11, random.randint(2, WIDTHS[-1] + 1)), decode.settings(1, **given),
                            np.asarray(decode.keys([number]))[0], {"source": np.int32(random.randint(4))})


def slots(count, **more):
    return decode.Slots(count, WIDTHS, NEW, **{"refills": (1, 2), "alternatives": 2, "inputs": {"source": np.int32(0)},
                                               **more})


def through_slots(model, prompts, shape, **more):
    return list(decode.generate_all(model.step, model.start, model.params, prompts, shape,
                                    **{"eos": EOS, "pad": PAD, "pieces": decode.pieces(PIECES), **more}))


@pytest.fixture(scope="module")
def alone(tables):
    """The texts of 25 prompts by `generate`, each in a batch of one."""
    model, found = tables, []
    for prompt in random_prompts(25):
        tokens = np.full((1, WIDTHS[-1]), 10, np.int32)
        tokens[0, : len(prompt.tokens)] = prompt.tokens
        cache = model.empty(prompt.inputs["source"][None], 16)
        row = decode.generate(model.step, model.params, tokens, np.array([len(prompt.tokens)]), cache, prompt.settings,
                              prompt.key[None], max_new_tokens=NEW, eos=EOS, pad=PAD, alternatives=2,
                              pieces=decode.pieces(PIECES))
        found.append(jax.tree.map(lambda array: np.asarray(array)[0], row))
    return found


@pytest.mark.parametrize(("count", "capacities"), [(1, ()), (3, (6, 10)), (32, ())])
def test_every_text_is_that_of_its_prompt_alone_bit_for_bit_and_in_order(tables, alone, count, capacities):
    """With one slot, slots that grow while texts are under way, and more slots than prompts."""
    found = through_slots(tables, random_prompts(25), slots(count, capacities=capacities))
    assert len(found) == 25
    for text, expected in zip(found, alone, strict=True):
        jax.tree.map(np.testing.assert_array_equal, text, expected)
    assert {int(text.lengths) for text in found} == {*range(1, NEW + 1)}
    assert {int(text.reasons) for text in found} == {decode.AT_LIMIT, decode.AT_EOS, decode.AT_STOP}


def test_no_slot_idles_while_prompts_wait(tables):
    """As many turns as the best that knows no lengths: each prompt to the slot that is free first."""
    fed = []

    def step(params, tokens, counts, cache):
        if tokens.shape[1] == 1:
            jax.debug.callback(lambda counts: fed.append(int(np.sum(counts))), counts, ordered=True)
        return tables.step(params, tokens, counts, cache)

    lengths = np.random.RandomState(1).randint(1, NEW + 1, 30).tolist()
    prompts = [decode.Prompt([3, number % 11], decode.settings(1, max_new=length), [0, 0], {"source": np.int32(0)})
               for number, length in enumerate(lengths)]
    found = list(decode.generate_all(step, tables.start, tables.params, prompts, slots(4), eos=[], pad=PAD))
    jax.effects_barrier()
    assert [int(text.lengths) for text in found] == lengths
    expected, waiting, rows = [], list(lengths), []
    while waiting or rows:
        rows += [waiting.pop(0) for _ in range(min(4 - len(rows), len(waiting)))]
        rows = [left - 1 for left in rows if left > 1]
        expected += [len(rows)] if rows else []  # those that have ended are fed no more
    assert fed == expected


def test_as_many_programs_as_widths_times_refills_and_none_after_them(tables):
    compiled, shape = [], slots(3, alternatives=0)

    def listen(event, duration, **unused):
        if event == COMPILED:
            compiled.append(duration)

    def prompt(width, new):
        settings = jax.device_get(decode.settings(1, max_new=new))
        return decode.Prompt([3] * width, settings, np.zeros(2, np.uint32), {"source": np.int32(1)})

    # Three slots of one width are filled by two and one, and then by one, for either width.
    warm = [prompt(width, new) for width in WIDTHS for new in (1, 1, 1)]
    prompts = [jax.device_get(prompt) for prompt in random_prompts(40, seed=7)]
    through_slots(tables, warm, slots(3))  # what every request compiles: constants, reading a row out
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        traces = tables.traces
        through_slots(tables, warm, shape)
        programs, traces = len(compiled), tables.traces - traces
        through_slots(tables, prompts, shape)
        assert len(compiled) == programs
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    # Programs: a refill for each width and size, the segment, the zeros and their ends, a row of the other shape.
    assert traces == 1 + len(WIDTHS) * 2 + 1  # the shapes, the refills, the segment
    assert programs <= traces + 2


def test_prompts_are_read_as_slots_become_free_and_none_gives_none(tables):
    read = []

    def stream():
        for number in range(40):
            read.append(number)
            yield decode.Prompt([3, 4], decode.settings(1, max_new=2), [0, 0], {"source": np.int32(0)})

    texts = decode.generate_all(tables.step, tables.start, tables.params, stream(), slots(2), eos=[], pad=PAD)
    for number, _ in enumerate(itertools.islice(texts, 10)):
        assert len(read) <= number + 8
    assert through_slots(tables, [], slots(2)) == []


@pytest.mark.parametrize(("change", "said"), [
    ({"tokens": [3] * 9, "name": "record 5"}, "record 5 has 9 tokens, expected 1 to 8"),
    ({"tokens": []}, "prompt 1 has 0 tokens, expected 1 to 8"),
    ({"settings": decode.settings(1, bad_words=[[3]] * 9)}, "prompt 1 has settings of shapes"),
    ({"settings": decode.settings(1, stop="a")}, "prompt 1 has stop strings"),
])
def test_a_prompt_that_does_not_fit_is_named(tables, change, said):
    good = {"tokens": [3, 4], "settings": decode.settings(1), "key": [0, 0], "inputs": {"source": np.int32(0)}}
    with pytest.raises(ValueError, match=said):
        through_slots(tables, [decode.Prompt(**good), decode.Prompt(**{**good, **change})], slots(1), pieces=None)


@pytest.mark.parametrize(("change", "said"), [
    ({"count": 0}, "0 slots of 6 new tokens"), ({"widths": ()}, r"widths are \[\]"),
    ({"widths": (8, 4)}, r"widths are \[8, 4\]"), ({"refills": (2,)}, "expected 1 among them")])
def test_slots_out_of_range_are_refused(change, said):
    with pytest.raises(ValueError, match=said):
        decode.Slots(**{"count": 2, "widths": WIDTHS, "max_new_tokens": NEW, **change})


TINY = {"vocabulary": 40, "width": 16, "heads": 2, "kv_heads": 1, "head_size": 8, "feed_forward": 24,
        "encoder_layers": 0, "decoder_layers": 2}
TOWER = ModelConfig(architecture="encoder", head="none", positions="grid", patches=Patches(image_size=8, patch_size=4),
                    **{**TINY, "kv_heads": 2, "encoder_layers": 1, "decoder_layers": 0})
MODELS = {
    "decoder": ModelConfig(architecture="decoder", positions="rotary", max_length=32, **TINY),
    "encoder-decoder": ModelConfig(architecture="encoder_decoder", positions="relative",
                                   **{**TINY, "encoder_layers": 1}),
    "images": ModelConfig(architecture="decoder", positions="rotary", max_length=32,
                          vision=Vision(tower=TOWER, projector="linear", image_token=39), **TINY),
}


def real_prompts(name, count):
    random = np.random.RandomState(2)
    for number in range(count):
        tokens, inputs = random.randint(2, 38, random.randint(1, 9)).astype(np.int32), None
        if name == "encoder-decoder":
            width, tokens = (4, 8)[random.randint(2)], tokens[:1]
            source = random.randint(2, 38, width).astype(np.int32)
            inputs = {"source_tokens": source, "source_segments": (np.arange(width) < width - 1).astype(np.int32)}
        if name == "images":
            tokens = np.concatenate([np.full(4, 39, np.int32), tokens[:4]])
            inputs = {"images": random.randn(1, 8, 8, 3).astype(np.float32)}
        yield decode.Prompt(tokens, jax.device_get(decode.settings(1, temperature=number % 2, max_new=3 + number % 4)),
                            np.array([0, number], np.uint32), inputs)


@pytest.fixture
def quick_to_compile():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.parametrize(("name", "mesh"), [(name, False) for name in MODELS] + [("decoder", True)])
@pytest.mark.usefixtures("quick_to_compile")
def test_real_models_give_the_tokens_of_each_prompt_alone(name, mesh):
    """Encoded sources of other widths and images come into the slots too, slots that begin narrower than the
    widest prompt grow, and they lie spread over devices."""
    model = Model(MODELS[name])
    params = jax.jit(model.init)(jax.random.key(1))
    prompts = sorted(real_prompts(name, 12), key=lambda prompt: len(prompt.tokens))
    greatest = max((prompt.inputs for prompt in prompts), default=None,
                   key=lambda inputs: sum(map(np.size, (inputs or {}).values())))
    shape = decode.Slots(3, WIDTHS, NEW, refills=(1, 2), inputs=greatest, capacities=(6, 10))
    if mesh:
        devices = sharding.make_mesh(8, 1, 1)
        params = jax.device_put(params, sharding.replicated(devices))
        shape = decode.Slots(8, WIDTHS, NEW, refills=(1,), sharding=sharding.batch_sharding(devices))
    found = list(decode.generate_all(model.step, model.start, params, prompts, shape, eos=[1], pad=PAD))
    start = jax.jit(model.start, static_argnums=(1, 2))
    for text, prompt in zip(found, prompts, strict=True):
        inputs = None if prompt.inputs is None else {key: value[None] for key, value in prompt.inputs.items()}
        tokens = np.zeros((1, WIDTHS[-1]), np.int32)
        tokens[0, : len(prompt.tokens)] = prompt.tokens
        one = decode.generate(model.step, params, tokens, np.array([len(prompt.tokens)]), start(params, 1, 16, inputs),
                              prompt.settings, prompt.key[None], max_new_tokens=NEW, eos=[1], pad=PAD)
        assert text.tokens.tolist() == one.tokens[0].tolist() and text.lengths == one.lengths[0]
    assert len({tuple(text.tokens.tolist()) for text in found}) > 6
