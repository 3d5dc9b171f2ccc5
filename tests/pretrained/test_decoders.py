# SPDX-License-Identifier: Apache-2.0
"""Folders of GPT-2, GPT-NeoX, Phi-3 and OLMo 2, one thing changed, come in; the same numbers, or its name, go out."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5tasks import pretrained, sharding

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
F32 = {"compute_dtype": "float32"}  # on a GPU the default is bfloat16
DECODERS = ["gpt2_tied", "gpt_neox_parallel", "phi3_window", "olmo2_untied"]
LONGROPE = {"type": "longrope", "short_factor": [1.0] * 5, "long_factor": [2.0] * 5}


def same(left, right):
    jax.tree.map(np.testing.assert_array_equal, left.parameters, right.parameters)
    assert left.model == right.model


def reference(name, side="right"):
    """The inputs of a fixture's batch, and what the reference answers."""
    with np.load(FIXTURES / name / "reference.npz") as arrays:
        given = {key: arrays[f"{side}_{key}"] for key in ("input_ids", "attention_mask")}
        return given, arrays[f"{side}_output"]


def rewritten(folder, **fields):
    """The folder with a config.json of these fields alone."""
    (folder / "config.json").write_text(json.dumps(fields))
    return folder


@pytest.mark.parametrize(("name", "field", "value"), [
    ("gpt2_tied", "scale_attn_by_inverse_layer_idx", True),
    ("gpt2_tied", "add_cross_attention", True),
    ("gpt2_tied", "activation_function", "tanh"),
    ("gpt2_tied", "pruned_heads", {"0": [1]}),
    ("gpt2_tied", "n_embd", 25),
    ("gpt2_tied", "hidden_size", 48),
    ("gpt2_tied", "n_inner", 0),
    ("gpt2_tied", "scale_attn_weights", "yes"),
    ("gpt2_tied", "architectures", ["GPT2DoubleHeadsModel"]),
    ("gpt_neox_parallel", "attention_bias", False),
    ("gpt_neox_parallel", "hidden_act", "mish"),
    ("gpt_neox_parallel", "hidden_size", 31),
    ("gpt_neox_parallel", "use_parallel_residual", 1),
    ("gpt_neox_parallel", "rotary_pct", "0.25"),
    ("gpt_neox_parallel", "rope_theta", 500.0),
    ("gpt_neox_parallel", "partial_rotary_factor", 0.5),
    ("gpt_neox_parallel", "rope_scaling", {"type": "dynamic", "factor": 2.0}),
    ("gpt_neox_parallel", "architectures", ["GPTNeoXForSequenceClassification"]),
    ("phi3_plain", "attention_bias", True),
    ("phi3_plain", "hidden_act", "mish"),
    ("phi3_plain", "sliding_window", 0),
    ("phi3_plain", "sliding_window", "3"),
    ("phi3_plain", "layer_types", ["full_attention"] * 2),
    ("phi3_plain", "rope_scaling", LONGROPE),
    ("phi3_plain", "rope_scaling", LONGROPE | {"type": "su"}),
    ("phi3_plain", "rope_scaling", {"type": "yarn", "factor": 4.0}),
    ("phi3_plain", "rope_parameters", {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}),
    ("phi3_plain", "rope_scaling", "longrope"),
    ("olmo2_untied", "attention_bias", True),
    ("olmo2_untied", "clip_qkv", 8.0),
    ("olmo2_untied", "hidden_act", "mish"),
    ("olmo2_untied", "partial_rotary_factor", 0.6),
    ("olmo2_untied", "rope_scaling", LONGROPE),
])
def test_a_field_that_is_not_honoured_is_refused_by_name(changed, name, field, value, refused):
    refused(changed(name, {field: value}), field)


def test_longrope_is_refused_with_the_models_that_do_without_it(changed, refused):
    refused(changed("phi3_plain", {"rope_scaling": LONGROPE}), "'longrope'", "Phi-3-mini-4k")


