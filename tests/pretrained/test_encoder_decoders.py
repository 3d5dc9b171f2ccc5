# SPDX-License-Identifier: Apache-2.0
"""Folders of T5's relatives, BART and Marian with one thing changed come in; the same numbers, or an error, go out."""

import json
import pathlib

import jax
import numpy as np
import pytest

from t5tasks import pretrained, sharding

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
F32 = {"compute_dtype": "float32"}  # on a GPU the default is bfloat16
BIAS = "{}.block.{}.layer.0.SelfAttention.relative_attention_bias.weight"


def batch(name, side):
    """The inputs of a fixture's batch padded on that side, and what the reference answers."""
    with np.load(FIXTURES / name / "reference.npz") as stored:
        arrays = {key.removeprefix(f"{side}_"): stored[key] for key in stored.files if key.startswith(side)}
    return arrays, arrays.pop("output")


def same(left, right):
    jax.tree.map(np.testing.assert_array_equal, left.parameters, right.parameters)
    assert left.model == right.model


@pytest.mark.parametrize(("name", "field", "value"), [
    ("mt5", "feed_forward_proj", "gated-softmax"),
    ("mt5", "dense_act_fn", "relu"),
    ("mt5", "is_decoder", True),
    ("mt5", "num_attention_heads", 4),
    ("umt5", "is_gated_act", False),
    ("umt5", "relative_attention_num_buckets", 3),
    ("umt5", "tie_word_embeddings", "no"),
    ("umt5", "head_dim", 5),
    ("umt5", "architectures", ["UMT5ForTokenClassification"]),
    ("bart", "decoder_ffn_dim", 30),
    ("bart", "decoder_attention_heads", 4),
    ("bart", "d_model", 25),
    ("bart", "num_attention_heads", 4),
    ("bart", "hidden_size", 12),
    ("bart", "activation_function", "quick_gelu"),
    ("bart", "normalize_before", True),
    ("bart", "normalize_embedding", False),
    ("bart", "add_final_layer_norm", True),
    ("bart", "static_position_embeddings", True),
    ("bart", "extra_pos_embeddings", 0),
    ("bart", "scale_embedding", 1),
    ("bart", "is_decoder", True),
    ("bart", "is_encoder_decoder", False),
    ("bart", "architectures", ["BartForSequenceClassification"]),
    ("bart", "architectures", ["BartForCausalLM"]),
    ("mbart", "normalize_before", False),
    ("mbart", "add_final_layer_norm", False),
    ("marian", "share_encoder_decoder_embeddings", False),
    ("marian", "decoder_vocab_size", 200),
    ("marian", "normalize_before", True),
    ("marian", "normalize_embedding", True),
    ("marian", "static_position_embeddings", False),
    ("marian", "decoder_ffn_dim", 30),
])
def test_a_field_that_is_not_honoured_is_refused_by_name(changed, name, field, value, refused):
    refused(changed(name, {field: value}), field)


# Fields of the folders on the hub that those of transformers 5 lack, and the other way round.
OLD = {"transformers_version": None, "dtype": None, "torch_dtype": "float32", "output_past": True}
FLAN = OLD | {"tie_word_embeddings": False, "scale_decoder_outputs": None, "n_positions": 512, "is_decoder": None}
OLD_BART = OLD | {"add_bias_logits": False, "classif_dropout": 0.0, "extra_pos_embeddings": 2, "num_hidden_layers": 2,
                  "static_position_embeddings": False, "normalize_embedding": True, "tie_word_embeddings": None,
                  "force_bos_token_to_be_generated": True, "early_stopping": True, "num_beams": 4}


@pytest.mark.parametrize(("name", "fields"), [
    ("t5_v1_1", FLAN),
    ("mt5", FLAN | {"is_gated_act": None, "dense_act_fn": None}),
    ("bart", OLD_BART | {"normalize_before": False, "add_final_layer_norm": False}),
    ("mbart", OLD_BART | {"normalize_before": True, "add_final_layer_norm": True}),
    ("marian", OLD_BART | {"normalize_before": False, "add_final_layer_norm": False, "normalize_embedding": False,
                           "static_position_embeddings": True, "extra_pos_embeddings": 199,
                           "share_encoder_decoder_embeddings": None, "decoder_vocab_size": None,
                           "bad_words_ids": [[198]]}),
])
def test_folders_of_the_hub_mean_the_same(changed, name, fields):
    assert pretrained.read_config(changed(name, fields)) == pretrained.read_config(FIXTURES / name)


