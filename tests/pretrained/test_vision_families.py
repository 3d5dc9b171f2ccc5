# SPDX-License-Identifier: Apache-2.0
"""Folders of ViT, DINOv2, CLIP, SigLIP, LLaVA and PaliGemma, as they are and with one thing changed, come in."""

import json
import pathlib
import re

import jax
import numpy as np
import pytest
import safetensors.numpy

from t5tasks import pretrained, sharding
from t5tasks.pretrained import pixels

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
F32 = {"compute_dtype": "float32"}  # on a GPU the default is bfloat16
SEEING = ("llava", "llava_siglip", "paligemma2")


def batch(name, side="right"):
    """The inputs of a fixture's batch padded on that side, and what the reference answers."""
    with np.load(FIXTURES / name / "reference.npz") as reference:
        arrays = {key.removeprefix(f"{side}_"): reference[key]
                  for key in reference.files if key.startswith(side)}
    return arrays, arrays.pop("output")


def same(left, right):
    jax.tree.map(np.testing.assert_array_equal, left.parameters, right.parameters)
    assert left.model == right.model


def renamed(*renames):
    """A change of a folder's tensors: their names by patterns, one after another."""
    def change(arrays):
        found = {}
        for name, array in arrays.items():
            for pattern, replacement in renames:
                name = re.sub(pattern, replacement, name)
            found[name] = array
        assert found.keys() != arrays.keys()
        return found

    return change


def inside(name, part, **changes):
    """A fixture's sub-configuration with fields changed (None: removed), as a change of its config.json."""
    values = json.loads((FIXTURES / name / "config.json").read_text())[part] | changes
    return {part: {key: value for key, value in values.items() if value is not None}}


@pytest.mark.parametrize("name", ["siglip_whole", "dinov2_cls", "paligemma"])
def test_scanned_on_a_mesh_equals_the_reference(name):
    loaded = pretrained.load(FIXTURES / name, mesh=sharding.make_mesh(2, 2, 2), overrides=F32 | {"layer_loop": "scan"})
    for side in ("right", "left"):
        inputs, expected = batch(name, side)
        np.testing.assert_allclose(loaded.forward(**inputs), expected, rtol=0, atol=1e-4, err_msg=side)
    tree = loaded.parameters.get("vision", loaded.parameters)
    assert "layers" in tree["encoder"]


@pytest.mark.parametrize("name", SEEING)
def test_three_layouts_of_names_are_one(name, changed):
    """What transformers 5 writes, what the hub holds, and what 4.52 and later wrote."""
    plain = pretrained.load(FIXTURES / name)
    hub = changed(name, tensors=renamed((r"^vision_tower\.", "vision_tower.vision_model.")))
    same(pretrained.load(hub), plain)
    between = changed(name, tensors=renamed(
        (r"^vision_tower\.(vision_model\.)?", "model.vision_tower.vision_model."),
        (r"^multi_modal_projector", "model.multi_modal_projector"),
        (r"^language_model\.model\.", "model.language_model."), (r"^language_model\.lm_head", "lm_head")))
    same(pretrained.load(between), plain)


@pytest.mark.parametrize(("name", "prefix"), [("clip_image_bare", "vision_model."), ("clip_text_bare", "text_model."),
                                              ("siglip_image_bare", "vision_model."),
                                              ("siglip_text_bare", "text_model.")])
def test_an_encoder_alone_may_bear_its_part_s_name(name, prefix, changed):
    folder = changed(name, tensors=lambda arrays: {prefix + key: array for key, array in arrays.items()})
    same(pretrained.load(folder), pretrained.load(FIXTURES / name))


@pytest.mark.parametrize("name", ["clip_whole", "siglip_whole"])
def test_the_encoders_of_a_whole_folder_alone_give_what_it_compares(name, changed):
    """logits = exp(scale) * cosine of pooled images and texts + bias (SigLIP's)."""
    kind = name.removesuffix("_whole")
    inputs, expected = batch(name)
    images = pretrained.load(FIXTURES / name, "pooled", overrides=F32).forward(
        pixel_values=inputs.pop("pixel_values"))
    text = inside(name, "text_config")["text_config"] | {
        "model_type": f"{kind}_text_model", "architectures": None, "text_config": None, "vision_config": None}
    text |= {"projection_dim": images.shape[1]} if kind == "clip" else {}
    folder = changed(name, text, lambda arrays: {key: array for key, array in arrays.items() if "text_" in key})
    texts = pretrained.load(folder, "pooled", overrides=F32).forward(**inputs)
    images, texts = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (images, texts))
    tensors = pretrained.load(FIXTURES / name).parameters["head"]
    logits = np.exp(tensors["match_scale"]) * images @ texts.T + tensors.get("match_bias", 0)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)
    fresh = pretrained.load(FIXTURES / name, "cls", 7)
    assert fresh.new == ("head/classifier/bias", "head/classifier/kernel")