@pytest.mark.parametrize(("name", "fields"), [
    ("gpt2_untied", {"scale_attn_weights": True}),
    ("gpt2_untied", {"activation_function": "gelu_new"}),
    ("gpt2_untied", {"layer_norm_epsilon": 1e-5}),
    ("gpt_neox_parallel", {"use_parallel_residual": False}),
    ("gpt_neox_sequential", {"rope_parameters": {"rope_theta": 50.0, "partial_rotary_factor": 0.6}}),
    ("gpt_neox_sequential", {"rope_parameters": {"rope_theta": 60.0, "partial_rotary_factor": 0.8}}),
    ("gpt_neox_sequential", {"layer_norm_eps": 1e-5}),
    ("phi3_window", {"sliding_window": None}),
    ("phi3_window", {"sliding_window": 4}),
    ("phi3_window", {"rms_norm_eps": 1e-5}),
    ("olmo2_tied", {"rms_norm_eps": 1e-5}),
    ("olmo2_tied", {"hidden_act": "silu"}),
])
def test_a_field_that_is_honoured_changes_the_answer(changed, name, fields):
    inputs, expected = reference(name)
    answer = pretrained.load(changed(name, fields), overrides=F32).forward(**inputs)
    assert 1e-3 < np.abs(answer - expected)[0].max() < 100


@pytest.mark.parametrize(("name", "fields"), [
    ("gpt2_tied", {"n_embd": None, "hidden_size": 24, "n_head": None, "num_attention_heads": 3, "n_layer": None,
                   "num_hidden_layers": 2, "n_positions": None, "max_position_embeddings": 19}),
    ("gpt2_tied", {"n_inner": 96, "n_ctx": 19, "activation_function": "gelu_pytorch_tanh"}),
    ("gpt2_tied", {"hidden_size": 24, "reorder_and_upcast_attn": True}),
    ("gpt_neox_parallel", {"rope_parameters": None, "rotary_pct": 0.25, "rotary_emb_base": 10000}),
    ("gpt_neox_parallel", {"rope_parameters": None}),
    ("gpt_neox_sequential", {"rope_parameters": None, "rotary_pct": 0.8, "rotary_emb_base": 50}),
    ("gpt_neox_sequential", {"rotary_pct": 0.8, "partial_rotary_factor": 0.8, "rope_theta": 50, "rotary_emb_base": 50}),
    ("phi3_plain", {"rope_parameters": None, "rope_theta": 10000.0, "rope_scaling": None, "attention_bias": False}),
    ("phi3_window", {"rope_parameters": None, "rope_theta": 500.0, "partial_rotary_factor": 0.6}),
    ("olmo2_untied", {"rope_parameters": None, "rope_theta": 500.0}),
])
def test_folders_of_the_hub_and_of_transformers_5_say_the_same(changed, name, fields):
    assert pretrained.read_config(changed(name, fields)) == pretrained.read_config(FIXTURES / name)


@pytest.mark.parametrize(("name", "kind", "expected"), [
    ("gpt2_tied", "gpt2", dict(
        vocabulary=50257, max_length=1024, width=768, heads=12, head_size=64, feed_forward=3072, decoder_layers=12,
        norm_epsilon=1e-5, activation="gelu_tanh", tied_head=True, scaled_attention=True, dropout=0.1,
        attention_dropout=0.1)),
    ("gpt_neox_parallel", "gpt_neox", dict(
        vocabulary=50432, max_length=2048, width=6144, heads=64, head_size=96, feed_forward=24576, decoder_layers=44,
        norm_epsilon=1e-5, activation="gelu", tied_head=False, parallel=True, rotary_size=24, rotary_base=1e4)),
    ("phi3_plain", "phi3", dict(
        vocabulary=32064, max_length=4096, width=3072, heads=32, kv_heads=32, head_size=96, feed_forward=8192,
        decoder_layers=32, norm_epsilon=1e-5, activation="silu", tied_head=False, window=0, sliding_layers=(),
        rotary_base=1e4, rotary_fraction=1)),
    ("olmo2_untied", "olmo2", dict(
        vocabulary=50304, max_length=2048, width=4096, heads=32, kv_heads=32, head_size=128, feed_forward=11008,
        decoder_layers=32, norm_epsilon=1e-5, activation="silu", tied_head=False, rotary_base=1e4,
        norm_placement="output", query_key_norm="width")),
])
def test_defaults_are_the_reference_s(changed, name, kind, expected):
    folder = changed(name)
    (folder / "model.safetensors").unlink()
    for nulls in ({}, {"rope_scaling": None, "num_key_value_heads": None, "n_inner": None, "vocab_size": None}):
        config = pretrained.read_config(rewritten(folder, model_type=kind, **nulls), head="lm")
        assert {field: getattr(config, field) for field in expected} == expected