def test_either_name_of_a_field_will_do(changed):
    bart = {"d_model": None, "hidden_size": 24, "encoder_attention_heads": None, "num_attention_heads": 3}
    t5 = {"num_heads": None, "num_attention_heads": 3, "d_kv": None, "head_dim": 6, "d_model": None, "hidden_size": 20}
    for name, fields in (("bart", bart), ("umt5", t5)):
        assert pretrained.read_config(changed(name, fields)) == pretrained.read_config(FIXTURES / name)


@pytest.mark.parametrize(("kind", "architecture", "expected"), [
    ("mt5", "MT5ForConditionalGeneration", {
        "vocabulary": 250112, "feed_forward": 1024, "encoder_layers": 8, "decoder_layers": 8, "heads": 6,
        "gated": True, "activation": "gelu_tanh", "scaled_head": False, "relative_per_layer": False}),
    ("umt5", "UMT5EncoderModel", {
        "vocabulary": 250112, "encoder_layers": 8, "decoder_layers": 0, "heads": 6, "head_size": 64, "width": 512,
        "gated": True, "relative_per_layer": True, "relative_buckets": 32, "relative_distance": 128}),
    ("bart", "BartForConditionalGeneration", {
        "vocabulary": 50265, "width": 1024, "heads": 16, "feed_forward": 4096, "encoder_layers": 12,
        "decoder_layers": 12, "max_length": 1024, "activation": "gelu", "scaled_embedding": False,
        "norm_placement": "post", "tied_head": True, "dropout": 0.1, "norm_epsilon": 1e-5}),
    ("mbart", "MBartModel", {"vocabulary": 50265, "norm_placement": "pre", "final_norm": True, "width": 1024}),
    ("marian", "MarianMTModel", {
        "vocabulary": 58101, "width": 1024, "heads": 16, "feed_forward": 4096, "max_length": 1024,
        "activation": "gelu", "scaled_embedding": False, "positions": "sinusoidal", "embedding_norm": False}),
])
def test_defaults_are_the_reference_s(tmp_path, kind, architecture, expected):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, "architectures": [architecture]}))
    config = pretrained.read_config(tmp_path)
    assert {name: getattr(config, name) for name in expected} == expected


def test_umt5_is_scaled_as_its_folder_says(changed):
    """transformers 5 writes true and scales; Google's folders say false, were trained without and are not scaled."""
    inputs, expected = batch("umt5_untied", "right")
    folder = changed("umt5_untied", {"tie_word_embeddings": False})
    answer = pretrained.load(folder, overrides=F32).forward(**inputs)
    np.testing.assert_allclose(answer, expected * 20**0.5, rtol=0, atol=1e-4)


def test_a_head_without_weights_of_its_own_is_tied(changed):
    for name in ("t5_v1_1", "mt5", "umt5_untied"):
        for tied in (True, False):
            folder = changed(name, {"tie_word_embeddings": tied}, lambda a: {
                key: array for key, array in a.items() if key != "lm_head.weight"})
            config = pretrained.load(folder).model.config
            assert config.tied_head and config.scaled_head == (name == "umt5_untied" and tied)


def test_a_folder_without_weights_goes_by_its_config(changed):
    for name, tied in (("mt5", False), ("umt5", True)):
        folder = changed(name, {"tie_word_embeddings": tied})
        (folder / "model.safetensors").unlink()
        assert pretrained.read_config(folder).tied_head == tied


def test_the_table_of_words_may_have_the_decoder_s_name_alone(changed):
    """MADLAD-400's folders lack shared.weight, and their head is not the table."""
    folder = changed("t5_v1_1", FLAN, lambda a: {
        key.replace("shared.", "decoder.embed_tokens."): array for key, array in a.items()})
    same(pretrained.load(folder), pretrained.load(FIXTURES / "t5_v1_1"))


