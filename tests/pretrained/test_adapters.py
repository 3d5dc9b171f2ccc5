# SPDX-License-Identifier: Apache-2.0
"""Adapters that PEFT saved come in; its own answers, and folders that say the same, go out."""

import dataclasses
import json
import pathlib
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from t5tasks import pretrained, sharding
from t5tasks.models import adapters as pure
from t5tasks.models.adapters import Lora
from t5tasks.pretrained import adapters
from t5tasks.pretrained.parameters import shapes
from t5tasks.pretrained.resizing import resize

HERE = pathlib.Path(__file__).parent
BASES = {"llama": "llama_tied", "bert": "bert_cls", "gpt2": "gpt2_tied", "phi3": "phi3_plain"}
F32 = {"compute_dtype": "float32"}


def base_of(name, **arguments):
    return pretrained.load(HERE / "fixtures" / BASES[name], overrides=F32, **arguments)


def answers(loaded, name):
    """Ours and PEFT's, for the batch that is padded on the left."""
    with np.load(HERE / "fixtures" / BASES[name] / "reference.npz") as reference:
        inputs = {key.removeprefix("left_"): reference[key] for key in reference.files if key.startswith("left_")}
    inputs.pop("output")
    with np.load(HERE / "adapters" / name / "reference.npz") as reference:
        return loaded.forward(**inputs), reference["output"]


@pytest.mark.parametrize("name", BASES)
def test_answers_with_an_adapter_are_peft_s(name):
    """Ranks and alphas by pattern, stabilised ranks, a head in full, Conv1D, and maps that share a tensor."""
    base = base_of(name)
    ours, expected = answers(adapters.load(HERE / "adapters" / name, base), name)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4)
    assert np.abs(answers(base, name)[0] - expected).max() > 0.1


def test_an_adapter_on_a_scanned_model_on_a_mesh_is_the_same():
    mesh = sharding.make_mesh(2, 2, 2)
    base = pretrained.load(HERE / "fixtures" / "llama_tied", mesh=mesh, overrides=F32 | {"layer_loop": "scan"})
    loaded = adapters.load(HERE / "adapters" / "llama", base)
    np.testing.assert_allclose(*answers(loaded, "llama"), rtol=0, atol=1e-4)
    assert jax.tree.map(lambda leaf: leaf.sharding, loaded.parameters) == \
        jax.tree.map(lambda leaf: leaf.sharding, base.parameters)


def drawn(base, pattern, rank, full=()):
    """Adapters of the maps that a pattern matches, and other numbers for what is trained in full."""
    random, leaves = np.random.RandomState(0), {}
    for path, shape in shapes(base.model.config).items():
        if path in full:
            leaves[path] = random.randn(*shape)
        elif path.endswith("/kernel") and re.search(pattern, path):
            inputs, folder = pure.input_axes(path), path.removesuffix("kernel")
            leaves |= {f"{folder}lora_a": random.randn(*shape[:inputs], rank),
                       f"{folder}lora_b": random.randn(rank, *shape[inputs:])}
    return sharding.nested({path: jnp.asarray(leaf, jnp.float32) for path, leaf in leaves.items()})


