# SPDX-License-Identifier: Apache-2.0
"""Images in: patches, positions, features among tokens and the laws that hold for them out."""

import dataclasses
import functools
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from t5tasks import decode
from t5tasks.models import vision
from t5tasks.models.config import ModelConfig, Patches, Vision, from_mapping
from t5tasks.models.model import Model
from t5tasks.models.pooling import Pooling
from t5tasks.models.stack import stacked
from t5tasks.models.transformer import Transformer

IMAGE = 99  # past the vocabulary
TOWER = ModelConfig(architecture="encoder", head="none", vocabulary=1, width=10, heads=2, kv_heads=2, head_size=6,
                    feed_forward=14, encoder_layers=2, decoder_layers=0, norm="layernorm", biases=True, gated=False,
                    activation="gelu", positions="grid", patches=Patches(6, 3), layer_scale=True)
SEEING = ModelConfig(vocabulary=37, max_length=64, width=12, heads=4, kv_heads=2, head_size=6, feed_forward=20,
                     decoder_layers=2, scaled_embedding=True, vision=Vision(TOWER, "mlp", image_token=IMAGE))
# Four patches an image: one image inside a text, two images in a row, and a text alone.
TOKENS = np.array([[5, IMAGE, IMAGE, IMAGE, IMAGE, 7, 8, 9, 3, 2, 4],
                   [IMAGE] * 8 + [6, 11, 12],
                   [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0]], np.int32)
LENGTHS = np.array([9, 11, 10], np.int32)
PREFIXES = np.array([6, 9, 3], np.int32)


def made(config, jit):
    """A model, parameters of it that hide nothing, and its functions jitted."""
    model, random = Model(config), np.random.RandomState(0)

    def draw(path, leaf):
        start = 1.0 if "scale" in path[-1].key else 0.0
        return jnp.asarray(start + random.randn(*leaf.shape) * 0.3, jnp.float32)

    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return SimpleNamespace(
        model=model, parameters=jax.tree_util.tree_map_with_path(draw, shapes), apply=jit(model.apply),
        step=jit(model.step), start=jit(model.start, static_argnums=(1, 2)))


@pytest.fixture(scope="module")
def batch():
    images = np.random.RandomState(1).randn(3, 2, 6, 6, 3).astype(np.float32)
    places = np.arange(TOKENS.shape[1])
    return {"tokens": TOKENS, "images": images, "segments": (places < LENGTHS[:, None]).astype(np.int32)}


@pytest.fixture(scope="module")
def seeing(quick_jit):
    return made(SEEING, quick_jit)


