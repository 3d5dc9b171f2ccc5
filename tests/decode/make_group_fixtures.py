# SPDX-License-Identifier: Apache-2.0
"""Writes fixtures/groups.json: what transformers' diverse beam search answers for small fixed models.

    python tests/decode/make_group_fixtures.py      needs torch and transformers 4.55 (4.55.4 was used)

Later versions have no `_group_beam_search` of their own. The models are the `markov` of conftest.py
with one more token, the pad: it is never chosen, so that what a finished group is filled with does
not count as chosen by it.
"""

import itertools
import json

import numpy as np
import torch
import transformers
from make_fixtures import FOLDER, PROMPTS, TableConfig, TableModel, new_tokens, tables

VOCABULARY, LIMIT, NEVER = 9, 10, -1e4


def searched(case):
    pairs, places = tables(case["seed"], VOCABULARY)
    pairs = np.pad(pairs, ((0, 1), (0, 1), (0, 1)), constant_values=NEVER)
    config = TableConfig(vocab_size=VOCABULARY + 1)
    config.num_hidden_layers = 1
    model = TableModel(config, pairs, np.pad(places, ((0, 0), (0, 1)))).eval()
    prompt = torch.tensor(PROMPTS)
    extra = {name: case[name] for name in ("repetition_penalty",) if name in case}
    result = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, use_cache=False,
        eos_token_id=case["eos"], pad_token_id=VOCABULARY, return_dict_in_generate=True,
        output_scores=True, num_beams=case["beams"], num_beam_groups=case["groups"],
        diversity_penalty=case["diversity_penalty"], length_penalty=case["length_penalty"],
        early_stopping=case["early_stopping"], max_new_tokens=LIMIT,
        num_return_sequences=case["beams"], **extra)
    return {**case, "tokens": new_tokens(result, LIMIT),
            "scores": [round(score, 6) for score in result.sequences_scores.tolist()]}


def main():
    cases = []
    sizes = ((4, 2), (4, 4), (6, 3))
    for number, ((beams, groups), stopping, (diversity, penalty)) in enumerate(itertools.product(
            sizes, (True, False, "never"), ((0.3, 1.0), (1.5, 0.0)))):
        cases.append({"seed": number % 5, "beams": beams, "groups": groups, "length_penalty": penalty,
                      "early_stopping": stopping, "diversity_penalty": diversity,
                      "eos": [1, 5] if number % 3 == 0 else [1],
                      **({"repetition_penalty": 1.4} if number % 4 == 1 else {})})
    text = json.dumps({"transformers": transformers.__version__, "prompts": PROMPTS, "limit": LIMIT,
                       "vocabulary": VOCABULARY, "never": NEVER, "cases": [searched(case) for case in cases]})
    (FOLDER / "groups.json").write_text(text.replace('{"seed"', '\n{"seed"') + "\n")


if __name__ == "__main__":
    main()