def same(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_what_peft_saved_is_saved_alike(name, tmp_path):
    base, theirs = base_of(name), HERE / "adapters" / name
    trained, _ = adapters.read(theirs, base)
    settings = json.loads((theirs / "adapter_config.json").read_text())
    lora = Lora(settings["r"], settings["lora_alpha"], settings["use_rslora"])
    adapters.save(tmp_path / "out", base.model, trained, lora, base.tokenizer_folder, "the/base")
    ours, known = (safetensors.numpy.load_file(folder / "adapter_model.safetensors") for folder in
                   (tmp_path / "out", theirs))
    assert {*known} <= {*ours}
    for tensor, array in known.items():  # where alphas differ, B carries the difference
        if not (settings["alpha_pattern"] and "lora_B" in tensor):
            assert ours[tensor].tobytes() == array.tobytes(), tensor
        assert ours[tensor].shape == array.shape and ours[tensor].dtype == np.float32
    same(adapters.read(tmp_path / "out", base)[0], trained)
    written = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    for field in ("peft_type", "task_type", "r", "use_rslora", "bias", "fan_in_fan_out"):
        assert written[field] == settings[field], field
    assert written["lora_alpha"] == settings["lora_alpha"] and written["base_model_name_or_path"] == "the/base"


@pytest.mark.parametrize(("name", "pattern", "stabilised", "rank", "targets"), [
    ("llama", "layer_1/attention/(query|out)", False, 2, ["model.layers.1.self_attn.o_proj",
                                                          "model.layers.1.self_attn.q_proj"]),
    ("llama", "query|out|feed_forward", True, 2, ["down_proj", "gate_proj", "o_proj", "q_proj", "up_proj"]),
    ("gpt2", "query|value|layer_0/attention/key|up", False, 2, ["c_attn", "c_fc"]),
    ("phi3", "attention/value|gate|up", False, 2, ["gate_up_proj", "qkv_proj"]),
])
def test_a_saved_adapter_is_the_merged_model(name, pattern, stabilised, rank, targets, tmp_path):
    """Also where several maps share a tensor, each with an adapter of its own or none."""
    base, lora = base_of(name), Lora(rank, 6.0, stabilised)
    trained = drawn(base, pattern, rank)
    adapters.save(tmp_path / "out", base.model, trained, lora, base.tokenizer_folder)
    settings = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert settings["target_modules"] == targets
    assert settings["fan_in_fan_out"] == (name == "gpt2") and settings["modules_to_save"] is None
    loaded = adapters.load(tmp_path / "out", base)
    whole = pure.merged(trained, base.parameters, lora.scale)
    jax.tree.map(lambda ours, there: np.testing.assert_allclose(ours, there, rtol=1e-5, atol=1e-5),
                 loaded.parameters, whole)
    ours, _ = answers(loaded, name)
    expected, _ = answers(dataclasses.replace(base, parameters=whole), name)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4)


def test_maps_that_share_a_tensor_become_one_adapter_of_their_ranks_together(tmp_path):
    base = base_of("gpt2")
    trained = drawn(base, "layer_0/attention/(query|key|value)|layer_1/attention/(query|value)|up", 2)
    adapters.save(tmp_path / "out", base.model, trained, Lora(2, 6.0), base.tokenizer_folder)
    settings = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    fused = [f"transformer.h.{layer}.attn.c_attn" for layer in range(2)]
    assert settings["r"] == 2 and settings["rank_pattern"] == dict(zip(fused, (6, 4), strict=True))
    assert settings["lora_alpha"] == 6 and settings["alpha_pattern"] == dict(zip(fused, (18, 12), strict=True))
    b = safetensors.numpy.load_file(tmp_path / "out" / "adapter_model.safetensors")[
        f"base_model.model.{fused[1]}.lora_B.weight"]
    attention, size = trained["decoder"]["layer_1"]["attention"], len(b) // 3
    np.testing.assert_array_equal(b[:size, :2], attention["query"]["lora_b"].reshape(2, -1).T)
    np.testing.assert_array_equal(b[2 * size:, 2:], attention["value"]["lora_b"].reshape(2, -1).T)
    assert not b[size:2 * size].any() and not b[:size, 2:].any() and not b[2 * size:, :2].any()


def test_new_rows_of_a_tied_table_are_kept_by_both_its_names(tmp_path):
    base = resize(base_of("llama"), 203)
    trained = drawn(base, "query", 2, full=("embedding",))
    adapters.save(tmp_path / "out", base.model, trained, Lora(2), base.tokenizer_folder)
    settings = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert settings["modules_to_save"] == ["lm_head", "model.embed_tokens"]
    arrays = safetensors.numpy.load_file(tmp_path / "out" / "adapter_model.safetensors")
    for name in settings["modules_to_save"]:
        np.testing.assert_array_equal(arrays[f"base_model.model.{name}.weight"], trained["embedding"])
    loaded = adapters.load(tmp_path / "out", base)
    np.testing.assert_array_equal(loaded.parameters["embedding"], trained["embedding"])
    assert base.new == ("embedding[199:203]",) and loaded.new == ()
    with pytest.raises(ValueError, match=r"has shape \(203, 24\); the model expects \(199, 24\).*resize"):
        adapters.load(tmp_path / "out", base_of("llama"))


