# SPDX-License-Identifier: Apache-2.0
"""Parameters in, the same weights as decoding reads them fastest out: once, before the loop.

A step of decoding multiplies few rows of activations by every weight, so it takes as long as the
weights take to be read. Which form is read fastest depends on the device and on the number of rows;
`prepared` decides it here and nowhere else, from measurements on one core of an AMD EPYC with
AVX-512 (jax 0.10.2; microseconds of a product, f32):

    kernel         rows  [D, F], x W       [F, D], W x      why
    512 to 2048       1  151               233              XLA's product of a matrix and a vector reads along
    2048 to 512       1  228               135              its longer axis; with more rows YNNPACK multiplies,
    512 to 32128      1  2240              3920             which repacks its right operand at every call,
    512 to 2048      16  624               530              so that the weights should be the left one
    2048 to 512      16  649               382
    512 to 32128     64  25500             22200

In int8, activations are rounded too, row by row as they come, and multiplied as integers: weights that
are turned into f32 first are no faster than f32 (24 ms for the last line, against 15 ms).
On accelerators weights are held in the dtype that they are multiplied in, else nothing changes.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from t5tasks.models import adapters, stack
from t5tasks.models.config import ModelConfig
from t5tasks.models.layers import Rows, compute_dtype

FORMS = ("full", "int8")


def prepared(config: ModelConfig, parameters: Any, rows: int, weights: str = "full", consume: bool = False
             ) -> Any:
    """The tree that decoding `rows` sequences at a time should be given; training cannot use it.

    What has been prepared already stays as it is.

    Args:
      rows: sequences (with beams: all beams of all examples) of a step.
      weights: full, the numbers as they are; int8, matrices rounded to eight bits, a scale for each output.
      consume: free each array of `parameters` as soon as its new form stands, so that there is never more
        than one of them twice.

    Raises:
      ValueError: another kind of weights.
    """
    if weights not in FORMS:
        raise ValueError(f"weights is {weights!r}, expected one of {', '.join(FORMS)}")
    dtype, on_cpu = compute_dtype(config), jax.default_backend() == "cpu"
    if stack.is_scanned(config) and "decoder" in parameters:  # a layer indexed in the loop is copied at every step
        parameters = parameters | {"decoder": stack.unstacked(parameters["decoder"])}

    def is_turned(inputs: int, outputs: int, path: str) -> bool:
        # An encoder reads whole sources: with thousands of rows, kernels are best as they are.
        return on_cpu and not path.startswith("encoder/") and (rows > 1 or inputs > outputs)

    def form(path: str, leaf: jax.Array) -> Any:
        is_table, is_kernel = path == "embedding", path.endswith("/kernel")
        if (not is_table and not is_kernel) or path.startswith("vision/") or "/layers/" in path:
            return leaf
        if isinstance(leaf, Rows):
            return leaf
        if is_table:
            if weights == "int8":
                return _take(leaf, consume, _rounded_table)
            if on_cpu and rows == 1 and config.tied_head:
                return _take(leaf, consume, _turned_table, dtype)
            return Rows(leaf.astype(dtype)) if on_cpu else leaf.astype(dtype)
        inputs = math.prod(leaf.shape[:adapters.input_axes(path)])
        outputs = leaf.size // inputs
        if weights == "int8":
            return _take(leaf, consume, _rounded_kernel, inputs)
        if is_turned(inputs, outputs, path):
            return _take(leaf, consume, _turned_kernel, inputs, dtype)
        if on_cpu and rows == 1 and path.startswith("decoder/"):  # with two axes: of more, XLA makes a copy first
            return _take(leaf, consume, _flat_kernel, inputs, dtype)
        return leaf.astype(dtype)

    def walk(path: str, node: Any) -> Any:
        if isinstance(node, dict):
            return {name: walk(f"{path}/{name}".lstrip("/"), child) for name, child in node.items()}
        return form(path, node)

    return walk("", parameters)


def _take(leaf: jax.Array, consume: bool, form: Callable[..., Rows], *settings: Any) -> Rows:
    made = form(leaf, *settings)
    if consume and isinstance(leaf, jax.Array):
        jax.block_until_ready(made)
        leaf.delete()
    return made


# A program of its own each, compiled once for all arrays of one shape.

@functools.partial(jax.jit, static_argnums=(1, 2))
def _turned_kernel(kernel: jax.Array, inputs: int, dtype: Any) -> Rows:
    return Rows(kernel.reshape(inputs, -1).T.astype(dtype))


@functools.partial(jax.jit, static_argnums=(1, 2))
def _flat_kernel(kernel: jax.Array, inputs: int, dtype: Any) -> Rows:
    return Rows(kernel.reshape(inputs, -1).astype(dtype), by_columns=True)


@functools.partial(jax.jit, static_argnums=1)
def _turned_table(table: jax.Array, dtype: Any) -> Rows:
    return Rows(table.T.astype(dtype), by_columns=True)


@functools.partial(jax.jit, static_argnums=1)
def _rounded_kernel(kernel: jax.Array, inputs: int) -> Rows:
    return _rounded(kernel.reshape(inputs, -1).T)


@jax.jit
def _rounded_table(table: jax.Array) -> Rows:
    return _rounded(table)


def _rounded(matrix: jax.Array) -> Rows:
    """Eight bits a weight, symmetric, of f32[F, D] with a scale a row (arxiv.org/abs/2208.07339, section 2.1)."""
    scales = jnp.max(jnp.abs(matrix), axis=1) / 127
    scales = jnp.where(scales > 0, scales, 1).astype(jnp.float32)
    return Rows(jnp.round(matrix / scales[:, None]).astype(jnp.int8), scales)
