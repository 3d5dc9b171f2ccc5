# SPDX-License-Identifier: Apache-2.0
"""Writes fixtures/process.npz and searches.json: what transformers' processors and searches answer.

    python tests/decode/make_processor_fixtures.py      needs torch and transformers (5.23.0 was used)

Each case of process.npz goes through the list of processors that `generate` itself would build for
it, so that their order is the reference's; presence and frequency penalties are not among them, as
transformers has none. searches.json holds greedy and beam outputs of the `markov` model under the
same settings. Random numbers are of `numpy.random.RandomState`, whose numbers NumPy has frozen.
"""

import itertools
import json

import numpy as np
import torch
import transformers
from make_fixtures import FOLDER, TableConfig, TableModel, tables

ROWS, VOCABULARY, PROMPT, NEW, LIMIT = 3, 61, 7, 6, 9
EOS = [1, 5]
ONE_BY_ONE = [
    {"repetition_penalty": 1.7}, {"repetition_penalty": 0.6}, {"no_repeat_ngram": 1},
    {"no_repeat_ngram": 2}, {"no_repeat_ngram": 3}, {"no_repeat_ngram": 4}, {"no_repeat_ngram": 14},
    {"bad_words": [[3], [7], [1]]}, {"bad_words": [[2, 4], [3, 2, 9], [0, 8]]},
    {"bad_words": [[2], [4, 4], [5], [1, 5], [*range(15)]]}, {"min_new": 7}, {"min_new": 6},
    {"forced_eos": 5, "new": 8}, {"forced_eos": 5, "new": 7}, {"forced": [9], "prompt": 1, "new": 0},
    {"forced": [9], "prompt": 1, "new": 1}, {"forced_eos": 1, "min_new": 9, "new": 8},
]
FILTERS = [
    {"min_p": 0.05}, {"min_p": 0.3}, {"min_p": 1.0}, {"typical_p": 0.2}, {"typical_p": 0.5},
    {"typical_p": 0.9}, {"typical_p": 0.999}, {"typical_p": 1e-4}, {"top_k": 12, "min_p": 0.1},
    {"top_p": 0.8, "min_p": 0.2}, {"top_p": 0.8, "typical_p": 0.6},
    {"temperature": 0.5, "top_k": 20, "top_p": 0.95, "min_p": 0.02, "typical_p": 0.8},
    {"temperature": 1.8, "top_k": 40, "top_p": 0.9, "min_p": 0.1, "typical_p": 0.3},
]
TOGETHER = [
    {"repetition_penalty": 1.3, "no_repeat_ngram": 2, "bad_words": [[3], [2, 4]], "min_new": 9,
     "temperature": 0.7, "top_k": 30, "top_p": 0.9, "min_p": 0.03},
    {"repetition_penalty": 1.2, "no_repeat_ngram": 1, "temperature": 1.4, "typical_p": 0.7},
    {"repetition_penalty": 0.8, "bad_words": [[6], [0, 2]], "top_p": 0.5, "temperature": 1.1},
    {"repetition_penalty": 2.0, "forced_eos": 1, "new": 8, "temperature": 0.9, "top_p": 0.9},
]
SEARCHES = [
    {"repetition_penalty": 1.5}, {"repetition_penalty": 0.7}, {"no_repeat_ngram": 2},
    {"no_repeat_ngram": 1, "min_new": 3}, {"bad_words": [[3], [4, 2], [2, 2], [1]]}, {"min_new": 6},
    {"forced_eos": 1}, {"forced": [7], "prompts": [[2], [4], [6]]},
    {"repetition_penalty": 1.2, "no_repeat_ngram": 2, "bad_words": [[3], [5, 6]], "min_new": 4,
     "forced_eos": 1},
]


def configuration(case, prompt, new):
    """The GenerationConfig of a case whose prompt and new tokens are as many as given."""
    names = {"no_repeat_ngram": "no_repeat_ngram_size", "bad_words": "bad_words_ids",
             "min_new": "min_new_tokens", "forced_eos": "forced_eos_token_id"}
    given = {names.get(name, name): value for name, value in case.items()
             if name not in ("new", "prompt", "prompts", "forced", "filtered")}
    if "forced" in case:
        given["forced_bos_token_id"], = case["forced"]
    return transformers.GenerationConfig(
        max_length=prompt + new, **{"top_k": 0, **given} if case.get("filtered") else given)


def inputs(case, number):
    """Logits f32[R, V] and what was read before; ids are small, so that they repeat."""
    random = np.random.RandomState(number)
    logits = (random.randn(ROWS, VOCABULARY) * 2.5).astype(np.float32)
    return logits, random.randint(0, 10, (ROWS, case.get("prompt", PROMPT) + case.get("new", NEW)))


def processed(model, case, number):
    logits, ids = inputs(case, number)
    prompt = case.get("prompt", PROMPT)
    config = configuration(case, prompt, LIMIT)
    config._eos_token_tensor = torch.tensor(EOS)
    config.do_sample = case["filtered"]
    ids = torch.tensor(ids)
    out = torch.tensor(logits)
    processors = model._get_logits_processor(
        config, input_ids_seq_length=prompt, device="cpu",
        model_kwargs={"attention_mask": torch.ones(ROWS, prompt)})
    return processors(ids, out).numpy()


def process():
    model = TableModel(TableConfig(vocab_size=9), *tables(0, 9))
    cases = [{**case, "filtered": False} for case in ONE_BY_ONE]
    cases += [{**case, "filtered": True} for case in FILTERS + TOGETHER]
    outputs = np.stack([processed(model, case, number) for number, case in enumerate(cases)])
    told = {"transformers": transformers.__version__, "cases": cases, "rows": ROWS,
            "vocabulary": VOCABULARY, "prompt": PROMPT, "new": NEW, "limit": LIMIT, "eos": EOS}
    np.savez_compressed(FOLDER / "process.npz", told=json.dumps(told), outputs=outputs)


def searched(case, seed, beams, penalty, stopping):
    config = TableConfig(vocab_size=9)
    config.num_hidden_layers = 1
    model = TableModel(config, *tables(seed, 9)).eval()
    prompts = torch.tensor(case.get("prompts", [[2, 3], [4, 5], [6, 2]]))
    given = configuration(case, prompts.shape[1], 10).to_diff_dict()
    given.pop("transformers_version", None)
    beam = {"length_penalty": penalty, "early_stopping": stopping} if beams > 1 else {}
    out = model.generate(
        prompts, attention_mask=torch.ones_like(prompts), do_sample=False, use_cache=False,
        eos_token_id=[1], pad_token_id=0, return_dict_in_generate=True, output_scores=True,
        num_beams=beams, num_return_sequences=beams, **given, **beam)
    scores = out.sequences_scores.tolist() if beams > 1 else []
    tokens = out.sequences[:, prompts.shape[1]:].tolist()
    return {"settings": {name: value for name, value in case.items() if name != "prompts"},
            "prompts": prompts.tolist(), "seed": seed, "beams": beams, "length_penalty": penalty,
            "early_stopping": stopping, "tokens": tokens,
            "scores": [round(score, 6) for score in scores]}


def searches():
    kinds = [(1, 0.0, False), (3, 1.0, False), (3, 0.5, True), (2, -0.5, "never")]
    cases = [searched(case, seed, *kind)
             for case, seed, kind in itertools.product(SEARCHES, (0, 1), kinds)]
    text = json.dumps({"transformers": transformers.__version__, "cases": cases})
    (FOLDER / "searches.json").write_text(text.replace('{"settings"', '\n{"settings"') + "\n")


if __name__ == "__main__":
    process()
    searches()