def test_patches_are_a_convolution():
    """Pixel by pixel, with what is left of a patch at the right and below not read."""
    random = np.random.RandomState(0)
    images, kernel = (random.randn(*shape).astype(np.float32) for shape in ((2, 8, 7, 3), (3, 3, 3, 10)))
    parameters = {"kernel": kernel, "positions": jnp.zeros((5, 10)), "class_token": jnp.arange(10.0),
                  "bias": jnp.full(10, 0.5)}
    x = vision.PatchEmbedding(TOWER).apply({"params": parameters}, images)
    expected = [[np.einsum("PQC,PQCD->D", image[row:row + 3, column:column + 3], kernel) + 0.5
                 for row in (0, 3) for column in (0, 3)] for image in images]
    np.testing.assert_allclose(x[:, 1:], expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(x[:, 0], np.tile(np.arange(10.0), (2, 1)))


def test_positions_are_resized_as_by_pytorch():
    """torch.nn.functional.interpolate(line, size, mode="bicubic", align_corners=False), both axes alike."""
    line = np.array([1.0, 4, 9, 16, 25], np.float32)
    table = jnp.asarray(np.einsum("I,J->IJ", line, line).reshape(25, 1))
    patches = Patches(25, 5, class_token=False)
    for wanted, expected in {
        3: [1.66666667, 9.0, 22.55555556],
        9: [0.69753086, 1.66666667, 3.39506173, 5.92043896, 9.0, 12.42249657, 17.28806584, 22.55555556, 25.90740741],
    }.items():
        np.testing.assert_allclose(vision.bicubic(5, wanted) @ line, expected, rtol=0, atol=2e-5)
        square = vision.resized(table, patches, wanted, 5).reshape(wanted, 5)
        np.testing.assert_allclose(square, np.outer(expected, line), rtol=0, atol=1e-3)
    with_class = jnp.concatenate([jnp.full((1, 1), 7.0), table])
    both = vision.resized(with_class, dataclasses.replace(patches, class_token=True), 2, 3)
    assert both[0] == 7
    np.testing.assert_array_equal(both[1:], vision.resized(table, patches, 2, 3))


def test_merged_is_its_picture():
    tokens = jnp.array([[7, 99, 99, 8, 99]])
    x, features = jnp.arange(5.0)[None, :, None], jnp.arange(10.0, 14.0)[None, :, None]
    assert vision.merged(x, tokens, features, 99)[0, :, 0].tolist() == [0, 10, 11, 3, 12]
    assert vision.merged(x, tokens, features, 99, jnp.array([2]))[0, :, 0].tolist() == [0, 12, 13, 3, 4]


def embedded(transformer, inputs):
    features = transformer.see(inputs)
    return features, transformer._embed(inputs["tokens"], features)


def test_features_take_the_places_of_their_image_s_tokens_unscaled(seeing, batch, quick_jit):
    """By hand: text times sqrt(D), features of the row's images one after another."""
    parameters = seeing.parameters
    features, x = quick_jit(lambda: Transformer(SEEING).apply({"params": parameters}, batch, method=embedded))()
    assert features.shape == (3, 8, 12)
    text = np.asarray(parameters["embedding"]) * np.sqrt(np.float32(12))
    np.testing.assert_array_equal(x[0, 1:5], features[0, :4])
    np.testing.assert_array_equal(x[1, :8], features[1])
    np.testing.assert_allclose(x[0, [0, 5]], text[[5, 7]], rtol=1e-6)
    np.testing.assert_allclose(x[2], text[TOKENS[2]], rtol=1e-6)
    tower = quick_jit(Model(TOWER).hidden)(parameters["vision"], {"images": batch["images"][1]})[:, 1:]
    first, second = parameters["projector"]["map_0"], parameters["projector"]["map_1"]
    expected = jax.nn.gelu(tower @ first["kernel"] + first["bias"], approximate=False) @ second["kernel"]
    np.testing.assert_allclose(features[1].reshape(2, 4, 12), expected + second["bias"], rtol=0, atol=1e-5)


def test_each_row_sees_its_own_images_and_nobody_what_lies_ahead(seeing, batch):
    apply, parameters = seeing.apply, seeing.parameters
    plain = apply(parameters, batch)
    other = np.array(batch["images"])
    other[1, 1] += 1
    changed = np.abs(apply(parameters, batch | {"images": other}) - plain).max(-1)
    assert np.all(changed[[0, 2]] == 0) and np.all(changed[1, :4] == 0) and np.all(changed[1, 4:] > 1e-4)
    unused = np.array(batch["images"])
    unused[2], unused[0, 1] = 5, -5
    np.testing.assert_array_equal(apply(parameters, batch | {"images": unused}), plain)


def test_text_alone_needs_no_images(seeing, batch):
    alone = seeing.apply(seeing.parameters, {"tokens": TOKENS[2:, :10]})
    np.testing.assert_allclose(alone, seeing.apply(seeing.parameters, batch)[2:, :10], rtol=0, atol=1e-5)


def test_a_prefix_sees_itself_whole_and_the_rest_looks_back(seeing, batch):
    apply, parameters = seeing.apply, seeing.parameters
    prefix = np.arange(TOKENS.shape[1]) < PREFIXES[:, None]
    plain = apply(parameters, batch | {"prefix": prefix})
    tokens = np.array(TOKENS)
    tokens[:, 5] = [30, IMAGE, 30]  # inside the first row's prefix, after the last one's
    changed = np.abs(apply(parameters, batch | {"prefix": prefix, "tokens": tokens}) - plain).max(-1)
    assert np.all(changed[0, :9] > 1e-5)
    assert np.all(changed[2, :5] == 0) and np.all(changed[2, 5:10] > 1e-5)


@pytest.mark.parametrize("changes", [{}, {"window": 3, "sliding_layers": (1,)}], ids=["whole", "window"])
@pytest.mark.parametrize("with_prefix", [False, True])
def test_cached_equals_uncached(batch, with_prefix, changes, quick_jit):
    """The prompt in one step, images waiting in the cache; then token by token; beams as well."""
    one = made(dataclasses.replace(SEEING, **changes), quick_jit)
    parameters, inputs = one.parameters, dict(batch)
    if with_prefix:
        inputs["prefix"] = np.arange(TOKENS.shape[1]) < PREFIXES[:, None]
    whole = one.apply(parameters, inputs)
    cache = one.start(parameters, 3, 16, inputs)
    prompt = np.where(np.arange(9) < PREFIXES[:, None], TOKENS[:, :9], 0)
    logits, cache = one.step(parameters, prompt, PREFIXES, cache)
    cache = cache.take(jnp.array([0, 0, 1, 2])).reorder(jnp.array([1, 0, 2, 3]))
    rows, places = np.array([0, 0, 1, 2]), np.array([6, 6, 9, 3])
    np.testing.assert_allclose(logits[rows], whole[rows, places - 1], rtol=0, atol=1e-4)
    for _ in range(2):
        logits, cache = one.step(parameters, TOKENS[rows, places][:, None], np.ones(4, np.int32), cache)
        np.testing.assert_allclose(logits, whole[rows, places], rtol=0, atol=1e-4)
        places = places + 1


def test_images_of_one_prompt_may_come_in_two_steps(seeing, batch):
    whole = seeing.apply(seeing.parameters, batch)
    cache = seeing.start(seeing.parameters, 3, 16, batch)
    for begin, end in ((0, 3), (3, 9)):
        tokens = TOKENS[:, begin:end]
        logits, cache = seeing.step(seeing.parameters, tokens, np.full(3, end - begin, np.int32), cache)
    np.testing.assert_allclose(logits, whole[:, 8], rtol=0, atol=1e-4)


def test_scanned_equals_unrolled(seeing, batch, quick_jit):
    scanned = made(dataclasses.replace(SEEING, layer_loop="scan"), quick_jit)
    together, plain = stacked(seeing.parameters), seeing.apply(seeing.parameters, batch)
    assert "layers" in together["vision"]["encoder"] and "layers" in together["decoder"]
    np.testing.assert_allclose(scanned.apply(together, batch), plain, rtol=0, atol=1e-4)
    cache = scanned.start(together, 3, 12, batch)
    logits, _ = scanned.step(together, TOKENS[:, :9], np.full(3, 9, np.int32), cache)
    np.testing.assert_allclose(logits, plain[:, 8], rtol=0, atol=1e-4)


def test_every_part_learns_from_the_answer(seeing, batch, quick_jit):
    """A loss on text after the images reaches each parameter of tower and projector."""
    def loss(parameters):
        logits = jax.nn.log_softmax(seeing.model.apply(parameters, batch))
        return -logits[1, 9, 12] - logits[0, 6, 9]

    gradients = quick_jit(jax.grad(loss))(seeing.parameters)
    for part in ("vision", "projector", "embedding"):
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradients[part]):
            # A key's bias adds the same to all scores of a query.
            if "key/bias" not in jax.tree_util.keystr(path, simple=True, separator="/"):
                assert np.abs(leaf).max() > 1e-7, (part, path)


