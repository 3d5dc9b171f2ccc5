# SPDX-License-Identifier: Apache-2.0
"""The images of a batch's rows come in, unread; the pixels of those rows that a process needs, read together, go out.

    rows      [two images, none, one]          sliced [0:2]   →   f32[2, 2, height, width, 3]
              of each a name, no pixels                           read: the first row's two

So a batch's shape is known before any image is read, no process reads what another one's devices see, and the
examples that wait for their batch take no room.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from t5tasks.data import images

MOST_THREADS = 8


@dataclasses.dataclass(frozen=True)
class Pictures:
    """The images of one example."""

    images: tuple[Any, ...]  # what `images.pixels` reads
    place: str  # of the record, for errors
    prepare: Callable[[np.ndarray], np.ndarray]  # pixels uint8[any, any, 3] → f32[height, width, 3]
    size: tuple[int, int]  # height and width then

    def __len__(self) -> int:
        return len(self.images)

    def read(self, number: int) -> np.ndarray:
        """f32[height, width, 3] of one of them; ValueError where it cannot be read."""
        return self.prepare(images.pixels(self.images[number], self.place))


class PictureRows:
    """The images of B rows, which become an array of f32[B, I, height, width, 3] by slices; I is a power of two.

    Black ones, which no token takes, fill up. What was sliced is kept, so that it can be read ahead.
    """

    def __init__(self, rows: Sequence[Pictures | None], size: int) -> None:
        """Takes the rows of a batch of `size`; at least one has images."""
        found = [row for row in rows if row is not None]
        most = 1 << (max(map(len, found)) - 1).bit_length()
        self.shape = (size, most, *found[0].size, 3)
        self._rows = rows
        self._read: dict[tuple[int, ...], np.ndarray] = {}

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        """f32[B', I, height, width, 3] of some of the rows; ValueError where an image of them cannot be read."""
        chosen = rows.indices(len(self))
        if chosen not in self._read:
            self._read[chosen] = self._pixels(self._rows[rows], len(range(*chosen)))
        return self._read[chosen]

    def _pixels(self, rows: Sequence[Pictures | None], size: int) -> np.ndarray:
        pixels = np.zeros((size, *self.shape[1:]), np.float32)

        def read(place: tuple[int, int]) -> None:
            row = rows[place[0]]
            assert row is not None
            pixels[place] = row.read(place[1])

        places = [(index, number) for index, row in enumerate(rows) if row is not None for number in range(len(row))]
        with ThreadPoolExecutor(_threads()) as pool:  # decoding and resizing leave Python's lock
            for _ in pool.map(read, places):
                pass
        return pixels


def _threads() -> int:
    """As many as there are cores that the process may use, within reason."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST_THREADS, cores)
