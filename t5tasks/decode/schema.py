# SPDX-License-Identifier: Apache-2.0
r"""From a JSON schema to a regular expression of JSON texts, every one of which is valid under it.

    {"type": "object",                            \{"name": ?"..."(, ?"age": ?...)?\}
     "properties": {"name": {"type": "string"},
                    "age": {"type": "integer"}},
     "required": ["name"]}

A text is written in one line, the keys in the schema's order and no others, with a space or none
after a comma and a colon. What a finite automaton cannot keep (recursion, bounds of numbers, unique
items, anything at all) is an error: the translators at hand (outlines-core 0.2.14) pass over such
parts, so that their texts parse but do not satisfy the schema, or do not parse. A number has at most 18
digits before its point: Python's json reads no more than 4,300.
"""

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

CHARACTER = r'(?:[^"\\\x00-\x1f]|\\["\\/bfnrt])'
INTEGER = "-?(?:0|[1-9][0-9]{0,17})"
SPACE = " ?"
_DAY = "(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
_DATE = f"[1-9][0-9]{{3}}-{_DAY}"  # but 29 February, which would have to know the year
_HOUR = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = rf"{_HOUR}:[0-5][0-9](?:\.[0-9]{{1,6}})?(?:Z|[+-]{_HOUR})"
FORMATS = {"date": _DATE, "time": _TIME, "date-time": f"{_DATE}T{_TIME}",
           "uuid": "-".join(f"[0-9a-f]{{{size}}}" for size in (8, 4, 4, 4, 12))}  # RFC 3339, RFC 9562
SCALARS = {"integer": INTEGER, "number": rf"{INTEGER}(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{{1,3}})?",
           "boolean": "(?:true|false)", "null": "null"}
# The keywords that are kept, by the type that they speak of; the others of a type are errors.
KEPT = {"string": {"minLength", "maxLength", "pattern", "format"}, "array": {"items", "minItems", "maxItems"},
        "object": {"properties", "required", "additionalProperties"}, **dict.fromkeys(SCALARS, frozenset[str]())}
REMARKS = {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$schema", "$id",
           "$comment", "$defs", "definitions"}


def pattern(schema: str | dict[str, Any], inside_string: Callable[[str], str | None]) -> str:
    """The regular expression of a schema, an object or its JSON text.

    Kept are type (one or several), enum, const, anyOf, $ref to a definition that does not lead back
    to itself, and for each type the keywords in KEPT. A `pattern` has to match the whole string,
    `additionalProperties` speaks only where there are no `properties`.

    Args: inside_string: the pattern of a string to put between quotes, None for one that could not stand there.
    Raises: ValueError naming the place and the part that is not JSON, unknown or cannot be kept.
    """
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except json.JSONDecodeError as error:
            raise ValueError(f"the JSON schema is no JSON: {error}.") from error
    return _Translator(schema, inside_string).of(schema, "#", ())


