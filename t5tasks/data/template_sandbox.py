# SPDX-License-Identifier: Apache-2.0
"""The text of a chat template comes in; a template that can do nothing but write text goes out.

A template is code that came with a checkpoint. It runs in jinja2's immutable sandbox, with what
transformers gives a chat template (the same switches, `raise_exception`, `strftime_now`, `tojson`,
`break` and `continue`, `generation` blocks) and on a budget that it cannot get round:

    costs 20    each turn of a loop, call of a macro, call of a function or filter
    costs 4     each item of a list that is looked at
    costs n     what makes n characters or items: + * % ~, lists, output, join, replace, format …

so a template that loops for ever, or doubles a text until memory ends, is an error within seconds.
There are no files, no imports, no attributes with an underscore, no other names.
"""

import contextvars
import dataclasses
import datetime
import functools
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox
import jinja2.utils

LONGEST_TEMPLATE = 1_000_000  # characters; the longest that are in use have about 20,000
BUDGET = 10_000_000  # and 50 for each character of the dialogue
SECONDS = 10.0  # of this thread's processor: for what is slow within one step
STEP = 20
LOOK = 4
CLOCK = 64  # payments between two looks at the clock
LARGEST_INTEGER = 4096  # bits


@dataclasses.dataclass
class Budget:
    """What a rendering may still spend, and the signs it puts round a generation block."""

    left: int
    until: float
    block: tuple[str, str] = ("", "")
    payments: int = 0

    def spend(self, amount: int) -> None:
        """Takes from the budget; raises jinja2.TemplateError when nothing is left."""
        self.left -= amount
        self.payments += 1
        late = self.payments % CLOCK == 0 and time.thread_time() > self.until
        if self.left < 0 or late:
            raise jinja2.TemplateError("it runs for too long or makes too much text")


_current: contextvars.ContextVar[Budget | None] = contextvars.ContextVar("budget", default=None)


def _spend(amount: int) -> None:
    budget = _current.get()
    if budget is not None:
        budget.spend(amount)


def compiled(source: str) -> jinja2.Template:
    """Returns the template; raises ValueError with the line where it is not one."""
    if len(source) > LONGEST_TEMPLATE:
        raise ValueError(f"the chat template has {len(source)} characters: the most are {LONGEST_TEMPLATE}")
    try:
        return _environment().from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise ValueError(f"the chat template cannot be read, line {error.lineno}: {_line(error)}") from error
    except (jinja2.TemplateError, RecursionError, MemoryError, ArithmeticError, TypeError, ValueError) as error:
        raise ValueError(f"the chat template cannot be read: {_line(error)}") from error


def literals(source: str) -> str:
    """The texts that a template writes by itself, NUL between them; raises ValueError as `compiled`."""
    compiled(source)
    tree = _environment().parse(source)
    written = {data.data for data in tree.find_all(jinja2.nodes.TemplateData)}
    written |= {node.value for node in tree.find_all(jinja2.nodes.Const) if isinstance(node.value, str)}
    return "\0".join(sorted(written))


def rendered(template: jinja2.Template, values: Mapping[str, Any], block: tuple[str, str] = ("", "")) -> str:
    """Returns what the template writes; `block` stands before and after each generation block.

    Raises ValueError, in one line, for whatever goes wrong in the template and where it spends too much.
    """
    budget = Budget(BUDGET + 50 * weight(list(values.values())), time.thread_time() + SECONDS, block)
    token = _current.set(budget)
    try:
        return template.render(values)
    except Exception as error:  # foreign code: jinja2 lets every exception of an expression through
        raise ValueError(f"the chat template cannot write this dialogue: {_line(error)}") from error
    finally:
        _current.reset(token)


def _line(error: BaseException) -> str:
    message = " ".join(str(error).split()) or type(error).__name__
    return message if len(message) <= 300 else message[:300] + "…"


def weight(value: Any) -> int:
    """Characters and items of a value, inner ones each time that they occur; pays for looking at each item."""
    total, seen, pending = 0, 0, [value]
    while pending:
        item = pending.pop()
        seen += 1
        total += 1 + (len(item) if isinstance(item, str | bytes) else 0)
        if isinstance(item, dict):
            pending += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set | frozenset):
            pending += item
        if seen % CLOCK == 0:
            _spend(CLOCK * LOOK)
    return total


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | bytes | list | tuple | dict | range) else 1


