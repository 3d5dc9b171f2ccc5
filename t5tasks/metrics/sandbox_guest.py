# SPDX-License-Identifier: Apache-2.0
"""A role comes in, `program` or `judge`; the judge's verdict on the program's tests goes out, as JSON.

`sandbox.py` starts this file twice, each in a box of its own that holds nothing else. The program's process never
sees a test: it is asked to call this, for the attribute of that. The judge's process holds the tests and makes every
comparison in them:

    judge     assert add([1, 2], 3) == [4, 5]     ["ask", "call", ["yours", 0], [["list", [1, 2]], 3], …]  →
    program   ["value", ["list", [4, 5]]]  →     [4, 5] == [4, 5], both plain lists made by the judge

What crosses is JSON. None, numbers, texts, bytes, lists, tuples, sets, dicts and the types of `MADE` cross by
content, and arrive as objects of exactly those types. What else the program answers (an instance, a generator, a
class) stays there, and the judge has a `Remote` of it. A Remote knows no arithmetic and no order, and compares equal
only to what it is in plain data, so no method of the program's ever meets an expected value. So whatever a program
does to its own process, it can only change what it answers to calls; which every program may.

What cannot be carried: instances of the tests' own classes as arguments (the verdict says so, `refused`), and that
an answer is the very object that was passed. Arguments changed in place are changed in the judge too.

It runs under any Python from 3.8 and needs nothing installed.
"""

from __future__ import annotations

import builtins
import importlib
import json
import os
import resource
import sys
import types
from collections.abc import Callable
from typing import Any

MESSAGE_LIMIT = 1 << 25  # bytes
EXACT_INT = 1 << 53  # larger ones cross in hexadecimal, which has no limit of digits
PROGRAM = "program"  # the name of the program's module
SEQUENCES = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
# Types that cross as what they are made from.
MADE: dict[str, Callable[[Any], list[Any]]] = {
    "builtins.bytes": lambda v: [list(v)],
    "builtins.bytearray": lambda v: [list(v)],
    "builtins.complex": lambda v: [v.real, v.imag],
    "builtins.range": lambda v: [v.start, v.stop, v.step],
    "builtins.slice": lambda v: [v.start, v.stop, v.step],
    "collections.Counter": lambda v: [dict(v)],
    "collections.OrderedDict": lambda v: [list(v.items())],
    "collections.deque": lambda v: [list(v), v.maxlen],
    "datetime.date": lambda v: [v.year, v.month, v.day],
    "datetime.timedelta": lambda v: [v.days, v.seconds, v.microseconds],
    "decimal.Decimal": lambda v: [str(v)],
    "fractions.Fraction": lambda v: [v.numerator, v.denominator],
}
# What an instance of a subclass of these is in plain data.
PLAIN: tuple[Any, ...] = (int, float, complex, str, bytes, bytearray, tuple, list, set, frozenset, dict)


class Ended(BaseException):
    """The program's process is gone, or says what is no message: no test of it can pass any more."""


class Uncarried(BaseException):
    """A test passes something that cannot cross."""


