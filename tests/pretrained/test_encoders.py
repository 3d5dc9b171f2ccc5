# SPDX-License-Identifier: Apache-2.0
"""BERT's relatives in the spellings that folders have; the same model, or an error that names the cause, comes out."""

import json
import pathlib

import jax
import numpy as np
import pytest

from t5tasks import pretrained, sharding

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
F32 = {"compute_dtype": "float32"}

# The files of the hub, without what only training reads.
HUB = {
    "FacebookAI/roberta-base": {
        "architectures": ["RobertaForMaskedLM"], "bos_token_id": 0, "eos_token_id": 2, "hidden_act": "gelu",
        "hidden_size": 768, "intermediate_size": 3072, "layer_norm_eps": 1e-05, "max_position_embeddings": 514,
        "model_type": "roberta", "num_attention_heads": 12, "num_hidden_layers": 12, "pad_token_id": 1,
        "type_vocab_size": 1, "vocab_size": 50265},
    "FacebookAI/xlm-roberta-large": {
        "architectures": ["XLMRobertaForMaskedLM"], "bos_token_id": 0, "eos_token_id": 2, "hidden_act": "gelu",
        "hidden_size": 1024, "intermediate_size": 4096, "layer_norm_eps": 1e-05, "max_position_embeddings": 514,
        "model_type": "xlm-roberta", "num_attention_heads": 16, "num_hidden_layers": 24, "output_past": True,
        "pad_token_id": 1, "position_embedding_type": "absolute", "type_vocab_size": 1, "use_cache": True,
        "vocab_size": 250002},
    "distilbert/distilbert-base-uncased": {
        "activation": "gelu", "architectures": ["DistilBertForMaskedLM"], "dim": 768, "hidden_dim": 3072,
        "max_position_embeddings": 512, "model_type": "distilbert", "n_heads": 12, "n_layers": 6, "pad_token_id": 0,
        "sinusoidal_pos_embds": False, "tie_weights_": True, "vocab_size": 30522},
    "answerdotai/ModernBERT-base": {
        "architectures": ["ModernBertForMaskedLM"], "attention_bias": False, "classifier_activation": "gelu",
        "classifier_bias": False, "classifier_pooling": "mean", "decoder_bias": True, "global_attn_every_n_layers": 3,
        "global_rope_theta": 160000.0, "hidden_activation": "gelu", "hidden_size": 768, "intermediate_size": 1152,
        "layer_norm_eps": 1e-05, "local_attention": 128, "local_rope_theta": 10000.0,
        "max_position_embeddings": 8192, "mlp_bias": False, "model_type": "modernbert", "norm_bias": False,
        "norm_eps": 1e-05, "num_attention_heads": 12, "num_hidden_layers": 22, "pad_token_id": 50283,
        "position_embedding_type": "absolute", "tie_word_embeddings": True, "vocab_size": 50368},
}
SHAPES = {
    "FacebookAI/roberta-base": dict(
        vocabulary=50265, width=768, heads=12, head_size=64, feed_forward=3072, encoder_layers=12, max_length=512,
        position_offset=2, token_types=1, norm_epsilon=1e-5, head_transform=True, head_bias=True, tied_head=True),
    "FacebookAI/xlm-roberta-large": dict(
        vocabulary=250002, width=1024, heads=16, head_size=64, feed_forward=4096, encoder_layers=24, max_length=512,
        position_offset=2, token_types=1, norm_epsilon=1e-5, head_transform=True, head_bias=True, tied_head=True),
    "distilbert/distilbert-base-uncased": dict(
        vocabulary=30522, width=768, heads=12, head_size=64, feed_forward=3072, encoder_layers=6, max_length=512,
        position_offset=0, token_types=0, norm_epsilon=1e-12, head_transform=True, head_bias=True, tied_head=True),
    "answerdotai/ModernBERT-base": dict(
        vocabulary=50368, width=768, heads=12, head_size=64, feed_forward=1152, encoder_layers=22, max_length=8192,
        rotary_base=160000.0, local_rotary_base=10000.0, window=65, first_norm=False, biases=False, pooling="mean",
        sliding_layers=(1, 2, 4, 5, 7, 8, 10, 11, 13, 14, 16, 17, 19, 20), norm_epsilon=1e-5, head_transform=True,
        head_bias=True, tied_head=True),
}


def same(left, right):
    jax.tree.map(np.testing.assert_array_equal, left.parameters, right.parameters)
    assert left.model == right.model


def folder_of(tmp_path, fields):
    (tmp_path / "config.json").write_text(json.dumps(fields))
    return tmp_path


