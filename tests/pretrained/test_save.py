# SPDX-License-Identifier: Apache-2.0
"""Loaded, changed and fresh models come in; folders that hold the same, byte for byte where nothing changed, go out."""

import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from t5tasks import pretrained, sharding
from t5tasks.models.config import ModelConfig
from t5tasks.models.model import Model
from t5tasks.pretrained import writing
from t5tasks.pretrained.files import Tensors

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
CASES = sorted(path.name for path in FIXTURES.iterdir())


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def same_folder(left, right):
    """Asserts that two folders hold the same config.json and the same tensors, byte for byte."""
    assert config_of(left) == config_of(right)
    ours, theirs = Tensors(left), Tensors(right)
    assert ours.names == theirs.names
    for name in ours.names:
        here, there = ours.stored(name), theirs.stored(name)
        assert (here.type, here.shape) == (there.type, there.shape), name
        assert ours.raw(name).tobytes() == theirs.raw(name).tobytes(), name


def same(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def trained(loaded):
    """Parameters of which every number has changed."""
    return jax.tree.map(lambda leaf: leaf * 1.25 + 0.01, loaded.parameters)


@pytest.fixture
def refused(tmp_path):
    """Checks that saving raises one line of error with these parts, and leaves nothing behind."""
    def refused(*parts, **arguments):
        before = sorted(tmp_path.iterdir())
        with pytest.raises(ValueError) as error:
            pretrained.save(tmp_path / "export", **arguments)
        message = str(error.value)
        assert "\n" not in message
        for part in parts:
            assert part in message, message
        assert sorted(tmp_path.iterdir()) == before

    return refused


@pytest.mark.parametrize("name", CASES)
def test_what_was_loaded_comes_out_byte_for_byte(name, tmp_path):
    loaded = pretrained.load(FIXTURES / name)
    pretrained.save(tmp_path / "export", loaded.model, loaded.parameters, FIXTURES / name)
    same_folder(tmp_path / "export", FIXTURES / name)
    safetensors.numpy.load_file(tmp_path / "export" / "model.safetensors")  # its own library reads it


@pytest.mark.parametrize("name", ["bert_cls", "gpt_neox_parallel", "llama_untied", "t5_v1_1"])
def test_so_it_does_from_scanned_layers_on_a_mesh(name, tmp_path):
    loaded = pretrained.load(FIXTURES / name, mesh=sharding.make_mesh(2, 2, 2), overrides={"layer_loop": "scan"})
    pretrained.save(tmp_path / "export", loaded.model, loaded.parameters, FIXTURES / name)
    same_folder(tmp_path / "export", FIXTURES / name)


def test_names_copies_and_buffers_stay_as_the_folder_had_them(changed, tmp_path):
    def older(arrays):
        names = {name: name.replace("Norm.weight", "Norm.gamma").removeprefix("bert.") for name in arrays}
        assert sum("gamma" in name for name in names.values()) == 5
        return {names[name]: array for name, array in arrays.items()} | {
            "embeddings.position_ids": np.arange(19)[None], "cls.seq_relationship.bias": np.ones(2, "f2")}

    def tied(arrays):
        return arrays | {"lm_head.weight": arrays["model.embed_tokens.weight"].astype("f4")}

    def cut_off(arrays):
        return {name.removeprefix("model."): array for name, array in arrays.items()}

    for number, (name, edit) in enumerate((("bert_cls", older), ("llama_tied", tied), ("llama_tied", cut_off))):
        folder = changed(name, tensors=edit)
        loaded = pretrained.load(folder)
        pretrained.save(tmp_path / str(number), loaded.model, loaded.parameters, folder)
        same_folder(tmp_path / str(number), folder)


def test_a_tied_copy_is_written_with_the_trained_numbers(changed, tmp_path):
    folder = changed("llama_tied", tensors=lambda arrays: arrays | {
        "lm_head.weight": arrays["model.embed_tokens.weight"].copy()})
    loaded = pretrained.load(folder)
    pretrained.save(tmp_path / "export", loaded.model, trained(loaded), folder)
    arrays = safetensors.numpy.load_file(tmp_path / "export" / "model.safetensors")
    np.testing.assert_array_equal(arrays["lm_head.weight"], arrays["model.embed_tokens.weight"])
    np.testing.assert_array_equal(arrays["lm_head.weight"], trained(loaded)["embedding"].astype(
        arrays["lm_head.weight"].dtype))


@pytest.mark.parametrize("name", [
    "bert_cls", "gpt2_tied", "gpt_neox_parallel", "llama_untied", "phi3_plain", "t5_v1_1"])
def test_trained_parameters_come_back_to_the_last_bit(name, tmp_path):
    loaded = pretrained.load(FIXTURES / name)
    pretrained.save(tmp_path / "export", loaded.model, trained(loaded), FIXTURES / name, dtype="F32")
    again = pretrained.load(tmp_path / "export")
    assert again.model == loaded.model and again.new == ()
    same(again.parameters, trained(loaded))
    sizes = {Tensors(tmp_path / "export").stored(tensor).type for tensor in Tensors(tmp_path / "export").names}
    assert sizes == {"F32"}


@pytest.mark.parametrize(("type", "dtype"), [("F16", jnp.float16), ("BF16", jnp.bfloat16)])
def test_numbers_are_rounded_to_the_nearest_of_their_format(type, dtype, tmp_path):
    loaded = pretrained.load(FIXTURES / "bert_bare")
    pretrained.save(tmp_path / "export", loaded.model, trained(loaded), FIXTURES / "bert_bare", dtype=type)
    same(pretrained.load(tmp_path / "export").parameters, jax.tree.map(
        lambda leaf: leaf.astype(dtype).astype(jnp.float32), trained(loaded)))
    assert config_of(tmp_path / "export")["dtype"] == jnp.dtype(dtype).name


def test_what_float16_cannot_hold_is_refused_by_name(refused):
    loaded = pretrained.load(FIXTURES / "bert_bare")
    loaded.parameters["encoder"]["layer_1"]["attention"]["key"]["kernel"] *= 1e6
    refused("encoder.layer.1.attention.self.key.weight", "float16", model=loaded.model, parameters=loaded.parameters,
            source=FIXTURES / "bert_bare", dtype="F16")


@pytest.mark.parametrize("limit", [1, 30_000])
def test_large_folders_are_split_and_indexed(limit, tmp_path):
    loaded = pretrained.load(FIXTURES / "llama_tied")
    export = tmp_path / "export"
    pretrained.save(export, loaded.model, loaded.parameters, FIXTURES / "llama_tied", limit=limit)
    same_folder(export, FIXTURES / "llama_tied")
    index = json.loads((export / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in export.glob("*.safetensors"))
    assert files == sorted(set(index["weight_map"].values()))
    assert all(re.fullmatch(rf"model-\d{{5}}-of-{len(files):05}\.safetensors", file) for file in files)
    sizes = [[array.nbytes for array in safetensors.numpy.load_file(export / file).values()] for file in files]
    assert all(sum(size) <= limit or len(size) == 1 for size in sizes)
    assert index["metadata"]["total_size"] == sum(map(sum, sizes)) and len(files) > 2


def test_rows_of_positions_that_the_model_let_go_come_from_the_source(tmp_path):
    loaded = pretrained.load(FIXTURES / "bert_bare", overrides={"max_length": 9})
    pretrained.save(tmp_path / "same", loaded.model, loaded.parameters, FIXTURES / "bert_bare")
    same_folder(tmp_path / "same", FIXTURES / "bert_bare")
    pretrained.save(tmp_path / "trained", loaded.model, trained(loaded), FIXTURES / "bert_bare")
    table = pretrained.load(tmp_path / "trained").parameters["encoder"]["positions"]
    np.testing.assert_array_equal(table[:9], trained(loaded)["encoder"]["positions"])
    np.testing.assert_array_equal(table[9:], pretrained.load(FIXTURES / "bert_bare").parameters["encoder"][
        "positions"][9:])


@pytest.mark.parametrize(("name", "head", "architecture", "tensor"), [
    ("bert_bare", "cls", "BertForSequenceClassification", "classifier.weight"),
    ("bert_masked", "span", "BertForQuestionAnswering", "qa_outputs.weight"),
    ("bert_cls", "token", "BertForTokenClassification", "classifier.weight"),
    ("bert_cls", "span", "BertForQuestionAnswering", "qa_outputs.weight"),
    ("bart_bare", "lm", "BartForConditionalGeneration", "final_logits_bias"),
    ("gemma3_bare", "lm", "Gemma3ForCausalLM", "model.embed_tokens.weight"),
    ("bert_cls", "none", "BertModel", "encoder.layer.0.output.dense.weight"),
    ("bert_bare", "lm", "BertForMaskedLM", "cls.predictions.bias"),
    ("roberta_bare", "cls", "RobertaForSequenceClassification", "classifier.out_proj.weight"),
    ("roberta_masked", "token", "RobertaForTokenClassification", "classifier.weight"),
    ("xlm_roberta_masked", "span", "XLMRobertaForQuestionAnswering", "qa_outputs.weight"),
    ("llama_untied", "none", "LlamaModel", "layers.0.mlp.up_proj.weight"),
    ("t5_v1_1", "none", "T5Model", "encoder.block.1.layer.1.DenseReluDense.wi_1.weight"),
])
def test_another_head_gets_its_architecture_and_its_names(name, head, architecture, tensor, tmp_path):
    loaded = pretrained.load(FIXTURES / name, head)
    pretrained.save(tmp_path / "export", loaded.model, loaded.parameters, FIXTURES / name, dtype="F32")
    assert config_of(tmp_path / "export")["architectures"] == [architecture]
    tensors = Tensors(tmp_path / "export")
    assert tensor in tensors.names
    again = pretrained.load(tmp_path / "export")
    assert again.new == () and again.model.config.head == head
    same(again.parameters, loaded.parameters)
    sizes = [np.prod(tensors.shape(name), dtype=int) for name in tensors.names]
    assert sum(sizes) == sum(leaf.size for leaf in jax.tree.leaves(loaded.parameters))  # nothing else, nothing twice
    assert ("id2label" in config_of(tmp_path / "export")) == (head in ("cls", "token"))


def test_every_copy_of_an_untied_model_s_embedding_is_written(tmp_path):
    """The reference ties none of them where the head is not tied."""
    loaded = pretrained.load(FIXTURES / "bart_untied", "none")
    pretrained.save(tmp_path / "export", loaded.model, trained(loaded), FIXTURES / "bart_untied")
    before, after = (set(Tensors(folder).names) for folder in (FIXTURES / "bart_untied", tmp_path / "export"))
    assert after == {name.removeprefix("model.") for name in before} - {"lm_head.weight", "final_logits_bias"}
    arrays = safetensors.numpy.load_file(tmp_path / "export" / "model.safetensors")
    np.testing.assert_array_equal(arrays["shared.weight"], arrays["decoder.embed_tokens.weight"])


def test_labels(tmp_path, refused):
    source = FIXTURES / "bert_cls"
    loaded = pretrained.load(source, classes=4)
    pretrained.save(tmp_path / "named", loaded.model, loaded.parameters, source, labels=["a", "b", "c", "ü"])
    assert config_of(tmp_path / "named")["id2label"] == {"0": "a", "1": "b", "2": "c", "3": "ü"}
    assert config_of(tmp_path / "named")["label2id"] == {"a": 0, "b": 1, "c": 2, "ü": 3}
    again = pretrained.load(tmp_path / "named")
    assert again.new == () and again.model.config.classes == 4
    pretrained.save(tmp_path / "unnamed", loaded.model, loaded.parameters, source)
    assert list(config_of(tmp_path / "unnamed")["id2label"].values()) == [f"LABEL_{number}" for number in range(4)]
    model = {"model": loaded.model, "parameters": loaded.parameters, "source": source}
    refused("labels", "4 different", labels=["a", "b"], **model)
    refused("labels", "4 different", labels=["a", "b", "c", "c"], **model)
    bare = pretrained.load(source, "none")
    refused("labels", "'none' head", labels=["a"], model=bare.model, parameters=bare.parameters, source=source)


def test_added_tokens_are_counted(tmp_path):
    loaded = pretrained.load(FIXTURES / "bert_masked")
    model = Model(ModelConfig(**{**vars(loaded.model.config), "vocabulary": 203}))
    parameters = {**loaded.parameters, "embedding": jnp.pad(loaded.parameters["embedding"], ((0, 4), (0, 0))),
                  "head": {**loaded.parameters["head"], "bias": jnp.pad(loaded.parameters["head"]["bias"], (0, 4))}}
    pretrained.save(tmp_path / "export", model, parameters, FIXTURES / "bert_masked")
    again = pretrained.load(tmp_path / "export")
    assert again.model.config.vocabulary == config_of(tmp_path / "export")["vocab_size"] == 203
    same(again.parameters, parameters)


def test_what_the_folder_cannot_say_is_refused(refused):
    source = FIXTURES / "bert_cls"
    loaded = pretrained.load(source, overrides={"pooling": "mean"})
    refused("model.pooling is 'mean'", "bert", model=loaded.model, parameters=loaded.parameters, source=source)
    encoder = pretrained.load(FIXTURES / "t5_encoder")
    image = pretrained.load(FIXTURES / "clip_image_bare", "cls", 3)
    refused("clip_vision_model", "'cls'", model=image.model, parameters=image.parameters,
            source=FIXTURES / "clip_image_bare")
    refused("model.architecture is 'encoder'", model=Model(ModelConfig(**{
        **vars(encoder.model.config), "head": "lm"})), parameters=encoder.parameters, source=FIXTURES / "t5_encoder")


def test_parameters_that_are_not_the_model_s_are_refused(refused):
    loaded = pretrained.load(FIXTURES / "bert_bare")
    arguments = {"model": loaded.model, "source": FIXTURES / "bert_bare"}
    without = {"encoder": loaded.parameters["encoder"]}
    refused("parameter embedding is absent", parameters=without, **arguments)
    refused("parameter embedding is (5,)", "(199, 24)", parameters=without | {"embedding": jnp.ones(5)}, **arguments)
    refused("encoder/layer_0/", "the form that the model runs on", parameters=pretrained.load(
        FIXTURES / "bert_bare", overrides={"layer_loop": "scan"}).parameters, **arguments)


def test_tokenizer_files_come_along_and_weights_do_not(changed, tmp_path):
    folder = changed("bert_cls")
    files = ["tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json", "spiece.model",
             "chat_template.jinja", "preprocessor_config.json", "generation_config.json"]
    for file in (*files, "pytorch_model.bin", "README.md", "training_args.bin"):
        (folder / file).write_text(file)
    loaded = pretrained.load(folder)
    pretrained.save(tmp_path / "export", loaded.model, loaded.parameters, folder)
    assert sorted(path.name for path in (tmp_path / "export").iterdir()) == sorted(
        [*files, "config.json", "model.safetensors"])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "tokenizer.json").write_text("another")
    pretrained.save(tmp_path / "with", loaded.model, loaded.parameters, folder, tokenizer_folder=tmp_path / "other")
    assert sorted(path.name for path in (tmp_path / "with").iterdir()) == [
        "config.json", "model.safetensors", "tokenizer.json"]
    assert (tmp_path / "with" / "tokenizer.json").read_text() == "another"


def test_a_folder_is_whole_or_absent(tmp_path, refused, monkeypatch):
    loaded = pretrained.load(FIXTURES / "bert_bare")
    arguments = {"model": loaded.model, "parameters": loaded.parameters, "source": FIXTURES / "bert_bare"}
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "mine.txt").write_text("kept")
    refused("export", "not empty", **arguments)
    (tmp_path / "export" / "mine.txt").unlink()

    def fail(self, target):
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(writing.Numbers, "read", fail)
        with pytest.raises(OSError, match="no space"):
            pretrained.save(tmp_path / "export", **arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["export"] and not [*(tmp_path / "export").iterdir()]
    pretrained.save(tmp_path / "export", **arguments)
    same_folder(tmp_path / "export", FIXTURES / "bert_bare")


ENCODER = {"architecture": "encoder", "encoder_layers": 2, "decoder_layers": 0}
BOTH = {"architecture": "encoder_decoder", "encoder_layers": 2, "decoder_layers": 3, "positions": "relative",
        "scaled_attention": False}
BERT = ENCODER | {"norm": "layernorm", "norm_placement": "post", "embedding_norm": True, "final_norm": False,
                  "biases": True, "positions": "learned", "token_types": 2, "activation": "gelu", "gated": False}


@pytest.mark.parametrize(("architecture", "values"), [
    ("LlamaForCausalLM", {"kv_heads": 2, "rotary_base": 500.0}),
    ("LlamaForCausalLM", {"tied_head": False, "layer_loop": "scan"}),
    ("LlamaModel", {"head": "none"}),
    ("BertForSequenceClassification", BERT | {"head": "cls", "classes": 3, "pooler": "tanh"}),
    ("BertForQuestionAnswering", BERT | {"head": "span"}),
    ("BertForMaskedLM", BERT | {"head_transform": True, "head_bias": True}),
    ("T5ForConditionalGeneration", BOTH | {"activation": "gelu_tanh", "tied_head": False}),
    ("T5ForConditionalGeneration", BOTH | {"activation": "relu", "gated": False, "scaled_head": True}),
    ("T5EncoderModel", BOTH | ENCODER | {"head": "none", "activation": "silu"}),
])
def test_a_model_of_our_own_is_written_as_the_family_that_can_express_it(architecture, values, tmp_path):
    model = Model(ModelConfig(**values))
    parameters = model.init(jax.random.key(3))
    pretrained.save(tmp_path / "export", model, parameters)
    assert config_of(tmp_path / "export")["architectures"] == [architecture]
    again = pretrained.load(tmp_path / "export", overrides={"layer_loop": model.config.layer_loop})
    assert again.new == ()
    same(again.parameters, parameters)
    if architecture != "T5EncoderModel":
        ids = {"tokens": jnp.arange(14).reshape(2, 7), "source_tokens": jnp.arange(10).reshape(2, 5)}
        inputs = {name: ids[name] for name in (("tokens", "source_tokens") if values.get("decoder_layers") == 3
                                               else ("tokens",))}
        same(again.model.apply(again.parameters, inputs), model.apply(parameters, inputs))


def test_a_model_that_no_family_expresses_is_refused(refused):
    for values in ({"window": 4, "sliding_layers": (0,)}, ENCODER | {"head": "cls"}, BOTH | {"positions": "rotary"}):
        model = Model(ModelConfig(**values))
        refused("no family can express this model: bert: ", model=model, parameters=model.init(jax.random.key(0)))
