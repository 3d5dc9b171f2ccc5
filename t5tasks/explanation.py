# SPDX-License-Identifier: Apache-2.0
"""Tokens with their roles and weights in, a view of them on a terminal or as one HTML page out.

Nothing is said by colour alone: a graded token stands in ⟦brackets⟧ (in HTML it is underlined), a
special token has a ◆ before it, so that no text can pass for one.
"""

import dataclasses
import html
import itertools
from collections.abc import Iterator, Mapping

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

GRADED, SPECIAL, PLAIN = "bold green underline", "magenta", "dim"
STYLES = {"graded": GRADED, "special": SPECIAL, "plain": PLAIN, "": ""}
LEGEND = (("graded", "its prediction counts in the loss"),
          ("special", "placed by id, which no text can spell"),
          ("plain", "seen, not graded"))
WORDS = ("token", "role", "target")  # columns of text; the others hold numbers

STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1b1f24; --faint: #5d6670; --line: #d4d9de;
  --graded: #0b5a2a; --graded-ground: #d9f5e2; --special: #8a2a78; --note: #8a4b00; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171a; --ink: #e6e9ec; --faint: #9aa4ae;
  --line: #363c43; --graded: #8df0ac; --graded-ground: #12391f; --special: #f0a3e0; --note: #ffc46b; } }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; border-top: 1px solid var(--line);
  padding-top: 1rem; } h3 { font-size: 1rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; }
dt { color: var(--faint); } dd { margin: 0; }
.legend { list-style: none; padding: 0; }
.tokens, .words, .legend { font-family: ui-monospace, monospace; }
.tokens { line-height: 2; border-left: .25rem solid var(--line); padding-left: .75rem; }
.segment { font: .8rem system-ui, sans-serif; border: 1px solid; border-radius: .3rem; padding: 0 .3rem; }
.plain { color: var(--faint); } .special { color: var(--special); font-style: italic; }
.graded { color: var(--graded); background: var(--graded-ground); font-weight: bold; border-radius: .2rem;
  padding: .05rem .2rem; text-decoration: underline; text-decoration-thickness: .12em;
  text-underline-offset: .2em; }
.note { color: var(--note); } .wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .6rem .15rem 0; text-align: left; white-space: nowrap; }
th { font-family: system-ui, sans-serif; }
table .number { text-align: right; } thead th { border-bottom: 1px solid var(--line); }
tbody + tbody { border-top: .2rem solid var(--special); }
"""


@dataclasses.dataclass(frozen=True)
class Token:
    """A token, and the weight of predicting it (0 where nothing does)."""

    text: str  # the piece, its spaces and line breaks visible
    id: int
    role: str
    special: bool
    weight: float

    @property
    def kind(self) -> str:
        """graded, special or plain."""
        return "graded" if self.weight else "special" if self.special else "plain"

    @property
    def marked(self) -> str:
        """The text, with the sign of a special token."""
        return f"◆{self.text}" if self.special else self.text


@dataclasses.dataclass(frozen=True)
class Row:
    """A position of the model's input, and what is predicted there."""

    position: int
    place: int  # position in its document
    segment: int
    token: Token
    target: str
    weight: float
    token_type: int | None


@dataclasses.dataclass(frozen=True)
class Document:
    """One example's part of a sequence.

    A document that predicts has one token more than the model reads: each position predicts the
    next. One with targets predicts those, each at its token, and one with nothing but an answer
    predicts that, at its first token.
    """

    segment: int
    start: int  # its first position in the sequence
    tokens: tuple[Token, ...]
    predicts: bool = False
    answer: str = ""
    types: tuple[int, ...] = ()
    targets: tuple[str, ...] = ()

    def rows(self) -> Iterator[Row]:
        """A row for each position that the model reads."""
        for place, token in enumerate(self.tokens[:-1] if self.predicts else self.tokens):
            target, weight = "", 0.0
            if self.predicts:
                following = self.tokens[place + 1]
                target, weight = following.marked, following.weight
            elif self.targets:
                target, weight = self.targets[place], token.weight
            elif self.answer and place == 0:
                target, weight = self.answer, 1.0
            kind = self.types[place] if self.types else None
            yield Row(self.start + place, place, self.segment, token, target, weight, kind)