@pytest.mark.parametrize("name", HUB)
def test_files_of_the_hub_say_what_their_papers_say(name, tmp_path):
    config = pretrained.read_config(folder_of(tmp_path, HUB[name]))
    assert {field: getattr(config, field) for field in SHAPES[name]} == SHAPES[name]


@pytest.mark.parametrize("name", HUB)
def test_their_sizes_are_the_reference_s_defaults(name, tmp_path):
    kept = {field: HUB[name][field] for field in ("model_type", "architectures")}
    config = pretrained.read_config(folder_of(tmp_path, kept))
    own = {"position_offset", "head_transform", "head_bias", "tied_head", "first_norm", "biases", "window",
           "rotary_base", "local_rotary_base"} & SHAPES[name].keys()
    assert {field: getattr(config, field) for field in own} == {field: SHAPES[name][field] for field in own}
    read = (config.vocabulary, config.encoder_layers, config.max_length, config.token_types, config.pooling)
    assert read == {"FacebookAI/roberta-base": (50265, 12, 510, 2, "first"),
                    "FacebookAI/xlm-roberta-large": (30522, 12, 510, 2, "first"),
                    "distilbert/distilbert-base-uncased": (30522, 6, 512, 0, "first"),
                    "answerdotai/ModernBERT-base": (50368, 22, 8192, 0, "first")}[name]


ROPE = {"rope_type": "default", "rope_theta": 900.0}


@pytest.mark.parametrize(("name", "field", "value"), [
    ("roberta_bare", "position_embedding_type", "relative_key_query"),
    ("roberta_bare", "is_decoder", True),
    ("roberta_bare", "add_cross_attention", True),
    ("roberta_bare", "pruned_heads", {"0": [1]}),
    ("roberta_bare", "hidden_act", "laplace"),
    ("roberta_bare", "hidden_size", 19),
    ("roberta_bare", "max_position_embeddings", 2),
    ("roberta_bare", "pad_token_id", -1),
    ("roberta_bare", "pad_token_id", True),
    ("roberta_masked", "hidden_act", "relu"),
    ("xlm_roberta_cls", "architectures", ["XLMRobertaForMultipleChoice"]),
    ("distilbert_bare", "activation", "laplace"),
    ("distilbert_bare", "dim", 19),
    ("distilbert_bare", "num_attention_heads", 2),
    ("distilbert_bare", "pruned_heads", {"0": [1]}),
    ("modernbert_bare", "hidden_size", 19),
    ("modernbert_bare", "head_dim", 8),
    ("modernbert_bare", "sliding_window", 4),
    ("modernbert_bare", "hidden_activation", "laplace"),
    ("modernbert_bare", "classifier_activation", "relu"),
    ("modernbert_bare", "classifier_pooling", "max"),
    ("modernbert_bare", "attention_bias", True),
    ("modernbert_bare", "mlp_bias", True),
    ("modernbert_bare", "norm_bias", True),
    ("modernbert_bare", "classifier_bias", True),
    ("modernbert_bare", "layer_types", ["full_attention"] * 3),
    ("modernbert_bare", "layer_types", ["full_attention"] * 3 + ["chunked_attention"]),
    ("modernbert_bare", "global_attn_every_n_layers", 0),
    ("modernbert_bare", "rope_scaling", {"rope_type": "linear", "factor": 2.0}),
    ("modernbert_bare", "rope_parameters", ROPE),
    ("modernbert_bare", "rope_parameters", [ROPE]),
    ("modernbert_bare", "local_rope_theta", -20.0),
])
def test_a_field_that_is_not_honoured_is_refused_by_name(changed, name, field, value, refused):
    config = {field: value}
    if field.endswith("rope_theta"):
        config["rope_parameters"] = None
    refused(changed(name, config), field)


@pytest.mark.parametrize(("kind", "rope", "parts"), [
    ("sliding_attention", {"rope_type": "linear", "rope_theta": 20.0, "factor": 2.0}, ("sliding_attention", "linear")),
    ("full_attention", {"rope_type": "dynamic", "rope_theta": 20.0, "factor": 2.0}, ("rope_parameters", "dynamic")),
    ("full_attention", ROPE | {"partial_rotary_factor": 0.5}, ("partial_rotary_factor", "0.5")),
    ("full_attention", ROPE | {"factor": 2.0}, ("factor", "default")),
])
def test_modernbert_s_kinds_of_layers_turn_only_as_we_can(changed, kind, rope, parts, refused):
    given = {"full_attention": ROPE, "sliding_attention": ROPE} | {kind: rope}
    refused(changed("modernbert_bare", {"rope_parameters": given}), *parts)


