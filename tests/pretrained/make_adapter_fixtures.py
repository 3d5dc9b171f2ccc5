# SPDX-License-Identifier: Apache-2.0
"""Fixtures of checkpoints come in; random adapters that PEFT saved, with the adapted model's answers, go out.

Run by hand, in an environment of its own with torch, transformers and peft:

    python tests/pretrained/make_adapter_fixtures.py [NAME ...]

Each folder of adapters/ is what PEFT's `save_pretrained` writes, and reference.npz: the `output`
for the base fixture's batch that is padded on the left.
"""

import os
import pathlib
import sys
import zlib

import numpy as np
import peft
import torch
import transformers

HERE = pathlib.Path(__file__).parent
FOLDER = HERE / "adapters"

# name: base fixture, class, settings of its adapters.
CASES = {
    "llama": ("llama_tied", transformers.LlamaForCausalLM, dict(
        task_type="CAUSAL_LM", r=3, lora_alpha=7, target_modules=["q_proj", "o_proj", "down_proj"],
        rank_pattern={"layers.1.self_attn.q_proj": 5}, alpha_pattern={"down_proj": 2, "o_proj": 11})),
    "bert": ("bert_cls", transformers.BertForSequenceClassification, dict(
        task_type="SEQ_CLS", r=2, lora_alpha=3, use_rslora=True,
        target_modules=["query", "attention.output.dense", "pooler.dense"])),
    "gpt2": ("gpt2_tied", transformers.GPT2LMHeadModel, dict(
        task_type="CAUSAL_LM", r=4, lora_alpha=4, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)),
    "phi3": ("phi3_plain", transformers.Phi3ForCausalLM, dict(
        task_type="CAUSAL_LM", r=2, lora_alpha=4, target_modules=["qkv_proj", "gate_up_proj"])),
}


def make(name, base, kind, settings):
    """Writes one fixture and says how far its adapters move the answers."""
    torch.manual_seed(zlib.crc32(name.encode()))
    fixture = pathlib.Path("fixtures", base)  # as adapter_config.json will name it
    model = kind.from_pretrained(fixture, attn_implementation="eager", dtype="float32").eval()
    with np.load(fixture / "reference.npz") as reference:
        inputs = {key.removeprefix("left_"): torch.from_numpy(reference[key])
                  for key in reference.files if key.startswith("left_")}
    before = inputs.pop("output")
    model = peft.get_peft_model(model, peft.LoraConfig(**settings)).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_" in key or "modules_to_save" in key:
                parameter.normal_(0, 0.3)
    model.save_pretrained(FOLDER / name)
    (FOLDER / name / "README.md").unlink(missing_ok=True)
    (FOLDER / name / "adapter_model.safetensors").chmod(0o644)
    with torch.no_grad():
        output = model(**inputs).logits
    np.savez_compressed(FOLDER / name / "reference.npz", output=output.numpy())
    print(f"{name}: moved by up to {(output - before).abs().max():.2f}")


def main():
    os.chdir(HERE)
    for name in sys.argv[1:] or CASES:
        make(name, *CASES[name])


if __name__ == "__main__":
    main()
