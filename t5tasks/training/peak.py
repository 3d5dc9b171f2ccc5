# SPDX-License-Identifier: Apache-2.0
"""The devices in, the rate at which they multiply matrices out: the measure that MFU divides by."""

import functools
import time

import jax
import jax.numpy as jnp

# Dense bf16 operations per second of what JAX shows as a device (of a TPU7x, half a chip), from the makers' data sheets
# (cloud.google.com/tpu/docs/system-architecture-tpu-vm, nvidia.com/en-us/data-center).
DENSE_BF16 = {
    "TPU v4": 275e12, "TPU v5 lite": 197e12, "TPU v5e": 197e12, "TPU v5": 459e12, "TPU v5p": 459e12,
    "TPU v6 lite": 918e12, "TPU v6e": 918e12, "TPU7x": 1153e12,
    "A100": 312e12, "H100": 989e12, "H200": 989e12, "B200": 2250e12,
}


@functools.cache
def peak_flops() -> float:
    """Operations per second of all devices together: by data sheet (bf16), on a CPU measured (f32).

    0 for an accelerator that the table does not know; then there is no MFU to tell.
    """
    if known := device_flops(jax.devices()[0].device_kind):
        return known * jax.device_count()
    if jax.default_backend() != "cpu":
        return 0.0
    return _measured()  # simulated CPU devices share the one processor


def device_flops(kind: str) -> float:
    """Dense bf16 operations per second of one device by its data sheet; 0 for a kind that the table does not know."""
    known = [name for name in DENSE_BF16 if name in kind]
    return DENSE_BF16[max(known, key=len)] if known else 0.0


def _measured(size: int = 2048) -> float:
    """f32 operations per second of the best of a few matrix products, about a quarter second."""
    product = jax.jit(lambda x: x @ x)
    x = jnp.ones((size, size), jnp.float32)
    product(x).block_until_ready()
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        product(x).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
