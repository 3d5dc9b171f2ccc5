# SPDX-License-Identifier: Apache-2.0
"""The cells of a sweep that are done in; report.html, report.md and report.csv, with drawings, out.

The page is one file: no script, no network, every text of the models and records escaped.
"""

import csv
import html
import io
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from t5tasks import comparison, plots
from t5tasks.cells import Cell
from t5tasks.comparison import Line
from t5tasks.explanation import STYLE
from t5tasks.results import Places
from t5tasks.training.writers import clock

Rows = Sequence[Sequence[str]]
HEADINGS = ("cell", "seeds", "score", "95 % over seeds", "against the baseline", "95 % over records", "p")
COSTS = ("cell", "parameters", "steps", "training FLOPs", "training", "evaluation")
MORE_STYLE = """
body { max-width: 72rem; } pre { overflow-x: auto; white-space: pre-wrap; border-left: .25rem solid var(--line);
padding-left: .75rem; } td.text { white-space: normal; min-width: 12rem; } svg { display: block; margin: 1rem 0; }
"""
READING = (
    "The score is the mean over seeds of the metric on the test records; its interval is Student's t interval over "
    "seeds (none where there is one seed). The difference is taken over the seeds that both have; its interval is a "
    "paired bootstrap, and p a two-sided paired permutation test, both over the test records and with the models as "
    "they came out of training.")


class Page:
    """The same content as HTML and as Markdown."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._html: list[str] = [f"<h1>{html.escape(title)}</h1>"]
        self._markdown: list[str] = [f"# {title}", ""]

    def heading(self, text: str) -> None:
        self._html.append(f"<h2>{html.escape(text)}</h2>")
        self._markdown += [f"## {text}", ""]

    def text(self, text: str) -> None:
        self._html.append(f"<p>{html.escape(text)}</p>")
        self._markdown += [_plain(text), ""]

    def table(self, headings: Sequence[str], rows: Rows) -> None:
        """The first column is text, the others are numbers unless one of them is not."""
        kinds = ["number" if all(row[place][:1] in "0123456789−+-(<" for row in rows) and place else "text"
                 for place in range(len(headings))]
        self._html.append("<div class='wide'><table><thead><tr>" + "".join(
            f"<th class='{kind}'>{html.escape(heading)}</th>" for heading, kind in zip(headings, kinds, strict=True))
            + "</tr></thead><tbody>" + "".join("<tr>" + "".join(
                f"<td class='{kind}'>{html.escape(cell)}</td>" for cell, kind in zip(row, kinds, strict=True)) + "</tr>"
                for row in rows) + "</tbody></table></div>")
        self._markdown += ["| " + " | ".join(headings) + " |", "|" + " --- |" * len(headings)]
        self._markdown += ["| " + " | ".join(map(_plain, row)) + " |" for row in rows] + [""]

    def code(self, text: str) -> None:
        self._html.append(f"<pre>{html.escape(text)}</pre>")
        self._markdown += ["    " + line for line in text.splitlines()] + [""]

    def drawing(self, folder: pathlib.Path, name: str, svg: str, description: str) -> None:
        """The drawing in the page, and as a file for the Markdown."""
        (folder / name).write_text(svg, "utf-8")
        self._html.append(f"<figure aria-label='{html.escape(description, quote=True)}'>{svg}</figure>")
        self._markdown += [f"![{description}]({name})", ""]

    def write(self, folder: pathlib.Path) -> None:
        page = ("<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><meta name='viewport' "
                f"content='width=device-width'><title>{html.escape(self._title)}</title><style>{STYLE}{MORE_STYLE}"
                "</style></head><body>\n" + "\n".join(self._html) + "\n</body></html>\n")
        (folder / "report.html").write_text(page, "utf-8")
        (folder / "report.md").write_text("\n".join(self._markdown), "utf-8")


def write(found: Sequence[Line], cells: Sequence[Cell], folder: pathlib.Path, title: str) -> pathlib.Path:
    """Writes the report of the lines that are done, at least one, of these cells; its page's path."""
    places = Places(folder)
    (folder / "report.csv").write_text(as_csv(cells, places), "utf-8")
    page = Page(title)
    _scores(page, found, cells, folder)
    _learning(page, found, places, folder)
    line = comparison.best(found)
    page.heading("Best config")
    page.text(f"{line.name}, by the mean score above. Where that score is to be reported, choose by validation "
              "records instead: the best of several is better than it would be on others.")
    page.code(comparison.command(line.cells[0], "runs/best"))
    _examples(page, found, places)
    page.heading("Cost")
    page.text("Of one seed, on average: operations of the forward and backward passes over real tokens, times on the "
              "clock with compilation and without the evaluations in training. Cells that share a training each "
              "show all of it.")
    page.table(COSTS, [costs(line) for line in found])
    page.heading("Environment")
    environments = comparison.environments(found, places)
    for environment, labels in environments:
        if len(environments) > 1:
            page.text(f"Of {', '.join(labels)}:")
        page.table(("what", "value"), [(name, _told(value)) for name, value in environment.items()])
    page.write(folder)
    return folder / "report.html"