def _numbers(text: str, arguments: Any) -> int:
    """The widths that a format and its arguments ask for."""
    found = [int(number[:9]) for number in re.findall(r"\d+", text)]
    pending, given = [arguments], list[int]()
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending += item.values()
        elif isinstance(item, list | tuple):
            pending += item
        elif isinstance(item, int):
            given.append(min(abs(item), 10**9))
    # An argument is a width only where the format says so.
    return sum(found) + (sum(given) if "*" in text or re.search(r"\{[^{}]*\{", text) else 0)


def _formatting(text: str, arguments: Any) -> int:
    return len(text) + _numbers(text, arguments) + (text.count("%") + text.count("{")) * weight(arguments)


def _replacing(text: str, old: str = "", new: str = "", *_: Any) -> int:
    return len(text) + (text.count(old) if old else len(text) + 1) * len(new)


def _widening(text: Any, *arguments: Any) -> int:
    """What grows with a number it is given, at most on every line."""
    sizes = [abs(one) if isinstance(one, int) else _length(one) for one in arguments]
    return (1 + str(text).count("\n")) * sum(sizes) + _length(text)


def _joining(items: Any, separator: Any = "", *_: Any) -> int:
    return weight(items) + _length(items) * _length(separator)


def _wrapping(text: Any, *arguments: Any) -> int:
    return _length(text) * (1 + sum(_length(one) for one in arguments))


def _as_json(value: Any, *arguments: Any) -> int:
    return weight(value) * (1 + sum(one if isinstance(one, int) else _length(one) for one in arguments))


# What a method of a text, or a filter, costs beyond the length of what it is given.
METHOD_COSTS: dict[str, Callable[..., int]] = {
    "format": lambda text, *given: _formatting(text, given),
    "format_map": lambda text, *given: _formatting(text, given),
    "replace": _replacing,
    "join": lambda separator, items=(): _joining(items, separator),
    "translate": lambda text, table=(): len(text) * weight(table),
    "expandtabs": lambda text, size=8: len(text) * abs(size),
    **dict.fromkeys(("center", "ljust", "rjust", "zfill", "to_bytes"), _widening),
}
FILTER_COSTS: dict[str, Callable[..., int]] = {
    "format": lambda text, *given: _formatting(str(text), given),
    "replace": lambda text, *given: _replacing(str(text), *map(str, given)),
    "join": _joining,
    "tojson": _as_json,
    **dict.fromkeys(("wordwrap", "urlize", "xmlattr"), _wrapping),
    **dict.fromkeys(("center", "indent", "slice", "batch"), _widening),
}


def _charged(function: Callable[..., Any], cost: Callable[..., int] | None) -> Callable[..., Any]:
    """A filter that pays; what jinja2 noted on the function stays on it."""
    first = 1 if hasattr(function, "jinja_pass_arg") else 0

    @functools.wraps(function)
    def paying(*arguments: Any, **named: Any) -> Any:
        value = arguments[first] if len(arguments) > first else ""
        if cost is not None and isinstance(value, Iterator):
            value = list(value)
            arguments = (*arguments[:first], value, *arguments[first + 1:])
        _spend(STEP + _length(value))
        if cost is not None and _current.get() is not None:
            _spend(cost(value, *arguments[first + 1:], *named.values()))
        return function(*arguments, **named)

    return paying


class _Namespace(jinja2.utils.Namespace):
    """jinja2's namespace without names that begin with an underscore, as transformers has it."""

    def __init__(self, *arguments: Any, **values: Any) -> None:
        for name in dict(*arguments, **values):
            _plain(name)
        super().__init__(*arguments, **values)

    def __setitem__(self, name: str, value: Any) -> None:
        _plain(name)
        super().__setitem__(name, value)


