# SPDX-License-Identifier: Apache-2.0
"""The small parts of a block: linear maps, norms, activations, and the dtype they compute in."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from t5tasks.models.config import ModelConfig

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}


def compute_dtype(config: ModelConfig) -> jnp.dtype:
    """bf16 where the default device multiplies it fast, f32 on a CPU, unless the config says."""
    if config.compute_dtype != "auto":
        return jnp.dtype(config.compute_dtype)
    return jnp.dtype("float32" if jax.default_backend() == "cpu" else "bfloat16")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
    """A matrix in a form that decoding reads fast (`models.prepared`); it stands in the place of a kernel or table."""

    weights: jax.Array  # float or int8[F, D], float[D, F] by columns
    scales: jax.Array | None = None  # f32[F], with int8: row f is weights[f] * scales[f]
    by_columns: bool = dataclasses.field(default=False, metadata={"static": True})

    def product(self, x: jax.Array, result: DTypeLike | None = None) -> jax.Array:
        """[..., F] of float[..., D]."""
        flat = x.reshape(-1, x.shape[-1])
        if self.scales is not None:
            y = _integer_product(flat, self.weights, self.scales).astype(result or x.dtype)
        elif self.by_columns:
            y = jnp.einsum("MD,DF->MF", flat, self.weights, preferred_element_type=result)
        else:
            # The barrier: XLA would move the transpose into the product, and repack the weights again.
            y = jax.lax.optimization_barrier(
                jnp.einsum("FD,MD->FM", self.weights, flat, preferred_element_type=result)).T
        return y.reshape(*x.shape[:-1], y.shape[-1])

    def take(self, rows: jax.Array) -> jax.Array:
        """float[..., D]: the rows of int32[...]."""
        if self.by_columns:
            return jnp.moveaxis(self.weights[:, rows], 0, -1)
        if self.scales is None:
            return self.weights[rows]
        return self.weights[rows] * self.scales[rows][..., None]


def _integer_product(x: jax.Array, weights: jax.Array, scales: jax.Array) -> jax.Array:
    """f32[M, F] of float[M, D] and int8[F, D]; each row of x is rounded to eight bits, too."""
    largest = jnp.max(jnp.abs(x.astype(jnp.float32)), axis=1, keepdims=True) / 127
    largest = jnp.where(largest > 0, largest, 1)
    rounded = jnp.round(x / largest).astype(jnp.int8)
    # A product with one row takes another, slower way through XLA: 5.4 ms against 1.4 ms for four, 512 to 32128.
    more = jnp.pad(rounded, ((0, max(0, 4 - x.shape[0])), (0, 0)))
    y = jax.lax.optimization_barrier(jnp.einsum("FD,MD->FM", weights, more, preferred_element_type=jnp.int32)).T
    return y[:x.shape[0]].astype(jnp.float32) * largest * scales


class Linear(nn.Module):
    """An einsum with a learned second operand; the last `outputs` axes of its shape are new.

    Parameters: kernel f32[shape], and with biases bias f32[shape[-outputs:]].
    """

    equation: str
    shape: tuple[int, ...]
    config: ModelConfig
    outputs: int | None = None  # by default all axes but the first
    biases: bool | None = None  # by default as the config says
    result: DTypeLike | None = None  # dtype of the product, by default that of x

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        new = self.shape[1:] if self.outputs is None else self.shape[-self.outputs:]
        fan_in = math.prod(self.shape) // math.prod(new)
        # BERT and GPT-2 start from a fixed deviation, T5 and Llama recipes from 1 / sqrt(fan in).
        deviation = self.config.initializer_range or fan_in**-0.5
        dtype = x.dtype
        held: Any = self.get_variable("params", "kernel")
        if isinstance(held, Rows):
            inputs = len(self.shape) - len(new)
            y = held.product(x.reshape(*x.shape[:x.ndim - inputs], -1), self.result).reshape(
                *x.shape[:x.ndim - inputs], *new)
        else:
            y = self._product(x, deviation)
        if self.config.biases if self.biases is None else self.biases:
            y += self.param("bias", nn.initializers.zeros, new, jnp.float32).astype(dtype)
        return y

    def _product(self, x: jax.Array, deviation: float) -> jax.Array:
        kernel = self.param("kernel", nn.initializers.normal(deviation), self.shape, jnp.float32)
        return jnp.einsum(self.equation, x, kernel.astype(x.dtype), preferred_element_type=self.result)


class Norm(nn.Module):
    """LayerNorm (arxiv.org/abs/1607.06450) or RMSNorm (arxiv.org/abs/1910.07467), in f32."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.config
        dtype, x = x.dtype, x.astype(jnp.float32)
        start = nn.initializers.zeros if c.unit_offset else nn.initializers.ones
        scale = self.param("scale", start, x.shape[-1:], jnp.float32) + float(c.unit_offset)
        if c.norm == "layernorm":
            x -= jnp.mean(x, axis=-1, keepdims=True)
        x *= jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + c.norm_epsilon) * scale
        if c.norm == "layernorm" and c.biases:
            x += self.param("bias", nn.initializers.zeros, x.shape[-1:], jnp.float32)
        return x.astype(dtype)


class Dropout(nn.Module):
    """Zeroes a share of numbers under a key and scales the rest to make up (jmlr.org/papers/v15/srivastava14a.html).

    The rate is kept to 2**-16, so that one word of random bits decides two numbers: drawing them is the whole cost
    (3.1 million numbers, one core: 9 ms against 27 ms with a word each, which is what `flax.linen.Dropout` draws).
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """float[..., D], x itself where no key is given or the rate is 0."""
        if not self.rate or not self.has_rng("dropout"):
            return x
        kept = 65536 - round(65536 * self.rate)
        words = jax.random.bits(self.make_rng("dropout"), (*x.shape[:-1], -(-x.shape[-1] // 2)), jnp.uint32)
        bits = jnp.stack([words & 0xFFFF, words >> 16], axis=-1).reshape(*x.shape[:-1], -1)[..., :x.shape[-1]]
        return jnp.where(bits < kept, x * jnp.asarray(65536 / kept, x.dtype), jnp.zeros((), x.dtype))


class FeedForward(nn.Module):
    """D to F and back, plain or gated (arxiv.org/abs/2002.05202)."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.config
        hidden = Linear("BTD,DF->BTF", (c.width, c.feed_forward), c, name="up")(x)
        if c.gated:
            gate = Linear("BTD,DF->BTF", (c.width, c.feed_forward), c, name="gate")(x)
            hidden = ACTIVATIONS[c.activation](gate) * hidden
        else:
            hidden = ACTIVATIONS[c.activation](hidden)
        return Linear("BTF,FD->BTD", (c.feed_forward, c.width), c, name="down")(hidden)


def capped(x: jax.Array, cap: float) -> jax.Array:
    """cap * tanh(x / cap), or x itself where cap is 0 (arxiv.org/abs/2408.00118, section 2)."""
    return jnp.tanh(x / cap) * cap if cap else x