def test_a_null_base_is_not_taken_for_an_absent_one(changed, refused):
    folder = changed("modernbert_bare", {"rope_parameters": None})
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(fields | {"local_rope_theta": None}))
    refused(folder, "local_rope_theta is null")


def test_modernbert_in_the_hub_s_spelling(changed):
    plain = pretrained.load(FIXTURES / "modernbert_bare")
    assert plain.model.config.sliding_layers == (1, 2)
    assert (plain.model.config.rotary_base, plain.model.config.local_rotary_base) == (900, 20)
    hub = {"layer_types": None, "rope_parameters": None, "global_attn_every_n_layers": 3,
           "global_rope_theta": 900.0, "local_rope_theta": 20}
    same(pretrained.load(changed("modernbert_bare", hub)), plain)
    same(pretrained.load(changed("modernbert_bare", {"layer_types": None, "sliding_window": 3})), plain)
    hub = {"layer_types": None, "global_attn_every_n_layers": 2}
    assert pretrained.read_config(changed("modernbert_bare", hub)).sliding_layers == (1, 3)
    # What one kind leaves out comes from the older field, else from the family's default.
    for older, base in (({}, 10_000), ({"local_rope_theta": 33.0}, 33)):
        given = {"rope_parameters": {"full_attention": ROPE}} | older
        config = pretrained.read_config(changed("modernbert_bare", given))
        assert (config.rotary_base, config.local_rotary_base) == (900, base)


def test_modernbert_s_windows_bases_and_order_of_layers_matter(changed):
    """What a window, a base or a pattern off by one would change, the fixtures' tolerance cannot hide."""
    inputs = {"input_ids": np.arange(1, 12)[None]}
    plain = pretrained.load(FIXTURES / "modernbert_bare", overrides=F32).forward(**inputs)
    full = {"full_attention": ROPE, "sliding_attention": ROPE}
    for config in ({"local_attention": 8}, {"local_attention": 4}, {"rope_parameters": full},
                   {"layer_types": ["full_attention"] * 4},
                   {"layer_types": ["sliding_attention", "sliding_attention", "full_attention", "full_attention"]}):
        other = pretrained.load(changed("modernbert_bare", config), overrides=F32).forward(**inputs)
        assert np.abs(other - plain).max() > 0.01, config
    same_half = pretrained.load(changed("modernbert_bare", {"local_attention": 7}), overrides=F32)
    np.testing.assert_array_equal(same_half.forward(**inputs), plain)


def test_the_folder_s_pooling_is_honoured_and_can_be_overridden():
    assert pretrained.read_config(FIXTURES / "modernbert_cls").pooling == "first"
    loaded = pretrained.load(FIXTURES / "modernbert_mean", overrides=F32)
    other = pretrained.load(FIXTURES / "modernbert_mean", overrides=F32 | {"pooling": "first"})
    assert (loaded.model.config.pooling, other.model.config.pooling) == ("mean", "first")
    ids = np.arange(1, 12)[None]
    assert np.abs(loaded.forward(input_ids=ids) - other.forward(input_ids=ids)).max() > 0.01


@pytest.mark.parametrize("name", ["roberta_bare", "distilbert_bare", "modernbert_bare"])
def test_bare_folders_load_under_every_head_and_announce_it(name):
    plain = pretrained.load(FIXTURES / name)
    classifier = {"head/classifier/bias", "head/classifier/kernel"}
    pooler = {"head/pooler/bias", "head/pooler/kernel"}
    transform = {f"head/{path}" for path in ("transform/bias", "transform/kernel", "transform_norm/bias",
                                             "transform_norm/scale")}
    new = {"none": set(), "cls": classifier | pooler, "token": classifier, "span": classifier,
           "lm": transform | {"head/bias"}}
    if name.startswith("modernbert"):
        transform = {"head/transform/kernel", "head/transform_norm/scale"}
        new = {head: transform | classifier for head in ("cls", "token", "span")}
        new |= {"none": set(), "lm": transform | {"head/bias"}}
    for head, expected in new.items():
        loaded = pretrained.load(FIXTURES / name, head)
        assert set(loaded.new) == expected
        jax.tree.map(np.testing.assert_array_equal, loaded.parameters["encoder"], plain.parameters["encoder"])


