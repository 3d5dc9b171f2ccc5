# SPDX-License-Identifier: Apache-2.0
"""Folders with one thing changed come in; the same numbers, or an error that names it, go out."""

import json
import math
import pathlib

import jax
import numpy as np
import pytest
import safetensors.numpy

from t5tasks import pretrained, sharding
from t5tasks.pretrained import copying, files

FIXTURES = pathlib.Path(__file__).parent / "fixtures"


def same(left, right):
    jax.tree.map(np.testing.assert_array_equal, left.parameters, right.parameters)
    assert left.model == right.model


@pytest.mark.parametrize(("name", "field", "value"), [
    ("bert_bare", "position_embedding_type", "relative_key"),
    ("bert_bare", "hidden_act", "quick_gelu"),
    ("bert_bare", "is_decoder", True),
    ("bert_bare", "add_cross_attention", True),
    ("bert_bare", "pruned_heads", {"0": [1]}),
    ("bert_bare", "hidden_size", "24"),
    ("bert_bare", "hidden_size", 25),
    ("bert_bare", "num_hidden_layers", True),
    ("bert_bare", "layer_norm_eps", "1e-12"),
    ("bert_bare", "model_type", "xlnet"),
    ("bert_bare", "auto_map", {"AutoModel": "modeling.Model"}),
    ("bert_bare", "quantization_config", {"quant_method": "gptq"}),
    ("bert_bare", "architectures", ["BertForMultipleChoice"]),
    ("bert_cls", "id2label", [1, 2]),
    ("llama_tied", "attention_bias", True),
    ("llama_tied", "mlp_bias", True),
    ("llama_tied", "hidden_act", "laplace"),
    ("llama_tied", "rope_scaling", {"type": "longrope", "short_factor": [1.0]}),
    ("llama_tied", "rope_scaling", "linear"),
    ("llama_tied", "partial_rotary_factor", -0.5),
    ("llama_tied", "rope_theta", float("nan")),
    ("llama_tied", "tie_word_embeddings", "yes"),
    ("t5_v1_0", "feed_forward_proj", "gated-softmax"),
    ("t5_v1_1", "dense_act_fn", "relu"),
    ("t5_v1_1", "is_gated_act", False),
    ("t5_v1_0", "is_decoder", True),
    ("t5_v1_0", "relative_attention_num_buckets", 3),
])
def test_a_field_that_is_not_honoured_is_refused_by_name(changed, name, field, value, refused):
    refused(changed(name, {field: value}), field)


def test_a_field_inside_another_is_refused_by_name(changed, refused):
    rope = {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0, "beta_fast": 8}
    refused(changed("llama_tied", {"rope_parameters": rope}), "beta_fast", "linear")


def test_other_spellings_of_one_configuration(changed):
    """Folders of the hub and those of transformers 5 say the same in different fields."""
    plain = pretrained.read_config(FIXTURES / "llama_untied")
    assert plain.rotary_base == 500
    hub = changed("llama_untied", {"rope_parameters": None, "rope_theta": 500.0})
    assert pretrained.read_config(hub) == plain
    both = changed("llama_untied", {"rope_theta": 500.0, "rope_scaling": {"type": "default"}})
    assert pretrained.read_config(both) == plain
    hub = {"tie_word_embeddings": False, "scale_decoder_outputs": None, "dense_act_fn": None}
    plain = pretrained.read_config(FIXTURES / "t5_v1_1")
    assert not plain.tied_head and not plain.scaled_head
    assert pretrained.read_config(changed("t5_v1_1", hub)) == plain
    plain = pretrained.read_config(FIXTURES / "t5_v1_0")
    assert plain.tied_head and plain.scaled_head
    hub = {"scale_decoder_outputs": None, "tie_word_embeddings": None}
    assert pretrained.read_config(changed("t5_v1_0", hub)) == plain
    for name in ("t5_v1_0", "t5_v1_1"):
        bare = changed(name)
        (bare / "model.safetensors").unlink()
        read = pretrained.read_config(bare)
        assert (read.tied_head, read.scaled_head) == ((name == "t5_v1_0"),) * 2


