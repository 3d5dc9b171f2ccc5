# SPDX-License-Identifier: Apache-2.0
"""A source's line comes in; where its records are, and what is done to each of them, go out.

`sources` tells what the line looks like and in which order its edits are done.
"""

import dataclasses
import functools
import json
import pathlib
import urllib.parse
from collections.abc import Iterable, Iterator
from typing import Any

from t5tasks.data import conversions
from t5tasks.data.formats import Located, Record
from t5tasks.data.text_files import nearest

EDITS = ("convert", "columns", "rename", "values", "where", "unless", "skip", "limit")
OPTIONS = {
    "builtin": ("size", "seed", *EDITS),
    "file": ("format", "encoding", "strip_prefix", "images", *EDITS),
    "hub": ("config", "split", *EDITS),
}


@dataclasses.dataclass(frozen=True)
class Spec:
    """A source's line, taken apart: where the records are, and the options after the "?"."""

    line: str
    scheme: str
    place: str
    options: dict[str, str]

    def number(self, name: str, least: int) -> int | None:
        """Returns the option as a whole number, None where it is not given."""
        text = self.options.get(name)
        if text is None:
            return None
        if not text.isdecimal() or int(text) < least:
            raise ValueError(f"{name}={text} in {self.line}: expected a whole number >= {least}")
        return int(text)

    def names(self, name: str) -> list[str]:
        """Returns the option's comma-separated parts, still percent-encoded."""
        text = self.options.get(name, "")
        parts = text.split(",") if text else []
        if len(set(parts)) < len(parts) or not all(parts):
            raise ValueError(f"{name}={text} in {self.line}: a part is empty or stands twice")
        return parts

    def pairs(self, name: str) -> dict[str, str]:
        """Returns the option's parts "field:rest" as {field: rest, still percent-encoded}."""
        pairs: dict[str, str] = {}
        for part in self.names(name):
            field, colon, rest = part.partition(":")
            field = urllib.parse.unquote(field)
            if not (field and colon) or field in pairs:
                raise ValueError(
                    f"{name}={self.options[name]} in {self.line}: expected {name}=field:…, each field once"
                )
            pairs[field] = rest
        return pairs


@dataclasses.dataclass(frozen=True)
class Edits:
    """What is done to every record after reading, as `sources` tells it."""

    convert: str
    where: dict[str, frozenset[str]]
    unless: dict[str, frozenset[str]]
    values: dict[str, dict[str, str]]
    columns: tuple[str, ...]
    rename: dict[str, str]
    skip: int
    limit: int | None

    @functools.cached_property
    def named(self) -> frozenset[str]:
        """The fields that a record must have before it is edited."""
        return frozenset((*self.where, *self.unless, *self.values, *self.columns))

    def keeps(self, record: Record) -> bool:
        """Whether the record is one of those that `where` and `unless` leave."""
        return (all(_text(record[name]) in accepted for name, accepted in self.where.items())
                and not any(_text(record[name]) in refused for name, refused in self.unless.items()))


def parse(line: str) -> tuple[Spec, Edits]:
    """A source's line, taken apart; ValueError for one that names no source or an unknown option."""
    scheme, colon, rest = line.partition(":")
    if not colon or scheme not in OPTIONS:
        raise ValueError(
            f"{line!r} names no source: expected {', '.join(f'{s}:…' for s in OPTIONS)} "
            "(a file's path is written file:PATH)"
        )
    place, _, query = rest.partition("?")
    options: dict[str, str] = {}
    for part in query.split("&") if query else []:
        key, _, value = part.partition("=")
        if key not in OPTIONS[scheme]:
            raise ValueError(f"unknown option {key!r} of {scheme}: in {line}: {nearest(key, OPTIONS[scheme])}")
        if key in options or not value:
            raise ValueError(f"option {key!r} in {line} stands twice or has no value")
        options[key] = value
    if not place:
        expected = {"builtin": "builtin:train", "file": "file:PATH", "hub": "hub:NAME_OR_FOLDER"}
        raise ValueError(f"{line} does not say where: expected {expected[scheme]}")
    spec = Spec(line, scheme, place, options)
    return spec, _edits(spec)


