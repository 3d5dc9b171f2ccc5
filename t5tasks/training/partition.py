# SPDX-License-Identifier: Apache-2.0
"""A model and what of it is to be trained in, two trees out: the leaves that training changes, and the rest.

    parameters   = {embedding, encoder: {layer_0: {attention: {query: {kernel, bias}, ...}}}, head: {...}}
    frozen       trained = {encoder, head}                                           kept = {embedding}
    adapters     trained = {encoder: {layer_0: {attention: {query: {lora_a, lora_b}}}}, head}
                 kept    = {embedding, encoder}

What is kept has no gradient, no optimizer state and no weight decay.
"""

import dataclasses
import difflib
import functools
import hashlib
import json
import re
from collections.abc import Collection, Iterable

import jax
import jax.numpy as jnp
import numpy as np

from t5tasks.models import adapters, stack
from t5tasks.models.adapters import Lora
from t5tasks.models.model import Model, Parameters
from t5tasks.sharding import flat, nested


@dataclasses.dataclass(frozen=True)
class Partition:
    """Which leaves of a parameter tree are trained. By default, all.

    Attributes:
      kept: paths of the parameters that stay as they are, in the model's running form.
      adapted: those of them that an adapter is added to.
      lora: the adapters' rank and scale.
    """

    kept: frozenset[str] = frozenset()
    adapted: frozenset[str] = frozenset()
    lora: Lora = dataclasses.field(default_factory=Lora)

    def split(self, parameters: Parameters) -> tuple[Parameters, Parameters]:
        """The parameters (or their shapes) that are trained, adapters left out, and those that are kept."""
        leaves = flat(parameters)
        return (nested({path: leaf for path, leaf in leaves.items() if path not in self.kept}),
                nested({path: leaf for path, leaf in leaves.items() if path in self.kept}))

    def begin(self, trained: Parameters, kept: Parameters, key: jax.Array) -> Parameters:
        """What is trained, with fresh adapters for kernels of what is kept."""
        if not self.adapted:
            return trained
        kernels = {path: leaf.shape for path, leaf in flat(kept).items() if path in self.adapted}
        return nested(flat(trained) | adapters.begin(kernels, self.lora.rank, key))

    def join(self, trained: Parameters, kept: Parameters) -> Parameters:
        """All parameters of the model, adapters added; for use inside a compiled program."""
        return adapters.joined(trained, kept, self.lora.scale) if self.kept else trained

    def merge(self, trained: Parameters, kept: Parameters) -> Parameters:
        """`join` outside of one: what has no adapter is not copied."""
        return adapters.merged(trained, kept, self.lora.scale) if self.kept else trained

    def stored(self, trained: Parameters, kept: Parameters) -> Parameters:
        """What a checkpoint holds: with adapters what is trained alone, else all parameters."""
        return trained if self.adapted else self.join(trained, kept)

    def restored(self, stored: Parameters, base: Parameters | None) -> tuple[Parameters, Parameters]:
        """The inverse of `stored`: what is trained, and what is kept.

        Args:
          base: with adapters, the parameters that the run began from.
        """
        if not self.adapted:
            return self.split(stored)
        assert base is not None
        return stored, self.split(base)[1]


ALL = Partition()


def partition(model: Model, frozen: Iterable[str] = (), lora: Lora | None = None, fresh: Collection[str] = ()
              ) -> Partition:
    """What a run trains.

    Args:
      frozen: patterns, searched in the unrolled paths; what they match stays as it is, and a kernel
        among it has no adapter.
      lora: with a rank, only adapters are trained, and the fresh parameters in full.
      fresh: paths of parameters that no checkpoint holds.

    Raises:
      ValueError: a pattern that is none or matches nothing (the nearest paths are named), nothing is
        left to train, or a scanned stack of which only some layers would be kept or adapted.
    """
    lora = lora or Lora()
    kept, adapted = _chosen(model, frozen, lora, fresh)
    if uneven := [path for chosen in (kept, adapted) for path in _uneven(model, chosen)]:
        raise ValueError(f"frozen parts and adapters must be the same in all layers of a scanned stack, but "
                         f"{uneven[0]} differs from other layers; set config.model.layer_loop to unroll")
    running = [frozenset(_running(model, path) for path in chosen) for chosen in (kept, adapted)]
    return Partition(running[0], running[1], lora if adapted else Lora())


