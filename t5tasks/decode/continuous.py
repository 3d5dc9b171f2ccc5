# SPDX-License-Identifier: Apache-2.0
"""From a stream of prompts to the text of each, in their order, by slots that are refilled at once.

A static batch runs until its longest text has ended. Here a row of the batch is a slot, and the
program comes back when a text has ended, to give its slot to the next prompt (as Orca's iteration
level scheduling does, Yu et al. 2022, usenix.org/conference/osdi22/presentation/yu):

    two static batches of 2     a a a a . . . . b b b      2 slots     a a a a c c c c c c
                                c c c c c c . . d . .                  b b b d

A step costs what its cache can hold, not what it does: so the slots begin at the lowest of the
capacities that the texts under way need, and grow when a prompt comes that needs more. Prompts in
ascending order of length gain most.

Programs: for each capacity that is met one segment (`sample.advance`) and one for each width of a
prompt (and shape of its inputs) and number of prompts read together; no array of a slot is copied
between them, but where the slots grow.
"""

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from t5tasks.decode import sample, tables
from t5tasks.decode.contract import Start, Step
from t5tasks.decode.sample import Generated, Request, State
from t5tasks.decode.settings import Settings
from t5tasks.decode.stops import Pieces

REFILLS = (1, 8)  # prompts that are read together: each is a program for each width


@dataclasses.dataclass(frozen=True)
class Prompt:
    """What one text is to follow; arrays of the host, else each is fetched from the device."""

    tokens: Any                              # int[n], n at least 1
    settings: Settings                       # one row; every prompt's arrays have the same shapes
    key: Any                                 # uint32[2]
    inputs: Mapping[str, Any] | None = None  # [...] what `start` reads, without an axis of rows
    name: str = ""                           # in errors; else "prompt 17"


@dataclasses.dataclass(frozen=True)
class Slots:
    """How many texts are under way together, and the shapes of what they can hold."""

    count: int                   # B
    widths: Sequence[int]        # that prompts are padded to, ascending
    max_new_tokens: int          # of any text
    refills: Sequence[int] = REFILLS  # prompts that are read together, ascending; the first is 1
    capacities: Sequence[int] = ()    # of a row of the cache, ascending; the highest need is always one
    alternatives: int = 0        # most probable tokens to report with each token
    inputs: Mapping[str, Any] | None = None  # of one prompt, each of the greatest shape; values are not read
    sharding: jax.sharding.Sharding | None = None  # of the axis of rows, which it divides

    def __post_init__(self) -> None:
        """Raises ValueError for numbers out of range."""
        for name in ("widths", "refills"):
            sizes = list(getattr(self, name))
            if not sizes or sizes != sorted(set(sizes)) or sizes[0] < 1:
                raise ValueError(f"{name} are {sizes}, expected numbers from 1 in ascending order.")
        if self.refills[0] != 1:
            raise ValueError(f"refills are {list(self.refills)}, expected 1 among them: one slot may be free alone.")
        if self.count < 1 or self.max_new_tokens < 1 or self.alternatives < 0:
            raise ValueError(f"{self.count} slots of {self.max_new_tokens} new tokens with {self.alternatives} "
                             "alternatives were asked for, expected at least 1, 1 and 0.")

    def width(self, prompt: "Prompt") -> int:
        """What the prompt is padded to."""
        return tables.bucket(len(prompt.tokens), self.widths)

    def capacity(self, prompt: "Prompt") -> int:
        """The lowest capacity that holds the prompt, padded, and its longest text."""
        highest = self.widths[-1] + self.max_new_tokens
        longest = len(prompt.tokens) + min(int(prompt.settings.max_new[0]), self.max_new_tokens)
        return tables.bucket(max(longest, self.width(prompt)),
                             [*(size for size in self.capacities if size < highest), highest])


@dataclasses.dataclass(frozen=True)
class Program:
    """What the jitted functions need beside arrays; hashable."""

    step: Step
    start: Start
    max_new_tokens: int
    alternatives: int
    sharding: jax.sharding.Sharding | None

    def read(self, params: Any, tokens: jax.Array, lengths: jax.Array, capacity: int, inputs: Any,
             settings: Settings, keys: jax.Array, eos: jax.Array, pad: jax.Array, pieces: Pieces | None
             ) -> tuple[jax.Array, State, Request]:
        """R prompts int32[R, T] read into a cache of their own."""
        cache = self.start(params, tokens.shape[0], capacity, inputs)
        return sample.begin(self.step, params, tokens, lengths, cache, settings, keys, eos, pad, pieces,
                            max_new_tokens=self.max_new_tokens, alternatives=self.alternatives)


    def cache(self, params: Any, rows: int, capacity: int, inputs: Any) -> Any:
        """A cache without tokens."""
        return self.start(params, rows, capacity, inputs)


