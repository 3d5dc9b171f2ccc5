# SPDX-License-Identifier: Apache-2.0
"""Writes fixtures/generation/*.npz: what transformers' generate answers for a tiny checkpoint of each family.

    python tests/decode/make_generation_fixtures.py [NAME ...]   needs torch and transformers (5.23.0 was used)

The checkpoints are those of tests/pretrained/fixtures. Prompts are padded on the left, as the
reference wants them. A random model may repeat one token for ever: of SEEDS prompts, those are taken
whose greedy texts have the most different tokens and no two candidates nearly equal; and greedy is asked twice,
the second time without repeated bigrams and without an end.
"""

import json
import pathlib
import sys
import zlib

import numpy as np
import torch
import transformers

FOLDER = pathlib.Path(__file__).parent / "fixtures" / "generation"
CHECKPOINTS = pathlib.Path(__file__).parents[1] / "pretrained" / "fixtures"
SEEDS, NEW, PATH = 16, 24, 8
LENGTHS, SOURCE_LENGTHS = (7, 4), (11, 6)
SAMPLING = {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "repetition_penalty": 1.2}
PENALTIES = (1.0, 0.0)
SHOWN = (0, 3, 7)  # steps of the path whose logits are kept
# family: (checkpoint, new tokens that its table of positions has room for, changes of its configuration)
LLAMA3 = {"rope_parameters": json.loads((CHECKPOINTS / "llama_llama3" / "config.json").read_text())["rope_parameters"]}
FAMILIES = {
    "t5": ("t5_v1_0", NEW, {}), "t5_v1_1": ("t5_v1_1", NEW, {}), "mt5": ("mt5", NEW, {}), "umt5": ("umt5", NEW, {}),
    "bart": ("bart", 16, {}), "mbart": ("mbart", 16, {}), "marian": ("marian", 16, {}),
    "gpt2": ("gpt2_tied", 12, {}), "gpt_neox": ("gpt_neox_parallel", NEW, {}),
    "llama": ("llama_untied", NEW, {}), "llama3": ("llama_untied", NEW, LLAMA3),
    "mistral": ("mistral_window", NEW, {}), "qwen2": ("qwen2_untied", NEW, {}), "qwen3": ("qwen3_untied", NEW, {}),
    "gemma": ("gemma_tied", NEW, {}), "gemma2": ("gemma2_capped", NEW, {}), "gemma3": ("gemma3_tied", NEW, {}),
    "phi3": ("phi3_window", NEW, {}), "olmo2": ("olmo2_untied", NEW, {}), "llava": ("llava", NEW, {}),
    "paligemma": ("paligemma", NEW, {}), "paligemma2": ("paligemma2", NEW, {}),
}


def load(checkpoint, changes):
    folder = CHECKPOINTS / checkpoint
    fields = json.loads((folder / "config.json").read_text())
    kind = getattr(transformers, fields["architectures"][0])
    config = kind.config_class.from_dict(fields | changes)
    model = kind.from_pretrained(folder, config=config, attn_implementation="eager", dtype=torch.float32).eval()
    model.generation_config = transformers.GenerationConfig()
    return model


def request(model, generator):
    """The inputs of two rows, by their names in the reference, and a list of each row's own tokens."""
    config = model.config
    text = config.get_text_config(decoder=True)
    padding = text.pad_token_id or 0
    image = getattr(config, "image_token_id", None)
    words = np.setdiff1d(np.arange(3, text.vocab_size), [padding, image if image is not None else -1])
    rows = [generator.choice(words, length) for length in
            (SOURCE_LENGTHS if config.is_encoder_decoder else LENGTHS)]
    extra = {}
    if image is not None:
        size = config.vision_config.image_size
        extra["pixel_values"] = torch.tensor(generator.normal(size=(2, 3, size, size)), dtype=torch.float32)
        each = model.model.get_image_features(extra["pixel_values"][:1]).pooler_output[0].shape[0]
        rows = [np.concatenate([row[:1], [image] * each, row[1:-3]]) for row in rows]
    width = max(map(len, rows))
    ids, mask = np.full((2, width), padding), np.zeros((2, width), np.int64)
    for index, row in enumerate(rows):
        part = slice(0, len(row)) if config.is_encoder_decoder else slice(width - len(row), width)
        ids[index, part], mask[index, part] = row, 1
    inputs = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask), **extra}
    if config.model_type == "paligemma":
        inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
    return inputs, [row.tolist() for row in rows], int(padding)


