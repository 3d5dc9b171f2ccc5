# SPDX-License-Identifier: Apache-2.0
"""Folders of Llama, Mistral, Qwen and Gemma, one thing changed, come in; the same numbers, or its name, go out."""

import json
import pathlib

import jax
import numpy as np
import pytest

from t5tasks import pretrained
from t5tasks.models.config import ModelConfig
from t5tasks.models.positions import frequencies

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
F32 = {"compute_dtype": "float32"}  # on a GPU the default is bfloat16
FULL, SLIDING = "full_attention", "sliding_attention"
LLAMA3 = {"rope_type": "llama3", "rope_theta": 30.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}
YARN = {"rope_type": "yarn", "rope_theta": 30.0, "factor": 4.0, "original_max_position_embeddings": 32}


def same(left, right):
    jax.tree.map(np.testing.assert_array_equal, left.parameters, right.parameters)
    assert left.model == right.model


def reference(name, side):
    """The inputs of a fixture's batch, and what the reference answers."""
    with np.load(FIXTURES / name / "reference.npz") as arrays:
        given = {key.removeprefix(f"{side}_"): arrays[key] for key in arrays.files if key.startswith(side)}
    return given, given.pop("output")


def rewritten(folder, fields):
    """The folder with these fields of config.json changed; None stays, as null."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return folder


@pytest.mark.parametrize(("name", "field", "value"), [
    ("llama_bare", "attention_bias", True),
    ("llama_bare", "mlp_bias", True),
    ("llama_bare", "is_causal", False),
    ("llama_bare", "partial_rotary_factor", 0.6),
    ("llama_bare", "hidden_act", "mish"),
    ("llama_bare", "architectures", ["LlamaForSequenceClassification"]),
    ("llama_bare", "rope_scaling", {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}),
    ("llama_bare", "rope_scaling", {"rope_type": ["linear"], "factor": 2.0}),
    ("mistral_window", "layer_types", [FULL] * 3),
    ("mistral_window", "sliding_window", 0),
    ("mistral_window", "sliding_window", "3"),
    ("mistral_window", "is_causal", False),
    ("qwen2_window", "use_sliding_window", False),
    ("qwen2_window", "use_sliding_window", "yes"),
    ("qwen2_window", "max_window_layers", -1),
    ("qwen2_window", "layer_types", [FULL] * 3),
    ("qwen2_window", "layer_types", [FULL, FULL, SLIDING, "chunked_attention"]),
    ("qwen2_window", "layer_types", SLIDING),
    ("qwen2_window", "partial_rotary_factor", 0.5),
    ("qwen3_types", "attention_bias", True),
    ("qwen3_types", "architectures", ["Qwen3ForTokenClassification"]),
    ("gemma_bare", "attention_bias", True),
    ("gemma_bare", "use_bidirectional_attention", True),
    ("gemma_bare", "hidden_activation", "gelu"),
    ("gemma_bare", "hidden_activation", "mish"),
    ("gemma2_capped", "use_bidirectional_attention", True),
    ("gemma2_capped", "hidden_activation", "mish"),
    ("gemma2_capped", "attn_logit_softcapping", 0.0),
    ("gemma2_capped", "final_logit_softcapping", -30.0),
    ("gemma2_capped", "query_pre_attn_scalar", 0),
    ("gemma2_capped", "rope_parameters", {FULL: {"rope_type": "default"}}),
    ("gemma3_tied", "use_bidirectional_attention", True),
    ("gemma3_tied", "attn_logit_softcapping", 50.0),
    ("gemma3_tied", "attention_bias", True),
    ("gemma3_tied", "rope_parameters", {"rope_type": "default", "rope_theta": 200.0}),
    ("gemma3_tied", "rope_scaling", {"rope_type": "linear", "factor": 4.0}),
    ("gemma3_tied", "rope_scaling", "linear"),
    ("gemma3_tied", "sliding_window_pattern", 0),
])
def test_a_field_that_is_not_honoured_is_refused_by_name(changed, name, field, value, refused):
    refused(changed(name, {field: value}), field)


@pytest.mark.parametrize(("rope", "parts"), [
    ({"rope_type": "linear"}, ("factor", "linear")),
    ({"rope_type": "linear", "factor": 0.5}, ("factor is 0.5",)),
    ({"factor": 2.0}, ("factor", "'default'")),
    (YARN | {"rope_type": "linear"}, ("original_max_position_embeddings", "linear")),
    ({key: value for key, value in LLAMA3.items() if key != "low_freq_factor"}, ("low_freq_factor",)),
    (LLAMA3 | {"high_freq_factor": None}, ("high_freq_factor",)),
    (LLAMA3 | {"high_freq_factor": 1.0}, ("high_freq_factor is 1.0", "low_freq_factor")),
    (LLAMA3 | {"attention_factor": 1.5}, ("attention_factor", "llama3")),
    ({key: value for key, value in YARN.items() if key != "factor"}, ("factor", "yarn")),
    (YARN | {"truncate": False}, ("truncate",)),
    (YARN | {"rope_theta": 1.0}, ("rope_theta is 1.0",)),
    (YARN | {"original_max_position_embeddings": 0}, ("original_max_position_embeddings is 0",)),
    (YARN | {"attention_factor": "auto"}, ("attention_factor",)),
])
def test_scaling_that_says_too_little_or_too_much_is_refused(changed, refused, rope, parts):
    refused(rewritten(changed("llama_bare"), {"rope_parameters": rope}), *parts)


def test_positions_of_gemma_3_that_are_refused(changed, refused):
    near, whole = {"rope_type": "linear", "factor": 2.0}, {"rope_type": "default", "partial_rotary_factor": 0.5}
    refused(changed("gemma3_tied", {"rope_parameters": {SLIDING: near}}), "'linear'", SLIDING)
    refused(changed("gemma3_tied", {"rope_parameters": {FULL: whole}}), "partial_rotary_factor is 0.5")
    refused(changed("gemma3_tied", {"rope_parameters": {FULL: "linear"}}), "rope_parameters is 'linear'")
    # The reference reads "rope_type" alone here, and would leave the positions as they are.
    hub = {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 4.0}}
    refused(changed("gemma3_tied", hub), "rope_scaling", "rope_type")


def test_two_objects_of_positions_must_agree(changed, refused):
    """The reference reads rope_scaling alone, and with it the default rope_theta in place of the given one."""
    refused(changed("llama_untied", {"rope_scaling": {"type": "linear", "factor": 2.0}}), "rope_scaling",
            "rope_parameters")
    refused(changed("llama_untied", {"rope_scaling": {"type": "default"}}), "rope_scaling", "rope_parameters")
    folder = changed("llama_yarn", {"rope_theta": 30.0, "rope_scaling": YARN})
    assert pretrained.read_config(folder) == pretrained.read_config(FIXTURES / "llama_yarn")


HUB_YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8}
HUB_GEMMA3 = {"rope_parameters": None, "rope_theta": 200.0, "rope_local_base_freq": 20.0,
              "rope_scaling": {"rope_type": "linear", "factor": 4.0}, "cache_implementation": "hybrid"}


@pytest.mark.parametrize(("name", "fields"), [
    ("llama_bare", {"rope_parameters": None, "attention_bias": None, "mlp_bias": None, "pretraining_tp": 2}),
    ("llama_linear", {"rope_parameters": None, "rope_theta": 30.0, "rope_scaling": {"type": "linear", "factor": 2.5}}),
    ("llama_llama3", {"rope_parameters": None, "rope_theta": 30.0,
                      "rope_scaling": {key: value for key, value in LLAMA3.items() if key != "rope_theta"}}),
    # Without a length of its own, that of the positions counts; a length outside the object stands above it.
    ("llama_yarn", {"rope_parameters": {key: YARN[key] for key in ("rope_type", "rope_theta", "factor")},
                    "original_max_position_embeddings": 32}),
    ("llama_yarn", {"rope_parameters": YARN | {"original_max_position_embeddings": 99},
                    "original_max_position_embeddings": 32}),
    ("llama_yarn", {"rope_parameters": YARN | {"beta_fast": 0, "beta_slow": 1.0, "mscale": 0.7}}),
    ("qwen2_untied", {"rope_parameters": None, "rope_theta": 30.0, "rope_scaling": HUB_YARN, "layer_types": None,
                      "use_sliding_window": False, "sliding_window": 131072, "max_window_layers": 28}),
    ("qwen2_window", {"layer_types": None}),
    ("qwen3_untied", {"rope_parameters": None, "rope_theta": 30.0, "rope_scaling": HUB_YARN, "layer_types": None}),
    ("gemma_tied", {"hidden_act": "gelu", "hidden_activation": None, "rope_parameters": None}),
    ("gemma_tied", {"hidden_act": "gelu", "hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": None}),
    ("gemma2_capped", {"hidden_act": "relu", "layer_types": None, "cache_implementation": "hybrid",
                       "sliding_window_size": 4}),
    ("gemma3_tied", HUB_GEMMA3),
    ("gemma3_capped", {"layer_types": None, "sliding_window_pattern": 2, "rope_parameters": None}),
    ("gemma3_bare", {"layer_types": None, "rope_parameters": None, "rope_theta": 1_000_000,
                     "rope_local_base_freq": 10_000, "_sliding_window_pattern": 3}),
])
def test_other_spellings_of_one_configuration(changed, name, fields):
    """Folders of the hub and those of transformers 5 say the same in different fields."""
    assert pretrained.read_config(changed(name, fields)) == pretrained.read_config(FIXTURES / name)


def test_a_factor_of_null_is_the_ratio_of_the_lengths(changed):
    folder = rewritten(changed("llama_yarn"), {"rope_parameters": YARN | {"factor": None}})
    plain = pretrained.read_config(FIXTURES / "llama_yarn")
    assert plain.max_length == 128 and plain.rotary_factor == 4
    assert pretrained.read_config(folder) == plain


@pytest.mark.parametrize(("model_type", "architecture", "expected"), [
    ("llama", "LlamaModel", (32000, 4096, 32, 32, 128, 11008, 32, 2048, False, "silu", 0, 0, 10000.0)),
    ("mistral", "MistralModel", (32000, 4096, 32, 8, 128, 14336, 32, 131072, False, "silu", 4096, 32, 10000.0)),
    ("qwen2", "Qwen2Model", (151936, 4096, 32, 32, 128, 22016, 32, 32768, False, "silu", 0, 0, 10000.0)),
    ("qwen3", "Qwen3Model", (151936, 4096, 32, 32, 128, 22016, 32, 32768, False, "silu", 0, 0, 10000.0)),
    ("gemma", "GemmaModel", (256000, 3072, 16, 16, 256, 24576, 28, 8192, True, "gelu_tanh", 0, 0, 10000.0)),
    ("gemma2", "Gemma2Model", (256000, 2304, 8, 4, 256, 9216, 26, 8192, True, "gelu_tanh", 4096, 13, 10000.0)),
    ("gemma3_text", "Gemma3TextModel", (262208, 2304, 8, 4, 256, 9216, 26, 131072, True, "gelu_tanh", 4096, 22, 1e6)),
])
def test_defaults_are_the_reference_s(tmp_path, model_type, architecture, expected):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type, "architectures": [architecture]}))
    c = pretrained.read_config(tmp_path)
    assert (c.vocabulary, c.width, c.heads, c.kv_heads, c.head_size, c.feed_forward, c.decoder_layers, c.max_length,
            c.tied_head, c.activation, c.window, len(c.sliding_layers), c.rotary_base) == expected
    caps = (50.0, 30.0) if model_type == "gemma2" else (0.0, 0.0)
    assert (c.attention_cap, c.logit_cap) == caps
    assert c.query_scale == (256 if model_type in ("gemma2", "gemma3_text") else 0)
    assert c.local_rotary_base == (10000 if model_type == "gemma3_text" else 0)


def test_null_is_not_absent_where_it_has_a_meaning(changed, refused):
    """A number of key and value heads: all; a cap or a window: none; a window of layers that slide: an error."""
    def read(name, **fields):
        return pretrained.read_config(rewritten(changed(name), fields))

    assert read("mistral_whole", num_key_value_heads=None, num_attention_heads=6).kv_heads == 6
    assert read("qwen2_tied", num_key_value_heads=None).kv_heads == 6
    assert read("qwen2_tied", head_dim=None).head_size == 4
    assert pretrained.read_config(changed("qwen2_tied", {"num_attention_heads": 32, "num_key_value_heads": None,
                                                         "head_dim": 2})).kv_heads == 32
    assert pretrained.read_config(changed("mistral_window", {"sliding_window": None})).window == 4096
    assert read("mistral_window", sliding_window=None).window == 0
    assert read("gemma2_capped", attn_logit_softcapping=None).attention_cap == 0
    assert read("gemma2_capped", final_logit_softcapping=None).logit_cap == 0
    capped = pretrained.read_config(changed("gemma2_types"))  # its nulls are left out
    assert (capped.attention_cap, capped.logit_cap) == (50, 30)
    assert read("qwen2_window", sliding_window=None, layer_types=None).sliding_layers == ()
    for name in ("qwen2_window", "gemma2_capped", "gemma3_tied"):
        refused(rewritten(changed(name), {"sliding_window": None}), "sliding_window is null")


def test_the_layers_that_slide(changed):
    def layers(name, **fields):
        return pretrained.read_config(changed(name, fields)).sliding_layers

    assert layers("mistral_window") == (0, 1, 2)
    assert layers("qwen2_window", layer_types=None) == (2, 3)
    assert layers("qwen2_window", layer_types=None, max_window_layers=0) == (0, 1, 2, 3)
    assert layers("qwen2_window", layer_types=None, max_window_layers=9) == ()
    assert layers("qwen2_window", layer_types=None, use_sliding_window=False) == ()
    assert layers("qwen3_types") == (0, 2)
    assert layers("gemma2_capped", layer_types=None) == (0, 2)
    assert layers("gemma2_types") == (1, 2)
    assert layers("gemma3_bare", layer_types=None) == (0, 1, 2, 3, 4, 6)
    assert layers("gemma3_bare", layer_types=None, sliding_window_pattern=1) == ()


@pytest.mark.parametrize(("name", "fields"), [
    ("llama_linear", {"rope_parameters": {"rope_type": "linear", "rope_theta": 30.0, "factor": 2.0}}),
    ("llama_llama3", {"rope_parameters": LLAMA3 | {"low_freq_factor": 0.5}}),
    ("llama_yarn", {"rope_parameters": YARN | {"beta_slow": 0.5}}),
    ("llama_yarn", {"rope_parameters": YARN | {"attention_factor": 1.0}}),
    ("mistral_window", {"sliding_window": 4}),
    ("qwen2_window", {"layer_types": None, "max_window_layers": 3}),
    ("gemma_bare", {"hidden_act": "silu"}),
    ("gemma2_capped", {"attn_logit_softcapping": 3.0}),
    ("gemma2_capped", {"final_logit_softcapping": 10.0}),
    ("gemma2_capped", {"query_pre_attn_scalar": 4}),
    ("gemma3_tied", {"rope_parameters": None, **HUB_GEMMA3, "rope_local_base_freq": 30.0}),
    ("gemma3_tied", {"rope_parameters": None, **HUB_GEMMA3, "rope_scaling": {"rope_type": "linear", "factor": 3.0}}),
])
def test_a_field_s_value_shows_in_the_numbers(changed, name, fields):
    """The fixtures would notice: a near value gives another answer."""
    given, expected = reference(name, "right")
    answer = pretrained.load(changed(name, fields), overrides=F32).forward(**given)
    assert np.abs(answer - expected)[given["attention_mask"] > 0].max() > 1e-2


@pytest.mark.parametrize("name", ["qwen2_window", "gemma2_capped", "gemma3_tied"])
def test_layers_of_two_kinds_in_one_scan_equal_the_reference(name):
    loaded = pretrained.load(FIXTURES / name, overrides=F32 | {"layer_loop": "scan"})
    for side in ("right", "left"):
        given, expected = reference(name, side)
        np.testing.assert_allclose(loaded.forward(**given), expected, rtol=0, atol=1e-4, err_msg=side)


@pytest.mark.parametrize("name", ["mistral_window", "qwen3_types", "gemma2_capped", "gemma3_tied"])
def test_token_by_token_equals_all_at_once(name):
    loaded = pretrained.load(FIXTURES / name, "none" if name == "qwen3_types" else "lm", overrides=F32)
    model, parameters = loaded.model, loaded.parameters
    tokens = reference(name, "right")[0]["input_ids"][:1]
    whole = loaded.forward(input_ids=tokens)
    cache, step = model.start(parameters, 1, tokens.shape[1]), jax.jit(model.step)
    one = np.ones(1, np.int32)
    for place in range(tokens.shape[1]):
        last, cache = step(parameters, tokens[:, place:place + 1].astype(np.int32), one, cache)
        np.testing.assert_allclose(last, whole[:, place], rtol=0, atol=1e-4)


def test_buffers_and_classifiers_are_passed_over(changed):
    plain = pretrained.load(FIXTURES / "qwen3_types")
    extra = {"layers.1.self_attn.rotary_emb.inv_freq": np.ones(3, "f4"), "rotary_emb.inv_freq": np.ones(3, "f4"),
             "score.weight": np.ones((2, 24), "f4"), "score.bias": np.ones(2, "f4")}
    same(pretrained.load(changed("qwen3_types", tensors=lambda arrays: arrays | extra)), plain)


def test_names_with_and_without_a_prefix(changed):
    for name, head in (("gemma3_bare", "none"), ("llama_biased", "none")):
        folder = changed(name, tensors=lambda arrays: {f"model.{key}": value for key, value in arrays.items()})
        same(pretrained.load(folder), pretrained.load(FIXTURES / name, head))


@pytest.mark.parametrize(("name", "key"), [
    ("qwen2_window", "layers.1.self_attn.k_proj.bias"),
    ("qwen3_types", "layers.0.self_attn.q_norm.weight"),
    ("gemma2_types", "layers.2.pre_feedforward_layernorm.weight"),
    ("gemma3_bare", "layers.6.post_feedforward_layernorm.weight"),
    ("llama_biased", "layers.2.mlp.gate_proj.bias"),
])
def test_a_missing_tensor_is_named(changed, refused, name, key):
    folder = changed(name, tensors=lambda arrays: {other: arrays[other] for other in arrays if other != key})
    refused(folder, f"missing tensor 'model.{key}'")


@pytest.mark.parametrize(("name", "key"), [
    ("llama_bare", "layers.0.self_attn.q_proj.bias"),
    ("qwen2_window", "layers.0.self_attn.o_proj.bias"),
    ("qwen3_types", "layers.0.self_attn.q_proj.bias"),
    ("gemma_bare", "layers.0.pre_feedforward_layernorm.weight"),
    ("gemma2_types", "layers.0.self_attn.q_norm.weight"),
])
def test_a_tensor_of_another_family_is_unknown(changed, refused, name, key):
    refused(changed(name, tensors=lambda arrays: {**arrays, key: np.ones(24, "f4")}), f"unknown tensor {key!r}")


@pytest.mark.parametrize("name", ["qwen2_tied", "gemma_tied", "gemma2_capped", "gemma3_tied"])
def test_a_tied_head_is_the_table(changed, refused, name):
    loaded = pretrained.load(FIXTURES / name)
    assert loaded.model.config.tied_head and "head" not in loaded.parameters and loaded.new == ()
    table = "model.embed_tokens.weight"
    same(pretrained.load(changed(name, tensors=lambda a: {**a, "lm_head.weight": a[table].copy()})), loaded)
    refused(changed(name, tensors=lambda a: {**a, "lm_head.weight": a[table] * 2}), "lm_head.weight")
    refused(changed(name, {"tie_word_embeddings": False}, lambda a: {
        key: value for key, value in a.items() if key != "lm_head.weight"}), "missing tensor 'lm_head.weight'")


# What the reference computes (transformers 5.23), of 8 pairs.
FREQUENCIES = {
    "llama3": (
        dict(rotary_base=5e5, rotary_scaling="llama3", rotary_factor=8.0, rotary_original_length=8192),
        [1, 0.19392276, 0.03760603, 0.007292665, 5.24846e-4, 3.4281024e-5, 6.6478697e-6, 1.2891732e-6]),
    "yarn": (
        dict(rotary_base=1e6, rotary_scaling="yarn", rotary_factor=4.0, rotary_original_length=32768),
        [1, 0.17782794, 0.03162278, 0.00421756, 5e-4, 4.4456985e-5, 7.905694e-6, 1.4058534e-6]),
    "linear": (
        dict(rotary_base=1e4, rotary_scaling="linear", rotary_factor=2.5),
        [0.4, 0.1264911, 0.04, 0.012649111, 0.0039999997, 0.0012649111, 4.0000002e-4, 1.2649111e-4]),
    "yarn with next to no ramp": (
        dict(rotary_base=10.0, rotary_scaling="yarn", rotary_factor=4.0, rotary_original_length=8, rotary_fast=1.3,
             rotary_slow=1.28),
        [1, 0.18747355, 0.14058533, 0.10542413, 0.07905694, 0.05928434, 0.044456985, 0.033338036]),
    "yarn from less than a turn": (  # the ramp runs backwards, and keeps all
        dict(rotary_base=20.0, rotary_scaling="yarn", rotary_factor=4.0, rotary_original_length=4, rotary_slow=4.0),
        [1, 0.68765604, 0.4728708, 0.32517245, 0.2236068, 0.15376456, 0.10573712, 0.072710775]),
}


@pytest.mark.parametrize("name", FREQUENCIES)
def test_stretched_frequencies_are_the_reference_s(name):
    settings, expected = FREQUENCIES[name]
    config = ModelConfig(head_size=16, **settings)
    np.testing.assert_allclose(frequencies(config), np.float32(expected), rtol=2e-7)
