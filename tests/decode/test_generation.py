# SPDX-License-Identifier: Apache-2.0
"""A tiny checkpoint of every generative family continues prompts as transformers' generate does.

Compiling `generate` and `search` for each of 22 families would take minutes. So two, an
encoder-decoder and a decoder that sees images, go through the loops on the device, and all of them
through the same parts (`process`, `extend`, the model's cached step), a token at a time: of a
family only its step is compiled.
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5tasks import decode, pretrained
from t5tasks.decode import beam
from t5tasks.decode.prompts import at_the_end

FIXTURES = pathlib.Path(__file__).parent / "fixtures" / "generation"
CHECKPOINTS = pathlib.Path(__file__).parents[1] / "pretrained" / "fixtures"
FAMILIES = sorted(path.stem for path in FIXTURES.glob("*.npz"))
FAMILIES_OF_THE_PROJECT = {
    "t5", "t5_v1_1", "mt5", "umt5", "bart", "mbart", "marian", "gpt2", "gpt_neox", "llama", "llama3", "mistral",
    "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3", "olmo2", "llava", "paligemma", "paligemma2"}
IN_THE_LOOPS = ("marian", "paligemma2")
WIDTH, NEW, BEAMS = 8, 24, 4  # the widest prompt, the most new tokens


pytestmark = pytest.mark.usefixtures("quick_to_compile")


def stored(family):
    with np.load(FIXTURES / f"{family}.npz") as arrays:
        return json.loads(str(arrays["told"])), {name: arrays[name] for name in arrays.files if name != "told"}


@pytest.fixture
def checkpoint(tmp_path):
    """Loads a family's checkpoint, with what the fixture changes of its configuration."""
    def load(told):
        folder = tmp_path / told["checkpoint"]
        folder.mkdir()
        for path in (CHECKPOINTS / told["checkpoint"]).iterdir():
            (folder / path.name).symlink_to(path)
        fields = json.loads((folder / "config.json").read_text()) | told["changes"]
        (folder / "config.json").unlink()  # the link
        (folder / "config.json").write_text(json.dumps(fields))
        return pretrained.load(folder, overrides={"compute_dtype": "float32"})

    with jax.default_matmul_precision("highest"):
        yield load


def padded(rows, width):
    tokens = np.zeros((len(rows), width), np.int32)
    for row, ids in zip(tokens, rows, strict=True):
        row[:len(ids)] = ids
    return tokens, np.array([len(ids) for ids in rows], np.int32)


def request(loaded, told, arrays, copies):
    """(prompt, lengths, cache) of the two rows, each so many times, side by side."""
    model, rows = loaded.model, [row for row in told["rows"] for _ in range(copies)]
    inputs = {}
    if told["start"] is not None:
        tokens, lengths = padded(rows, max(map(len, rows)))
        segments = np.arange(tokens.shape[1]) < lengths[:, None]
        inputs = {"source_tokens": tokens, "source_segments": segments.astype(np.int32)}
        rows = [[told["start"]]] * len(rows)
    prompt, lengths = padded(rows, 1 if inputs else WIDTH)
    if "pixel_values" in arrays:
        images = np.repeat(arrays["pixel_values"].transpose(0, 2, 3, 1)[:, None], copies, axis=0)
        inputs = {"images": images, "tokens": prompt}
        if model.config.vision.prefix:
            inputs["prefix"] = np.arange(WIDTH) < lengths[:, None]
    start = jax.jit(model.start, static_argnums=(1, 2))
    return prompt, lengths, start(loaded.parameters, len(rows), prompt.shape[1] + told["new"], inputs or None)


def up_to_the_end(row, told):
    return row[:row.index(told["eos"]) + 1] if told["eos"] in row else row


allowed = jax.jit(decode.process)
extend = jax.jit(beam.extend)


@jax.jit
def filtered(logits, settings, prompt, tokens, lengths):
    """Probabilities f32[B, V] of what the sampler may draw."""
    eos = jnp.zeros(0, jnp.int32)
    return jax.nn.softmax(decode.warp(decode.process(logits, settings, prompt, tokens, lengths, eos), settings))


def test_every_family_has_its_fixture():
    assert set(FAMILIES) == FAMILIES_OF_THE_PROJECT


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_reference_a_token_at_a_time(family, checkpoint):
    told, arrays = stored(family)
    loaded = checkpoint(told)
    prompt, lengths, cache = request(loaded, told, arrays, BEAMS)
    logits, cache = jax.jit(loaded.model.step)(loaded.parameters, prompt, lengths, cache)
    read = np.asarray(logits), cache

    @jax.jit
    def step(parents, tokens, cache):
        return loaded.model.step(loaded.parameters, tokens, jnp.ones(2 * BEAMS, jnp.int32), cache.reorder(parents))

    rows = prompt if told["start"] is None else padded([[told["start"]]] * 2 * BEAMS, WIDTH)[0]
    seen = at_the_end(rows, lengths)
    along = check_greedy(step, read, seen, told)
    check_sampling(along, seen[::BEAMS], told, arrays)
    check_beams(step, read, seen, told)