def test_vit_s_pooler_is_a_map_and_tanh_of_the_first_place():
    inputs, hidden = batch("vit_bare")
    loaded = pretrained.load(FIXTURES / "vit_bare", "pooled", overrides=F32)
    assert not loaded.new
    tensors = safetensors.numpy.load_file(FIXTURES / "vit_bare" / "model.safetensors")
    expected = np.tanh(hidden[:, 0] @ tensors["pooler.dense.weight"].T + tensors["pooler.dense.bias"])
    np.testing.assert_allclose(loaded.forward(**inputs), expected, rtol=0, atol=1e-4)


def test_a_square_may_be_given_by_both_sides(changed):
    folder = changed("vit_bare", {"image_size": [15, 15], "patch_size": [5, 5]})
    same(pretrained.load(folder), pretrained.load(FIXTURES / "vit_bare"))


def test_old_files_name_the_parts_of_clip_twice(changed):
    """`text_config_dict` counts before `text_config`, which then is another model's."""
    right = inside("clip_whole", "text_config")["text_config"]
    folder = changed("clip_whole", {"text_config": {"hidden_size": 512}, "text_config_dict": right})
    same(pretrained.load(folder), pretrained.load(FIXTURES / "clip_whole"))


def test_which_end_of_a_text_clip_reads():
    old, new = (pretrained.read_config(FIXTURES / f"clip_{name}") for name in ("largest", "whole"))
    assert (old.pooling, new.pooling, new.end_token) == ("largest", "end", 117)


@pytest.mark.parametrize(("name", "expected"), [
    ("vit", (768, 12, 12, 3072, 224, 16)), ("dinov2", (768, 12, 12, 3072, 224, 14)),
    ("clip_vision_model", (768, 12, 12, 3072, 224, 32)), ("siglip_vision_model", (768, 12, 12, 3072, 224, 16)),
])
def test_defaults_of_image_encoders_are_the_reference_s(tmp_path, name, expected):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": name}))
    c = pretrained.read_config(tmp_path, "none")
    assert (c.width, c.heads, c.encoder_layers, c.feed_forward, c.patches.image_size, c.patches.patch_size) == expected


def test_defaults_of_whole_models_are_the_reference_s(tmp_path):
    def read(name, head, **more):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": name, **more}))
        return pretrained.read_config(tmp_path, head)

    clip, siglip = read("clip", "match"), read("siglip", "match")
    assert (clip.vocabulary, clip.max_length, clip.width, clip.projection, clip.end_token) == (
        49408, 77, 512, 512, 49407)
    assert (siglip.vocabulary, siglip.max_length, siglip.width, siglip.activation) == (32000, 64, 768, "gelu_tanh")
    llava, paligemma = read("llava", "lm"), read("paligemma", "lm")
    assert (llava.width, llava.vision.image_token, llava.vision.tower.patches.image_size) == (4096, 32000, 336)
    assert (llava.vision.tower.encoder_layers, llava.vision.features(336, 336)) == (23, 576)
    assert (paligemma.width, paligemma.kv_heads, paligemma.vision.image_token) == (2048, 1, 256000)
    assert (paligemma.vision.tower.width, paligemma.vision.features(224, 224), paligemma.tied_head) == (1152, 256, True)
    # A part that is there leaves out its own family's defaults, not the whole's.
    assert read("llava", "lm", vision_config={"hidden_size": 768}).vision.tower.encoder_layers == 11
    assert read("paligemma", "lm", vision_config={"model_type": "siglip_vision_model"}).vision.tower.width == 768


def test_a_tied_head_is_said_by_either_part_of_llava(changed):
    def drop(arrays):
        arrays.pop("language_model.lm_head.weight", None)

    said = inside("llava_full", "text_config", tie_word_embeddings=True) | {"tie_word_embeddings": False}
    assert pretrained.load(changed("llava_full", said, drop)).model.config.tied_head
    assert not pretrained.read_config(FIXTURES / "llava").tied_head


