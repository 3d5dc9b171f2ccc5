# SPDX-License-Identifier: Apache-2.0
"""A checkpoint's preprocessor_config.json comes in, then pixels uint8[height, width, 3]; what the model reads goes out.

    pixels → padded to a square (LLaVA's do_pad) → resized → cropped in the middle → (x * scale - mean) / std

Every step is the one of transformers' own processors, which resize with Pillow: to whole levels of 0 to 255.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from t5tasks.data.text_files import nearest

Foreign = Mapping[str, Any]

HALVES = (0.5, 0.5, 0.5)
OF_CLIP: Foreign = {
    "size": {"shortest_edge": 224}, "resample": 3, "do_center_crop": True, "crop_size": 224,
    "image_mean": (0.48145466, 0.4578275, 0.40821073), "image_std": (0.26862954, 0.26130258, 0.27577711)}
OF_SQUARES: Foreign = {
    "size": {"height": 224, "width": 224}, "do_center_crop": False, "image_mean": HALVES, "image_std": HALVES}
# What a file leaves out, by the beginning of its processor's name.
FAMILIES: dict[str, Foreign] = {
    "ViT": {**OF_SQUARES, "resample": 2}, "Siglip": {**OF_SQUARES, "resample": 3},
    "CLIP": OF_CLIP, "Bit": OF_CLIP, "Llava": OF_CLIP}
ENDINGS = ("ImageProcessor", "ImageProcessorFast", "ImageProcessorPil", "FeatureExtractor")
STEPS: Foreign = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
                  "do_pad": False}
# What changes nothing here: names, and how the reference hands its arrays over. Images always become RGB.
SILENT = frozenset(("image_processor_type", "feature_extractor_type", "processor_class", "_valid_processor_keys",
                    "image_seq_length", "data_format", "input_data_format", "return_tensors", "device", "auto_map",
                    "disable_grouping", "default_to_square", "do_convert_rgb"))


@dataclasses.dataclass(frozen=True)
class Preparation:
    """What is done to an image before a model reads it.

    Attributes:
      size: height and width that it is resized to; None where `shortest` says it, or nothing is resized.
      shortest: what its shorter side is resized to, the other in proportion, but no more than `longest` if
        that is not 0; 0 for never.
      resample: Pillow's number of the filter (2 bilinear, 3 bicubic).
      crop: height and width of what is kept of its middle, with black around where it is smaller; None for all.
      square: it is padded first to a square, with the mean's colour.
      scale, mean, std: x becomes (x * scale - mean) / std, each channel with its own.
    """

    size: tuple[int, int] | None = (224, 224)
    shortest: int = 0
    longest: int = 0
    resample: int = 2
    crop: tuple[int, int] | None = None
    square: bool = False
    scale: float = 1 / 255
    mean: tuple[float, ...] = HALVES
    std: tuple[float, ...] = HALVES

    @property
    def shape(self) -> tuple[int, int] | None:
        """Height and width of every image when it is prepared; None where they are its own."""
        return self.crop or self.size

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """f32[height, width, 3] of pixels uint8[height, width, 3]."""
        if self.square:
            pixels = _squared(pixels, tuple(int(mean * 255) for mean in self.mean))
        wanted = self._resized(*pixels.shape[:2])
        if wanted != pixels.shape[:2]:
            height, width = wanted
            pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling(self.resample)))
        if self.crop is not None:
            pixels = _middle(pixels, *self.crop)
        scaled = (pixels.astype(np.float64) * self.scale).astype(np.float32)
        return (scaled - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if not self.shortest:
            return self.size or (height, width)
        short, long = min(height, width), max(height, width)
        side, other = self.shortest, int(self.shortest * long / short)
        if self.longest and long / short * self.shortest > self.longest:
            exact = self.longest * short / long
            side, other = round(exact), int(exact * long / short)
        if side == short:
            return height, width
        return (side, other) if height <= width else (other, side)


def read(folder: pathlib.Path) -> Preparation:
    """What a Hugging Face folder's preprocessor_config.json (or processor_config.json) says.

    Raises:
      ValueError: there is neither, its processor is none we know, or a field changes the result and is not honoured.
    """
    for name in ("preprocessor_config.json", "processor_config.json"):
        path = folder / name
        if not path.is_file():
            continue
        try:
            foreign = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not JSON: {error}") from error
        foreign = foreign.get("image_processor", foreign) if isinstance(foreign, dict) else {}
        if "image_processor_type" in foreign or "feature_extractor_type" in foreign:
            try:
                return from_foreign(foreign)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
    raise ValueError(f"{folder} does not say how its images are prepared: expected preprocessor_config.json with "
                     "image_processor_type")


def from_plain(values: Mapping[str, Any]) -> Preparation:
    """The inverse of `dataclasses.asdict`, with lists for tuples as JSON has them."""
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value
                              for name, value in values.items()}
    return Preparation(**fields)


def from_foreign(foreign: Foreign) -> Preparation:
    """The preparation that the fields of a preprocessor_config.json describe; ValueError as `read`."""
    kind = str(foreign.get("image_processor_type") or foreign.get("feature_extractor_type"))
    known = {f"{family}{ending}": defaults for family, defaults in FAMILIES.items() for ending in ENDINGS}
    if kind not in known:
        raise ValueError(f"the processor {kind} is not known: {nearest(kind, known)}")
    values = {**STEPS, **known[kind], **{name: value for name, value in foreign.items() if value is not None}}
    for name, value in values.items():
        if value and name not in {*STEPS, *OF_CLIP, *SILENT}:
            raise ValueError(f"{name} is {value!r}, which is not honoured; expected it to be left out")
    if values["do_pad"] and not kind.startswith("Llava"):
        raise ValueError(f"do_pad is {values['do_pad']!r}, which only LLaVA's processor honours")
    size, shortest, longest = (_size("size", values["size"], square=kind.startswith("ViT"))
                               if values["do_resize"] else (None, 0, 0))
    normal = values["do_normalize"]
    return Preparation(
        size=size, shortest=shortest, longest=longest, resample=_filter(values["resample"]),
        crop=_size("crop_size", values["crop_size"], square=True)[0] if values["do_center_crop"] else None,
        square=bool(values["do_pad"]), scale=float(values["rescale_factor"]) if values["do_rescale"] else 1.0,
        mean=_channels("image_mean", values["image_mean"]) if normal else (0.0, 0.0, 0.0),
        std=_channels("image_std", values["image_std"]) if normal else (1.0, 1.0, 1.0))


def _size(name: str, value: Any, square: bool) -> tuple[tuple[int, int] | None, int, int]:
    """Height and width, or the shortest and the longest side; older files say a number, or a list of two."""
    if isinstance(value, int):
        value = {"height": value, "width": value} if square else {"shortest_edge": value}
    elif isinstance(value, list | tuple) and len(value) == 2:
        value = {"height": value[0], "width": value[1]}
    given = {side: pixels for side, pixels in value.items() if pixels} if isinstance(value, Mapping) else {}
    if all(isinstance(pixels, int) and pixels > 0 for pixels in given.values()):
        if given.keys() == {"height", "width"}:
            return (given["height"], given["width"]), 0, 0
        if given.keys() in ({"shortest_edge"}, {"shortest_edge", "longest_edge"}) and name == "size":
            return None, given["shortest_edge"], given.get("longest_edge", 0)
    raise ValueError(f"{name} is {value!r}; expected height and width"
                     f"{', or shortest_edge' if name == 'size' else ''}, in pixels")


def _filter(value: Any) -> int:
    if value not in {one.value for one in Image.Resampling}:
        raise ValueError(f"resample is {value!r}; expected 0 to 5, Pillow's number of a filter")
    return int(value)


def _channels(name: str, value: Any) -> tuple[float, ...]:
    numbers = (value,) * 3 if isinstance(value, int | float) else tuple(value)
    if len(numbers) != 3 or not all(isinstance(number, int | float) for number in numbers):
        raise ValueError(f"{name} is {value!r}; expected three numbers")
    return tuple(map(float, numbers))


def _squared(pixels: np.ndarray, colour: tuple[int, ...]) -> np.ndarray:
    """The image in the middle of a square of this colour."""
    height, width = pixels.shape[:2]
    side = max(height, width)
    found = np.full((side, side, 3), colour, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    found[top:top + height, left:left + width] = pixels
    return found


def _middle(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8[height, width, 3], the middle of the image; black where it has no pixels."""
    found = np.zeros((height, width, 3), np.uint8)
    rows, into_rows = _overlap(pixels.shape[0], height)
    columns, into_columns = _overlap(pixels.shape[1], width)
    found[into_rows, into_columns] = pixels[rows, columns]
    return found


def _overlap(size: int, wanted: int) -> tuple[slice, slice]:
    """What of `size` pixels is kept, and where it comes to lie among `wanted`; an odd pixel is left before it."""
    kept = min(size, wanted)
    begin, into = (size - kept) // 2, math.ceil((wanted - kept) / 2)
    return slice(begin, begin + kept), slice(into, into + kept)