def test_every_layer_of_umt5_has_a_table_of_positions(changed, refused):
    def drop(arrays):
        del arrays[BIAS.format("decoder", 1)]

    def add(arrays):
        arrays[BIAS.format("encoder", 1)] = arrays[BIAS.format("encoder", 0)].copy()

    refused(changed("umt5", tensors=drop), f"missing tensor '{BIAS.format('decoder', 1)}'")
    refused(changed("mt5", tensors=add), f"unknown tensor '{BIAS.format('encoder', 1)}'")


@pytest.mark.parametrize("name", ["bart_bare", "mbart_bare", "marian_bare"])
def test_a_bare_model_gets_the_head_that_is_asked_for(name):
    """Tied to the words, and with a new bias of zero, as in the reference."""
    loaded = pretrained.load(FIXTURES / name, "lm", overrides=F32)
    assert loaded.new == ("head/bias",) and not np.any(loaded.parameters["head"]["bias"])
    inputs, hidden = batch(name, "left")
    expected = hidden @ np.asarray(loaded.parameters["embedding"]).T
    np.testing.assert_allclose(loaded.forward(**inputs), expected, rtol=0, atol=1e-4)


def test_other_heads_of_a_folder_are_left_out(changed):
    assert "head" not in pretrained.load(FIXTURES / "bart", "none").parameters
    fresh = pretrained.load(FIXTURES / "bart", "span")
    assert fresh.new == ("head/classifier/bias", "head/classifier/kernel")
    assert pretrained.load(FIXTURES / "bart_span").new == ()
    assert pretrained.load(FIXTURES / "bart_span", "lm").new == ("head/bias",)
    classifier = {"classification_head.dense.weight": np.ones((24, 24), "f4")}
    folder = changed("bart_bare", {"architectures": ["BartForSequenceClassification"]}, lambda a: a | classifier)
    same(pretrained.load(folder, "none"), pretrained.load(FIXTURES / "bart_bare"))
    assert pretrained.load(FIXTURES / "mt5", "none").new == ()


def test_a_lost_bias_of_the_vocabulary_is_zero_and_announced(changed):
    def drop(arrays):
        del arrays["final_logits_bias"]

    loaded, whole = (pretrained.load(folder, overrides=F32)
                     for folder in (changed("marian", tensors=drop), FIXTURES / "marian"))
    assert loaded.new == ("head/bias",)
    inputs, expected = batch("marian", "right")
    expected = expected - np.asarray(whole.parameters["head"]["bias"])
    np.testing.assert_allclose(loaded.forward(**inputs), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "tensors"), [
    ("bart", {"model.encoder.version": np.ones(1, "f4"), "model.decoder.version": np.ones(1, "f4")}),
    ("marian", {f"model.{stack}.embed_positions.weight": np.ones((17, 21), "f4") for stack in ("encoder", "decoder")}),
    ("mt5", {"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": np.ones((7, 3), "f4")}),
])
def test_tensors_of_older_folders_are_knowingly_ignored(changed, name, tensors):
    same(pretrained.load(changed(name, tensors=lambda arrays: arrays | tensors)), pretrained.load(FIXTURES / name))


def test_names_with_and_without_their_prefix(changed):
    for name in ("bart_bare", "mbart_bare", "marian_bare"):
        folder = changed(name, tensors=lambda a: {f"model.{key}": array for key, array in a.items()})
        same(pretrained.load(folder), pretrained.load(FIXTURES / name))


@pytest.mark.parametrize(("name", "shared"), [("bart", "model.shared"), ("marian", "model.shared"), ("umt5", "shared")])
def test_the_table_of_words_is_one(changed, name, shared, refused):
    prefix = shared.removesuffix("shared")
    copies = [f"{prefix}{stack}.embed_tokens.weight" for stack in ("encoder", "decoder")]
    table = f"{shared}.weight"
    folder = changed(name, tensors=lambda a: a | {copy: a[table].copy() for copy in copies})
    same(pretrained.load(folder), pretrained.load(FIXTURES / name))
    folder = changed(name, tensors=lambda a: a | {copies[1]: a[table] + 1})
    refused(folder, copies[1], table, "should be one and the same")