def generate(model, inputs, new, padding, start, **options):
    given = {"max_new_tokens": new, "pad_token_id": padding, "do_sample": False, "num_beams": 1,
             "return_dict_in_generate": True, "output_scores": True, "output_logits": True, **options}
    if model.config.is_encoder_decoder:
        given["decoder_start_token_id"] = start
    depth = getattr(model.config, "num_decoder_layers", None)
    if depth is not None and depth > model.config.num_layers:
        given["use_cache"] = False  # the reference makes a cache of as many layers as the encoder has
    out = model.generate(**inputs, generation_config=transformers.GenerationConfig(**given))
    prompt = 1 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
    return out, out.sequences[:, prompt:].tolist()


def chosen(model, new, start):
    """Of several prompts, the ones whose greedy texts vary most, and an id that ends one of them half way."""
    best = None
    for seed in range(SEEDS):
        found = request(model, np.random.default_rng(seed))
        out, tokens = generate(model, found[0], new, found[2], start)
        top = torch.stack(out.logits).topk(2).values
        margin = (top[..., 0] - top[..., 1]).min().item()
        rank = (margin > 1e-3, min(len(set(row)) for row in tokens), sum(len(set(row)) for row in tokens))
        if best is None or rank > best[0]:
            best = rank, found, tokens, margin
    _, found, tokens, margin = best
    half = [token for at, token in enumerate(tokens[0]) if tokens[0].index(token) == at and at >= new // 3]
    ends = half[0] if half else list(dict.fromkeys(tokens[0]))[-1]
    return *found, int(ends), margin


def make(name):
    checkpoint, new, changes = FAMILIES[name]
    model = load(checkpoint, changes)
    config = model.config
    start = getattr(config, "decoder_start_token_id", None)
    start = 2 if start is None else start
    inputs, rows, padding, ends, margin = chosen(model, new, start)
    _, greedy = generate(model, inputs, new, padding, start, eos_token_id=ends)
    _, varied = generate(model, inputs, new, padding, start, eos_token_id=ends, no_repeat_ngram_size=2,
                         min_new_tokens=new)
    searches = []
    for penalty in PENALTIES:
        out, tokens = generate(model, inputs, new, padding, start, eos_token_id=ends, num_beams=4, early_stopping=False,
                               num_return_sequences=4, length_penalty=penalty)
        searches.append({"length_penalty": penalty, "tokens": tokens,
                         "scores": [round(score, 7) for score in out.sequences_scores.tolist()]})
    sampling, vocabulary = dict(SAMPLING), config.get_text_config(decoder=True).vocab_size
    if (getattr(config, "image_token_id", None) or 0) >= vocabulary:
        del sampling["repetition_penalty"]  # the reference has no logit for its image token, and fails
    seed, path = zlib.crc32(name.encode()), [[ends]]
    while any(ends in row for row in path):  # the tests' loop would end there
        seed += 1
        torch.manual_seed(seed)
        out, path = generate(model, inputs, PATH, padding, start, do_sample=True, **sampling)
    filtered = torch.softmax(torch.stack(out.scores).double(), -1).numpy()  # [PATH, 2, V]
    count = int((filtered > 0).sum(-1).max())
    ids = np.argsort(-filtered, axis=-1, kind="stable")[..., :count]
    told = {"transformers": transformers.__version__, "checkpoint": checkpoint, "changes": changes, "rows": rows,
            "start": start if config.is_encoder_decoder else None, "new": new, "eos": ends, "pad": padding,
            "greedy": greedy, "varied": varied, "searches": searches, "sampling": sampling, "path": path,
            "shown": SHOWN}
    arrays = {"ids": ids.astype(np.int16), "probabilities": np.take_along_axis(filtered, ids, -1).astype(np.float32),
              "logits": torch.stack(out.logits)[list(SHOWN)].numpy()}
    if "pixel_values" in inputs:
        arrays["pixel_values"] = inputs["pixel_values"].numpy()
    np.savez_compressed(FOLDER / f"{name}.npz", told=json.dumps(told), **arrays)
    lengths = [sorted({[*row, ends].index(ends) + 1 for row in case["tokens"]}) for case in searches]
    print(f"{name}: distinct tokens {[len(set(row)) for row in greedy]} greedy, {[len(set(row)) for row in varied]} "
          f"without repeated bigrams, of {new}; margin {margin:.4f}; beams of lengths {lengths}; "
          f"{len(np.unique(path))} tokens on the path; {(FOLDER / f'{name}.npz').stat().st_size} bytes", flush=True)


def main():
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or FAMILIES:
        make(name)


if __name__ == "__main__":
    main()