class Carrier:
    """One end of the pipe between judge and program: values to messages, questions to answers."""

    def __init__(self, reader: int, writer: int) -> None:
        self._reader, self._writer = os.fdopen(reader, "rb"), os.fdopen(writer, "wb")
        self.held: list[Any] = []  # what the other end knows by number
        self._places: dict[int, int] = {}
        self.operations: dict[str, Callable[..., Any]] = {}

    def send(self, message: Any) -> None:
        """Writes one message: its length in eight hexadecimal digits, then JSON."""
        content = json.dumps(message).encode()
        try:
            self._writer.write(b"%08x" % len(content) + content)
            self._writer.flush()
        except OSError as error:
            raise Ended("the program's process ended") from error

    def receive(self) -> Any:
        """Reads one message; raises Ended where there is none."""
        try:
            length = int(self._reader.read(8), 16)
            if not 0 <= length <= MESSAGE_LIMIT:
                raise Ended(f"an answer is longer than {MESSAGE_LIMIT} bytes")
            return json.loads(self._reader.read(length))
        except (ValueError, OSError, RecursionError) as error:
            raise Ended("the program's process ended") from error

    def ask(self, operation: str, target: Any, positional: Any = (), named: Any = None) -> Any:
        """Has the other end do something to an object of its; answers its questions meanwhile.

        Raises: what doing it raised there.
        """
        positional, named = list(positional), dict(named or {})
        self.send(["ask", operation, self.pack(target), self.pack(positional), self.pack(named)])
        while True:
            message = self.receive()
            if message[0] == "ask":
                self.send(self.answer(message[1:]))
                continue
            if message[0] == "raised":
                raise self.exception(message)
            if message[2] is not None:  # the arguments, changed in place
                for old, new in zip((positional, named), self.unpack(message[2]), strict=True):
                    merged(old, new)
            return self.unpack(message[1])

    def answer(self, question: Any) -> Any:
        """The reply to the other end's question: a value, or what was raised."""
        try:
            operation, *packed = question
            target, positional, named = map(self.unpack, packed)
            result = self.operations[operation](target, *positional, **named)
            after = [self.pack(positional), self.pack(named)]
            changed = None if after == packed[1:] else ["list", after]
            return ["value", self.pack(result), changed]
        except (Ended, Uncarried):
            raise
        except BaseException as error:
            try:
                return ["raised", self.pack(type(error)), [self.pack(item) for item in error.args]]
            except Exception:
                return ["raised", ["builtin", "Exception"], [f"{type(error).__name__}"]]

    def exception(self, message: Any) -> BaseException:
        """What the other end raised; what would end a process (SystemExit …) as a RuntimeError."""
        kind, arguments = self.unpack(message[1]), [self.unpack(item) for item in message[2]]
        if isinstance(kind, type) and issubclass(kind, Exception):
            try:
                return kind(*arguments)
            except Exception:
                return RuntimeError(kind.__name__)
        return RuntimeError(f"{getattr(kind, '__name__', 'an exception')} in the program")

    def hold(self, value: Any) -> list[Any]:
        """The number by which the other end knows this object."""
        place = self._places.setdefault(id(value), len(self.held))
        if place == len(self.held):
            self.held.append(value)
        return ["mine", place]

    def pack(self, value: Any) -> Any:
        """A value as JSON has it."""
        kind = type(value)
        if value is None or kind in (bool, float, str):
            return value
        if kind is int:
            return value if abs(value) < EXACT_INT else ["int", hex(value)]
        if kind.__name__ in SEQUENCES and kind is SEQUENCES[kind.__name__]:
            return [kind.__name__, [self.pack(item) for item in value]]
        if kind is dict:
            return ["dict", [[self.pack(key), self.pack(item)] for key, item in value.items()]]
        if kind is type({}.keys()):
            return ["keys", [self.pack(item) for item in value]]
        name = f"{kind.__module__}.{kind.__qualname__}"
        if name in MADE:
            return ["made", name, [self.pack(item) for item in MADE[name](value)]]
        if kind in (type, types.BuiltinFunctionType):
            label: str = value.__name__
            if vars(builtins).get(label) is value:
                return ["builtin", label]
        return self.pack_object(value)

    def unpack(self, data: Any) -> Any:
        """The inverse of `pack`."""
        if not isinstance(data, list):
            return data
        kind, *rest = data
        if kind == "int":
            return int(rest[0], 16)
        if kind in SEQUENCES:
            return SEQUENCES[kind](self.unpack(item) for item in rest[0])
        if kind == "dict":
            return {self.unpack(key): self.unpack(item) for key, item in rest[0]}
        if kind == "keys":
            return dict.fromkeys(self.unpack(item) for item in rest[0]).keys()
        if kind == "made" and rest[0] in MADE:
            module, _, name = rest[0].rpartition(".")
            return getattr(importlib.import_module(module), name)(*(self.unpack(item) for item in rest[1]))
        if kind == "builtin":
            return self.builtin(rest[0])
        if kind == "yours":
            return self.held[rest[0]]
        return self.unpack_object(kind, rest)

    def builtin(self, name: str) -> Any:
        return getattr(builtins, name)

    def pack_object(self, value: Any) -> Any:
        raise NotImplementedError

    def unpack_object(self, kind: str, rest: list[Any]) -> Any:
        raise NotImplementedError