def test_gpt2_folders_of_the_hub_have_no_prefix_and_keep_their_masks(changed):
    mask = np.tril(np.ones((1, 1, 19, 19), "f4"))

    def older(arrays):
        bare = {name.removeprefix("transformer."): array for name, array in arrays.items()}
        assert "h.1.attn.c_attn.weight" in bare
        return bare | {"h.0.attn.bias": mask, "h.1.attn.bias": mask.astype("u1"),
                       "h.1.attn.masked_bias": np.asarray(-1e4, "f4")}

    same(pretrained.load(changed("gpt2_tied", tensors=older)), pretrained.load(FIXTURES / "gpt2_tied"))


def test_gpt_neox_folders_old_and_new(changed):
    plain = pretrained.load(FIXTURES / "gpt_neox_parallel")

    def newer(arrays):
        arrays["lm_head.weight"] = arrays.pop("embed_out.weight")

    def older(arrays):
        layer = "gpt_neox.layers.1.attention"
        return {**arrays, f"{layer}.bias": np.ones((1, 1, 32, 32), bool),
                f"{layer}.masked_bias": np.asarray(-1e9, "f4"), f"{layer}.rotary_emb.inv_freq": np.ones(1, "f4")}

    for edit in (newer, older):
        same(pretrained.load(changed("gpt_neox_parallel", tensors=edit)), plain)


@pytest.mark.parametrize(("name", "head"), [
    ("gpt2_tied", "multiple_choice_head.summary.weight"), ("gpt2_tied", "score.weight"),
    ("gpt_neox_sequential", "classifier.weight"), ("phi3_window", "score.weight"), ("olmo2_tied", "score.weight")])
def test_heads_that_we_do_not_have_are_left_aside(changed, name, head):
    folder = changed(name, {"architectures": None}, lambda arrays: {**arrays, head: np.ones((2, 24), "f4")})
    same(pretrained.load(folder, "lm"), pretrained.load(FIXTURES / name))


def test_a_bare_decoder_takes_no_head_and_a_language_model_can_do_without(changed):
    inputs, _ = reference("gpt_neox_parallel")
    bare = pretrained.load(FIXTURES / "gpt_neox_parallel", "none", overrides=F32)
    whole = pretrained.load(FIXTURES / "gpt_neox_parallel", overrides=F32)
    kernel = np.asarray(whole.parameters["head"]["words"]["kernel"])
    np.testing.assert_allclose(bare.forward(**inputs) @ kernel, whole.forward(**inputs), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "tensor"), [
    ("gpt2_tied", "transformer.h.1.attn.c_attn.weight"), ("gpt2_tied", "transformer.h.1.attn.c_attn.bias"),
    ("gpt_neox_parallel", "gpt_neox.layers.1.attention.query_key_value.weight"),
    ("gpt_neox_parallel", "gpt_neox.layers.1.attention.query_key_value.bias"),
    ("gpt_neox_parallel", "embed_out.weight"),
    ("phi3_plain", "model.layers.1.self_attn.qkv_proj.weight"),
    ("phi3_plain", "model.layers.1.mlp.gate_up_proj.weight"), ("phi3_plain", "lm_head.weight"),
    ("olmo2_untied", "model.layers.1.self_attn.q_norm.weight"),
    ("olmo2_untied", "model.layers.1.post_feedforward_layernorm.weight"),
])
def test_a_tensor_that_is_missing_or_has_another_shape_is_named(changed, name, tensor, refused):
    refused(changed(name, tensors=lambda arrays: {key: arrays[key] for key in arrays if key != tensor}),
            "missing tensor", repr(tensor))
    refused(changed(name, tensors=lambda arrays: {**arrays, tensor: arrays[tensor][:-1].copy()}), repr(tensor), "shape")