@pytest.mark.parametrize(("pooling", "expected"), [
    ("first", [[0, 1]]), ("last", [[6, 7]]), ("mean", [[2, 3]]), ("largest", [[4, 5]]), ("end", [[2, 3]]),
    ("patches", [[4, 5]]), ("first_and_patches", [[0, 1, 4, 5]]),
])
def test_pooling(pooling, expected):
    """x = [[0, 1], [2, 3], [4, 5], [6, 7]], the last of which is padding."""
    config = dataclasses.replace(SEEING, vision=None, pooling=pooling, end_token=3)
    inputs = {"tokens": jnp.array([[5, 3, 9, 3]]), "segments": jnp.array([[1, 1, 1, 0]])}
    x = jnp.arange(8.0).reshape(1, 4, 2)
    assert Pooling(config).apply({}, x, inputs).tolist() == expected


def test_a_config_survives_json_and_config_files():
    config = dataclasses.replace(SEEING, sliding_layers=(0,), window=3)
    plain = json.loads(json.dumps(dataclasses.asdict(config)))
    assert from_mapping(plain) == config
    assert from_mapping(dict(ml_collections.ConfigDict(plain).items())) == config


@pytest.mark.parametrize(("values", "message"), [
    ({"positions": "grid"}, "positions is 'grid' and model.patches is None"),
    ({"architecture": "encoder", "encoder_layers": 1, "decoder_layers": 0, "patches": {"image_size": 8}},
     "an image must hold a patch"),
    ({"patches": {"patch": 3}}, "unknown model setting 'patch'; did you mean 'patches'|'patch_size'"),
    ({"positions": "grid", "patches": {}}, "patches belong to an encoder alone; the architecture is decoder"),
    ({"head": "match"}, "head is 'match' and model.vision is None"),
    ({"vision": {"tower": TOWER}}, "compares texts with images, which are not projected"),
    ({"vision": {"tower": TOWER, "projector": "cubic"}}, "vision.projector is 'cubic'"),
    ({"vision": {"tower": TOWER, "projector": "mlp", "activation": "sine"}}, "vision.activation is 'sine'"),
    ({"vision": {"tower": {}, "projector": "mlp"}}, "vision.tower has no patches"),
    ({"architecture": "encoder", "encoder_layers": 1, "decoder_layers": 0,
      "vision": {"tower": TOWER, "projector": "mlp"}}, "images stand among a decoder's tokens only"),
])
def test_configs_that_make_no_sense_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        from_mapping(values)