class _Translator:
    def __init__(self, root: Any, inside_string: Callable[[str], str | None]) -> None:
        self._root, self._inside_string = root, inside_string

    def of(self, schema: Any, place: str, references: tuple[str, ...]) -> str:
        """The expression of a part of the schema, which stands as one unit."""
        if not isinstance(schema, dict):
            raise ValueError(f"JSON schema {place}: {schema!r} says nothing that can be kept; expected an object.")
        for word in ("$ref", "enum", "const", "anyOf"):
            if word in schema:
                self._refuse_others(schema, {word} | ({"type"} if word in ("enum", "const") else set()), place)
        if "$ref" in schema:
            return self._reference(schema["$ref"], place, references)
        if "anyOf" in schema:
            return _either(self.of(part, f"{place}/anyOf/{number}", references)
                           for number, part in enumerate(_listed(schema, "anyOf", place)))
        if "enum" in schema or "const" in schema:
            values = _listed(schema, "enum", place) if "enum" in schema else [schema["const"]]
            return _either(_value(value) for value in self._typed(values, schema.get("type"), place))
        types = schema.get("type")
        types = types if isinstance(types, list) else [types]
        if unknown := [kind for kind in types if not isinstance(kind, str) or kind not in KEPT]:
            raise ValueError(f"JSON schema {place}: its type is {unknown[0]!r}, expected one of {', '.join(KEPT)} "
                             "(a text of any type cannot be kept).")
        self._refuse_others(schema, {"type"}.union(*(KEPT[kind] for kind in types)), place)
        return _either(self._of_type(kind, schema, place, references) for kind in types)

    def _refuse_others(self, schema: dict[str, Any], kept: set[str], place: str) -> None:
        if others := [word for word in schema if word not in kept | REMARKS]:
            advice = "; say anyOf" if others[0] == "oneOf" else ""
            raise ValueError(f"JSON schema {place}: {others[0]!r} cannot be kept here{advice} (kept are "
                             f"{', '.join(sorted(kept))}).")

    def _typed(self, values: list[Any], types: Any, place: str) -> list[Any]:
        """The values that have one of the types."""
        kinds = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
        wanted = types if isinstance(types, list) else [types]
        fitting = [value for value in values if types is None or (name := kinds.get(type(value), "null")) in wanted
                   or (name == "integer" and "number" in wanted)]
        if not fitting:
            raise ValueError(f"JSON schema {place}: none of its values is of type {types}.")
        return fitting

    def _reference(self, name: Any, place: str, references: tuple[str, ...]) -> str:
        if name in references:
            raise ValueError(f"JSON schema {place}: $ref {name!r} leads back to itself, which a finite automaton "
                             "cannot keep; write out as many levels as are needed.")
        target: Any = self._root
        for step in str(name).split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            target = target.get(step) if isinstance(target, dict) else None
        if not str(name).startswith("#") or target is None:
            raise ValueError(f"JSON schema {place}: $ref {name!r} names nothing in the schema.")
        return self.of(target, str(name), (*references, name))

    def _of_type(self, kind: str, schema: dict[str, Any], place: str, references: tuple[str, ...]) -> str:
        if kind in SCALARS:
            return SCALARS[kind]
        if kind == "string":
            return self._string(schema, place)
        if kind == "object":
            return self._object(schema, place, references)
        item = self.of(schema.get("items"), f"{place}/items", references)
        least, most = _bounds(schema, "minItems", "maxItems", place)
        return rf"\[{_repeated(item, least, most)}\]"

    def _string(self, schema: dict[str, Any], place: str) -> str:
        least, most = _bounds(schema, "minLength", "maxLength", place)
        given = [word for word in ("pattern", "format") if word in schema] + ["a length"] * ((least, most) != (0, None))
        if len(given) > 1:
            raise ValueError(f"JSON schema {place}: {' and '.join(given)} cannot be kept together.")
        if "format" in schema:
            if schema["format"] not in FORMATS:
                raise ValueError(f"JSON schema {place}: format {schema['format']!r} cannot be kept, expected one of "
                                 f"{', '.join(FORMATS)}; or give a pattern.")
            return f'"{FORMATS[schema["format"]]}"'
        if "pattern" in schema:
            inside = self._inside_string(str(schema["pattern"]))
            if inside is None:
                raise ValueError(f"JSON schema {place}: pattern {schema['pattern']!r} allows a quote, a backslash or a "
                                 "control character, which would break the string; use classes without them.")
            return f'"(?:{inside})"'
        return f'"{CHARACTER}{{{least},{"" if most is None else most}}}"'

    def _object(self, schema: dict[str, Any], place: str, references: tuple[str, ...]) -> str:
        properties, required = schema.get("properties"), schema.get("required", [])
        if properties is None:
            value = schema.get("additionalProperties")
            if value is False and not required:
                return r"\{\}"
            if not isinstance(value, dict) or required:
                raise ValueError(f"JSON schema {place}: an object of any keys cannot be kept; name its properties, "
                                 "or give the schema of all its values as additionalProperties.")
            inner = self.of(value, f"{place}/additionalProperties", references)
            member = f'"{CHARACTER}*":{SPACE}{inner}'
            return rf"\{{{_repeated(member, 0, None)}\}}"
        if missing := [name for name in required if name not in properties]:
            raise ValueError(f"JSON schema {place}: {missing[0]!r} is required and not among its properties.")
        members = [(f"{_literal(name)}:{SPACE}{self.of(part, f'{place}/properties/{name}', references)}",
                    name in required) for name, part in properties.items()]
        return rf"\{{{_members(members)}\}}"


def _members(members: list[tuple[str, bool]]) -> str:
    """Members in their order, those that are not required present or not, commas between.

    One that is first has no comma before it, which is the first required or any optional one before:

        a? b? C d?   (a(, b)?, C | b, C | C)(, d)?
    """
    firsts = next((number + 1 for number, (_, required) in enumerate(members) if required), len(members))
    following = [f"(?:,{SPACE}{text})" + ("" if required else "?") for text, required in members]
    ways = [members[number][0] + "".join(following[number + 1:]) for number in range(firsts)]
    needed = any(required for _, required in members)
    return _either(ways) + ("" if needed else "?") if ways else ""


def _repeated(item: str, least: int, most: int | None) -> str:
    """`item` so many times, commas between."""
    if most == 0:
        return ""
    more = f"{{{max(least - 1, 0)},{'' if most is None else most - 1}}}"
    some = f"(?:{item}(?:,{SPACE}{item}){more})"
    return some if least else f"{some}?"


def _bounds(schema: dict[str, Any], least: str, most: str, place: str) -> tuple[int, int | None]:
    low, high = schema.get(least, 0), schema.get(most)
    for name, value in ((least, low), (most, 0 if high is None else high)):
        if not isinstance(value, int) or value < 0:
            raise ValueError(f"JSON schema {place}: {name} is {value!r}, expected a whole number from 0.")
    if high is not None and high < low:
        raise ValueError(f"JSON schema {place}: {most} {high} is below {least} {low}.")
    return low, high


def _listed(schema: dict[str, Any], word: str, place: str) -> list[Any]:
    if not isinstance(schema[word], list) or not schema[word]:
        raise ValueError(f"JSON schema {place}: {word} is {schema[word]!r}, expected a list that is not empty.")
    return schema[word]


def _value(value: Any) -> str:
    """One JSON value, spaces as `json.dumps` writes them or none."""
    if isinstance(value, dict):
        members = (f"{_literal(key)}:{SPACE}{_value(inner)}" for key, inner in value.items())
        return rf"\{{{f',{SPACE}'.join(members)}\}}"
    if isinstance(value, list):
        return r"\[" + f",{SPACE}".join(map(_value, value)) + r"\]"
    return _literal(value)


def _literal(value: Any) -> str:
    return re.escape(json.dumps(value, ensure_ascii=False))


def _either(ways: Iterable[str]) -> str:
    return f"(?:{'|'.join(ways)})"