def check_greedy(step, read, seen, told):
    """Compares both greedy texts; returns f32[steps, 2, V], the logits along the path of the reference.

    Of the four copies of each prompt, one goes plainly, one without repeated bigrams and without an
    end, and two along the path.
    """
    (logits, cache), new = read, told["new"]
    paths = [[[], [], path, path] for path in told["path"]]
    settings = decode.settings(8, no_repeat_ngram=[0, 2, 0, 0] * 2, min_new=[0, NEW, NEW, NEW] * 2,
                               forced=[path for row in paths for path in row])
    tokens, eos, along = np.zeros((8, NEW), np.int32), np.array([told["eos"]]), []
    for count in range(new):
        along.append(np.asarray(logits)[2::BEAMS])
        scores = allowed(logits, settings, seen, tokens, np.full(8, count), eos)
        tokens[:, count] = np.argmax(scores, axis=-1)
        logits, cache = step(np.arange(8), tokens[:, count:count + 1], cache)
    for row in range(2):
        plain, varied = tokens[row * BEAMS:row * BEAMS + 2, :new].tolist()
        assert up_to_the_end(plain, told) == up_to_the_end(told["greedy"][row], told)
        assert varied == told["varied"][row]
    return np.stack(along[:len(told["path"][0])])


def check_sampling(logits, prompt, told, arrays):
    """The filtered distributions: to 1e-6 from the reference's logits, to 1e-5 from ours.

    Ours differ from the reference's in the last bits of f32, by up to 1e-5 where logits are large,
    and a probability p changes by p (1 - p) / temperature times that.
    """
    path = np.array(told["path"], np.int32)
    steps, vocabulary = path.shape[1], logits.shape[-1]
    expected = np.zeros((steps, 2, vocabulary))
    np.put_along_axis(expected, arrays["ids"].astype(int), arrays["probabilities"], -1)
    kept = (expected > 0).sum(-1)
    assert kept.max() <= told["sampling"]["top_k"] and kept.max() > 2
    settings = decode.settings(2, **told["sampling"])
    path = np.pad(path, ((0, 0), (0, NEW - steps)))

    def at(step, logits):
        return np.asarray(filtered(logits, settings, prompt, path, np.full(2, step)))

    for place, step in enumerate(told["shown"]):
        np.testing.assert_allclose(at(step, arrays["logits"][place]), expected[step], rtol=0, atol=1e-6)
    for step in range(steps):
        np.testing.assert_allclose(at(step, logits[step]), expected[step], rtol=0, atol=1e-5, err_msg=str(step))


def check_beams(step, read, seen, told):
    for case in told["searches"]:
        logits, cache = read
        rules = beam.Rules(
            length_penalty=jnp.float32(case["length_penalty"]), diversity_penalty=jnp.float32(0),
            stopping=jnp.int32(beam.STOPPING[False]), settings=decode.settings(2, max_new=told["new"]),
            prompt=seen[::BEAMS], eos=jnp.array([told["eos"]]), constraint=None)
        state = jax.device_get(beam.start(2, BEAMS, NEW))
        while state.open.any() and state.count < told["new"]:
            state, parents = jax.device_get(extend(state, np.reshape(logits, (2, BEAMS, -1)), rules))
            parents = np.arange(2)[:, None] * BEAMS + parents
            logits, cache = step(parents.reshape(-1), state.beams[..., state.count - 1].reshape(-1, 1), cache)
        compare_beams(state.finished, state.lengths, state.scores, case, told)


def compare_beams(tokens, lengths, scores, case, told):
    np.testing.assert_allclose(np.reshape(scores, -1), case["scores"], rtol=0, atol=1e-4)
    rows = np.reshape(tokens, (2 * BEAMS, -1)).tolist()
    for row, length, expected in zip(rows, np.reshape(lengths, -1), case["tokens"], strict=True):
        assert row[:length] == up_to_the_end(expected, told)


@pytest.mark.parametrize("family", IN_THE_LOOPS)
def test_the_loops_on_the_device_equal_the_reference(family, checkpoint):
    told, arrays = stored(family)
    loaded = checkpoint(told)
    ends = {"max_new_tokens": told["new"], "eos": [told["eos"]], "pad": told["pad"], "keep_cache": True}
    model, request_of_both = loaded.model, request(loaded, told, arrays, 1)
    out = jax.device_get(decode.generate(model.step, loaded.parameters, *request_of_both, decode.settings(2),
                                         decode.keys(range(2)), **ends))
    for row, expected in enumerate(told["greedy"]):
        assert out.tokens[row, :out.lengths[row]].tolist() == up_to_the_end(expected, told), row
    for case in told["searches"]:
        beams = jax.device_get(decode.search(
            model.step, loaded.parameters, *request_of_both, beams=BEAMS, num_return=BEAMS,
            length_penalty=case["length_penalty"], early_stopping=False, **ends))
        compare_beams(beams.tokens, beams.lengths, beams.scores, case, told)
