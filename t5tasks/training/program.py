# SPDX-License-Identifier: Apache-2.0
"""The text of a compiled program (HLO) in; what it moves through memory and between devices out.

XLA's own cost analysis counts the body of a loop once. Here each instruction counts as often as the loops around it
run: a loop that counts up to a constant, as `jax.lax.scan` makes them, runs that often, any other one is taken once.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator

SIZES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4,
         "s64": 8, "u64": 8, "f64": 8, "c64": 8, "f8e4m3fn": 1, "f8e5m2": 1, "s4": 0.5, "u4": 0.5}
COLLECTIVES = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")
# What moves nothing: names for what is there already, and ends of what its beginning has counted.
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call",
        "after-all", "partition-id", "replica-id", "optimization-barrier", "iota"}
COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{\s*$")
INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.+?) ([a-z][\w\-]*)\((.*)$")
ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,<=]*)\](\{[^}]*\})?")
CALLED = re.compile(r"(calls|to_apply|body|condition|branch_computations|called_computations)="
                    r"(?:\{([^}]*)\}|%?([\w.\-]+))")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    kind: str
    opcode: str
    inside: str  # what stands in its parentheses
    rest: str  # and what after them

    @property
    def operands(self) -> list[str]:
        """Names of what it works on."""
        return re.findall(r"%([\w.\-]+)", self.inside)

    def called(self) -> Iterator[tuple[str, str]]:
        """Computations that it names, each with the part it has in it (`body`, `calls`, ...)."""
        for part, several, one in CALLED.findall(self.rest):
            for name in several.split(",") if several else (one,):
                yield part, name.strip().lstrip("%")


Program = dict[str, dict[str, Instruction]]  # computation → name → instruction


@dataclasses.dataclass(frozen=True)
class Traffic:
    """What one run of a program moves.

    Attributes:
      memory: bytes read from and written to each device's memory.
      collectives: by their opcode, how often they run, bytes of their results on a device, and bytes that a device
        sends if they go around a ring.
    """

    memory: float
    collectives: dict[str, tuple[int, float, float]]

    @property
    def sent(self) -> float:
        """Bytes that a device sends."""
        return sum(sent for _, _, sent in self.collectives.values())


def traffic(text: str, devices: int) -> Traffic:
    """Reads a compiled program.

    Args:
      text: `jax.stages.Compiled.as_text()`.
      devices: that it runs on, for collectives which name no groups.
    """
    program, entry = read(text)
    fused = {name for lines in program.values() for line in lines.values()
             for part, name in line.called() if line.opcode == "fusion" or part == "to_apply"}
    memory, moved = 0.0, dict[str, tuple[int, float, float]]()
    for name, times in _times(program, entry).items():
        for line in program[name].values():
            opcode = line.opcode.removesuffix("-start")
            if opcode in COLLECTIVES:
                if "all-reduce-scatter" in name:  # how TPU programs write a sum of which each device keeps a part
                    opcode = "reduce-scatter"
                size = _result(line, program[name])
                count, total, sent = moved.get(opcode, (0, 0.0, 0.0))
                group = _group(line, devices)
                size /= group if opcode != line.opcode.removesuffix("-start") else 1
                moved[opcode] = (count + times, total + times * size, sent + times * size * _sent(opcode, group))
            if name not in fused:
                memory += times * _touched(line, program, program[name])
    return Traffic(memory, moved)


def read(text: str) -> tuple[Program, str]:
    """The computations of a program's text, and the name of the one that it begins with."""
    program: Program = {}
    current: dict[str, Instruction] = {}
    entry = ""
    for line in text.splitlines():
        if (begun := COMPUTATION.match(line)) and " = " not in line:
            current = program.setdefault(begun[2], {})
            entry = begun[2] if begun[1] else entry
            continue
        if found := INSTRUCTION.match(line):
            name, kind, opcode, rest = found.groups()
            inside = rest[:_closing(rest)]
            current[name] = Instruction(name, kind, opcode, inside, rest[len(inside):])
    return program, entry


def _closing(text: str) -> int:
    depth = 0
    for place, sign in enumerate(text):
        depth += (sign == "(") - (sign == ")")
        if depth < 0:
            return place
    return len(text)


def _times(program: Program, entry: str) -> dict[str, int]:
    """How often each computation runs in one run of the program."""
    times: dict[str, int] = collections.defaultdict(int)

    def visit(name: str, often: int) -> None:
        times[name] += often
        for line in program[name].values():
            for part, called in line.called():
                if called in program:
                    visit(called, often * (_trips(line, program) if part == "body" else 1))

    visit(entry, 1)
    return times