@pytest.mark.parametrize("with_prefix", [False, True])
def test_prompts_read_in_chunks_see_their_images(seeing, batch, with_prefix, quick_jit):
    """Features go on from chunk to chunk; a prompt that is a prefix is read at once, whatever the chunk."""
    lengths = PREFIXES if with_prefix else LENGTHS
    inputs = batch | ({"prefix": np.arange(TOKENS.shape[1]) < lengths[:, None]} if with_prefix else {})
    cache = seeing.start(seeing.parameters, 3, 12, inputs)
    read = quick_jit(functools.partial(decode.prefill, seeing.model.step), static_argnames="chunk")
    logits, cache = read(seeing.parameters, TOKENS, lengths, cache, chunk=3)
    expected = seeing.apply(seeing.parameters, inputs)[np.arange(3), lengths - 1]
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)
    assert cache.image_features_used.tolist() == [4, 8, 0]
    again = cache.rewind(np.array([0, 9, 0]))
    assert again.image_features_used.tolist() == [0, 8, 0] and again.lengths.tolist() == [0, 9, 0]


def test_a_conversation_sees_its_image_once_and_fills_its_cache_to_the_end(seeing, batch):
    """Each turn's tokens are those of `generate` on the whole prompt."""
    one = {"images": batch["images"][:1]}
    model, parameters, limit = seeing.model, seeing.parameters, 60
    settings, ends = decode.settings(1, min_new=4), {"max_new_tokens": 4, "eos": [1], "pad": 0}

    def expected(prompt):
        tokens, lengths = decode.padded([prompt], [limit])
        cache = seeing.start(parameters, 1, 80, one)
        return decode.generate(model.step, parameters, tokens, lengths, cache, settings, decode.keys([0]),
                               **ends).tokens[0].tolist()

    talk = decode.Conversation(model.step, parameters, lambda capacity: seeing.start(parameters, 1, capacity, one),
                               limit, prefill_chunk=16, image_token=IMAGE)

    def ask(prompt):
        with talk.reply(prompt, settings, decode.keys([0]), **ends) as reply:
            for _ in reply:
                pass
        assert reply.ids[0] == expected(prompt)
        return reply.ids[0]

    prompt = [5, *[IMAGE] * 4, 7, 8]
    reply = ask(prompt)
    for new, reused in ((4, 10), (25, 18), (8, 47)):  # one chunk; two; padding that passes the limit
        prompt = prompt + reply + list(range(2, 2 + new))
        reply = ask(prompt)
        assert (talk.reused, talk.prefilled) == (reused, len(prompt) - reused)
    assert len(prompt) + 4 == limit
    other = [5, *[IMAGE] * 2, *prompt[5:20]]
    assert ask(other) and talk.reused == 0  # half of an image cannot be forgotten