# For their shapes, which are found once.
_read = jax.jit(Program.read, static_argnames=("self", "capacity"))
_cache = jax.jit(Program.cache, static_argnames=("self", "rows", "capacity"))


def generate_all(step: Step, start: Start, params: Any, prompts: Iterable[Prompt], slots: Slots, *,
                 eos: Any, pad: Any, pieces: Pieces | None = None) -> Iterator[Generated]:
    """What follows each prompt, in the order of the prompts, each as soon as it and all before it are there.

    A text is what `generate` makes of its prompt, settings and key alone. The prompts are read as
    slots become free, about slots.count ahead of that, and texts that wait for an earlier one are
    kept on the host.

    Args:
      step, start: see `contract`; hashable, the same objects from call to call.
      eos, pad, pieces: as in `generate`; settings with stop strings need pieces.

    Yields: NumPy arrays, tokens int32[max_new_tokens] and so on: `Generated` without its first axis.

    Raises: ValueError naming the prompt that is empty, wider than slots.widths, or whose settings
      have other shapes than the first one's.
    """
    program = Program(step, start, slots.max_new_tokens, slots.alternatives, slots.sharding)
    constants = (jnp.asarray(eos, jnp.int32).reshape(-1), jnp.asarray(pad, jnp.int32), pieces)
    source = _checked(prompts, slots, pieces)
    ahead: deque[tuple[int, Prompt]] = deque(islice(source, slots.count))
    if not ahead:
        return
    capacity = slots.capacity(ahead[0][1])
    held = _empty(program, params, slots, capacity, ahead[0][1], constants)
    under_way: dict[int, int] = {}  # slot: number of its prompt
    ready: dict[int, Generated] = {}
    number = 0
    while ahead or under_way:
        free = [slot for slot in range(slots.count) if slot not in under_way]
        taken = [ahead.popleft() for _ in range(min(len(free), len(ahead)))]
        needed = max((slots.capacity(prompt) for _, prompt in taken), default=0)
        if needed > capacity:
            held, capacity = (held[0], _grown(program, held[1], needed), held[2]), needed
        for batch in _batches(taken, slots):
            rows = [free.pop() for _ in batch]
            held = _refill(program, params, *held, np.asarray(rows, np.int32), *_joined(batch, slots), *constants)
            under_way.update(zip(rows, (index for index, _ in batch), strict=True))
        logits, state = sample.advance(step, params, *held[:2], held[2], ends=np.int32(1))
        held = logits, state, held[2]
        # What the host has to do is done while the segment runs.
        ahead.extend(islice(source, slots.count - len(ahead)))
        ready = {index: jax.device_get(row) for index, row in ready.items()}
        while number in ready:
            yield ready.pop(number)
            number += 1
        ended = np.asarray(state.ended)
        for slot in [slot for slot in under_way if ended[slot]]:
            ready[under_way.pop(slot)] = _row(state.written, np.int32(slot))
    for index in sorted(ready):
        yield jax.device_get(ready[index])


def _checked(prompts: Iterable[Prompt], slots: Slots, pieces: Pieces | None) -> Iterator[tuple[int, Prompt]]:
    """The numbered prompts; ValueError at one that does not fit."""
    shapes = None
    for index, prompt in enumerate(prompts):
        name, length = prompt.name or f"prompt {index}", len(prompt.tokens)
        if not 1 <= length <= slots.widths[-1]:
            raise ValueError(f"{name} has {length} tokens, expected 1 to {slots.widths[-1]} (the widest of the slots); "
                             + ("shorten it or make the slots wider." if length else "it needs a start token."))
        found = [np.shape(array) for array in jax.tree.leaves(prompt.settings)]
        shapes = found if shapes is None else shapes
        if found != shapes or found[0] != (1,):
            raise ValueError(f"{name} has settings of shapes {found}, expected one row and the first prompt's "
                             f"{shapes}; give every prompt lists (bad_words, forced, stop) of the same bucket.")
        if pieces is None and np.any(prompt.settings.stop_ends):
            raise ValueError(f"{name} has stop strings, which need the bytes of the tokens; pass "
                             "pieces=decode.pieces(decode.token_bytes(tokenizer)).")
        yield index, prompt


def _batches(taken: Sequence[tuple[int, Prompt]], slots: Slots) -> Iterator[list[tuple[int, Prompt]]]:
    """Prompts of one width and shape of inputs together, as many as a size in slots.refills."""
    alike: dict[Any, list[tuple[int, Prompt]]] = {}
    for index, prompt in taken:
        shapes = tuple((name, np.shape(array)) for name, array in (prompt.inputs or {}).items())
        alike.setdefault((slots.width(prompt), shapes), []).append((index, prompt))
    for group in alike.values():
        while group:
            size = max(size for size in slots.refills if size <= len(group))
            yield group[:size]
            group = group[size:]