def _trips(loop: Instruction, program: Program) -> int:
    """How often a loop runs whose condition compares a counter from 0 with one constant; else 1."""
    condition = next(name for part, name in loop.called() if part == "condition")
    lines = program[condition].values()
    limits = [int(line.inside) for line in lines if line.opcode == "constant" and line.inside.isdigit()]
    return limits[0] if len(limits) == 1 else 1


def _bytes(kind: str, near: bool = False) -> float:
    """Bytes of all arrays of a type; with `near`, also of those that do not lie in the device's large memory."""
    total = 0.0
    for dtype, dims, layout in ARRAY.findall(kind):
        if dtype in SIZES and (near or not re.search(r"S\([1-9]", layout)):
            total += SIZES[dtype] * math.prod(int(re.sub(r"\D", "", size)) for size in dims.split(",") if size)
    return total


def _result(line: Instruction, near: dict[str, Instruction]) -> float:
    """Bytes of a collective's result; its beginning holds the operands too."""
    size = _bytes(line.kind, near=True)
    if line.opcode.endswith("-start") and line.kind.startswith("("):
        operands = sum(_bytes(near[name].kind, near=True) for name in line.operands if name in near)
        size = size - operands if size > operands else size
    return size


def _group(line: Instruction, devices: int) -> int:
    """How many devices take part together."""
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", line.rest):
        return listed[1].count(",") + 1
    if counted := re.search(r"replica_groups=\[(\d+),(\d+)\]", line.rest):
        return int(counted[2])
    if meshed := re.search(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}", line.rest):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", meshed[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", meshed[2]))
    return devices


def _sent(opcode: str, group: int) -> float:
    """Bytes that a device sends for each byte of its result, around a ring (arxiv.org/abs/1802.05799)."""
    share = (group - 1) / group
    return {"all-gather": share, "reduce-scatter": group - 1, "all-reduce": 2 * share, "all-to-all": share,
            "collective-permute": 1.0}[opcode]


def _touched(line: Instruction, program: Program, here: dict[str, Instruction]) -> float:
    """Bytes that an instruction reads and writes; of what it only cuts from or writes into, that part alone."""
    if line.opcode in FREE or line.opcode.endswith(("-done", "-update")):
        return 0.0
    sizes = [_bytes(here[name].kind) if name in here else 0.0 for name in line.operands]
    written = _bytes(line.kind)
    if line.opcode.endswith("-start"):
        return sum(sizes) + max(written - sum(sizes), 0.0)
    if line.opcode == "fusion" and (inside := _inside(line, program)):
        read = sum(_read(name, inside, program) for name in _parameters(inside))
        return read + max(written - _kept(inside, program), 0.0)
    if line.opcode in ("dynamic-slice", "slice"):
        return 2 * written
    if line.opcode == "dynamic-update-slice" and len(sizes) > 1:
        return 2 * sizes[1]
    return sum(sizes) + written


def _inside(fusion: Instruction, program: Program) -> dict[str, Instruction]:
    """The computation of a fusion."""
    return next((program[name] for part, name in fusion.called() if part == "calls" and name in program), {})


def _parameters(lines: dict[str, Instruction]) -> list[str]:
    """Names of a computation's parameters, in their order."""
    found = [line for line in lines.values() if line.opcode == "parameter"]
    return [line.name for line in sorted(found, key=lambda line: int(line.inside))]


def _read(name: str, lines: dict[str, Instruction], program: Program) -> float:
    """Bytes of a value that a fusion reads: of what it only cuts slices from, these; of what it writes into, none."""
    whole, total = _bytes(lines[name].kind), 0.0
    for user in lines.values():
        operands = user.operands
        if name not in operands:
            continue
        if user.opcode == "bitcast":
            total += _read(user.name, lines, program)
        elif user.opcode == "dynamic-slice":
            total += _bytes(user.kind, near=True)
        elif user.opcode == "fusion" and (nested := _inside(user, program)):
            parameters = _parameters(nested)
            total += sum(_read(parameters[place], nested, program)
                         for place, operand in enumerate(operands) if operand == name)
        elif user.opcode != "dynamic-update-slice" or operands[0] != name:
            return whole
    return min(total, whole)


def _kept(lines: dict[str, Instruction], program: Program) -> float:
    """Bytes of a fusion's results that it leaves as they were, around the slices that it writes."""
    total = 0.0
    for line in lines.values():
        if line.opcode == "dynamic-update-slice" and line.operands[1] in lines:
            total += max(_bytes(line.kind) - _bytes(lines[line.operands[1]].kind, near=True), 0.0)
        elif line.opcode == "fusion":
            total += _kept(_inside(line, program), program)
    return total