def test_an_untied_head_must_be_there(changed, refused):
    refused(changed("marian", {"tie_word_embeddings": False}), "missing tensor 'lm_head.weight'")
    assert not pretrained.load(FIXTURES / "bart_untied").model.config.tied_head


def test_bart_and_mbart_are_told_apart_by_their_tensors(changed, refused):
    refused(changed("mbart", {"model_type": "bart"}), "unknown tensor 'model.decoder.layer_norm.bias'")
    refused(changed("bart", {"model_type": "mbart"}), "missing tensor 'model.decoder.layer_norm.bias'")
    refused(changed("bart", {"max_position_embeddings": 18}), "embed_positions", "(19, 24)", "(20, 24)")


def test_a_shorter_table_of_positions_keeps_its_first_rows(changed):
    inputs, expected = batch("bart", "right")
    loaded = pretrained.load(FIXTURES / "bart", overrides=F32 | {"max_length": 11})
    assert loaded.parameters["encoder"]["positions"].shape == (13, 24)
    np.testing.assert_allclose(loaded.forward(**inputs), expected, rtol=0, atol=1e-4)
    for name in ("bart", "marian"):
        loaded, long = pretrained.load(FIXTURES / name), np.ones((1, 18), np.int32)
        with pytest.raises(ValueError, match="18 tokens long"):
            loaded.forward(input_ids=long, decoder_input_ids=long[:, :1])


def test_without_masks_every_token_counts():
    loaded = pretrained.load(FIXTURES / "bart", overrides=F32)
    inputs, _ = batch("bart", "right")
    ids = {name: array for name, array in inputs.items() if name.endswith("ids")}
    ones = {name: np.ones_like(array) for name, array in inputs.items() if name.endswith("mask")}
    plain = loaded.forward(**ids)
    np.testing.assert_allclose(plain, loaded.forward(**ids, **ones), rtol=0, atol=1e-5)
    assert np.abs(plain - loaded.forward(**inputs)).max() > 0.01


@pytest.mark.parametrize("name", ["bart", "mbart", "marian", "umt5"])
def test_one_token_at_a_time_equals_the_reference(name):
    loaded = pretrained.load(FIXTURES / name, overrides=F32)
    inputs, expected = batch(name, "right")
    tokens, real = inputs["decoder_input_ids"].astype(np.int32), inputs["decoder_attention_mask"] > 0
    source = {"source_tokens": inputs["input_ids"].astype(np.int32),
              "source_segments": inputs["attention_mask"].astype(np.int32)}
    cache = loaded.model.start(loaded.parameters, len(tokens), tokens.shape[1], source)
    step = jax.jit(loaded.model.step)
    for place in range(tokens.shape[1]):
        counts = real[:, place].astype(np.int32)
        logits, cache = step(loaded.parameters, tokens[:, place:place + 1], counts, cache)
        np.testing.assert_allclose(np.asarray(logits)[counts > 0], expected[counts > 0, place], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["bart", "umt5"])
def test_scanned_on_a_mesh_equals_the_reference(name):
    mesh = sharding.make_mesh(2, 2, 2)
    loaded = pretrained.load(FIXTURES / name, mesh=mesh, overrides=F32 | {"layer_loop": "scan"})
    inputs, expected = batch(name, "left")
    np.testing.assert_allclose(loaded.forward(**inputs), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "token", "start"), [
    ("bart", None, 2), ("bart", 0, 0), ("mbart", None, -1), ("mbart", 7, 7), ("marian", 198, 198), ("t5_v1_0", 0, 0),
    ("t5_v1_0", None, -1), ("umt5", 5, 5)])
def test_the_decoder_begins_where_the_folder_says(changed, name, token, start):
    """Without the field: BART with EOS; T5 and mBART leave it to their tokenizers."""
    assert pretrained.read_config(changed(name, {"decoder_start_token_id": token})).start_token == start