@dataclasses.dataclass(frozen=True)
class Sequence:
    """What one stack of the model reads: one document, or several that share a packed row."""

    name: str
    documents: tuple[Document, ...]
    padding: int = 0

    @property
    def graded(self) -> int:
        """Positions with a weight."""
        return sum(row.weight > 0 for document in self.documents for row in document.rows())

    @property
    def length(self) -> int:
        """Positions that hold a token."""
        return sum(1 for document in self.documents for _ in document.rows())

    @property
    def summary(self) -> str:
        """One line of counts."""
        parts = [f"{self.length} tokens"]
        if len(self.documents) > 1:
            parts.append(f"{len(self.documents)} segments")
        if self.padding:
            parts.append(f"{self.padding} of padding")
        if self.documents[0].predicts or self.documents[0].targets:
            parts.append(f"{self.graded} graded")
        return f"{self.name}: {', '.join(parts)}"


@dataclasses.dataclass(frozen=True)
class View:
    """One example, or one packed row."""

    title: str
    sequences: tuple[Sequence, ...]
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What a verb found out, ready to be shown."""

    title: str
    facts: Mapping[str, str]  # config, task, form, tokenizer, ...
    counts: Mapping[str, str]  # over the split
    views: tuple[View, ...]


def columns(sequence: Sequence) -> list[str]:
    """The names of the table's columns: those that say something here."""
    first = sequence.documents[0]
    names = ["position", "token", "id", "role"]
    names += ["target", "weight"] if first.predicts or first.answer or first.targets else []
    names += ["segment"]
    names += ["in segment"] if len(sequence.documents) > 1 else []
    return names + (["type"] if first.types else [])


def cells(row: Row) -> dict[str, tuple[str, str]]:
    """Every column's text and kind (graded, special, plain or empty)."""
    kind = "special" if row.token.special else "plain"
    graded = "graded" if row.weight else ""
    return {
        "position": (str(row.position), ""), "token": (row.token.marked, kind), "id": (str(row.token.id), ""),
        "role": (row.token.role, ""), "target": (row.target, graded or "plain"),
        "weight": (f"{row.weight:g}", graded), "segment": (str(row.segment), ""),
        "in segment": (str(row.place), ""),
        "type": ("" if row.token_type is None else str(row.token_type), "")}


def show(explanation: Explanation, console: Console) -> None:
    """Prints everything; colours only where the console has them."""
    console.print(Text(explanation.title, "bold"))
    for pairs in (explanation.facts, explanation.counts):
        grid = Table.grid(padding=(0, 2))
        for name, value in pairs.items():
            grid.add_row(Text(name, "dim"), Text(value, overflow="fold"))
        console.print(Padding(grid, (1, 0, 0, 0)))
    console.print()
    show_legend(console)
    for view in explanation.views:
        console.print()
        show_view(view, console)


def show_legend(console: Console) -> None:
    """Prints what the signs and colours mean."""
    signs = {"graded": "⟦graded⟧", "special": "◆special", "plain": "plain"}
    for kind, meaning in LEGEND:
        console.print(Text.assemble((signs[kind], STYLES[kind]), f" {meaning}"))


def show_view(view: View, console: Console, table: bool = True) -> None:
    """Prints one view: its tokens in a line and, where asked for, in a table."""
    console.rule(Text(view.title, "bold"), align="left", characters="─")
    for note in view.notes:
        console.print(Text(note, "yellow"))
    for sequence in view.sequences:
        console.print()
        console.print(Text(sequence.summary, "bold"))
        for document in sequence.documents:
            prefix = f"segment {document.segment}: " if len(sequence.documents) > 1 else ""
            console.print(Text.assemble((prefix, "cyan"), running_text(document, STYLES)))
        if table:
            console.print(_table(sequence, STYLES))


def runs(document: Document) -> list[Token]:
    """The tokens in a line, of a special one that stands there several times in a row (an image's) one with its count:
    ◆<image> ◆<image> ◆<image> → ◆<image>×3."""
    found: list[Token] = []
    for first, group in itertools.groupby(document.tokens):
        same = list(group)
        several = first.special and len(same) > 1
        found += [dataclasses.replace(first, text=f"{first.text}×{len(same)}")] if several else same
    return found


