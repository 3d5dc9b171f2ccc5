# SPDX-License-Identifier: Apache-2.0
"""A file of prompts of skewed lengths in; tokens a second of static batches and of refilled slots out.

    python scripts/benchmarks/continuous_batching.py [--prompts=512] [--model=30m] [--slots=16] [--repetitions=1]

Lengths are log-uniform: a prompt has 16 to 512 tokens, its text 8 to 256 (max_new of each; no EOS),
drawn apart with seed 0. The decoder has random weights, greedy choice, f32. Four ways take turns,
each over all the prompts, after a first turn that compiles:

    static        `decode.generate` on batches in the order of the file, each padded to the ladder's rung
                  of its longest prompt, and run to the longest text it may hold
    sorted        the same, the prompts sorted by length first (what `Predictor` does within a window)
    slots         `decode.generate_all` in the order of the file
    sorted slots  the same, the prompts sorted by length first, so that the cache grows as late as it can

Printed are seconds of the clock and of the processors; on a busy machine only the latter compare.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from t5tasks import decode
from t5tasks.data.batches import ladder, rung
from t5tasks.models.config import ModelConfig
from t5tasks.models.model import Model

MODELS = {  # width, layers, heads, feed-forward, vocabulary
    "30m": (512, 6, 8, 1408, 16384),   # 28 M parameters
    "tiny": (64, 2, 4, 176, 512),
}
LONGEST_PROMPT, LONGEST_TEXT = 512, 256
CAPACITIES = [LONGEST_PROMPT // part + LONGEST_TEXT for part in (4, 2)]
NO_EOS, EOS, PAD = [-1], [1], 0


def make(name: str) -> tuple[Model, Any]:
    """A Llama-like decoder with random weights."""
    width, layers, heads, feed_forward, vocabulary = MODELS[name]
    model = Model(ModelConfig(architecture="decoder", vocabulary=vocabulary, width=width, heads=heads, kv_heads=heads,
                              head_size=width // heads, feed_forward=feed_forward, decoder_layers=layers,
                              encoder_layers=0, max_length=LONGEST_PROMPT + LONGEST_TEXT, positions="rotary"))
    return model, jax.jit(model.init)(jax.random.key(0))


def file_of_prompts(count: int, vocabulary: int) -> list[tuple[np.ndarray, int]]:
    """(tokens, number of new tokens) of each prompt."""
    random = np.random.default_rng(0)

    def log_uniform(low: int, high: int) -> np.ndarray:
        return np.exp(random.uniform(np.log(low), np.log(high + 1), count)).astype(int)

    lengths, texts = log_uniform(16, LONGEST_PROMPT), log_uniform(8, LONGEST_TEXT)
    return [(random.integers(1, vocabulary, length).astype(np.int32), int(new))
            for length, new in zip(lengths, texts, strict=True)]


def forced(new: int, brief: bool) -> list[int]:
    """What ends a brief text after 2 to 4 tokens: the turn that meets every program before those that count."""
    return [-1] * (1 + new % 3) + EOS if brief else []


def static(model: Model, params: Any, start: Any, prompts: list[tuple[np.ndarray, int]], slots: int,
           brief: bool) -> list[np.ndarray]:
    """The tokens of each prompt's text, batch after batch."""
    texts: list[np.ndarray] = []
    for first in range(0, len(prompts), slots):
        batch = prompts[first : first + slots]
        batch = batch + batch[-1:] * (slots - len(batch))
        lengths = np.asarray([len(tokens) for tokens, _ in batch], np.int32)
        tokens = np.zeros((slots, rung(lengths.max(), LONGEST_PROMPT)), np.int32)
        for row, (ids, _) in zip(tokens, batch, strict=True):
            row[: len(ids)] = ids
        cache = start(params, slots, tokens.shape[1] + LONGEST_TEXT)
        out = jax.device_get(decode.generate(
            model.step, params, tokens, lengths, cache, decode.settings(
                slots, max_new=[new for _, new in batch], forced=[forced(new, brief) for _, new in batch]),
            decode.keys(np.arange(slots)), max_new_tokens=LONGEST_TEXT, eos=EOS if brief else NO_EOS, pad=PAD))
        texts += [row[:length] for row, length in zip(out.tokens, out.lengths, strict=True)]
    return texts[: len(prompts)]


def by_length(way: Callable[..., list[np.ndarray]], *arguments: Any) -> list[np.ndarray]:
    """The texts, in the file's order, of the same way with the shortest prompts first."""
    *those, prompts, slots, brief = arguments
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index][0]))
    texts = way(*those, [prompts[index] for index in order], slots, brief)
    return [text for _, text in sorted(zip(order, texts, strict=True), key=lambda pair: pair[0])]


def continuous(model: Model, params: Any, start: Any, prompts: list[tuple[np.ndarray, int]], slots: int,
               brief: bool) -> list[np.ndarray]:
    def stream() -> Iterator[decode.Prompt]:
        for number, (tokens, new) in enumerate(prompts):
            settings = decode.settings(1, max_new=new, forced=forced(new, brief))
            yield decode.Prompt(tokens, jax.device_get(settings), np.array([0, number]))

    widths = [width for width in ladder(LONGEST_PROMPT) if width >= 16]
    found = decode.generate_all(model.step, model.start, params, stream(),
                                decode.Slots(slots, widths, LONGEST_TEXT, capacities=CAPACITIES),
                                eos=EOS if brief else NO_EOS, pad=PAD)
    return [row.tokens[: row.lengths] for row in found]


WAYS: dict[str, Callable[..., list[np.ndarray]]] = {
    "static": static, "sorted": partial(by_length, static),
    "slots": continuous, "sorted slots": partial(by_length, continuous)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=512)
    parser.add_argument("--slots", type=int, default=16, help="rows of a static batch too")
    parser.add_argument("--model", choices=MODELS, default="30m")
    parser.add_argument("--repetitions", type=int, default=1)
    arguments = parser.parse_args()
    model, params = make(arguments.model)
    prompts = file_of_prompts(arguments.prompts, model.config.vocabulary)
    total = sum(new for _, new in prompts)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    print(f"{len(prompts)} prompts of {sum(len(tokens) for tokens, _ in prompts)} tokens, texts of {total}; "
          f"{count / 1e6:.1f} M parameters; {arguments.slots} rows; {jax.devices()[0].device_kind}", flush=True)
    start = jax.jit(model.start, static_argnums=(1, 2))
    seconds: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    texts: dict[str, list[np.ndarray]] = {}
    for turn in range(arguments.repetitions + 1):
        for way, run in WAYS.items():
            begun, used = time.perf_counter(), time.process_time()
            texts[way] = run(model, params, start, prompts, arguments.slots, turn == 0)
            if turn:
                seconds[way].append((time.perf_counter() - begun, time.process_time() - used))
    print(f"{'':14}of the clock              of the processors         texts as\n"
          f"{'way':14}{' seconds tokens/s ratio ' * 2}  static's")
    for way in WAYS:
        columns = []
        for kind in (0, 1):
            taken = statistics.median(each[kind] for each in seconds[way])
            ratio = statistics.median(one[kind] / mine[kind]
                                      for one, mine in zip(seconds["static"], seconds[way], strict=True))
            columns.append(f"{taken:8.1f} {total / taken:8.0f} {ratio:5.2f}x")
        same = sum(np.array_equal(one, other) for one, other in zip(texts[way], texts["static"], strict=True))
        print(f"{way:14}{columns[0]}  {columns[1]}   {same} of {len(prompts)}")


if __name__ == "__main__":
    main()