def _plain(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.TemplateError(f"a namespace cannot hold the name {name!r}")


class _Generation(jinja2.ext.Extension):
    """The tag by which a template says what the assistant writes: {% generation %} … {% endgeneration %}."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_written"), [], [], body).set_lineno(line)

    def _written(self, caller: Callable[[], str]) -> str:
        budget = _current.get()
        before, after = budget.block if budget is not None else ("", "")
        return before + caller() + after


class _Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def _parse(self, *arguments: Any) -> jinja2.nodes.Template:
        tree = super()._parse(*arguments)
        _meter(tree)
        return tree

    def step(self, characters: int = 0) -> bool:
        """Pays for one turn of a loop that writes so many characters of its own."""
        _spend(STEP + characters)
        return True

    def concatenated(self, *values: Any) -> str:
        """The operator ~."""
        _spend(sum(weight(value) for value in values))
        return "".join(map(str, values))

    def counted(self, value: Any) -> Any:
        """A new list, tuple or dict: what it shares with others counts again."""
        _spend(weight(value))
        return value

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, int) and isinstance(right, int):
            bits = {"**": left.bit_length() * max(right, 1), "*": left.bit_length() + right.bit_length()}
            if bits.get(operator, 0) > LARGEST_INTEGER:
                raise jinja2.TemplateError(f"{operator} makes a number of more than {LARGEST_INTEGER} bits")
        elif operator == "*":
            times = left if isinstance(left, int) else right if isinstance(right, int) else 1
            _spend(max(times, 1) * (weight(left) + weight(right)))
        elif operator == "%" and isinstance(left, str | bytes):
            _spend(_formatting(left if isinstance(left, str) else left.decode("latin-1"), right))
        else:
            _spend(weight(left) + weight(right))
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *arguments: Any, **named: Any) -> Any:
        method = getattr(__obj, "__wrapped__", __obj)
        owner = getattr(method, "__self__", None)
        if isinstance(owner, str | bytes | int):
            cost = METHOD_COSTS.get(getattr(method, "__name__", ""))
            _spend(cost(owner, *arguments, *named.values()) if cost else _length(owner))
        _spend(STEP)
        return super().call(__context, __obj, *arguments, **named)


def _meter(tree: jinja2.nodes.Node) -> None:
    """Puts the payments into the tree: in loops and macros, at ~ and at new lists."""
    for parent in list(_all(tree)):
        if isinstance(parent, jinja2.nodes.For | jinja2.nodes.Macro | jinja2.nodes.CallBlock):
            written = sum(len(data.data) for data in parent.find_all(jinja2.nodes.TemplateData))
            step = _call("step", [jinja2.nodes.Const(written)], parent.lineno)
            parent.body.insert(0, jinja2.nodes.ExprStmt(step, lineno=parent.lineno))
        if isinstance(parent, jinja2.nodes.For) and parent.test is not None:
            parent.test = jinja2.nodes.And(_call("step", [], parent.lineno), parent.test, lineno=parent.lineno)
        for field, value in list(parent.iter_fields()):
            if isinstance(value, list):
                setattr(parent, field, [_paid(one) for one in value])
            elif isinstance(value, jinja2.nodes.Node):
                setattr(parent, field, _paid(value))


def _all(node: jinja2.nodes.Node) -> Iterator[jinja2.nodes.Node]:
    """The node and all below it, the lowest first."""
    for child in node.iter_child_nodes():
        yield from _all(child)
    yield node


def _paid(node: Any) -> Any:
    if isinstance(node, jinja2.nodes.Concat):
        return _call("concatenated", list(node.nodes), node.lineno)
    made = isinstance(node, jinja2.nodes.List | jinja2.nodes.Dict)
    if made or (isinstance(node, jinja2.nodes.Tuple) and node.ctx == "load"):
        return _call("counted", [node], node.lineno)
    return node


def _call(name: str, arguments: list[Any], line: int) -> jinja2.nodes.Call:
    method = jinja2.nodes.EnvironmentAttribute(name, lineno=line)
    return jinja2.nodes.Call(method, arguments, [], None, None, lineno=line)


def _finalised(value: Any) -> Any:
    """What {{ }} writes, paid for."""
    if _current.get() is not None:
        _spend(weight(value))
    return value


def _raise(message: Any) -> None:
    raise jinja2.TemplateError(str(message))


def _now(form: str) -> str:
    return datetime.datetime.now().strftime(str(form)[:200])


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | str | None = None,
             separators: tuple[str, str] | None = None, sort_keys: bool = False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, finalize=_finalised,
                           extensions=[_Generation, jinja2.ext.loopcontrols])
    environment.filters["tojson"] = _to_json
    for name, function in environment.filters.items():
        environment.filters[name] = _charged(function, FILTER_COSTS.get(name))
    del environment.globals["lipsum"]
    environment.globals |= {"raise_exception": _raise, "strftime_now": _now, "namespace": _Namespace}
    return environment
