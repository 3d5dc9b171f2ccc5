# SPDX-License-Identifier: Apache-2.0
"""A Llama of a billion parameters, random weights, in; tokens a second as a share of the device's copy bandwidth out.

    python scripts/benchmarks/decoding_gpu.py [--batch=1,64] [--prompt=1024] [--new=128] [--rounds=3] [--tiny]

bf16, greedy, EOS off. A step must read every weight and every filled slot of the cache once; that many bytes over
the time of a step, over the bandwidth of a copy measured in the same process, is the share. The prompt's reading is
taken off by asking for half as many tokens too. Where torch and transformers are installed beside us, their
`generate` runs on the same card, at the same shape. --tiny is a shape for a CPU, to see that all of it runs.
"""

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from t5tasks import decode
from t5tasks.models.config import ModelConfig
from t5tasks.models.layers import compute_dtype
from t5tasks.models.model import Model

BILLION = ModelConfig(vocabulary=32000, max_length=4096, width=2048, heads=32, kv_heads=8, head_size=64,
                      feed_forward=8192, decoder_layers=16, tied_head=False)
TINY = ModelConfig(vocabulary=512, width=64, heads=4, kv_heads=2, head_size=16, feed_forward=128, tied_head=False)


def seconds_of(run: Callable[[], Any], rounds: int) -> float:
    """The median of several runs, after one that compiles."""
    run()
    found = []
    for _ in range(rounds):
        begun = time.perf_counter()
        run()
        found.append(time.perf_counter() - begun)
    return statistics.median(found)


def copy_bandwidth(megabytes: int) -> float:
    """Bytes read and written a second by a copy of so many megabytes."""
    array = jnp.zeros(megabytes * 250_000, jnp.float32)
    copy = jax.jit(lambda array: array + 1)
    return 2 * array.nbytes / seconds_of(lambda: copy(array).block_until_ready(), 10)


def ours(config: ModelConfig, batch: int, prompt: int, new: int, rounds: int) -> tuple[float, float]:
    """(seconds, bytes) of a step."""
    model = Model(config)
    parameters = model.prepared(jax.jit(model.init)(jax.random.key(0)), batch, consume=True)
    tokens = np.random.default_rng(0).integers(0, config.vocabulary, (batch, prompt)).astype(np.int32)
    lengths, start = np.full(batch, prompt, np.int32), jax.jit(model.start, static_argnums=(1, 2))

    def run(count: int) -> None:
        cache = start(parameters, batch, prompt + new)
        out = decode.generate(model.step, parameters, jnp.asarray(tokens), jnp.asarray(lengths), cache,
                              decode.settings(batch), decode.keys(range(batch)), max_new_tokens=count,
                              eos=np.zeros(0, np.int32), pad=0)
        np.asarray(out.tokens)

    whole, half = (seconds_of(lambda count=count: run(count), rounds) for count in (new, new // 2))
    table = parameters["embedding"]
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(parameters)) - sum(
        leaf.nbytes for leaf in jax.tree.leaves(table))  # of the table a step reads a row a sequence
    held = prompt + new * 3 // 4  # on average, in the half that was timed
    cache = 2 * config.decoder_layers * config.kv_heads * config.head_size * held * batch
    return (whole - half) / (new - new // 2), weights + cache * compute_dtype(config).itemsize


def theirs(config: ModelConfig, batch: int, prompt: int, new: int, rounds: int) -> float:
    """Seconds of a step of transformers' generate, with the better of its caches."""
    import torch
    import transformers

    device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=config.vocabulary, hidden_size=config.width, intermediate_size=config.feed_forward,
        num_hidden_layers=config.decoder_layers, num_attention_heads=config.heads, head_dim=config.head_size,
        num_key_value_heads=config.kv_heads, tie_word_embeddings=False)).to(device, dtype).train(False)
    model.generation_config = transformers.GenerationConfig(eos_token_id=None, pad_token_id=0)
    ids = torch.randint(0, config.vocabulary, (batch, prompt), device=device)

    def run(count: int, cache: str) -> None:
        with torch.inference_mode():
            model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count,
                           cache_implementation=cache).cpu()

    return min((seconds_of(lambda cache=cache: run(new, cache), rounds)
                - seconds_of(lambda cache=cache: run(new // 2, cache), rounds)) / (new - new // 2)
               for cache in ("dynamic", "static"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=lambda text: [int(part) for part in text.split(",")], default=[1, 64])
    parser.add_argument("--prompt", type=int, default=1024)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    config = TINY if arguments.tiny else BILLION
    bandwidth = copy_bandwidth(64 if arguments.tiny else 2000)
    print(f"{jax.devices()[0].device_kind}: a copy moves {bandwidth / 1e9:,.0f} GB/s")
    for batch in arguments.batch:
        shape = (config, batch, arguments.prompt, arguments.new, arguments.rounds)
        seconds, size = ours(*shape)
        line = (f"batch {batch:3}: {seconds * 1e3:.2f} ms a step, {batch / seconds:,.0f} tokens/s, "
                f"{size / seconds / bandwidth:.0%} of the copy's bandwidth")
        if importlib.util.find_spec("torch") and importlib.util.find_spec("transformers"):
            line += f"; transformers {batch / theirs(*shape):,.0f} tokens/s"
        print(line, flush=True)


if __name__ == "__main__":
    main()