@pytest.mark.parametrize(("name", "head", "new"), [
    ("roberta_cls", "none", 0), ("roberta_cls", "token", 2), ("roberta_cls", "lm", 5), ("roberta_masked", "cls", 4),
    ("roberta_untied", "span", 2), ("roberta_span", "token", 2), ("xlm_roberta_masked", "token", 2),
    ("distilbert_masked", "cls", 4), ("distilbert_cls", "lm", 5), ("distilbert_span", "cls", 4),
    ("modernbert_masked", "cls", 2), ("modernbert_untied", "none", 0), ("modernbert_mean", "token", 2),
    ("modernbert_mean", "lm", 1), ("modernbert_span", "cls", 2), ("bert_untied", "cls", 4),
])
def test_another_head_keeps_what_it_shares(name, head, new):
    loaded = pretrained.load(FIXTURES / name, head)
    assert len(loaded.new) == new
    if name.startswith("modernbert") and head != "none":  # its prediction head is one for all
        assert loaded.new[-1] == ("head/bias" if head == "lm" else "head/classifier/kernel")


@pytest.mark.parametrize("name", ["modernbert_masked", "modernbert_token", "roberta_masked", "distilbert_cls"])
def test_a_mesh_changes_nothing(name):
    """Also of tensors that hold several parameters, each on shards of its own."""
    plain = pretrained.load(FIXTURES / name, overrides=F32)
    loaded = pretrained.load(FIXTURES / name, mesh=sharding.make_mesh(2, 2, 2), overrides=F32)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.asarray, loaded.parameters), plain.parameters)
    ids = np.arange(1, 12)[None]
    np.testing.assert_allclose(loaded.forward(input_ids=ids), plain.forward(input_ids=ids), rtol=0, atol=1e-5)


def test_modernbert_s_first_layer_forbids_a_scan(refused):
    refused(FIXTURES / "modernbert_bare", "first_norm", "unroll", overrides={"layer_loop": "scan"})


def test_fused_tensors_are_checked_and_named(changed, refused):
    fused = "layers.2.attn.Wqkv.weight"
    refused(changed("modernbert_bare", tensors=lambda arrays: arrays | {fused: arrays[fused][:-1]}),
            fused, "(53, 18)", "(54, 18)")
    refused(changed("modernbert_bare", tensors=lambda arrays: {
        name: array for name, array in arrays.items() if name != fused}), f"missing tensor 'model.{fused}'")
    refused(changed("modernbert_bare", {"intermediate_size": 24}), "mlp.Wi.weight", "(50, 18)", "(48, 18)")
    norm = {"layers.0.attn_norm.weight": np.ones(18, "f4")}
    refused(changed("modernbert_bare", tensors=lambda arrays: arrays | norm), "unknown tensor", *norm)
    bias = {"final_norm.bias": np.ones(18, "f4")}
    refused(changed("modernbert_bare", tensors=lambda arrays: arrays | bias), "unknown tensor", *bias)


@pytest.mark.parametrize("name", ["roberta_cls", "roberta_masked", "distilbert_cls", "modernbert_cls"])
def test_prefixes_and_buffers(changed, name):
    prefix = {"r": "roberta.", "d": "distilbert.", "m": "model."}[name[0]]
    plain = pretrained.load(FIXTURES / name)

    def without_prefix(arrays):
        found = {key.removeprefix(prefix): array for key, array in arrays.items()}
        assert found.keys() != arrays.keys()
        return found

    def with_buffer(arrays):
        return arrays | {f"{prefix}embeddings.position_ids": np.arange(17)[None]}

    for edit in (without_prefix, with_buffer)[:1 if name[0] == "m" else 2]:
        same(pretrained.load(changed(name, tensors=edit)), plain)


def test_roberta_s_classes_share_one_table(changed):
    """Its pooler, which no head reads, is left; names by TensorFlow and XLM-R's class names are read."""
    plain = pretrained.load(FIXTURES / "roberta_span")
    pooler = {"roberta.pooler.dense.weight": np.ones((18, 18), "f4"), "roberta.pooler.dense.bias": np.ones(18, "f4")}
    same(pretrained.load(changed("roberta_span", tensors=lambda arrays: arrays | pooler)), plain)
    for name, kind in (("bare", "Model"), ("token", "ForTokenClassification"), ("span", "ForQuestionAnswering")):
        folder = changed(f"roberta_{name}", {"model_type": "xlm-roberta", "architectures": [f"XLMRoberta{kind}"]})
        same(pretrained.load(folder), pretrained.load(FIXTURES / f"roberta_{name}"))

    def older(arrays):
        return {name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): array
                for name, array in arrays.items()}

    same(pretrained.load(changed("roberta_span", tensors=older)), plain)