def test_defaults_are_the_reference_s(changed):
    folder = changed("bert_bare")
    (folder / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
    config = pretrained.read_config(folder)
    assert (config.width, config.encoder_layers, config.vocabulary) == (768, 12, 30522)
    assert (config.norm_epsilon, config.activation) == (1e-12, "gelu")
    assert (config.dropout, config.attention_dropout) == (0.1, 0.1)


def test_an_unscaled_head_without_weights_of_its_own_is_tied(changed):
    def drop(arrays):
        del arrays["lm_head.weight"]

    config = pretrained.load(changed("t5_v1_1", tensors=drop)).model.config
    assert config.tied_head and not config.scaled_head


def test_a_head_that_the_family_lacks_is_refused(refused):
    refused(FIXTURES / "llama_tied", "'cls'", "'lm'", head="cls")


def test_new_heads_are_announced_and_seeded():
    first, again, other = (pretrained.load(FIXTURES / "bert_masked", "cls", 4, seed=seed)
                           for seed in (1, 1, 2))
    assert first.new == ("head/classifier/bias", "head/classifier/kernel",
                         "head/pooler/bias", "head/pooler/kernel")
    same(first, again)
    kernels = [loaded.parameters["head"]["classifier"]["kernel"] for loaded in (first, other)]
    assert kernels[0].shape == (24, 4)
    assert 0.01 < np.std(kernels[0]) < 0.03 and not np.array_equal(*kernels)
    plain = pretrained.load(FIXTURES / "bert_masked", "none")
    jax.tree.map(np.testing.assert_array_equal, first.parameters["encoder"], plain.parameters["encoder"])


@pytest.mark.parametrize(("name", "head", "classes", "new"), [
    ("bert_cls", "cls", 3, 0), ("bert_cls", "cls", 4, 2), ("bert_cls", "token", 3, 2),
    ("bert_cls", "none", None, 0), ("bert_span", "span", None, 0), ("bert_span", "cls", 2, 4),
    ("bert_token", "token", None, 0), ("bert_bare", "cls", 2, 2), ("bert_bare", "span", None, 2),
])
def test_a_head_is_loaded_only_where_it_is_the_one_asked_for(name, head, classes, new):
    loaded = pretrained.load(FIXTURES / name, head, classes)
    assert len(loaded.new) == new
    if new == 2:
        assert {path.rpartition("/")[0] for path in loaded.new} == {"head/classifier"}


def test_classes_belong_to_heads_that_have_them(refused):
    refused(FIXTURES / "bert_bare", "classes is 3", "span", head="span", classes=3)


def test_architectures_may_be_absent_where_a_head_is_asked_for(changed, refused):
    folder = changed("bert_cls", {"architectures": None})
    refused(folder, "architectures")
    same(pretrained.load(folder, "cls"), pretrained.load(FIXTURES / "bert_cls"))


def test_overrides(refused):
    loaded = pretrained.load(FIXTURES / "bert_bare", overrides={"max_length": 9, "dropout": 0.3})
    assert loaded.model.config.dropout == 0.3
    full = pretrained.load(FIXTURES / "bert_bare")
    np.testing.assert_array_equal(loaded.parameters["encoder"]["positions"],
                                  full.parameters["encoder"]["positions"][:9])
    ids = np.arange(9)[None]
    np.testing.assert_allclose(loaded.forward(input_ids=ids), full.forward(input_ids=ids), atol=1e-5)
    refused(FIXTURES / "bert_bare", "max_length is 20", "19", overrides={"max_length": 20})
    refused(FIXTURES / "bert_bare", "width", "dropout", overrides={"width": 48})
    assert pretrained.read_config(FIXTURES / "t5_v1_0", overrides={"max_length": 999}).max_length == 999


def test_missing_unknown_misshapen_and_mistyped_tensors_are_named(changed, refused):
    key = "encoder.layer.1.attention.self.key.weight"
    refused(changed("bert_bare", tensors=lambda arrays: {**arrays, "extra.weight": arrays[key]}),
            "unknown tensor 'extra.weight'")
    refused(changed("bert_bare", {"num_hidden_layers": 1}), "unknown tensor 'encoder.layer.1.")
    refused(changed("bert_bare", {"num_hidden_layers": 3}), "missing tensor 'bert.encoder.layer.2.")
    refused(changed("bert_bare", {"intermediate_size": 40}), "intermediate.dense", "(41,)", "(40,)")
    for array in (np.zeros((24, 23), "f4"), np.zeros(576, "f4"), np.zeros((24, 24), "i8"),
                  np.zeros((24, 24), "f8"), np.zeros((24, 24), bool)):
        refused(changed("bert_bare", tensors=lambda arrays, array=array: {**arrays, key: array}), key)
    refused(changed("bert_bare", tensors=lambda arrays: {
        name: array for name, array in arrays.items() if name != key}), f"missing tensor 'bert.{key}'")


def test_half_a_head_is_damage_not_a_new_head(changed, refused):
    def drop(arrays):
        del arrays["classifier.bias"]

    refused(changed("bert_cls", tensors=drop), "missing tensor 'classifier.bias'")


def test_a_lost_head_of_an_untied_model_is_never_left_random(changed, refused):
    folder = changed("llama_tied", {"tie_word_embeddings": False})
    refused(folder, "missing tensor 'lm_head.weight'")


def test_a_tied_head_written_out_must_be_the_table(changed, refused):
    plain = pretrained.load(FIXTURES / "llama_tied")
    table = "model.embed_tokens.weight"
    folder = changed("llama_tied", tensors=lambda a: {**a, "lm_head.weight": a[table].copy()})
    same(pretrained.load(folder), plain)
    folder = changed("llama_tied", tensors=lambda a: {**a, "lm_head.weight": a[table] + 1})
    refused(folder, "lm_head.weight", "tie_word_embeddings")


def test_t5_s_copies_of_the_embedding(changed, refused):
    plain = pretrained.load(FIXTURES / "t5_encoder")

    def rename(arrays):
        arrays["encoder.embed_tokens.weight"] = arrays.pop("shared.weight")

    def copy(arrays):
        arrays["encoder.embed_tokens.weight"] = arrays["shared.weight"].copy()

    def other(arrays):
        arrays["encoder.embed_tokens.weight"] = arrays["shared.weight"] * 2

    for edit in (rename, copy):
        same(pretrained.load(changed("t5_encoder", tensors=edit)), plain)
    refused(changed("t5_encoder", tensors=other), "shared.weight", "encoder.embed_tokens.weight")


def test_older_names_prefixes_and_buffers(changed):
    plain = pretrained.load(FIXTURES / "bert_cls")

    def older(arrays):
        names = {name: name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta")
                 for name in arrays}
        assert sum("gamma" in name for name in names.values()) == 5
        return {names[name]: array for name, array in arrays.items()}

    def without_prefix(arrays):
        return {name.removeprefix("bert."): array for name, array in arrays.items()}

    def with_buffer(arrays):
        return {**arrays, "bert.embeddings.position_ids": np.arange(19)[None]}

    for edit in (older, without_prefix, with_buffer):
        same(pretrained.load(changed("bert_cls", tensors=edit)), plain)
    buffer = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(5, "f4")}
    folder = changed("llama_tied", tensors=lambda arrays: arrays | buffer)
    same(pretrained.load(folder), pretrained.load(FIXTURES / "llama_tied"))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_read_exactly(changed, dtype):
    folder = changed("bert_bare", tensors=lambda arrays: {
        name: np.asarray(jax.numpy.asarray(array, dtype)) for name, array in arrays.items()})
    stored = safetensors.numpy.load_file(folder / "model.safetensors")["embeddings.LayerNorm.weight"]
    scale = pretrained.load(folder).parameters["encoder"]["embedding_norm"]["scale"]
    assert stored.dtype == dtype and scale.dtype == np.float32
    np.testing.assert_array_equal(scale, stored.astype(np.float32))