def test_weights_of_a_wide_map_are_not_taken_for_their_transpose(changed, refused):
    tensor = "transformer.h.0.mlp.c_fc.weight"
    folder = changed("gpt2_tied", tensors=lambda a: {**a, tensor: np.ascontiguousarray(a[tensor].T)})
    refused(folder, tensor, "(96, 24)", "(24, 96)")


def test_a_tensor_of_llama_is_unknown_to_its_descendants(changed, refused):
    for name, tensor in [("phi3_plain", "model.layers.0.self_attn.q_proj.weight"),
                         ("olmo2_untied", "model.layers.0.input_layernorm.weight")]:
        folder = changed(name, tensors=lambda arrays, tensor=tensor: {**arrays, tensor: np.ones((24, 24), "f4")})
        refused(folder, f"unknown tensor {tensor!r}")


@pytest.mark.parametrize(("name", "table", "head"), [
    ("gpt2_tied", "transformer.wte.weight", "lm_head.weight"),
    ("gpt_neox_sequential", "gpt_neox.embed_in.weight", "embed_out.weight"),
    ("phi3_window", "model.embed_tokens.weight", "lm_head.weight"),
    ("olmo2_tied", "model.embed_tokens.weight", "lm_head.weight")])
def test_a_tied_head_written_out_must_be_the_table(changed, refused, name, table, head):
    folder = changed(name, tensors=lambda arrays: {**arrays, head: arrays[table].copy()})
    same(pretrained.load(folder), pretrained.load(FIXTURES / name))
    refused(changed(name, tensors=lambda arrays: {**arrays, head: arrays[table] + arrays[table].dtype.type(1)}),
            head, "tie_word_embeddings")


def test_a_shorter_table_of_positions(changed):
    inputs, expected = reference("gpt2_tied")
    loaded = pretrained.load(FIXTURES / "gpt2_tied", overrides=F32 | {"max_length": 11})
    assert loaded.parameters["decoder"]["positions"].shape == (11, 24)
    np.testing.assert_allclose(loaded.forward(**inputs), expected, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="input_ids is 12 tokens long; the model has positions for 11"):
        loaded.forward(input_ids=np.ones((1, 12), int))


@pytest.mark.parametrize("name", DECODERS)
def test_scanned_on_a_mesh_equals_the_reference(name):
    inputs, expected = reference(name, "left")
    loaded = pretrained.load(FIXTURES / name, mesh=sharding.make_mesh(2, 2, 2), overrides=F32 | {"layer_loop": "scan"})
    np.testing.assert_allclose(loaded.forward(**inputs), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", DECODERS)
def test_continued_from_a_cache_equals_the_reference(name):
    """Row 0 as a prompt of 4 tokens, row 1 of 2, then both go on by 5."""
    inputs, expected = reference(name)
    loaded = pretrained.load(FIXTURES / name, overrides=F32)
    tokens, step = jnp.asarray(inputs["input_ids"][:2], jnp.int32), jax.jit(loaded.model.step)
    cache = loaded.model.start(loaded.parameters, 2, 11)
    logits, cache = step(loaded.parameters, tokens[:, :4], jnp.asarray([4, 2]), cache)
    np.testing.assert_allclose(logits, expected[[0, 1], [3, 1]], rtol=0, atol=1e-4)
    rest = jnp.stack([tokens[0, 4:9], tokens[1, 2:7]])
    logits, _ = step(loaded.parameters, rest, jnp.asarray([5, 5]), cache)
    np.testing.assert_allclose(logits, expected[[0, 1], [8, 6]], rtol=0, atol=1e-4)
