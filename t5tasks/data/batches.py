# SPDX-License-Identifier: Apache-2.0
"""Features of single examples in, batches of static shapes out, in an order that can be resumed.

Two ways to fill a batch. Bucketed: examples of like length stand together, padded to the next
rung of a fixed ladder of lengths, so that only a few programs are compiled:

    tokens   = [[11, 12, 13, 0], [21, 22, 23, 24]]
    segments = [[ 1,  1,  1, 0], [ 1,  1,  1,  1]]

Packed: several examples share a row of fixed length, told apart by segment, each with its own
positions:

    tokens    = [[11, 12, 13, 21, 22, 23, 24, 0]]
    segments  = [[ 1,  1,  1,  2,  2,  2,  2, 0]]
    positions = [[ 0,  1,  2,  0,  1,  2,  3, 0]]
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import grain
import numpy as np
from grain import experimental

from t5tasks.data.features import Features
from t5tasks.data.picture_rows import PictureRows

Key = TypeVar("Key")
Item = TypeVar("Item")
Made = TypeVar("Made")
PAD_WITH_ID = ("tokens", "targets", "source_tokens")


@dataclasses.dataclass(frozen=True)
class Shape:
    """The static shape of a batch."""

    size: int  # B, rows over all processes
    length: int  # T at most
    source_length: int = 0  # S at most, encoder-decoder only
    packing: bool = False
    pad: int = 0
    coarse: bool = False  # few rungs: of programs that cost more to compile than padding does to compute


def ladder(longest: int, coarse: bool = False) -> list[int]:
    """The lengths that padded batches may have: 1, 8, 16, 24, 32, 48, 64, 96 ... up to the longest.

    Coarse, 1, 16, 32, 64 ... up to the longest.
    """
    rungs = [1, 16] if coarse else [1, 8, 16, 24]
    while rungs[-1] < longest:
        if coarse:
            rungs.append(rungs[-1] * 2)
        else:
            rungs += [rungs[-2] * 2, rungs[-1] * 2] if len(rungs) > 4 else [32, 48]
    return [rung for rung in rungs if rung < longest] + [longest]


def rung(length: int, longest: int, coarse: bool = False) -> int:
    """The smallest rung of the ladder that holds this length."""
    return next(step for step in ladder(longest, coarse) if step >= length)


def padded(
    rows: Sequence[Features], shape: Shape, size: int | None = None
) -> Features:
    """Pads rows to one rung of the ladder, and to `size` rows (default shape.size) with empty ones.

    The two sides of an encoder-decoder's examples stand on the same rung, so that there is a program
    a rung and not one a pair of them; prompts, which have no targets, are as short as they can be.
    An array that is not as long as its row's tokens (a class, a span's two ends) has one shape in all rows, as
    have the targets of rows with one weight (a class, or whether each class holds).
    Images of the rows that have some (`picture_rows.Pictures`) are read when the batch is sliced; a batch without any
    has none.
    Adds segments int32[B, T] (and source_segments): 1 on real tokens, 0 on padding.
    """
    size = shape.size if size is None else size
    batch: Features = {}
    for name, example in rows[0].items():
        if name == "images":
            continue
        tokens = "source_tokens" if name.startswith("source_") else "tokens"
        one_answer = name == "targets" and np.ndim(rows[0].get("weights", ())) == 0
        if np.ndim(example) == 0 or one_answer or any(len(row[name]) != len(row[tokens]) for row in rows):
            batch[name] = np.zeros((size, *np.shape(example)), np.asarray(example).dtype)
            batch[name][: len(rows)] = [row[name] for row in rows]
            continue
        limit = shape.source_length if name.startswith("source_") else shape.length
        longest = max(_longest(row) if "targets" in row else len(row[name]) for row in rows)
        columns = rung(min(longest, limit), limit, shape.coarse)
        fill = shape.pad if name in PAD_WITH_ID else 0
        batch[name] = np.full((size, columns), fill, example.dtype)
        for index, row in enumerate(rows):
            batch[name][index, : len(row[name])] = row[name]
    if any("images" in row for row in rows):
        batch["images"] = PictureRows([row.get("images") for row in rows], size)
    for prefix in ("", "source_"):
        if f"{prefix}tokens" in batch:
            lengths = np.zeros(size, np.int32)
            lengths[: len(rows)] = [len(row[f"{prefix}tokens"]) for row in rows]
            columns = batch[f"{prefix}tokens"].shape[1]
            batch[f"{prefix}segments"] = (np.arange(columns) < lengths[:, None]).astype(np.int32)
    return batch


def _longest(row: Features) -> int:
    return max(len(row["tokens"]), len(row.get("source_tokens", ())))


@dataclasses.dataclass(frozen=True)
class CutWindow(grain.transforms.RandomMap):
    """Sorts a window of examples by length and cuts it into batches, in random order."""

    shape: Shape

    def random_map(self, window: list[Features], rng: np.random.Generator) -> list[list[Features]]:
        order = sorted(range(len(window)), key=lambda index: _longest(window[index]))
        size = self.shape.size
        batches = [
            [window[index] for index in order[start : start + size]]
            for start in range(0, len(order) - size + 1, size)
        ]
        return [batches[index] for index in rng.permutation(len(batches))]


@dataclasses.dataclass(frozen=True)
class Flatten(experimental.FlatMapTransform):
    """One batch after the other out of a window of them."""

    max_fan_out: int

    def flat_map(self, element: list[Any]) -> list[Any]:
        return element


class Windows(Sequence[tuple[Any, int]]):
    """Records whose windows are rows of their own: row i is (record, number of the window).

    The index of all rows is made at once, so that their order can be shuffled, split and resumed as that
    of records can. It costs one look at every record.
    """

    def __init__(self, records: Sequence[Any], count: Callable[[Any], int]) -> None:
        """Args:
          count: a record's number of windows.
        """
        self._records = records
        counts = np.asarray([count(record) for record in records], np.int64)
        self._owners = np.repeat(np.arange(len(counts)), counts)
        self._numbers = np.arange(len(self._owners)) - np.repeat(np.cumsum(counts) - counts, counts)

    def __len__(self) -> int:
        return len(self._owners)

    def __getitem__(self, index: Any) -> Any:
        return self._records[int(self._owners[index])], int(self._numbers[index])


def training_batches(
    records: Sequence[Any],
    make: Callable[[Any], Features | None],
    shape: Shape,
    seed: int,
    process: int = 0,
    processes: int = 1,
    window: int = 64,
) -> grain.IterDataset:
    """Shuffled batches without end; an iterator's get_state() and set_state() resume it exactly.

    Args:
      records: len() and indexing; reshuffled every epoch.
      make: one record's features, or None to leave it out.
      shape: of the global batch. This process yields size / processes rows of each.
      seed: of the order.
      process, processes: which of how many. Packed, each process reads only its own records;
        bucketed, all read all (but for images), since they must agree on every batch's length (on pods: pack).
      window: batches that are sorted by length together; 1 for rows in random order.

    Raises:
      ValueError: a size that the processes do not divide, or a window below 1.

    Returns:
      Batches as `padded` makes them, or packed with segments and positions.
    """
    if shape.size % processes:
        raise ValueError(f"batch.size is {shape.size}, which {processes} processes do not divide")
    if window < 1:
        raise ValueError(f"batch.window is {window}; it counts batches, and the least is 1, for rows in random order")
    order = grain.MapDataset.source(records).seed(seed).shuffle()  # type: ignore[arg-type]
    local = shape.size // processes
    if shape.packing:
        rows = order[process::processes].repeat().map(make)
        return _packed(_stream(rows), shape, local, seed)
    rows = order.repeat().map(make)
    size = shape.size * max(1, min(window, len(records) // shape.size))
    windows = _stream(rows).batch(size, batch_fn=list).seed(seed).random_map(CutWindow(shape))
    batches = experimental.FlatMapIterDataset(windows, Flatten(max_fan_out=window))

    def finish(rows: list[Features]) -> Features:
        batch = padded(rows, shape)
        return {
            name: array[process * local : (process + 1) * local] for name, array in batch.items()
        }

    return experimental.ThreadPrefetchIterDataset(batches.map(finish), prefetch_buffer_size=4)


def _stream(rows: grain.MapDataset) -> grain.IterDataset:
    return rows.filter(lambda row: row is not None).to_iter_dataset(
        grain.ReadOptions(num_threads=1, prefetch_buffer_size=64)
    )


def _packed(rows: grain.IterDataset, shape: Shape, size: int, seed: int) -> grain.IterDataset:
    lengths = {"tokens": shape.length, "targets": shape.length, "weights": shape.length}
    if shape.source_length:
        lengths["source_tokens"] = shape.source_length
    rows = rows.map(lambda row: {name: row[name] for name in lengths})
    packed = experimental.FirstFitPackIterDataset(
        rows,
        length_struct=lengths,
        num_packing_bins=max(size, 32),
        seed=seed,
        padding_struct={name: shape.pad if name in PAD_WITH_ID else 0 for name in lengths},
    )

    def name_arrays(row: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        named = {name: row[name] for name in lengths}
        for prefix in ("", "source_") if shape.source_length else ("",):
            named[f"{prefix}segments"] = row[f"{prefix}tokens_segment_ids"].astype(np.int32)
            named[f"{prefix}positions"] = row[f"{prefix}tokens_positions"].astype(np.int32)
        return named

    batches = packed.map(name_arrays).batch(size, drop_remainder=True)
    return experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=4)


def made_ahead(make: Callable[[Item], Made], items: Iterable[Item], threads: int) -> Iterator[Made]:
    """make(item) of every item, in order, made by threads a little ahead of who takes them.

    An error of one is raised in its turn; where the taker stops, no more items are taken.
    """
    waiting: collections.deque[Future[Made]] = collections.deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(make, item))
                if len(waiting) > 4 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def evaluation_batches(
    rows: Iterator[tuple[Key, Features]], shape: Shape, window: int = 32
) -> Iterator[tuple[list[Key], Features]]:
    """Batches over a stream of numbered examples, each example once, the last batch padded.

    Within a window of batches, examples of like length stand together; the numbers (one a real
    row) tell where each answer belongs.
    """
    waiting: list[tuple[Key, Features]] = []

    def cut() -> Iterator[tuple[list[Key], Features]]:
        waiting.sort(key=lambda item: _longest(item[1]))
        for start in range(0, len(waiting), shape.size):
            group = waiting[start : start + shape.size]
            yield [index for index, _ in group], padded([row for _, row in group], shape)

    for item in rows:
        waiting.append(item)
        if len(waiting) == window * shape.size:
            yield from cut()
            waiting = []
    yield from cut()