def addresses(view):
    """int64[...], where in memory each number of a view lies."""
    found = np.int64(view.__array_interface__["data"][0])
    for size, stride in zip(view.shape, view.strides, strict=True):
        found = found[..., None] + np.arange(size) * stride
    return found


@pytest.mark.parametrize(("name", "loop", "mesh"), [
    ("t5_v1_1", "scan", None), ("phi3_plain", "unroll", None), ("gpt_neox_parallel", "scan", (2, 2, 2))])
def test_every_tensor_is_read_once(monkeypatch, name, loop, mesh):
    """Every number of it: also where several parameters lie in one tensor, or several shards."""
    read, copy = [], copying.copy

    def spy(pieces):
        read.extend(addresses(view).ravel() for _, view in pieces)
        copy(pieces)

    monkeypatch.setattr(copying, "copy", spy)
    pretrained.load(FIXTURES / name, mesh=mesh and sharding.make_mesh(*mesh), overrides={"layer_loop": loop})
    tensors = files.Tensors(FIXTURES / name)
    numbers = sum(math.prod(tensors.shape(tensor)) for tensor in tensors.names)
    read = np.concatenate(read)
    assert len(read) == len(np.unique(read)) == numbers


def test_what_downloads_leave_behind_is_refused(changed, refused):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n"
    for content, part in [(pointer, "git lfs pull"), (b"<!DOCTYPE html><html>", "HTML"), (b"", "empty")]:
        for file in ("model.safetensors", "config.json"):
            folder = changed("bert_bare")
            (folder / file).write_bytes(content)
            refused(folder, part, file)
    folder = changed("bert_bare")
    whole = (folder / "model.safetensors").read_bytes()
    for content in (whole[:-1], whole + b"1", b"\0" * 100):
        (folder / "model.safetensors").write_bytes(content)
        refused(folder, "damaged", "model.safetensors")