def running_text(document: Document, styles: Mapping[str, str]) -> Text:
    """The tokens in a line, one blank between two, each run of graded ones in ⟦brackets⟧."""
    text = Text(overflow="fold")
    graded = False
    for index, token in enumerate(runs(document)):
        if graded and not token.weight:
            text.append("⟧", GRADED)
        text.append(" " if index else "")
        if token.weight and not graded:
            text.append("⟦", GRADED)
        text.append(token.marked, styles[token.kind])
        graded = bool(token.weight)
    text.append("⟧" if graded else "", GRADED)
    if document.answer:
        text.append(" → ")
        text.append(f"⟦{document.answer}⟧", GRADED)
    return text


def _table(sequence: Sequence, styles: Mapping[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    names = columns(sequence)
    for name in names:
        table.add_column(name, justify="left" if name in WORDS else "right", overflow="fold")
    for document in sequence.documents:
        rows = list(document.rows())
        for row in rows:
            found = [cells(row)[name] for name in names]
            # As a span, not as the cell's style, which would underline the blanks beside it.
            table.add_row(*(Text.assemble((f"⟦{text}⟧" if name == "target" and kind == "graded" else text,
                                           styles[kind]))
                            for name, (text, kind) in zip(names, found, strict=True)))
        if document is not sequence.documents[-1]:
            table.add_row(*(Text("─" * len(name), "cyan") for name in names))
    return table


def page(explanation: Explanation) -> str:
    """One HTML file that needs nothing else, with all that the terminal shows."""
    title = html.escape(explanation.title)
    facts = "".join(
        "<dl>" + "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>"
                         for name, value in pairs.items()) + "</dl>\n"
        for pairs in (explanation.facts, explanation.counts))
    names = {"graded": "graded", "special": "◆special", "plain": "plain"}
    legend = "".join(f"<li>{_token(kind, names[kind])} {html.escape(meaning)}</li>" for kind, meaning in LEGEND)
    views = "".join(_section(view) for view in explanation.views)
    return ('<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n'
            # The page quotes other people's text: no script may run, nothing may be fetched.
            '<meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
            f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
            f'{facts}<ul class="legend">{legend}</ul>\n{views}</body>\n</html>\n')


def _section(view: View) -> str:
    notes = "".join(f'<p class="note">{html.escape(note)}</p>\n' for note in view.notes)
    body = ""
    for sequence in view.sequences:
        packed = len(sequence.documents) > 1
        body += f"<h3>{html.escape(sequence.summary)}</h3>\n"
        for document in sequence.documents:
            name = f'<span class="segment">segment {document.segment}</span> ' if packed else ""
            tokens = " ".join(
                _token(token.kind, token.marked, f"id {token.id}, {token.role}, weight {token.weight:g}")
                for token in runs(document))
            answer = f" → {_token('graded', document.answer)}" if document.answer else ""
            body += f'<p class="tokens">{name}{tokens}{answer}</p>\n'
        body += _html_table(sequence)
    return f"<section>\n<h2>{html.escape(view.title)}</h2>\n{notes}{body}</section>\n"


def _token(kind: str, text: str, title: str = "") -> str:
    """A token as an element; `mark` for a graded one, so that a screen reader can tell."""
    tag = "mark" if kind == "graded" else "span"
    hint = f' title="{html.escape(title)}"' if title else ""
    return f'<{tag} class="{kind}"{hint} dir="auto">{html.escape(text)}</{tag}>'


def _html_table(sequence: Sequence) -> str:
    names = columns(sequence)
    kinds = {name: "words" if name in WORDS else "number" for name in names}
    head = "".join(f'<th scope="col" class="{kinds[name]}">{name}</th>' for name in names)
    bodies = ""
    for document in sequence.documents:
        bodies += "<tbody>\n"
        for row in document.rows():
            found = cells(row)
            bodies += "<tr>" + "".join(
                f'<td class="{kinds[name]}">'
                f"{_token(found[name][1], found[name][0]) if found[name][1] else html.escape(found[name][0])}</td>"
                for name in names) + "</tr>\n"
        bodies += "</tbody>\n"
    return (f'<details open><summary>every position</summary><div class="wide"><table>\n<thead><tr>{head}</tr>'
            f"</thead>\n{bodies}</table></div></details>\n")