def _joined(batch: Sequence[tuple[int, Prompt]], slots: Slots) -> tuple[Any, ...]:
    """(tokens int32[R, T], lengths int32[R], inputs, settings, keys) of R prompts of one width."""
    prompts = [prompt for _, prompt in batch]
    tokens = np.zeros((len(prompts), slots.width(prompts[0])), np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt.tokens)] = prompt.tokens
    lengths = np.asarray([len(prompt.tokens) for prompt in prompts], np.int32)
    settings = jax.tree.map(lambda *rows: np.concatenate(rows), *(prompt.settings for prompt in prompts))
    keys = np.stack([np.asarray(prompt.key, np.uint32) for prompt in prompts])
    inputs = None
    if prompts[0].inputs is not None:
        inputs = {name: np.stack([prompt.inputs[name] for prompt in prompts if prompt.inputs])
                  for name in prompts[0].inputs}
    return tokens, lengths, inputs, settings, keys


def _empty(program: Program, params: Any, slots: Slots, capacity: int, first: Prompt, constants: tuple[Any, ...]
           ) -> tuple[jax.Array, State, Request]:
    """Slots in which nothing is under way: of the shapes that slots.count of the widest prompts would have, and
    with a cache of this capacity."""
    settings = jax.tree.map(lambda array: _many(array[0], slots), first.settings)
    tokens, lengths, keys = (_many(np.zeros(shape, kind), slots) for shape, kind in (
        (slots.widths[-1], np.int32), ((), np.int32), (2, np.uint32)))
    logits, state, request = _read.eval_shape(
        program, params, tokens, lengths, slots.widths[-1], _inputs(slots), settings, keys, *constants)
    parts = (logits, dataclasses.replace(state, cache=None), dataclasses.replace(request, eos=None, pieces=None))
    logits, state, request = _zeros_of(parts, program)
    cache = _zeros_of(_cache.eval_shape(program, params, slots.count, capacity, _inputs(slots)), program)
    state = dataclasses.replace(state, ended=~state.ended, cache=cache)
    return logits, state, dataclasses.replace(request, eos=constants[0], pieces=constants[2])


def _inputs(slots: Slots) -> dict[str, jax.ShapeDtypeStruct] | None:
    return None if slots.inputs is None else {name: _many(array, slots) for name, array in slots.inputs.items()}


def _many(array: Any, slots: Slots) -> jax.ShapeDtypeStruct:
    """The shape of one such array a slot."""
    return jax.ShapeDtypeStruct((slots.count, *np.shape(array)), array.dtype)


def _zeros_of(shapes: Any, program: Program) -> Any:
    leaves, structure = jax.tree.flatten(shapes)
    return jax.tree.unflatten(structure, _zeros(tuple(leaves), program.sharding))


@partial(jax.jit, static_argnames=("shapes", "sharding"))
def _zeros(shapes: tuple[jax.ShapeDtypeStruct, ...], sharding: jax.sharding.Sharding | None) -> list[jax.Array]:
    return _laid_out([jnp.zeros(leaf.shape, leaf.dtype) for leaf in shapes], sharding)


def _laid_out(tree: Any, sharding: jax.sharding.Sharding | None) -> Any:
    """The tree of [B, ...] where its rows belong, so that every program finds it as the last left it."""
    if sharding is None:
        return tree
    return jax.tree.map(lambda array: jax.lax.with_sharding_constraint(array, sharding), tree)


@partial(jax.jit, static_argnames=("program",), donate_argnames=("logits", "state"))
def _refill(program: Program, params: Any, logits: jax.Array, state: State, request: Request, rows: jax.Array,
            tokens: jax.Array, lengths: jax.Array, inputs: Any, settings: Settings, keys: jax.Array,
            eos: jax.Array, pad: jax.Array, pieces: Pieces | None) -> tuple[jax.Array, State, Request]:
    """Reads R prompts and gives them the slots int32[R]."""
    new_logits, new_state, new_request = program.read(params, tokens, lengths, tokens.shape[1], inputs, settings,
                                                      keys, eos, pad, pieces)
    placed = (sample.put(logits, rows, new_logits), state.place(rows, new_state), request.place(rows, new_request))
    return (*_laid_out(placed[:2], program.sharding), placed[2])


@partial(jax.jit, static_argnames=("program", "capacity"))
def _grown(program: Program, state: State, capacity: int) -> State:
    """The same texts under way in a larger cache."""
    return dataclasses.replace(state, cache=_laid_out(state.cache.grow(capacity), program.sharding))


@jax.jit
def _row(written: Generated, slot: jax.Array) -> Generated:
    return jax.tree.map(lambda array: array[slot], written)