@pytest.mark.parametrize(("change", "said"), [
    ({"peft_type": "IA3"}, "peft_type is 'IA3'"), ({"use_dora": True}, "use_dora is True"),
    ({"bias": "all"}, "bias is 'all'"), ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
    ({"r": 0}, "r is 0"), ({"r": "8"}, "r is '8'"), ({"lora_alpha": None}, "an alpha is None"),
    ({"alpha_pattern": {"q_proj": -1}}, "an alpha is -1"), ({"layer_replication": [[0, 1]]}, "layer_replication"),
    ({"trainable_token_indices": [7]}, "trainable_token_indices"),
])
def test_what_is_not_plain_lora_is_refused_by_name(tmp_path, change, said):
    folder = tmp_path / "adapter"
    shutil.copytree(HERE / "adapters" / "llama", folder)
    settings = json.loads((folder / "adapter_config.json").read_text()) | change
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        adapters.load(folder, base_of("llama"))
    assert "adapter_config.json" in str(error.value) and "\n" not in str(error.value)


Q = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(("edit", "said"), [
    (lambda arrays: arrays.update({f"{Q}2.lora_A.weight": np.ones((3, 24), "f4")}), "its other half is missing"),
    (lambda arrays: arrays.update({f"{Q}.lora_A.weight": np.ones((3, 23), "f4")}), "the model expects [rank, 24]"),
    (lambda arrays: arrays.update({f"{Q}.lora_B.weight": np.ones((60, 4), "f4")}), "shapes (3, 24) and (60, 4)"),
    (lambda arrays: arrays.update({Q.replace(".0.", ".2.") + ".lora_A.weight": np.ones((3, 24), "f4"),
                                   Q.replace(".0.", ".2.") + ".lora_B.weight": np.ones((60, 3), "f4")}),
     "no part of this model is called 'model.layers.2.self_attn.q_proj.weight'"),
    (lambda arrays: arrays.update({"model.norm.weight": np.ones(24, "f4")}), "begins with base_model.model."),
    (lambda arrays: arrays.update({f"base_model.model.lm_head.lora_{letter}.weight": np.ones((1, 1), "f4")
                                   for letter in "AB"}), "lm_head is no linear map of its own"),
    (lambda arrays: arrays.update({"base_model.model.model.embed_tokens.weight": np.ones((199, 24), "f4"),
                                   "base_model.model.lm_head.weight": np.zeros((199, 24), "f4")}),
     "should be the same as another one, both being embedding"),
])
def test_a_tensor_that_does_not_fit_is_refused_by_name(tmp_path, edit, said):
    folder = tmp_path / "adapter"
    shutil.copytree(HERE / "adapters" / "llama", folder)
    arrays = safetensors.numpy.load_file(folder / "adapter_model.safetensors")
    edit(arrays)
    safetensors.numpy.save_file(arrays, folder / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        adapters.load(folder, base_of("llama"))
    assert "\n" not in str(error.value) and str(error.value).startswith("tensor '")


def test_folders_that_are_none_are_refused(tmp_path):
    base, folder = base_of("llama"), tmp_path / "adapter"
    with pytest.raises(ValueError, match="adapter_config.json does not exist"):
        adapters.load(folder, base)
    shutil.copytree(HERE / "adapters" / "llama", folder)
    whole = (folder / "adapter_model.safetensors").read_bytes()
    (folder / "adapter_model.safetensors").write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="adapter_model.safetensors is damaged"):
        adapters.load(folder, base)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ValueError, match="adapter_model.safetensors does not exist"):
        adapters.load(folder, base)
    with pytest.raises(ValueError, match="exists and is not empty"):
        adapters.save(folder, base.model, drawn(base, "query", 1), Lora(1), base.tokenizer_folder)


def test_what_peft_has_no_place_for_is_refused(tmp_path):
    """A head's bias whose module holds other parameters that were not trained."""
    base = pretrained.load(HERE / "fixtures" / "bert_masked", overrides=F32)
    trained = drawn(base, "query", 1, full=("head/bias",))
    with pytest.raises(ValueError, match="keeps whole modules; export the model merged"):
        adapters.save(tmp_path / "out", base.model, trained, Lora(1), base.tokenizer_folder)
    assert not [*tmp_path.iterdir()]