@pytest.mark.parametrize(("name", "field", "value"), [
    ("vit_bare", "qkv_bias", False),
    ("vit_bare", "pooler_act", "gelu"),
    ("vit_bare", "pooler_output_size", 12),
    ("vit_bare", "image_size", [15, 20]),
    ("vit_bare", "patch_size", 0),
    ("vit_bare", "num_attention_heads", 5),
    ("vit_bare", "hidden_act", "laplace"),
    ("vit_bare", "model_type", "dinov2_with_registers"),
    ("vit_bare", "architectures", ["ViTForMaskedImageModeling"]),
    ("dinov2_bare", "qkv_bias", False),
    ("dinov2_bare", "use_swiglu_ffn", "yes"),
    ("dinov2_bare", "architectures", ["Dinov2Backbone"]),
    ("clip_whole", "text_config", "openai"),
    ("clip_whole", "projection_dim", -1),
    ("clip_text_bare", "eos_token_id", [2, 3]),
    ("llava", "vision_feature_layer", [-2, -3]),
    ("llava", "vision_feature_layer", 0),
    ("llava", "vision_feature_layer", -4),
    ("llava", "vision_feature_select_strategy", "cls"),
    ("llava", "projector_hidden_act", "laplace"),
    ("llava", "image_token_id", 3),
    ("paligemma", "projection_dim", 20),
])
def test_a_field_that_is_not_honoured_is_refused_by_name(changed, name, field, value, refused):
    refused(changed(name, {field: value}), field)


@pytest.mark.parametrize(("name", "part", "field", "value", "said"), [
    ("clip_whole", "vision_config", "hidden_act", "laplace", "laplace"),
    ("siglip_whole", "vision_config", "vision_use_head", False, "vision_use_head"),
    ("siglip_whole", "text_config", "projection_size", 18, "projection_size"),
    ("llava", "text_config", "model_type", "opt", "opt"),
    ("llava", "text_config", "attention_bias", True, "attention_bias"),
    ("llava", "vision_config", "model_type", "pixtral", "pixtral"),
    ("llava", "vision_config", "num_hidden_layers", 4, "num_hidden_layers"),
    ("paligemma", "vision_config", "num_hidden_layers", 1, "num_hidden_layers"),
    ("paligemma", "text_config", "model_type", "gemma3_text", "gemma3_text"),
])
def test_a_field_of_a_part_is_refused_by_name(changed, name, part, field, value, said, refused):
    refused(changed(name, inside(name, part, **{field: value})), said)


def test_missing_unknown_and_misshapen_tensors_are_named(changed, refused):
    def without(key):
        return lambda arrays: {name: array for name, array in arrays.items() if name != key}

    key = "vision_tower.encoder.layers.1.mlp.fc1.weight"
    refused(changed("llava", tensors=without(key)), "missing tensor", key)
    refused(changed("clip_whole", tensors=without("logit_scale")), "missing tensor 'logit_scale'")
    key = "vision_model.embeddings.patch_embedding.weight"
    refused(changed("siglip_whole", tensors=lambda arrays: arrays | {key: arrays[key][:, :1]}), key, "(24, 3, 5, 5)")
    refused(changed("vit_bare", tensors=lambda arrays: arrays | {"embeddings.register_tokens": np.ones((1, 4, 24))}),
            "unknown tensor 'embeddings.register_tokens'")


def test_what_lies_above_the_layer_that_llava_reads_is_not_loaded(changed):
    plain = pretrained.load(FIXTURES / "llava")
    assert set(plain.parameters["vision"]["encoder"]) == {"embedding_norm", "layer_0", "layer_1"}
    key = "vision_tower.encoder.layers.2.mlp.fc1.weight"
    folder = changed("llava", tensors=lambda arrays: arrays | {key: arrays[key] * 2})
    same(pretrained.load(folder), plain)


def forward(loaded, message, **inputs):
    with pytest.raises(ValueError, match=message):
        loaded.forward(**inputs)