def test_roberta_s_positions_skip_its_padding_and_follow_the_override():
    loaded = pretrained.load(FIXTURES / "roberta_bare", overrides=F32)
    assert (loaded.padding, loaded.model.config.max_length) == (1, 15)
    ids = np.array([[9, 8, 1, 7, 1, 6]])
    rows = np.array([[2, 3, 1, 4, 1, 5]])  # padding stands at its own row
    np.testing.assert_array_equal(loaded.forward(input_ids=ids), loaded.forward(input_ids=ids, position_ids=rows))
    assert np.abs(loaded.forward(input_ids=ids, position_ids=rows + 1) - loaded.forward(input_ids=ids)).max() > 0.01
    short = pretrained.load(FIXTURES / "roberta_bare", overrides=F32 | {"max_length": 6})
    assert short.parameters["encoder"]["positions"].shape == (8, 18)
    np.testing.assert_allclose(short.forward(input_ids=ids), loaded.forward(input_ids=ids), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="position_ids has values from 17 to 17; expected 0 to 16"):
        loaded.forward(input_ids=[[5]], position_ids=[[17]])
    assert pretrained.load(FIXTURES / "distilbert_bare").padding is None


def test_distilbert_also_answers_to_the_names_of_other_families(changed):
    general = {"dim": None, "n_heads": None, "n_layers": None, "hidden_size": 18, "num_attention_heads": 3,
               "num_hidden_layers": 2}
    same(pretrained.load(changed("distilbert_bare", general)), pretrained.load(FIXTURES / "distilbert_bare"))


@pytest.mark.parametrize(("name", "first", "second"), [
    ("bert_masked", "cls.predictions.bias", "cls.predictions.decoder.bias"),
    ("roberta_masked", "lm_head.bias", "lm_head.decoder.bias"),
    ("bert_untied", "cls.predictions.bias", "cls.predictions.decoder.bias"),
    ("roberta_untied", "lm_head.bias", "lm_head.decoder.bias"),
])
def test_the_bias_of_words_has_two_names(changed, name, first, second, refused):
    """Tied, they are one: either will do, and two must agree. Untied, the reference reads only the second."""
    plain = pretrained.load(FIXTURES / name)
    if name.endswith("_untied"):
        same(pretrained.load(changed(name, tensors=lambda a: a | {first: a[first] + 1})), plain)
        lost = changed(name, tensors=lambda a: {key: array for key, array in a.items() if key != second})
        assert pretrained.load(lost).new == ("head/bias",)
        return
    same(pretrained.load(changed(name, tensors=lambda a: a | {second: a[first].copy()})), plain)
    same(pretrained.load(changed(name, tensors=lambda a: {
        second if key == first else key: array for key, array in a.items()})), plain)
    refused(changed(name, tensors=lambda a: a | {second: a[first] + 1}), first, second)


def test_bert_for_pretraining_is_its_masked_head_and_encoder(changed):
    def with_next_sentence(arrays):
        eye, ones = np.eye(24, dtype="f4"), np.ones(24, "f4")
        return arrays | {"cls.seq_relationship.weight": eye[:2], "cls.seq_relationship.bias": ones[:2],
                         "bert.pooler.dense.weight": eye, "bert.pooler.dense.bias": ones}

    folder = changed("bert_masked", {"architectures": ["BertForPreTraining"]}, with_next_sentence)
    same(pretrained.load(folder), pretrained.load(FIXTURES / "bert_masked"))
    pooled = pretrained.load(folder, "cls", 3)
    assert pooled.new == ("head/classifier/bias", "head/classifier/kernel")
    np.testing.assert_array_equal(pooled.parameters["head"]["pooler"]["kernel"], np.eye(24))


def test_modernbert_s_words_may_have_no_bias_or_no_weight_of_their_own(changed, refused):
    plain = pretrained.load(FIXTURES / "modernbert_untied")
    assert not plain.model.config.head_bias and not plain.model.config.tied_head
    assert "bias" not in plain.parameters["head"]
    refused(changed("modernbert_untied", tensors=lambda a: {
        name: array for name, array in a.items() if name != "decoder.weight"}), "missing tensor 'decoder.weight'")
    table = "model.embeddings.tok_embeddings.weight"
    tied = changed("modernbert_masked", tensors=lambda a: a | {"decoder.weight": a[table].copy()})
    same(pretrained.load(tied), pretrained.load(FIXTURES / "modernbert_masked"))
