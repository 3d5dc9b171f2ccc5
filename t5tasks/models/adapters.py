# SPDX-License-Identifier: Apache-2.0
"""Parameters and low-rank adapters in, parameters with the adapters added to them out.

An adapter (LoRA, arxiv.org/abs/2106.09685) of a kernel W is a pair of narrow ones that stands for
W + scale * A B. In a tree, the pair takes the place of its kernel; r is its rank:

    query  {"kernel": [D, N, H]}    {"lora_a": [D, r], "lora_b": [r, N, H]}
    out    {"kernel": [N, H, D]}    {"lora_a": [N, H, r], "lora_b": [r, D]}

Scanned stacks carry a first axis of layers in all three.
"""

import dataclasses
import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

A, B = "lora_a", "lora_b"
# The paper's own choice (section 4.2): the attention's query and value maps.
PATTERN = r"/(query|value)/kernel$"


@dataclasses.dataclass(frozen=True)
class Lora:
    """What a run's adapters are.

    Attributes:
      rank: r, columns of A and rows of B; 0 for no adapters.
      alpha: A B is multiplied by alpha / rank, so that a good learning rate stays one when the
        rank changes.
      rank_stabilised: by alpha / sqrt(rank) instead, for high ranks (arxiv.org/abs/2312.03732).
      pattern: searched in the unrolled path of every kernel, `encoder/layer_0/attention/query/kernel`.
    """

    rank: int = 0
    alpha: float = 16.0
    rank_stabilised: bool = False
    pattern: str = PATTERN

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise ValueError(f"lora.rank is {self.rank}; expected a positive rank, or 0 for no adapters")
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"lora.alpha is {self.alpha}; it must be positive")

    @property
    def scale(self) -> float:
        """What A B is multiplied by."""
        return self.alpha / (self.rank**0.5 if self.rank_stabilised else self.rank) if self.rank else 0.0


def input_axes(path: str) -> int:
    """How many axes of the kernel at a path its map reads; the others it writes."""
    if path.endswith("attention/out/kernel"):
        return 2
    return 3 if path.endswith("patches/kernel") else 1


def begin(kernels: Mapping[str, tuple[int, ...]], rank: int, key: jax.Array) -> dict[str, jax.Array]:
    """Fresh adapters: A uniform within 1 / sqrt(inputs) of 0, where PEFT too begins, and B zero.

    So nothing has changed yet. An adapter depends on the key and its own path alone, and is the
    same in either form of layers.

    Args:
      kernels: their paths and shapes.

    Returns:
      f32 arrays by their paths.
    """
    leaves = {}
    for path, shape in kernels.items():
        layers, inputs = (shape[:1] if "/layers/" in path else ()), input_axes(path)
        read, written = shape[len(layers):len(layers) + inputs], shape[len(layers) + inputs:]
        bound = math.prod(read) ** -0.5
        names = [path.replace("/layers/", f"/layer_{layer}/") for layer in range(*layers)] if layers else [path]
        drawn = [jax.random.uniform(jax.random.fold_in(key, zlib.crc32(name.encode())), (*read, rank),
                                    jnp.float32, -bound, bound) for name in names]
        folder = path.removesuffix("kernel")
        leaves[folder + A] = jnp.stack(drawn) if layers else drawn[0]
        leaves[folder + B] = jnp.zeros((*layers, rank, *written), jnp.float32)
    return leaves


def add(kernel: jax.Array, a: jax.Array, b: jax.Array, scale: float) -> jax.Array:
    """kernel + scale * A B, the product in full f32 on every device."""
    def product(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.tensordot(a, b, axes=1, precision=jax.lax.Precision.HIGHEST)

    has_layers = a.ndim + b.ndim - kernel.ndim == 3
    return kernel + scale * (jax.vmap(product) if has_layers else product)(a, b).astype(kernel.dtype)


def joined(trained: Any, kept: Any, scale: float, add: Callable[..., jax.Array] = add) -> Any:
    """One tree of the leaves of two; where a pair of the first has its kernel in the second, their sum.

    Leaves that nothing is added to are the very same arrays.

    Raises:
      ValueError: an adapter without a kernel.
    """
    if not isinstance(trained, dict):
        return trained
    whole = dict(kept)
    for name, node in trained.items():
        whole[name] = joined(node, kept.get(name, {}), scale, add)
    if A in whole:
        if "kernel" not in kept:
            raise ValueError("an adapter has no kernel to be added to; was it made for another model?")
        whole["kernel"] = add(kept["kernel"], whole.pop(A), whole.pop(B), scale)
    return whole


def merged(trained: Any, kept: Any, scale: float) -> Any:
    """`joined`, outside of a compiled program: kernels with adapters are new arrays that lie where
    the kernels do, all others the very same."""
    def placed(kernel: jax.Array, a: jax.Array, b: jax.Array, scale: float) -> jax.Array:
        return jax.device_put(_add(kernel, a, b, scale), kernel.sharding)

    return joined(trained, kept, scale, placed)


_add = jax.jit(add, static_argnums=3)