def test_inputs_with_images_are_checked():
    loaded = pretrained.load(FIXTURES / "vit_bare")
    two = np.zeros((2, 3, 15, 15), np.float32)
    forward(loaded, "the input pixel_values is missing")
    forward(loaded, "unknown input 'input_ids'; this model takes pixel_values", input_ids=np.ones((1, 2), int))
    forward(loaded, r"pixel_values is int64\[2, 3, 15, 15\]; expected floats", pixel_values=two.astype(int))
    forward(loaded, "expected floats of four dimensions", pixel_values=two[0])
    forward(loaded, "expected 3 channels", pixel_values=two[:, :1])
    forward(loaded, "width of 5 pixels or more", pixel_values=two[:, :, :, :4])
    loaded = pretrained.load(FIXTURES / "llava")
    image, ids = np.zeros((1, 3, 10, 10), np.float32), np.array([[1, 150, 150, 150, 150], [1, 2, 3, 4, 5]])
    forward(loaded, "4, 0 image tokens .id 150. in its rows, pixel_values 2 images; expected 4 tokens an image",
            input_ids=ids, pixel_values=np.concatenate([image, image]))
    forward(loaded, "image tokens", input_ids=ids[:, 1:3], pixel_values=image)
    forward(loaded, "unknown input 'token_type_ids'", input_ids=ids, token_type_ids=ids * 0, pixel_values=image)
    loaded = pretrained.load(FIXTURES / "paligemma")  # its image token lies past the vocabulary
    forward(loaded, "input_ids has values from 1 to 203; expected 0 to 198",
            input_ids=np.where(ids == 150, 203, ids), pixel_values=image)


def test_images_of_any_size_and_texts_without_images():
    """Twice as many patches a side ask for four times as many tokens; text alone needs no images."""
    loaded = pretrained.load(FIXTURES / "llava", overrides=F32)
    ids = np.array([[1] + [150] * 16 + [2, 3]])
    image = np.random.RandomState(0).randn(1, 3, 20, 20).astype(np.float32)
    logits = loaded.forward(input_ids=ids, pixel_values=image)
    moved = loaded.forward(input_ids=ids, pixel_values=image + 0.1)
    assert np.abs(logits - moved)[:, 1:].max() > 1e-3
    np.testing.assert_allclose(moved[:, 0], logits[:, 0], rtol=0, atol=1e-6)
    inputs, expected = batch("llava")
    alone = loaded.forward(input_ids=inputs["input_ids"][1:2], attention_mask=inputs["attention_mask"][1:2])
    np.testing.assert_allclose(alone, expected[1:2], rtol=0, atol=1e-4)


def test_a_prefix_is_told_by_token_types():
    loaded = pretrained.load(FIXTURES / "paligemma", overrides=F32)
    inputs, expected = batch("paligemma")
    types = inputs.pop("token_type_ids")
    causal = loaded.forward(**inputs)
    all_later = loaded.forward(**inputs, token_type_ids=np.ones_like(types))
    np.testing.assert_array_equal(causal, all_later)
    assert np.abs(causal - expected)[0, 0].max() > 1e-2


@pytest.mark.parametrize(("name", "expected"), [
    ("llava", [[127, 19, 194, 194, 127, 194], [2, 61, 141, 141, 141, 160], [85, 43, 43, 39, 110, 140]]),
    ("paligemma2", [[50, 50, 50, 149, 149, 149], [43, 43, 62, 83, 83, 83], [119, 119, 119, 119, 119, 119]]),
])
def test_what_follows_an_image_and_a_prompt_is_the_reference_s(name, expected):
    """Greedy tokens of transformers' generate for the left-padded batch; the images wait in the cache."""
    loaded, (inputs, _) = pretrained.load(FIXTURES / name, overrides=F32), batch(name, "left")
    model, vision = loaded.model, loaded.model.config.vision
    real = inputs["attention_mask"] > 0
    lengths = real.sum(axis=1).astype(np.int32)
    tokens = np.zeros((3, lengths.max()), np.int32)
    inside = np.arange(lengths.max()) < lengths[:, None]
    tokens[inside] = inputs["input_ids"][real]
    seen = {"images": pixels.by_row(vision, tokens, pixels.checked(model.config, inputs["pixel_values"]))}
    seen |= {"prefix": inside} if vision.prefix else {}
    cache = jax.jit(model.start, static_argnums=(1, 2))(loaded.parameters, 3, lengths.max() + 6, seen)
    found, step = [], jax.jit(model.step)
    logits, cache = step(loaded.parameters, tokens, lengths, cache)
    for _ in range(6):
        found.append(np.argmax(logits, axis=-1).astype(np.int32))
        logits, cache = step(loaded.parameters, found[-1][:, None], np.ones(3, np.int32), cache)
    assert np.stack(found, axis=1).tolist() == expected
