# SPDX-License-Identifier: Apache-2.0
"""Scores and curves in, SVG out that is read on light and dark ground, and without colour.

Every series has a line style and a marker of its own; inks are CSS variables, which each drawing defines for both
grounds. Needs matplotlib, of the extras `report` and `sweep`.
"""

import importlib.util
import io
from collections.abc import Sequence
from typing import Any

# Okabe and Ito's colours, told apart by most colour-blind eyes, for a light and for a dark ground.
LIGHT = ("#0060a0", "#b04a00", "#00795a", "#a0407a", "#5a5a5a", "#7a6a00")
DARK = ("#6cb8f0", "#f2a45c", "#4fd0aa", "#e89ac4", "#b8b8b8", "#f0e060")
STYLES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "X", "P", "*")
# What matplotlib is told to draw with, to be found and replaced in its output.
INK = "#0a0b0c"
SERIES = tuple(f"#0a0b{number:02x}" for number in range(0x10, 0x10 + len(LIGHT)))


def available() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def curves(series: Sequence[tuple[str, Sequence[float], Sequence[float]]], across: str, up: str,
           from_zero: bool = False) -> str:
    """Lines of (name, x, y)."""
    figure, axes = _figure(4.2)
    for number, (name, xs, ys) in enumerate(series):
        axes.plot(xs, ys, label=name, **_look(number))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel=across, ylabel=up)
    if from_zero:
        axes.set_ylim(0, None)
    if series:
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return _svg(figure, f"{up} by {across}")


def intervals(rows: Sequence[tuple[str, Sequence[float], float, float, float]], across: str) -> str:
    """A row for (name, values, mean, low, high): each value a hollow mark, the mean a full one, in its interval.

    Low and high may be NaN, where there is no interval.
    """
    figure, axes = _figure(0.9 + 0.45 * len(rows))
    for number, (_, values, mean, low, high) in enumerate(rows):
        look = _look(number) | {"linestyle": "none"}
        place = len(rows) - 1 - number
        if low == low:
            axes.plot([low, high], [place, place], color=look["color"], linewidth=2)
            axes.plot([low, high], [place, place], color=look["color"], marker="|", linestyle="none", markersize=9)
        axes.plot(values, [place + 0.22] * len(values), **look | {"markerfacecolor": "none", "markersize": 4.5})
        axes.plot([mean], [place], **look | {"markersize": 8})
    axes.set(yticks=range(len(rows)), yticklabels=[name for name, *_ in rows][::-1], xlabel=across,
             ylim=(-0.6, len(rows) - 0.4))
    axes.grid(axis="x", color=INK, alpha=0.15)
    return _svg(figure, f"{across} with intervals")


def _look(number: int) -> dict[str, Any]:
    return {"color": SERIES[number % len(SERIES)], "linestyle": STYLES[number % len(STYLES)],
            "marker": MARKERS[number % len(MARKERS)], "markersize": 5, "linewidth": 1.6}


def _figure(height: float) -> tuple[Any, Any]:
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    with pyplot.rc_context({"text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK,
                            "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False,
                            "font.size": 10}):
        return pyplot.subplots(figsize=(7.2, height))


def _svg(figure: Any, title: str) -> str:
    """The drawing as an <svg> element, texts as texts, the same bytes each time."""
    from matplotlib import pyplot
    drawn = io.StringIO()
    with pyplot.rc_context({"svg.fonttype": "none", "svg.hashsalt": title, "svg.id": None,
                            "font.family": "sans-serif"}):
        figure.tight_layout()
        figure.savefig(drawn, format="svg", transparent=True,
                       metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    pyplot.close(figure)
    text = drawn.getvalue()
    text = text[text.index("<svg"):].replace(INK, "var(--plot-ink)")
    for number, sentinel in enumerate(SERIES):
        text = text.replace(sentinel, f"var(--plot-{number})")
    end = text.index(">") + 1
    return f"<svg role='img'{text[len('<svg'):end]}\n<style>{_theme()}</style>\n{text[end:]}"


def _theme() -> str:
    def inks(colours: Sequence[str], ink: str) -> str:
        return f":root {{ --plot-ink: {ink}; " + " ".join(
            f"--plot-{number}: {colour};" for number, colour in enumerate(colours)) + " }"

    return (f"{inks(LIGHT, '#1b1f24')} @media (prefers-color-scheme: dark) {{ {inks(DARK, '#e6e9ec')} }} "
            "svg { max-width: 100%; height: auto; }")
