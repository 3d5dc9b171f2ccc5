# SPDX-License-Identifier: Apache-2.0
"""A view of a tensor, in any order and any float type, in; its numbers as f32, in order, out.

Most weights lie transposed in a folder, and turning them is most of the work of loading. NumPy's
own copy of a transposed view strides through memory for every single number; here each step takes
one cache line of the result from as many rows of the source, which is six times as fast.
"""

import itertools
import mmap
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

ALIGNMENT = 64  # bytes: a cache line, and what a CPU device asks of memory that it takes as it is
COLUMNS = ALIGNMENT // 4
LARGE = 2**20  # bytes from which on an array has pages of its own
TASK = 2**21  # bytes that one thread copies at a time

Piece = tuple[np.ndarray, np.ndarray]


def empty(shape: tuple[int, ...]) -> np.ndarray:
    """f32[shape], aligned, of any content.

    NumPy and our heap ask for huge pages. A virtual machine often has none at hand, and then a
    gigabyte of them took 2.2 to 2.5 s of system time, of the pages that the system chooses 0.5 to 0.9.
    """
    size = 4 * int(np.prod(shape, dtype=np.int64))
    if size > LARGE and hasattr(mmap, "MAP_ANONYMOUS"):
        mapped = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        return np.frombuffer(mapped, np.float32).reshape(shape)
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start:start + size].view(np.float32).reshape(shape)


def tasks(out: np.ndarray, view: np.ndarray) -> Iterator[list[Piece]]:
    """What `copy` has to do so that f32 `out` becomes the view, in parts for several threads."""
    pieces: list[Piece] = []
    waiting = 0
    for piece in _pieces(out, view):
        pieces.append(piece)
        waiting += piece[0].nbytes
        if waiting >= TASK:
            yield pieces
            pieces, waiting = [], 0
    if pieces:
        yield pieces


def copy(pieces: list[Piece]) -> None:
    """Carries out one of the `tasks`."""
    for out, view in pieces:
        out[...] = _widened(view)


def is_same(left: np.ndarray, right: np.ndarray) -> bool:
    """Whether two views of one shape hold the same numbers; looks at a few rows at a time."""
    if not left.ndim:
        return bool(left == right)
    order = np.argsort([-abs(stride) for stride in left.strides])
    left, right = left.transpose(order), right.transpose(order)
    rows = max(1, TASK // max(1, left[:1].nbytes))
    return all(np.array_equal(_widened(left[start:start + rows]), _widened(right[start:start + rows]))
               for start in range(0, len(left), rows))


def _pieces(out: np.ndarray, view: np.ndarray) -> Iterator[Piece]:
    if view.ndim < 2 or view.strides[-1] == view.itemsize:
        rows = max(1, TASK // max(1, out[:1].nbytes)) if out.ndim else 0
        yield from ((out[start:start + rows], view[start:start + rows])
                    for start in range(0, len(out), rows)) if rows else [(out, view)]
        return
    # Axes that step over whole rows of the source are taken one number at a time; what remains are
    # a row's own axes, and the last, COLUMNS rows at a time.
    outer = [range(size) if stride > view.strides[-1] else [slice(None)]
             for size, stride in zip(view.shape[:-1], view.strides[:-1], strict=True)]
    columns = [slice(start, start + COLUMNS) for start in range(0, view.shape[-1], COLUMNS)]
    parts: Iterable[Any] = itertools.product(*outer, columns)
    yield from ((out[part], view[part]) for part in parts)


def _widened(view: np.ndarray) -> np.ndarray:
    """The view's numbers in f32, in the order in which they lie in memory."""
    if view.dtype == np.float32:
        return view
    if view.dtype == np.float16:
        return view.astype(np.float32, order="K")
    # bf16 is the upper half of f32. NumPy's cast of it is slow, and no two threads can do it at once.
    bits = view.view(np.uint16).astype(np.uint32, order="K")
    bits <<= 16
    return bits.view(np.float32)
