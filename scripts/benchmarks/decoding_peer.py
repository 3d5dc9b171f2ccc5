# SPDX-License-Identifier: Apache-2.0
"""Requests for decoding a line in, seconds a line out: transformers' `generate` or CTranslate2 at work.

Run by `decoding.py` with the interpreter given to it as --peer, which needs torch, transformers,
safetensors and ctranslate2. `make` writes the models that every contestant runs, with random weights:
FOLDER/transformers (config.json and model.safetensors) and, for T5, FOLDER/ctranslate2 beside it,
converted from the first; FOLDER/ctranslate2-int8 is the same in eight bits.

    python decoding_peer.py make t5 FOLDER
    python decoding_peer.py serve transformers FOLDER 1        one thread; requests come on stdin
"""

import json
import os
import pathlib
import sys
import time

SHAPES = {
    # T5-small with its own numbers; EOS is switched off by the contestants.
    "t5": {"model_type": "t5", "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_decoder_layers": 6,
           "num_heads": 8, "vocab_size": 32128, "feed_forward_proj": "relu", "tie_word_embeddings": True,
           "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0},
    # 29.5 million parameters, 4.2 of them the embeddings.
    "decoder": {"model_type": "llama", "hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8,
                "num_key_value_heads": 8, "intermediate_size": 1376, "vocab_size": 8192, "tie_word_embeddings": True,
                "max_position_embeddings": 1024, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
}


def make(shape: str, folder: pathlib.Path) -> None:
    """Writes the models of a shape."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(**SHAPES[shape])
    kind = transformers.T5ForConditionalGeneration if shape == "t5" else transformers.LlamaForCausalLM
    kind(config).save_pretrained(folder / "transformers")
    if shape != "t5":
        return
    from ctranslate2.converters import TransformersConverter

    class Words:
        """A vocabulary whose words are numbers: all that the converter asks of a tokenizer."""

        pad_token, eos_token, unk_token = "0", "1", "2"

        def get_vocab(self) -> dict[str, int]:
            return {str(number): number for number in range(config.vocab_size)}

        def convert_ids_to_tokens(self, number: int) -> str:
            return str(number)

    class Converter(TransformersConverter):
        def load_tokenizer(self, *_: object, **__: object) -> Words:
            return Words()

    for name, quantization in (("ctranslate2", "float32"), ("ctranslate2-int8", "int8")):
        Converter(str(folder / "transformers")).convert(str(folder / name), quantization=quantization)


class Transformers:
    """`generate` of transformers with the dynamic or the static cache."""

    def __init__(self, folder: pathlib.Path, threads: int) -> None:
        import torch
        import transformers

        torch.set_num_threads(threads)
        self.torch = torch
        config = transformers.AutoConfig.from_pretrained(folder / "transformers")
        self.encodes = config.model_type == "t5"
        kind = transformers.T5ForConditionalGeneration if self.encodes else transformers.LlamaForCausalLM
        self.model = kind.from_pretrained(folder / "transformers", dtype=torch.float32)  # in evaluation mode
        # EOS off: no id ends a text.
        self.model.generation_config = transformers.GenerationConfig(
            eos_token_id=None, pad_token_id=0, decoder_start_token_id=0 if self.encodes else None)

    def run(self, prompts: list[list[int]], method: str, new_tokens: int, cache: str) -> int:
        """Tokens that each row got."""
        choice = {"greedy": {}, "nucleus": {"do_sample": True, "top_p": 0.9, "top_k": 0},
                  "beam": {"num_beams": 4}}[method]
        ids = self.torch.tensor(prompts)
        with self.torch.inference_mode():
            out = self.model.generate(ids, attention_mask=self.torch.ones_like(ids), max_new_tokens=new_tokens,
                                      cache_implementation=cache, **choice)
        return out.shape[1] - (1 if self.encodes else ids.shape[1])


class CTranslate2:
    """CTranslate2 in the compute type of the folder."""

    def __init__(self, folder: pathlib.Path, threads: int) -> None:
        import ctranslate2

        kind = "int8" if folder.name.endswith("int8") else "float32"
        self.model = ctranslate2.Translator(str(folder), device="cpu", compute_type=kind, inter_threads=1,
                                            intra_threads=threads)

    def run(self, prompts: list[list[int]], method: str, new_tokens: int, cache: str) -> int:
        """Tokens that each row got."""
        choice = {"greedy": {"beam_size": 1}, "nucleus": {"beam_size": 1, "sampling_topk": 0, "sampling_topp": 0.9},
                  "beam": {"beam_size": 4}}[method]
        found = self.model.translate_batch([[str(token) for token in row] for row in prompts],
                                           min_decoding_length=new_tokens, max_decoding_length=new_tokens, **choice)
        return min(len(result.hypotheses[0]) for result in found)


def serve(name: str, folder: pathlib.Path, threads: int) -> None:
    """Answers each request {prompts, method, new_tokens, cache} with its seconds."""
    if name == "transformers":
        contestant = Transformers(folder, threads)
    else:
        contestant = CTranslate2(folder / name, threads)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        start = time.perf_counter()
        tokens = contestant.run(**request)
        seconds = time.perf_counter() - start
        if tokens != request["new_tokens"]:
            raise SystemExit(f"{name} made {tokens} tokens, not {request['new_tokens']}")
        print(json.dumps({"seconds": seconds}), flush=True)


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    verb, kind, place, *rest = sys.argv[1:]
    if verb == "make":
        make(kind, pathlib.Path(place))
    else:
        serve(kind, pathlib.Path(place), int(rest[0]))
