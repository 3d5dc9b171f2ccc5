# SPDX-License-Identifier: Apache-2.0
"""Names of cases come in; tiny random checkpoints with the reference implementation's answers go out.

Run by hand, in an environment of its own with torch and transformers, where a case is added; the
tests read what it wrote. Without names it makes the fixtures that are not there yet:

    python tests/pretrained/make_fixtures.py [NAME ...]

A family's cases are one module of cases/. Each folder of fixtures/ is what `save_pretrained`
writes, and reference.npz with two batches, padded on the right and on the left: the inputs by
their names there, and `output`.
"""

import importlib
import pathlib
import sys
import zlib

import numpy as np
import torch

HERE = pathlib.Path(__file__).parent
FOLDER = HERE / "fixtures"
LENGTH, TARGET_LENGTH = 11, 7
LENGTHS, TARGET_LENGTHS = (11, 7, 4), (7, 3, 5)


def cases():
    """Every case by its name."""
    sys.path.insert(0, str(HERE / "cases"))
    found = {}
    for path in sorted((HERE / "cases").glob("*.py")):
        found |= getattr(importlib.import_module(path.stem), "CASES", {})
    return found


def build(case):
    """A model whose every parameter, biases and norm scales too, is random and matters."""
    model = case.kind._from_config(case.config, attn_implementation="eager").float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name.lower() and name.endswith("weight"):
                parameter.uniform_(0.4, 1.6)
            else:
                parameter.normal_(0, 0.4 if parameter.ndim == 1 else 0.25)
        if case.adjust is not None:
            case.adjust(model)
    return model.eval()


def padded(generator, lengths, width, left, vocabulary, padding=0):
    """Random ids int64[B, T], `padding` where padding, and their mask."""
    ids = np.full((len(lengths), width), padding, np.int64)
    mask = np.zeros_like(ids)
    words = np.setdiff1d(np.arange(vocabulary), [padding])
    for row, length in enumerate(lengths):
        columns = slice(width - length, width) if left else slice(0, length)
        ids[row, columns], mask[row, columns] = generator.choice(words, length), 1
    return ids, mask


def text_batch(model, generator, left):
    """Token ids, their mask and what else the model's forward pass takes of a text."""
    config = model.config
    padding = getattr(config, "pad_token_id", None) or 0
    ids, mask = padded(generator, LENGTHS, LENGTH, left, config.vocab_size, padding)
    batch = {"input_ids": ids, "attention_mask": mask}
    if getattr(config, "type_vocab_size", 0):
        batch["token_type_ids"] = generator.integers(0, config.type_vocab_size, ids.shape)
    if config.is_encoder_decoder and hasattr(model, "get_decoder"):
        ids, mask = padded(generator, TARGET_LENGTHS, TARGET_LENGTH, False, config.vocab_size, padding)
        batch |= {"decoder_input_ids": ids, "decoder_attention_mask": mask}
    return batch


def output(model, batch):
    """f32, the reference's answer."""
    with torch.no_grad():
        answer = model(**{name: torch.from_numpy(array) for name, array in batch.items()})
    if "start_logits" in answer:
        return torch.stack([answer.start_logits, answer.end_logits]).numpy()
    for name in ("logits", "logits_per_image", "image_embeds", "text_embeds", "last_hidden_state"):
        if name in answer:
            return answer[name].numpy()
    raise ValueError(f"{type(answer).__name__} has none of the answers that the tests compare")


def make(name, case):
    """Writes one fixture and says how large its answers are."""
    number = zlib.crc32(name.encode())
    torch.manual_seed(number)
    generator = np.random.default_rng(number)
    model = build(case)
    model.to(torch.bfloat16 if case.half else torch.float32).save_pretrained(
        FOLDER / name, **({"max_shard_size": "30KB"} if case.sharded else {}))
    # The answers come from the folder as it is read, which is what the tests compare with.
    read = case.kind.from_pretrained(FOLDER / name, attn_implementation="eager", dtype="float32").eval()
    stored, again = model.state_dict(), read.state_dict()
    assert all(torch.equal(stored[key].float(), again[key]) for key in stored), name
    reference = {}
    for side in ("right", "left"):
        batch = (case.batch or text_batch)(read, generator, side == "left")
        reference |= {f"{side}_{key}": array for key, array in batch.items()}
        reference[f"{side}_output"] = output(read, batch)
    np.savez_compressed(FOLDER / name / "reference.npz", **reference)
    spread = np.abs(reference["left_output"]).max()
    print(f"{name}: {sum(p.numel() for p in model.parameters())} parameters, outputs to {spread:.1f}")


def main():
    known = cases()
    wanted = sys.argv[1:] or [name for name in known if not (FOLDER / name).exists()]
    for name in wanted:
        make(name, known[name])


if __name__ == "__main__":
    main()
