# SPDX-License-Identifier: Apache-2.0
"""Device counts and parameter paths in, a mesh and where every array lies on it out.

The mesh has three axes: `data` (batch), `fsdp` (batch, and a slice of every weight), `tensor`
(heads, feed-forward and vocabulary). RULES says for each parameter which axis of the mesh splits
which of its dimensions: exactly one rule matches a path, and there is no row for "the rest", so
a new parameter cannot be forgotten. A dimension that its axis does not divide stays whole (four
key/value heads on eight tensor devices), as grouped-query models need. An adapter lies as its
kernel does: A has the kernel's inputs, B its outputs, and the rank is whole on every device.
"""

import functools
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp", "tensor")
BATCH = PartitionSpec(("data", "fsdp"))

# Path (joined by "/") → one entry per dimension of the unstacked parameter. Scanned stacks carry
# a first axis of layers, which is never split.
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"^embedding$", ("tensor", "fsdp")),
    (r"(^|/)patches/kernel$", (None, None, None, "fsdp")),
    (r"(^|/)patches/(bias|class_token)$", (None,)),
    (r"^projector/map_\d/kernel$", ("fsdp", "tensor")),
    (r"^projector/map_\d/bias$", ("tensor",)),
    (r"/(positions|token_types)$", (None, "fsdp")),
    (r"/relative_bias/embedding$", (None, "tensor")),
    (r"/(query|key|value)/kernel$", ("fsdp", "tensor", None)),
    (r"/(query|key|value)/bias$", ("tensor", None)),
    (r"/(attention|cross_attention)/out/kernel$", ("tensor", None, "fsdp")),
    (r"/(attention|cross_attention)/out/bias$", (None,)),
    (r"/feed_forward/(up|gate)/kernel$", ("fsdp", "tensor")),
    (r"/feed_forward/(up|gate)/bias$", ("tensor",)),
    (r"/feed_forward/down/kernel$", ("tensor", "fsdp")),
    (r"/feed_forward/down/bias$", (None,)),
    (r"_norm/(scale|bias)$", (None,)),
    (r"/(attention|feed_forward)_scale$", (None,)),
    (r"/pooling/probe$", (None,)),
    (r"^(vision/)?head/projection/kernel$", ("fsdp", "tensor")),
    (r"^head/projection/bias$", ("tensor",)),
    (r"^head/match_(scale|bias)$", ()),
    (r"^head/words/kernel$", ("fsdp", "tensor")),
    (r"^head/bias$", ("tensor",)),
    (r"^head/(pooler|transform)/kernel$", ("fsdp", "tensor")),
    (r"^head/(pooler|transform)/bias$", ("tensor",)),
    (r"^head/classifier/kernel$", ("fsdp", None)),
    (r"^head/classifier/bias$", (None,)),
)


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Any = None) -> Mesh:
    """A mesh over all devices; one size may be -1, for whatever is left.

    Of several slices of a TPU pod, `data` counts through each in turn: nothing else crosses from one to another.

    Raises:
      ValueError: the sizes do not multiply to the number of devices, or `data` not of that of slices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [data, fsdp, tensor]
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise ValueError(f"mesh sizes are data={data} fsdp={fsdp} tensor={tensor}; each must be "
                         "positive, and at most one -1 (the rest)")
    known = int(np.prod([size for size in sizes if size != -1]))
    sizes = [len(devices) // known if size == -1 else size for size in sizes]
    if int(np.prod(sizes)) != len(devices):
        raise ValueError(f"a mesh of data={data} fsdp={fsdp} tensor={tensor} does not use the "
                         f"{len(devices)} devices exactly; set sizes whose product is {len(devices)}")
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:
        return jax.make_mesh(tuple(sizes), AXES, devices=devices, axis_types=(AxisType.Auto,) * 3)
    if sizes[0] % slices:
        raise ValueError(f"the devices are {slices} slices, joined by slower links that only `data` may cross, but "
                         f"mesh.data is {sizes[0]}; set it to a multiple of {slices}")
    placed = mesh_utils.create_hybrid_device_mesh((sizes[0] // slices, *sizes[1:]), (slices, 1, 1), devices)
    return Mesh(placed, AXES, axis_types=(AxisType.Auto,) * 3)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Where a batch lies: its first axis over `data` and `fsdp`."""
    return NamedSharding(mesh, BATCH)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same whole value on every device."""
    return NamedSharding(mesh, PartitionSpec())


def check_batch(mesh: Mesh, size: int, name: str = "batch.size") -> None:
    """Raises ValueError unless a batch of this size splits evenly over the mesh."""
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    if size % parts:
        raise ValueError(f"{name} is {size}, which the mesh's {parts} batch shards (data "
                         f"{mesh.shape['data']} x fsdp {mesh.shape['fsdp']}) do not divide; use a "
                         f"multiple of {parts}")


def path_name(path: tuple[Any, ...]) -> str:
    """A tree path as text: `decoder/layer_0/attention/query/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def flat(tree: Any) -> dict[str, Any]:
    """Path → leaf of a parameter tree."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flat`; a folder without leaves is not in the tree."""
    tree: dict[str, Any] = {}
    for path, leaf in sorted(leaves.items()):
        *folders, last = path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = leaf
    return tree


def parameter_spec(name: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """The one rule's entry for a parameter, less what the mesh does not divide.

    In its shortest form, as a compiled program gives it out: what was compiled for arrays that lie alike serves.

    Raises:
      ValueError: no rule, or more than one, matches; or the rule's rank is not the parameter's.
    """
    kernel = re.sub(r"/lora_[ab]$", "/kernel", name)
    matches = [entry for pattern, entry in RULES if re.search(pattern, kernel)]
    if len(matches) != 1:
        raise ValueError(f"{len(matches)} sharding rules match parameter {name!r}; expected one "
                         "(see RULES in t5tasks/sharding.py)")
    layers = ("/layers/" in f"/{name}") * (None,)
    spec = (*layers, *matches[0])
    if kernel != name:  # rank - 1 axes of the kernel's, the first of them or the last
        axes = len(shape) - len(layers) - 1
        spec = (*layers, *((*matches[0][:axes], None) if name.endswith("a") else (None, *matches[0][-axes:])))
    if len(spec) != len(shape):
        raise ValueError(f"the sharding rule of {name!r} has {len(spec)} dimensions, the parameter "
                         f"is {shape}")
    split = [axis if axis and mesh.shape[axis] > 1 and size % mesh.shape[axis] == 0 else None
             for axis, size in zip(spec, shape, strict=True)]
    while split and split[-1] is None:
        split.pop()
    return PartitionSpec(*split)


def parameter_shardings(parameters: Any, mesh: Mesh) -> Any:
    """NamedSharding for every leaf of a parameter tree (of arrays or shapes)."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(mesh, parameter_spec(path_name(path), leaf.shape, mesh)),
        parameters)


