# SPDX-License-Identifier: Apache-2.0
"""Drawn shapes: a random stream, a split and a kind in, a 32 x 32 picture with a question out.

A picture has four cells; one to four of them hold a shape. Every (shape, colour, cell) drawn is one
of the split, so evaluation shows known shapes in known colours where they were never seen.
"""

import io
import random
from typing import Any, NamedTuple

from PIL import Image, ImageDraw

from t5tasks.data.world.combinations import split_of
from t5tasks.data.world.facts import CELLS, COLOURS, SHAPES, article

SIZE = 32  # pixels on a side
BACKGROUND = (235, 235, 230)
PICTURE_KINDS = ("colour", "shape", "place", "count", "yes", "no")


class Figure(NamedTuple):
    """One drawn shape: which, in which colour and in which cell."""

    shape: str
    colour: str
    cell: str


def multimodal(draw: random.Random, split: str, kind: str) -> dict[str, Any]:
    """Make a picture (PNG, RGB, 32 x 32) and a question on it (kind: one of PICTURE_KINDS)."""
    while True:
        figures = _figures(draw, split)
        asked = _question(draw, split, kind, figures)
        if asked is not None:
            question, answer = asked
            return {"image": paint(draw, figures), "question": question, "answers": [answer]}


def _figures(draw: random.Random, split: str) -> list[Figure]:
    """Draw what stands in one to four cells."""
    figures = []
    for cell in draw.sample(CELLS, draw.randint(1, 4)):
        known = [
            Figure(shape, colour, cell)
            for shape in SHAPES
            for colour in COLOURS
            if split_of(shape, colour, cell) == split
        ]
        figures.append(draw.choice(known))
    return figures


def _question(draw: random.Random, split: str, kind: str, figures: list[Figure]) -> tuple[str, str] | None:
    """Ask about the figures; None where the question has no single answer for them."""
    figure = draw.choice(figures)
    named = f"{figure.colour} {figure.shape}"
    if kind == "colour":
        alone = sum(other.shape == figure.shape for other in figures) == 1
        return (f"What colour is the {figure.shape}?", figure.colour) if alone else None
    if kind == "shape":
        return f"Which shape is at the {figure.cell}?", figure.shape
    if kind == "place":
        alone = sum(other[:2] == figure[:2] for other in figures) == 1
        return (f"Where is the {named}?", figure.cell) if alone else None
    if kind == "count":
        if draw.random() < 0.5:
            colour = draw.choice(tuple(COLOURS))
            number = sum(other.colour == colour for other in figures)
            question = f"How many shapes are {colour}?"
        else:
            shape = draw.choice(SHAPES)
            number = sum(other.shape == shape for other in figures)
            plural = "crosses" if shape == "cross" else shape + "s"
            question = f"How many {plural} are there?"
        # None or one is what a guess would say: keep a share of those only.
        return (question, str(number)) if number > 1 or draw.random() < 0.2 else None
    if kind == "yes":
        return f"Is there {article(named)}?", "yes"
    # A picture that says "no" holds the colour and the shape asked for, but not together.
    mixed = (draw.choice(figures).colour, figure.shape)
    if any(other.colour == mixed[0] and other.shape == mixed[1] for other in figures):
        return None
    return f"Is there {article(' '.join(mixed))}?", "no"


def paint(draw: random.Random, figures: list[Figure]) -> bytes:
    """Paint the figures, each at a place and of a size that vary a little inside its cell."""
    image = Image.new("RGB", (SIZE, SIZE), BACKGROUND)
    brush = ImageDraw.Draw(image)
    for figure in figures:
        row, column = divmod(CELLS.index(figure.cell), 2)
        side = draw.randint(10, 13)
        left = column * SIZE // 2 + draw.randint(1, 14 - side)
        top = row * SIZE // 2 + draw.randint(1, 14 - side)
        _stroke(brush, figure.shape, left, top, side, COLOURS[figure.colour])
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


def _stroke(
    brush: ImageDraw.ImageDraw,
    shape: str,
    left: int,
    top: int,
    side: int,
    colour: tuple[int, int, int],
) -> None:
    right, bottom, middle = left + side, top + side, left + side // 2
    if shape == "circle":
        brush.ellipse((left, top, right, bottom), fill=colour)
    elif shape == "square":
        brush.rectangle((left, top, right, bottom), fill=colour)
    elif shape == "triangle":
        brush.polygon(((middle, top), (left, bottom), (right, bottom)), fill=colour)
    else:
        centre = top + side // 2
        brush.rectangle((middle - 1, top, middle + 1, bottom), fill=colour)
        brush.rectangle((left, centre - 1, right, centre + 1), fill=colour)
