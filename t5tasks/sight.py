# SPDX-License-Identifier: Apache-2.0
"""A record's example with images in, what a model that sees them is given out: tokens in their places, and pictures.

    <bos> [image] Question: … ?   →   tokens = [3, 4, 4, 4, 4, 71, …], of which 4 is <image>
                                      images = Pictures, which a batch reads: f32[B, I, height, width, 3]
"""

import dataclasses
import json
import pathlib

import ml_collections
import numpy as np

from t5tasks.data import features as feature_functions
from t5tasks.data import image_preparation, images
from t5tasks.data.features import Example, Features, LossMask, Tokens
from t5tasks.data.image_preparation import Preparation
from t5tasks.data.picture_rows import Pictures
from t5tasks.data.tokenizer import Tokenizer
from t5tasks.models.config import ModelConfig, Vision
from t5tasks.tasks.task import IMAGE, Record, Task

FILE = "images.json"  # of a workdir: what is done to images


@dataclasses.dataclass(frozen=True)
class Sight:
    """How a model sees images: how many tokens stand for one, and what is done to its pixels."""

    vision: Vision
    prepare: Preparation
    size: tuple[int, int]  # height and width of every image then

    def shown(self, example: Example) -> Example:
        """The example with the tokens of its images (`data.features.shown`)."""
        return feature_functions.shown(example, IMAGE, self.vision.features(*self.size))

    def features(self, example: Example, tokens: Tokens, read: int, loss_mask: LossMask, place: str) -> Features:
        """What the model is given beside tokens: images where the example has some, and where images and prompt see
        each other both ways, prefix bool[T], which tokens are of them.

        Args:
          tokens: of the example as it is `shown`; `read` of them the model reads, T.
          place: of the record, for errors.

        Raises:
          ValueError: an image's tokens found no room.
        """
        found: Features = {}
        if seen := feature_functions.images(example):
            if lost := tokens.lost.get("image"):
                raise ValueError(f"{place}: {len(seen)} images take {tokens.roles.count('image') + lost} tokens, of "
                                 f"which {lost} find no room; raise config.batch.length, or show fewer images")
            found["images"] = Pictures(tuple(seen), place, self.prepare, self.size)
        if self.vision.prefix:
            found["prefix"] = loss_mask(tokens.roles[:read]) == 0
        return found

    def words(self, ids: np.ndarray) -> np.ndarray:
        """The ids that stand for text."""
        return ids[ids != self.vision.image_token]

    def places(self, features: Features) -> list[str]:
        """Of each image of an example's features what it is called and the positions of its tokens, from 0."""
        found = np.flatnonzero(features["tokens"] == self.vision.image_token)
        count, pictures = self.vision.features(*self.size), features.get("images")
        size = f"{self.size[1]} x {self.size[0]} pixels"
        return [f"image {images.named(image)}: positions {here[0]} to {here[-1]}, {size}"
                for image, here in zip(pictures.images if pictures else (), found.reshape(-1, count), strict=True)]

    def save(self, workdir: pathlib.Path) -> None:
        """Keeps what is done to images beside a run, which then needs no other folder for it."""
        (workdir / FILE).write_text(json.dumps(dataclasses.asdict(self.prepare), indent=2) + "\n")


def shown(sight: Sight | None, example: Example) -> Example:
    """The example with the tokens of its images; ValueError where the model sees none."""
    if sight is not None:
        return sight.shown(example)
    if feature_functions.images(example):
        raise ValueError("a record has images, but the model sees none; set config.model.vision, or config.task.blind "
                         "to leave them out")
    return example


def place(task: Task, record: Record) -> str:
    """What an error calls a record: by its fields, or its id where it has one."""
    told = [f"{name} {record[name]!r:.60}" for name in ("id", *task.fields) if record.get(name)]
    return f"record with {', '.join(told)}" if told else "record"


def check(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError for settings that images exclude."""
    if config.batch.packing and config.model.vision is not None:
        raise ValueError("config.batch.packing is True, but images are told apart by row; set it to False")


def find(shape: ModelConfig, tokenizer: Tokenizer, workdir: pathlib.Path | None, folder: pathlib.Path | None
         ) -> Sight | None:
    """What a model makes of images: as the workdir keeps it, as the pretrained folder says, or else they become
    squares of the size that its positions are made for; None where it sees none.

    Raises:
      ValueError: the folder does not say it, or leaves images of different sizes, or the tokenizer's token of
        images is none or another than the model's.
    """
    if shape.vision is None:
        return None
    token = feature_functions.special_id(tokenizer, IMAGE)
    if token != shape.vision.image_token:
        raise ValueError(f"the tokenizer's {IMAGE} is id {token}, the model's {shape.vision.image_token}; "
                         "is this the model's own tokenizer?")
    patches = shape.vision.tower.patches
    assert patches is not None  # as the config's own check has found
    if workdir is not None and (workdir / FILE).exists():
        prepare = image_preparation.from_plain(json.loads((workdir / FILE).read_text()))
    elif folder is not None:
        prepare = image_preparation.read(folder)
    else:
        prepare = Preparation((patches.image_size, patches.image_size))
    if prepare.shape is None:
        raise ValueError(f"{folder} prepares images to different sizes; a batch needs one: give its "
                         "preprocessor_config.json a crop_size, or a size of height and width")
    return Sight(shape.vision, prepare, prepare.shape)