def identity(model: Model, parameters: Parameters) -> str:
    """Sixteen hexadecimal digits that depend on every bit of every parameter, on its place and its
    path, and on neither the mesh nor the form of layers."""
    sums = jax.jit(lambda tree: jax.tree.map(_checksum, model.unrolled_form(tree)))(parameters)
    told = {path: int(np.asarray(number)) for path, number in flat(sums).items()}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def _checksum(array: jax.Array) -> jax.Array:
    """uint32[]: the bits, each word times an odd number of its own, added up modulo 2 ** 32.

    Integers add up to the same in any order, so on any mesh; an odd factor loses no bit.
    """
    places, stride = jnp.zeros(array.shape, jnp.uint32), 1
    for axis in reversed(range(array.ndim)):
        places += jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis) * np.uint32(stride % 2**32)
        stride *= array.shape[axis]
    bits = jax.lax.bitcast_convert_type(array.astype(jnp.float32), jnp.uint32)
    return jnp.sum(bits * (places * np.uint32(2654435769) * 2 + 1), dtype=jnp.uint32)


def layers_differ(model: Model, frozen: Iterable[str] = (), lora: Lora | None = None) -> bool:
    """Whether some layers of the model would be trained otherwise than others, so that they cannot be
    scanned; raises ValueError as `partition` does."""
    return any(_uneven(model, chosen) for chosen in _chosen(model, frozen, lora or Lora(), ()))


def _chosen(model: Model, frozen: Iterable[str], lora: Lora, fresh: Collection[str]) -> tuple[set[str], set[str]]:
    """Unrolled paths of what is kept, and of the kernels that have adapters."""
    frozen = tuple(frozen)
    if not frozen and not lora.rank:
        return set(), set()
    paths = _paths(model)
    held = {path for pattern in frozen for path in _matching(pattern, "config.train.frozen", paths)}
    if not lora.rank:
        kept, adapted = held, set()
    else:
        kernels = [path for path in paths if path.endswith("/kernel")]
        kept = {*paths} - ({*fresh} - held)
        adapted = {path for path in _matching(lora.pattern, "config.lora.pattern", kernels) if path in kept} - held
        if not adapted:
            raise ValueError(f"config.lora.pattern is {lora.pattern!r}, but all that it matches is frozen or trained "
                             "in full; nothing would have an adapter")
    if len(kept) == len(paths) and not adapted:
        raise ValueError(f"config.train.frozen is {frozen}, which freezes every parameter of the model; leave "
                         "something to train")
    return kept, adapted


def _matching(pattern: str, setting: str, paths: Collection[str]) -> list[str]:
    """The paths in which the pattern is found: one at least."""
    try:
        found = [path for path in paths if re.search(pattern, path)]
    except re.error as error:
        raise ValueError(f"{setting} is {pattern!r}, which is no regular expression: {error}") from error
    if not found:
        general = {re.sub(r"layer_\d+", "layer_0", path) for path in paths}
        near = difflib.get_close_matches(pattern, sorted(general), n=3, cutoff=0.3) or sorted(general)[:3]
        raise ValueError(f"{setting} is {pattern!r}, which matches no parameter; paths are such as {', '.join(near)}")
    return found


@functools.lru_cache(maxsize=16)
def _paths(model: Model) -> tuple[str, ...]:
    return tuple(flat(model.unrolled_form_shapes(jax.eval_shape(model.init, jax.random.key(0)))))


def _running(model: Model, path: str) -> str:
    return re.sub(r"/layer_\d+/", "/layers/", path) if stack.is_scanned(model.config) else path


def _uneven(model: Model, chosen: Collection[str]) -> list[str]:
    """The chosen paths of a scanned stack that are not chosen in every layer."""
    if not stack.is_scanned(model.config):
        return []
    siblings: dict[str, set[str]] = {}
    for path in _paths(model):
        siblings.setdefault(_running(model, path), set()).add(path)
    return [path for path in sorted(chosen) if not siblings[_running(model, path)] <= {*chosen}]