class Program(Carrier):
    """The program's end."""

    def __init__(self, reader: int, writer: int) -> None:
        super().__init__(reader, writer)
        self.module = types.ModuleType(PROGRAM)
        sys.modules[PROGRAM] = self.module  # dataclasses and pickling look a class's module up
        self.operations = {"call": lambda target, *items, **named: target(*items, **named), "run": self._run,
                           "find": lambda _, name: vars(self.module)[name], "getattr": getattr, "setattr": setattr,
                           "delattr": delattr, "iter": iter, "next": next, "len": len, "bool": bool, "str": str,
                           "repr": repr, "getitem": lambda target, key: target[key],
                           "setitem": lambda target, key, item: target.__setitem__(key, item),
                           "isinstance": lambda kind, value: isinstance(value, kind), "plain": self._plain}

    def serve(self) -> None:
        """Answers the judge for as long as it asks."""
        self.send("ready")
        while True:
            self.send(self.answer(self.receive()[1:]))

    def _run(self, _: Any, source: str) -> None:
        exec(compile(source, f"{PROGRAM}.py", "exec"), vars(self.module))

    def _plain(self, value: Any) -> Any:
        """[what the object is in plain data], or [] where it is nothing of the kind."""
        return next(([base(value)] for base in PLAIN if isinstance(value, base)), [])

    def pack_object(self, value: Any) -> Any:
        if isinstance(value, Asked):
            return ["yours", value.place]
        if isinstance(value, type) and issubclass(value, BaseException):
            known = next(base for base in value.__mro__ if getattr(builtins, base.__name__, None) is base)
            return ["exception", self.hold(value)[1], value.__name__, known.__name__]
        # A class of the standard library, such as defaultdict, is known by its content; one of the program's has
        # methods that tests may call.
        if type(value).__module__ != PROGRAM and (plain := self._plain(value)):
            return self.pack(plain[0])
        return self.hold(value)

    def unpack_object(self, kind: str, rest: list[Any]) -> Any:
        return Asked(self, rest[0])


class Asked:
    """A function or iterator of the tests', in the program's process."""

    def __init__(self, carrier: Carrier, place: int) -> None:
        self.carrier, self.place = carrier, place

    def __call__(self, *positional: Any, **named: Any) -> Any:
        return self.carrier.ask("call", self, positional, named)

    def __iter__(self) -> Any:
        return self.carrier.ask("iter", self)

    def __next__(self) -> Any:
        return self.carrier.ask("next", self)


class Judge(Carrier):
    """The tests' end."""

    def __init__(self, reader: int, writer: int) -> None:
        super().__init__(reader, writer)
        self.over = ""  # why no test can pass any more
        self._remotes: dict[int, Any] = {}
        self.operations = {"call": lambda target, *items, **named: target(*items, **named), "iter": iter,
                           "next": next}

    def receive(self) -> Any:
        try:
            message = super().receive()
            if message != "ready" and not (isinstance(message, list) and len(message) >= 3):
                raise Ended("the program's process answers with what is no answer")
            return message
        except Ended as error:
            self.over = str(error)
            raise

    def unpack(self, data: Any) -> Any:
        try:
            return super().unpack(data)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
            raise Ended("an answer of the program is no value") from error

    def builtin(self, name: str) -> Any:
        """Types only: a function of the judge's own process is no answer."""
        found = getattr(builtins, name)
        if not isinstance(found, type):
            raise ValueError(name)
        return found

    def pack_object(self, value: Any) -> Any:
        place = vars(value).get("_place") if isinstance(value, (Remote, type)) else None
        if place is not None:
            return ["yours", place]
        if callable(value) or hasattr(value, "__next__"):
            return self.hold(value)
        raise Uncarried(f"a test passes a {type(value).__name__} to the program, which cannot be carried there")

    def unpack_object(self, kind: str, rest: list[Any]) -> Any:
        place = int(rest[0])
        if place not in self._remotes:
            if kind == "exception":
                base = self.builtin(rest[2])
                self._remotes[place] = type(str(rest[1]), (base if issubclass(base, Exception) else Exception,),
                                            {"_place": place})
            elif kind == "mine":
                self._remotes[place] = Remote(self, place)
            else:
                raise ValueError(kind)
        return self._remotes[place]