@pytest.mark.parametrize(("content", "part"), [
    (b"{", "not readable JSON"), (b"[]", "expected a JSON object"), (b'"\xff"', "not readable JSON"),
    (b"{}", "model_type")])
def test_a_config_that_is_none(changed, content, part, refused):
    folder = changed("bert_bare")
    (folder / "config.json").write_bytes(content)
    refused(folder, part)


def test_folders_without_weights(changed, tmp_path, refused):
    refused(tmp_path / "absent", "is no folder")
    refused(tmp_path, "config.json does not exist")
    folder = changed("bert_bare")
    (folder / "model.safetensors").rename(folder / "consolidated.safetensors")
    refused(folder, "consolidated.safetensors", "neither model.safetensors nor")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02")
    refused(folder, "pytorch_model.bin", "save_pretrained")


def index_of(folder):
    path = folder / "model.safetensors.index.json"
    return path, json.loads(path.read_text())["weight_map"]


@pytest.mark.parametrize("file", ["../outside.safetensors", "a/../../b.safetensors", "/etc/passwd",
                                  "C:\\model.safetensors", "..\\outside.safetensors", "", 7])
def test_an_index_that_leaves_the_folder_is_refused(changed, file, refused):
    folder = changed("llama_untied")
    path, places = index_of(folder)
    (folder.parent / "outside.safetensors").write_bytes(b"")
    path.write_text(json.dumps({"weight_map": places | {"lm_head.weight": file}}))
    refused(folder, "lm_head.weight", "inside the folder")


def test_an_index_must_say_what_its_shards_hold(changed, refused):
    folder = changed("llama_untied")
    path, places = index_of(folder)
    files_there = sorted(set(places.values()))
    assert len(files_there) == 4
    path.write_text(json.dumps({"weight_map": places | {"new.weight": files_there[0]}}))
    refused(folder, "'new.weight' is not in")
    lost = "model.norm.weight"
    path.write_text(json.dumps({"weight_map": {k: v for k, v in places.items() if k != lost}}))
    refused(folder, lost, "is in")
    path.write_text(json.dumps({"metadata": {}}))
    refused(folder, "weight_map")
    path.write_text(json.dumps({"weight_map": places}))
    (folder / files_there[1]).unlink()
    refused(folder, files_there[1], "does not exist")


@pytest.mark.parametrize(("name", "inputs", "part"), [
    ("bert_bare", {"input_ids": [[199]]}, "0 to 198"),
    ("bert_bare", {"input_ids": [[-1]]}, "input_ids has values from -1"),
    ("bert_bare", {"input_ids": [1, 2]}, "two dimensions"),
    ("bert_bare", {"input_ids": [[1.0]]}, "expected integers"),
    ("bert_bare", {"input_ids": [[]]}, "expected integers"),
    ("bert_bare", {"input_ids": [[1] * 20]}, "20 tokens long"),
    ("bert_bare", {"input_ids": [[1]], "token_type_ids": [[2]]}, "token_type_ids"),
    ("bert_bare", {"input_ids": [[1, 2]], "attention_mask": [[1]]}, "attention_mask is [1, 1]"),
    ("bert_bare", {"input_ids": [[1]], "attention_mask": [[2]]}, "0 to 1"),
    ("bert_bare", {"attention_mask": [[1]]}, "input_ids is missing"),
    ("bert_bare", {"tokens": [[1]]}, "unknown input 'tokens'"),
    ("llama_tied", {"input_ids": [[1]], "token_type_ids": [[0]]}, "unknown input 'token_type_ids'"),
    ("t5_v1_0", {"input_ids": [[1]]}, "decoder_input_ids is missing"),
    ("t5_v1_0", {"input_ids": [[1], [2]], "decoder_input_ids": [[0]]}, "2 examples"),
])
def test_inputs_are_checked_before_a_device_clamps_them(name, inputs, part):
    loaded = pretrained.load(FIXTURES / name)
    with pytest.raises(ValueError) as error:
        loaded.forward(**inputs)
    assert part in str(error.value)
