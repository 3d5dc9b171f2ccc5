# SPDX-License-Identifier: Apache-2.0
"""Writes fixtures/*.json: what transformers' generate and warpers answer for small fixed models.

    python tests/decode/make_fixtures.py      needs torch and transformers (5.23.0 was used)

The models are the `markov` of conftest.py: next-token logits from a table by the last two tokens
and one by position, from `numpy.random.RandomState`, whose numbers NumPy has frozen.
"""

import itertools
import json
import pathlib

import numpy as np
import torch
import transformers
from transformers.generation import GenerationMixin
from transformers.generation.logits_process import (
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.modeling_outputs import CausalLMOutput

FOLDER = pathlib.Path(__file__).parent / "fixtures"
PROMPTS = [[2, 3], [4, 5], [6, 2]]


def tables(seed, vocabulary, places=16):
    random = np.random.RandomState(seed)
    pairs = random.randn(vocabulary, vocabulary, vocabulary) * 1.5
    return pairs.astype(np.float32), random.randn(places, vocabulary).astype(np.float32)


class TableConfig(transformers.PretrainedConfig):
    model_type = "table"


class TableModel(transformers.PreTrainedModel, GenerationMixin):
    config_class = TableConfig

    def __init__(self, config, pairs, places):
        super().__init__(config)
        self.pairs = torch.nn.Parameter(torch.tensor(pairs))
        self.places = torch.nn.Parameter(torch.tensor(places))

    def forward(self, input_ids, **unused):
        before = torch.cat([input_ids[:, :1], input_ids[:, :-1]], dim=1)
        places = self.places[: input_ids.shape[1]]
        return CausalLMOutput(logits=self.pairs[before, input_ids] + places)


def generate(seed, vocabulary, eos, **options):
    config = TableConfig(vocab_size=vocabulary)
    config.num_hidden_layers = 1
    model = TableModel(config, *tables(seed, vocabulary)).eval()
    prompt = torch.tensor(PROMPTS)
    return model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, use_cache=False,
        eos_token_id=eos, pad_token_id=options.pop("pad", 0), return_dict_in_generate=True,
        output_scores=True, **options)


def new_tokens(result, count):
    tokens = result.sequences[:, len(PROMPTS[0]):].tolist()
    return [row + [None] * (count - len(row)) for row in tokens]  # cut at the longest: unknown


def searches():
    cases = []
    grid = itertools.product((0, 1, 2), (2, 4), (-0.5, 0.0, 1.0, 2.0), (False, True, "never"))
    for seed, beams, penalty, stopping in grid:
        cases.append({"seed": seed, "vocabulary": 9, "eos": [1], "pad": 0, "beams": beams,
                      "length_penalty": penalty, "early_stopping": stopping, "max_new_tokens": 10,
                      "min_new": 0, "num_return": 2})
    for seed, stopping in itertools.product((3, 4), (False, True, "never")):
        cases.append({"seed": seed, "vocabulary": 12, "eos": [1, 5], "pad": 7, "beams": 3,
                      "length_penalty": 0.6, "early_stopping": stopping, "max_new_tokens": 12,
                      "min_new": 4, "num_return": 3})
    for case in cases:
        result = generate(
            case["seed"], case["vocabulary"], case["eos"], pad=case["pad"], num_beams=case["beams"],
            length_penalty=case["length_penalty"], early_stopping=case["early_stopping"],
            max_new_tokens=case["max_new_tokens"], num_return_sequences=case["num_return"],
            **({"min_new_tokens": case["min_new"]} if case["min_new"] else {}))
        case["tokens"] = new_tokens(result, case["max_new_tokens"])
        case["scores"] = [round(score, 6) for score in result.sequences_scores.tolist()]
    return cases


def greedy():
    cases = []
    for seed, eos, minimum in itertools.product((0, 1, 2), ([1], [1, 5]), (0, 5)):
        result = generate(seed, 9, eos, num_beams=1, max_new_tokens=10,
                          **({"min_new_tokens": minimum} if minimum else {}))
        cases.append({"seed": seed, "vocabulary": 9, "eos": eos, "pad": 0, "min_new": minimum,
                      "max_new_tokens": 10, "tokens": new_tokens(result, 10)})
    return cases


def warped():
    cases = []
    for seed, scale in itertools.product((0, 1), (0.3, 3.0)):
        logits = np.random.RandomState(seed).randn(1, 700) * scale
        scores = torch.tensor(logits.astype(np.float32))
        for temperature, top_k, top_p in [
                (1.0, 50, 1.0), (1.0, 0, 0.9), (0.7, 40, 0.8), (1.3, 0, 0.3), (0.5, 1, 0.9),
                (1.0, 0, 0.01), (2.0, 600, 0.99)]:
            out = TemperatureLogitsWarper(temperature)(None, scores) if temperature != 1 else scores
            out = TopKLogitsWarper(top_k)(None, out) if top_k else out
            out = TopPLogitsWarper(top_p)(None, out) if top_p < 1 else out
            kept = torch.nonzero(out[0] > -torch.inf)[:, 0]
            probabilities = torch.softmax(out[0].double(), -1)[kept]
            cases.append({"seed": seed, "scale": scale, "temperature": temperature, "top_k": top_k,
                          "top_p": top_p, "kept": kept.tolist(),
                          "probabilities": [round(p, 9) for p in probabilities.tolist()]})
    return cases


def main():
    FOLDER.mkdir(exist_ok=True)
    for name, cases in (("beam", searches()), ("greedy", greedy()), ("warp", warped())):
        text = json.dumps({"transformers": transformers.__version__, "prompts": PROMPTS,
                           "cases": cases}).replace('{"seed"', '\n{"seed"')
        (FOLDER / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
