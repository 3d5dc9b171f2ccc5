# SPDX-License-Identifier: Apache-2.0
"""Nothing comes in; tiny random checkpoints with the reference implementation's answers go out.

Run by hand, in an environment of its own with torch and transformers, where a family or a case is
added; the tests read what it wrote:

    python tests/pretrained/make_fixtures.py

Each folder of fixtures/ is what `save_pretrained` writes, and reference.npz with two batches,
padded on the right and on the left: the inputs by their names there, and `output`.
"""

import pathlib

import numpy as np
import torch
import transformers

FOLDER = pathlib.Path(__file__).parent / "fixtures"
VOCABULARY, EXAMPLES, LENGTH, TARGET_LENGTH = 199, 3, 11, 7
LENGTHS, TARGET_LENGTHS = (11, 7, 4), (7, 3, 5)

BERT = dict(vocab_size=VOCABULARY, hidden_size=24, num_attention_heads=3, intermediate_size=41,
            num_hidden_layers=2, max_position_embeddings=19, type_vocab_size=2)
LLAMA = dict(vocab_size=VOCABULARY, hidden_size=24, num_attention_heads=6, num_key_value_heads=2,
             head_dim=10, intermediate_size=41, num_hidden_layers=2, max_position_embeddings=32)
T5 = dict(vocab_size=VOCABULARY, d_model=20, d_kv=6, num_heads=3, d_ff=33, num_layers=2,
          num_decoder_layers=3, relative_attention_num_buckets=7, relative_attention_max_distance=9,
          decoder_start_token_id=0)

CASES = {
    "bert_bare": (transformers.BertModel, transformers.BertConfig(**BERT)),
    "bert_cls": (transformers.BertForSequenceClassification,
                 transformers.BertConfig(**BERT, num_labels=3, hidden_act="gelu_new")),
    "bert_token": (transformers.BertForTokenClassification,
                   transformers.BertConfig(**BERT, num_labels=5, hidden_act="relu")),
    "bert_span": (transformers.BertForQuestionAnswering,
                  transformers.BertConfig(**BERT, layer_norm_eps=1e-5)),
    "bert_masked": (transformers.BertForMaskedLM, transformers.BertConfig(**BERT)),
    "llama_tied": (transformers.LlamaForCausalLM, transformers.LlamaConfig(
        **LLAMA, tie_word_embeddings=True, rms_norm_eps=1e-5)),
    "llama_untied": (transformers.LlamaForCausalLM, transformers.LlamaConfig(
        **LLAMA, rope_parameters={"rope_type": "default", "rope_theta": 500.0})),
    "llama_bare": (transformers.LlamaModel, transformers.LlamaConfig(**LLAMA)),
    "t5_v1_0": (transformers.T5ForConditionalGeneration, transformers.T5Config(
        **T5, feed_forward_proj="relu")),
    "t5_v1_1": (transformers.T5ForConditionalGeneration, transformers.T5Config(
        **T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False)),
    "t5_encoder": (transformers.T5EncoderModel, transformers.T5Config(
        **T5 | {"num_layers": 3}, feed_forward_proj="gated-silu")),
}
HALF = ("llama_bare",)  # written in bfloat16; the reference computes from the rounded numbers in f32
SHARDED = ("llama_untied",)


def build(kind, config):
    """A model whose every parameter, biases and norm scales too, is random and matters."""
    model = kind._from_config(config, attn_implementation="eager").float()
    if kind is transformers.T5ForConditionalGeneration and not config.scale_decoder_outputs:
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name.lower() and name.endswith("weight"):
                parameter.uniform_(0.4, 1.6)
            else:
                parameter.normal_(0, 0.4 if parameter.ndim == 1 else 0.25)
    return model.eval()


def padded(generator, lengths, width, left):
    """Random ids int64[B, T] with 0 where padding, and their mask."""
    ids, mask = np.zeros((2, len(lengths), width), np.int64)
    for row, length in enumerate(lengths):
        columns = slice(width - length, width) if left else slice(0, length)
        ids[row, columns], mask[row, columns] = generator.integers(1, VOCABULARY, length), 1
    return ids, mask


def inputs(model, generator, left):
    """One batch for the model, under the names of its forward pass."""
    ids, mask = padded(generator, LENGTHS, LENGTH, left)
    batch = {"input_ids": ids, "attention_mask": mask}
    if model.config.model_type == "bert":
        batch["token_type_ids"] = generator.integers(0, 2, ids.shape)
    if isinstance(model, transformers.T5ForConditionalGeneration):
        ids, mask = padded(generator, TARGET_LENGTHS, TARGET_LENGTH, left=False)
        batch |= {"decoder_input_ids": ids, "decoder_attention_mask": mask}
    return batch


def output(model, batch):
    """f32, the reference's answer; of a masked language model, its encoder's."""
    model = model.bert if isinstance(model, transformers.BertForMaskedLM) else model
    with torch.no_grad():
        answer = model(**{name: torch.from_numpy(array) for name, array in batch.items()})
    if isinstance(model, transformers.BertForQuestionAnswering):
        return torch.stack([answer.start_logits, answer.end_logits]).numpy()
    return (answer.logits if "logits" in answer else answer.last_hidden_state).numpy()


def main():
    for number, (name, (kind, config)) in enumerate(CASES.items()):
        torch.manual_seed(number)
        generator = np.random.default_rng(number)
        model = build(kind, config)
        model.to(torch.bfloat16 if name in HALF else torch.float32).save_pretrained(
            FOLDER / name, **({"max_shard_size": "30KB"} if name in SHARDED else {}))
        # The answers come from the folder as it is read, which is what the tests compare with.
        read = kind.from_pretrained(FOLDER / name, attn_implementation="eager", dtype="float32").eval()
        stored, again = model.state_dict(), read.state_dict()
        assert all(torch.equal(stored[key].float(), again[key]) for key in stored), name
        reference = {}
        for side in ("right", "left"):
            batch = inputs(read, generator, left=side == "left")
            reference |= {f"{side}_{key}": array for key, array in batch.items()}
            reference[f"{side}_output"] = output(read, batch)
        np.savez_compressed(FOLDER / name / "reference.npz", **reference)
        spread = np.abs(reference["left_output"]).max()
        print(f"{name}: {sum(p.numel() for p in model.parameters())} parameters, outputs to {spread:.1f}")


if __name__ == "__main__":
    main()
