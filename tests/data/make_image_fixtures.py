# SPDX-License-Identifier: Apache-2.0
"""Drawn pictures come in; what transformers' own processors make of them goes out.

    VENV/bin/python tests/data/make_image_fixtures.py

Run by hand, with transformers 5.23 and Pillow 13 (without torchvision: the processors that resize with Pillow). It
writes fixtures/images: the pictures, each processor's preprocessor_config.json, and reference.npz with every
STRIDE-th row and column of what they make, by "PROCESSOR/PICTURE".
"""

import pathlib

import numpy as np
from PIL import Image, ImageDraw
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

FOLDER = pathlib.Path(__file__).parent / "fixtures" / "images"
STRIDE = 13
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
PROCESSORS = {
    "vit": ViTImageProcessorPil(),
    "clip": CLIPImageProcessorPil(),
    "siglip": SiglipImageProcessorPil(),
    "dinov2": BitImageProcessorPil(size={"shortest_edge": 256}, **IMAGENET),
    "llava": CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}),
    "llava_square": LlavaImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336},
                                           do_pad=True),
    "paligemma": SiglipImageProcessorPil(image_seq_length=256),
    # What the families' own files do not do, but a file may say.
    "longest": CLIPImageProcessorPil(size={"shortest_edge": 90, "longest_edge": 100}, do_center_crop=False),
    "large_crop": BitImageProcessorPil(size={"shortest_edge": 31}, crop_size={"height": 45, "width": 52}),
    "whole": ViTImageProcessorPil(do_resize=False, do_normalize=False),
    "levels": SiglipImageProcessorPil(size={"height": 17, "width": 29}, resample=1, do_rescale=False,
                                      do_normalize=False),
}
# Height and width: wide, tall, square and smaller than any patch's row, larger than what most models read.
PICTURES = {"wide": (40, 61), "tall": (83, 30), "small": (9, 9), "large": (301, 402)}


def picture(height, width, seed):
    """A sky that darkens, with discs and boxes whose borders are sharp."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    sky = np.stack([40 + 200 * rows / height, 230 - 150 * columns / width, 90 + 90 * (rows + columns) % 120], -1)
    image = Image.fromarray(sky.astype(np.uint8))
    brush = ImageDraw.Draw(image)
    for number in range(12):
        left, top = int(generator.integers(width)), int(generator.integers(height))
        right, bottom = left + int(generator.integers(1, width // 2)), top + int(generator.integers(1, height // 2))
        draw = brush.ellipse if number % 2 else brush.rectangle
        draw((left, top, right, bottom), fill=tuple(int(level) for level in generator.integers(256, size=3)))
    return image


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    images = {name: picture(*size, seed) for seed, (name, size) in enumerate(PICTURES.items())}
    for name, image in images.items():
        image.save(FOLDER / f"{name}.png", optimize=True)
    made = {}
    for name, processor in PROCESSORS.items():
        processor.save_pretrained(FOLDER / name)
        for picture_name, image in images.items():
            values = processor(image, return_tensors="np")["pixel_values"][0]
            stride = STRIDE if max(values.shape) > 150 else 1
            made[f"{name}/{picture_name}"] = values[:, ::stride, ::stride].astype(np.float32)
            made[f"{name}/{picture_name}/shape"] = np.asarray(values.shape)
    del made["whole/large"], made["longest/large"]
    np.savez_compressed(FOLDER / "reference.npz", **made)


if __name__ == "__main__":
    main()