def _edits(spec: Spec) -> Edits:
    unquote = urllib.parse.unquote
    rename = {old: unquote(new) for old, new in spec.pairs("rename").items()}
    if len(set(rename.values())) < len(rename) or not all(rename.values()):
        raise ValueError(
            f"rename={spec.options['rename']} in {spec.line}: two fields would share one name, or a name is empty"
        )
    values: dict[str, dict[str, str]] = {}
    for field, rules in spec.pairs("values").items():
        parts = [rule.partition("=") for rule in rules.split("|")]
        if not all(equals for _, equals, _ in parts):
            raise ValueError(f"values={field}:{rules} in {spec.line}: expected old=new|old=new")
        values[field] = {unquote(old): unquote(new) for old, _, new in parts}
    columns = tuple(unquote(name) for name in spec.names("columns"))
    convert = spec.options.get("convert", "")
    if convert and convert not in conversions.CONVERSIONS:
        raise ValueError(f"unknown convert={convert} in {spec.line}: {nearest(convert, conversions.CONVERSIONS)}")
    return Edits(convert, _conditions(spec, "where"), _conditions(spec, "unless"), values, columns, rename,
                 spec.number("skip", 0) or 0, spec.number("limit", 1))


def _conditions(spec: Spec, option: str) -> dict[str, frozenset[str]]:
    """The texts that are named for each field, those of a file (`@PATH`) among them."""
    def named(part: str) -> Iterable[str]:
        return _listed(urllib.parse.unquote(part[1:]), spec) if part.startswith("@") else [urllib.parse.unquote(part)]

    return {field: frozenset(text for part in parts.split("|") for text in named(part))
            for field, parts in spec.pairs(option).items()}


def _listed(name: str, spec: Spec) -> list[str]:
    """A file's values: of a JSON list its items, of a JSON object its names, of other files the lines."""
    path = pathlib.Path(name).expanduser()
    try:
        content = path.read_text("utf-8")
        found: Any = json.loads(content) if path.suffix == ".json" else content.splitlines()
    except (OSError, ValueError) as error:
        raise ValueError(f"@{name} in {spec.line} cannot be read: {getattr(error, 'strerror', '') or error}") from error
    if not isinstance(found, list | dict):
        raise ValueError(f"@{name} in {spec.line}: expected a JSON list or object, found {content[:40]}")
    return [_text(value) for value in found]


def edited(located: Iterable[Located], edits: Edits, line: str) -> Iterator[Located]:
    """The records that the edits leave, as these make them; ValueError at the end if there was none."""
    fitting = kept = 0
    for place, record in located:
        if edits.convert:
            record = conversions.convert(edits.convert, record, place)
        for name in edits.named:
            require_field(name, record, place)
        if edits.keeps(record):
            fitting += 1
            if fitting <= edits.skip:
                continue
            yield place, _edit(record, edits, place)
            kept += 1
            if kept == edits.limit:
                return
    if not kept:
        raise ValueError(f"no records in {line}")


def _edit(record: Record, edits: Edits, place: str) -> Record:
    for name, rules in edits.values.items():
        record = record | {name: _replaced(record[name], rules, name, place)}
    if edits.columns:
        record = {name: record[name] for name in edits.columns}
    return renamed(record, edits.rename, place) if edits.rename else record


def renamed(record: Record, rename: dict[str, str], place: str) -> Record:
    """The record under its new names; ValueError for a name that is missing or would be there twice."""
    for name in rename:
        require_field(name, record, place)
    made = {rename.get(name, name): value for name, value in record.items()}
    if len(made) < len(record):
        taken = sorted(set(rename.values()) & (set(record) - set(rename)))
        raise ValueError(
            f"{place}: rename= would overwrite the field {', '.join(taken)}: rename that one too, "
            "or keep it out with columns="
        )
    return made


def _replaced(value: Any, rules: dict[str, str], name: str, place: str) -> Any:
    if isinstance(value, list):
        return [_replaced(item, rules, name, place) for item in value]
    if _text(value) not in rules:
        raise ValueError(
            f"{place}: no rule of values= is for {_text(value)!r} in field {name!r}: "
            f"the rules are for {', '.join(rules)}"
        )
    return rules[_text(value)]


def _text(value: Any) -> str:
    """A value as a source's line writes it: text as it is, else as JSON does (1, true, null)."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def require_field(name: str, fields: Iterable[str], place: str) -> None:
    """Raises ValueError, with names that are like it, unless there is such a field."""
    if name not in fields:
        raise ValueError(f"{place}: there is no field {name!r}: {nearest(name, fields)}")