def optimizer_shardings(state: Any, parameters: Any, mesh: Mesh) -> Any:
    """Shardings of an optimizer's state: as its parameter where path and shape agree, else whole.

    A leaf belongs to the parameter whose path ends its own (`0/mu/decoder/.../kernel`). Factored
    statistics and counters have other shapes; they are small and lie whole on every device.
    """
    shapes = {path: leaf.shape for path, leaf in flat(parameters).items()}

    def place(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        parts = path_name(path).split("/")
        for start in range(len(parts)):
            name = "/".join(parts[start:])
            if shapes.get(name) == leaf.shape:
                return NamedSharding(mesh, parameter_spec(name, leaf.shape, mesh))
        return replicated(mesh)

    return jax.tree_util.tree_map_with_path(place, state)


@functools.lru_cache(maxsize=16)
def batch_part(mesh: Mesh) -> tuple[int, int]:
    """Which part of a batch's rows this process puts on its devices, of how many equal ones.

    Processes whose devices hold the same rows (as under a `tensor` axis that spans them) have the same part.

    Raises:
      ValueError: the mesh cuts the rows otherwise than the processes.
    """
    held = _held_shards(mesh)
    parts = sorted(set(held.values()))
    if sum(map(len, parts)) != _row_shards(mesh) or len({len(part) for part in parts}) != 1:
        raise ValueError(f"the mesh of data={mesh.shape['data']} fsdp={mesh.shape['fsdp']} "
                         f"tensor={mesh.shape['tensor']} gives some of the {len(held)} processes rows that only a part "
                         "of their devices share; make tensor a divisor or a multiple of the devices of a process")
    return parts.index(held.get(jax.process_index(), parts[0])), len(parts)


@functools.lru_cache(maxsize=64)
def part_rows(mesh: Mesh, size: int) -> np.ndarray:
    """int[size / parts]: which rows of a batch of this size this process's devices hold, in ascending order."""
    each = size // _row_shards(mesh)
    return np.concatenate([np.arange(number * each, (number + 1) * each)
                           for number in _held_shards(mesh)[jax.process_index()]])


def _row_shards(mesh: Mesh) -> int:
    """Into how many shards the mesh cuts a batch's rows."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def _held_shards(mesh: Mesh) -> dict[int, tuple[int, ...]]:
    """By process, the shards of a batch's rows that its devices hold, in ascending order."""
    held: dict[int, set[int]] = {}
    for number, devices in enumerate(mesh.devices.reshape(_row_shards(mesh), -1)):
        for device in devices.flat:
            held.setdefault(device.process_index, set()).add(number)
    return {process: tuple(sorted(shards)) for process, shards in held.items()}


def global_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Puts this process's rows, its part (`batch_part`) of the global batch in ascending order, on its devices."""
    sharding, (_, parts) = batch_sharding(mesh), batch_part(mesh)

    def place(rows: np.ndarray) -> jax.Array:
        size = len(rows) * parts
        mine = part_rows(mesh, size)

        def cut(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None
            start, stop, _ = index[0].indices(size)
            first = int(np.searchsorted(mine, start))
            return rows[(slice(first, first + stop - start), *index[1:])]

        return jax.make_array_from_callback((size, *rows.shape[1:]), sharding, cut)

    return {name: place(rows) for name, rows in batch.items()}