def _scores(page: Page, found: Sequence[Line], cells: Sequence[Cell], folder: pathlib.Path) -> None:
    first = found[0].results[0]
    done = sum(len(line.cells) for line in found)
    page.text(f"{done} of {len(cells)} cells are done. {first['metric']} on {first['examples']} records of "
              f"{first['source']}; {'higher' if first['higher_is_better'] else 'lower'} is better. The first cell is "
              "the baseline.")
    page.table(HEADINGS, [columns(line) for line in found])
    page.text(READING)
    page.text("Without a model: " + (", ".join(f"{name} {value:.4g}" for name, value in first["baselines"].items())
                                     or "nothing to compare with") + ".")
    if plots.available():
        page.drawing(folder, "scores.svg", plots.intervals(
            [(line.name, line.scores, line.interval.mean, line.interval.low, line.interval.high) for line in found],
            found[0].metric), "each cell's score: seeds, their mean and its interval")
    else:
        page.text("No drawings: matplotlib is not installed (pip install 't5tasks[sweep]').")


def _learning(page: Page, found: Sequence[Line], places: Places, folder: pathlib.Path) -> None:
    name, curves = comparison.curves(found, places)
    page.heading("Learning curves")
    page.text(f"{name} of the validation records, the mean of the seeds.")
    if plots.available():
        page.drawing(folder, "curves.svg", plots.curves(
            [(curve.name, curve.steps, curve.values) for curve in curves], "step", f"validation {name}"),
            f"validation {name} by step")
    steps = sorted({step for curve in curves for step in curve.steps})
    chosen = [steps[index] for index in sorted({round(place * (len(steps) - 1) / 7) for place in range(8)})] \
        if steps else []
    page.table(("cell", *map(str, chosen)), [
        (curve.name, *(_number(dict(zip(curve.steps, curve.values, strict=True)).get(step, math.nan))
                       for step in chosen)) for curve in curves])


def _examples(page: Page, found: Sequence[Line], places: Places) -> None:
    if len(found) < 2:
        return
    page.heading("Where cells disagree")
    shown = comparison.disagreements(found, places)
    if not shown:
        page.text("Nowhere: scores of all test records agree, or these are not the same records.")
        return
    page.text("Test records of which scores differ, the first seed of each cell; each cell is ahead in turn.")
    for example in shown:
        page.text(f"Record {example.number}: " + "; ".join(f"{name}: {_told(value)}"
                                                           for name, value in example.record.items()))
        page.table(("cell", "score", "prediction"), [
            (name, "–" if score is None else f"{score:.3g}",
             "; ".join(f"{field}: {_told(value)}" for field, value in prediction.items()))
            for name, prediction, score in example.answers])


def columns(line: Line) -> tuple[str, ...]:
    """A line of the table, see HEADINGS."""
    against = line.against
    tested = ("", "", "") if against is None else (
        f"{against.difference:+.4g}".replace("-", "−"), _ends(against.low, against.high), _p(against.p))
    if line.untested:
        tested = (f"({line.untested})", "", "")
    return (line.name, str(len(line.cells)), _number(line.interval.mean), _ends(line.interval.low, line.interval.high),
            *tested)


def costs(line: Line) -> tuple[str, ...]:
    """What a line cost, see COSTS."""
    return (line.name, f"{line.mean('parameters'):,.0f}", f"{line.mean('cost', 'steps'):,.0f}",
            f"{line.mean('cost', 'training_flops'):.3g}", clock(line.mean("cost", "training_seconds")),
            clock(line.mean("cost", "evaluation_seconds")))


def as_csv(cells: Sequence[Cell], places: Places) -> str:
    """A row a cell: what it is, what it changes, every scalar figure and its cost; empty while it is not done."""
    changed = sorted({setting for cell in cells for setting in cell.given})
    results = {cell.id: places.result(cell) or {} for cell in cells}
    figures = sorted({name for result in results.values() for name in result.get("figures", {})})
    costs = sorted({name for result in results.values() for name in result.get("cost", {})})
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(["cell", "id", "training", "config", *changed, "done", "step", "parameters", "metric", *figures,
                     *costs])
    for cell in cells:
        result = results[cell.id]
        writer.writerow([cell.name, cell.id, cell.training_id, cell.base,
                         *(cell.given.get(setting, "") for setting in changed), int(bool(result)),
                         result.get("step", ""), result.get("parameters", ""), result.get("metric", ""),
                         *(result.get("figures", {}).get(name, "") for name in figures),
                         *(result.get("cost", {}).get(name, "") for name in costs)])
    return written.getvalue()


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4g}"


def _ends(low: float, high: float) -> str:
    return "" if math.isnan(low) else f"{low:.4g} to {high:.4g}"


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _told(value: Any) -> str:
    """A value of a record, a prediction or an environment in a few words."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_told(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(_told, value))
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 300 else f"{text[:300]} …"


def _plain(text: str) -> str:
    """A text that Markdown shows as it is, in one line."""
    kept = " ".join(text.split())
    for sign in "\\`*_[]<>|#":
        kept = kept.replace(sign, f"\\{sign}")
    return kept