class Remote:
    """An object of the program's that stays there, as the tests see it."""

    def __init__(self, judge: Judge, place: int) -> None:
        vars(self).update(_judge=judge, _place=place)

    def _ask(self, operation: str, *positional: Any) -> Any:
        return vars(self)["_judge"].ask(operation, self, positional)

    def __call__(self, *positional: Any, **named: Any) -> Any:
        return vars(self)["_judge"].ask("call", self, positional, named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in ("__name__", "__doc__"):
            raise AttributeError(name)
        return self._ask("getattr", name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._ask("setattr", name, value)

    def __delattr__(self, name: str) -> None:
        self._ask("delattr", name)

    def __iter__(self) -> Any:
        return self._ask("iter")

    def __next__(self) -> Any:
        return self._ask("next")

    def __len__(self) -> int:
        return self._ask("len")

    def __bool__(self) -> bool:
        return self._ask("bool")

    def __str__(self) -> str:
        return self._ask("str")

    def __repr__(self) -> str:
        return self._ask("repr")

    def __getitem__(self, key: Any) -> Any:
        return self._ask("getitem", key)

    def __setitem__(self, key: Any, item: Any) -> None:
        self._ask("setitem", key, item)

    def __instancecheck__(self, instance: Any) -> bool:
        return self._ask("isinstance", instance)

    def __eq__(self, other: Any) -> bool:
        """Whether both are one object, or this one is in plain data what the other is."""
        if isinstance(other, Remote):
            return vars(self)["_place"] == vars(other)["_place"]
        plain = self._ask("plain")
        return bool(plain) and type(plain) is list and not isinstance(plain[0], Remote) and plain[0] == other

    def __hash__(self) -> int:
        plain = self._ask("plain")
        return hash(plain[0]) if plain and type(plain) is list else hash(vars(self)["_place"])


def merged(old: Any, new: Any) -> Any:
    """`old` with the content of `new`, where both are of one type that can be changed; else `new`."""
    if type(old) is not type(new):
        return new
    if isinstance(old, list):
        old[:] = [merged(*pair) for pair in zip(old, new)] + new[len(old):]  # noqa: B905
    elif isinstance(old, dict):
        content = {key: merged(old[key], item) if key in old else item for key, item in new.items()}
        old.clear()
        old.update(content)
    elif isinstance(old, set):
        old.clear()
        old.update(new)
    elif isinstance(old, bytearray):
        old[:] = new
    elif isinstance(old, tuple) and len(old) == len(new):
        return tuple(merged(*pair) for pair in zip(old, new, strict=True))
    else:
        return new
    return old


def verdict(judge: Judge, work: dict[str, Any]) -> dict[str, str]:
    """Runs the tests: {"status": passed, failed, refused or ended, "reason", "exception": its type's name}."""
    namespace: dict[str, Any] = {"__name__": "tests"}
    stage = "the program"
    try:
        judge.ask("run", None, [work["source"]])
        stage = "what the tests need"
        exec(compile(work["before"], "<before>", "exec"), namespace)
        for name in work["names"]:
            stage = f"the program has no {name}"
            namespace[name] = judge.ask("find", None, [name])
        for number, test in enumerate(work["tests"], 1):
            stage = f"test {number}" + ("" if "\n" in test.strip() else f" ({test.strip()[:160]})")
            exec(compile(test, f"<test {number}>", "exec"), namespace)
    except Ended as error:
        return {"status": "ended", "reason": f"{stage}: {error}", "exception": ""}
    except Uncarried as error:
        return {"status": "refused", "reason": f"{stage}: {error}", "exception": ""}
    except BaseException as error:
        try:
            said = f"{stage}: {type(error).__name__}: {error}"
        except BaseException:  # what an exception says may be asked of the program
            said = stage
        return {"status": "failed", "reason": " ".join(said.split())[:300], "exception": type(error).__name__}
    if judge.over:  # a test's own `except:` may have hidden it
        return {"status": "ended", "reason": judge.over, "exception": ""}
    return {"status": "passed", "reason": "", "exception": ""}


def limit(limits: dict[str, int]) -> None:
    """Sets limits of this process and its children that nothing in the box can raise."""
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value + 1 if name == "CPU" else value))


def main(role: str, limits: str, *pipes: str) -> None:
    """Takes the standard pipes for messages, so that nothing printed comes between them."""
    limit(json.loads(limits))
    reader, writer, nothing = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    if role == PROGRAM:
        Program(reader, writer).serve()
    host = Carrier(reader, writer)
    judge = Judge(*map(int, pipes))
    host.send(judge.receive())  # ready
    host.send(verdict(judge, host.receive()))


if __name__ == "__main__":
    main(*sys.argv[1:])
