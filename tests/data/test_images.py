# SPDX-License-Identifier: Apache-2.0
"""Laws of images: whence and in which form a picture comes does not matter; what is no picture is said in a line."""

import base64
import io
import json
import pathlib
import random
import struct
import zipfile
import zlib

import datasets
import numpy as np
import pytest
from PIL import Image

from t5tasks.data import batches, images, sources, world

DATA = pathlib.Path(__file__).parents[2].parent / "shared" / "data"
PICTURE = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


def packed(pixels, format="PNG", mode=None, **options):
    stream = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(stream, format, **options)
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path):
    """The same picture as a file, in a zip file, and beside records of its names."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "it.png").write_bytes(packed(PICTURE))
    with zipfile.ZipFile(tmp_path / "deep" / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("some/it.png", packed(PICTURE))
    return tmp_path


def test_a_picture_is_the_same_wherever_it_lies(folder):
    uri = "data:image/png;base64," + base64.b64encode(packed(PICTURE)).decode()
    for image in ("it.png", "zip://some/it.png::all.zip", uri, uri.replace("+", "%2B"), packed(PICTURE),
                  {"bytes": packed(PICTURE), "path": None}, {"bytes": None, "path": "it.png"},
                  str(folder / "deep" / "it.png")):
        found = images.pixels(images.located(image, folder / "deep"), "record 1")
        np.testing.assert_array_equal(found, PICTURE)
        assert found.dtype == np.uint8


def test_lossless_formats_are_exact_and_jpeg_is_near():
    np.testing.assert_array_equal(images.decoded(packed(PICTURE, "WEBP", lossless=True)), PICTURE)
    smooth = np.repeat(np.arange(0, 240, 5, dtype=np.uint8)[:, None, None], 3, 2).repeat(20, 1)
    assert np.abs(images.decoded(packed(smooth, "JPEG", quality=95)).astype(int) - smooth).max() < 5


@pytest.mark.parametrize(("orientation", "turned"), [
    (1, lambda x: x), (2, np.fliplr), (3, lambda x: np.rot90(x, 2)), (4, np.flipud),
    (5, lambda x: np.swapaxes(x, 0, 1)), (6, lambda x: np.rot90(x, -1)), (7, lambda x: np.rot90(x, 2).swapaxes(0, 1)),
    (8, np.rot90)])
def test_what_a_camera_notes_turns_the_picture_upright(orientation, turned):
    """As the standard has it, 6 says: row 0 of the file is the right side of the scene."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    for format, options in (("PNG", {}), ("WEBP", {"lossless": True})):
        found = images.decoded(packed(PICTURE, format, exif=exif.tobytes(), **options))
        np.testing.assert_array_equal(found, turned(PICTURE))


def test_every_kind_of_pixel_becomes_three_channels():
    grey = PICTURE[..., 0]
    three = np.repeat(grey[..., None], 3, 2)
    np.testing.assert_array_equal(images.decoded(packed(grey)), three)
    upper = grey.astype(np.uint16) << 8 | 77
    np.testing.assert_array_equal(images.decoded(packed(upper)), three)
    bits = np.where(grey > 127, 255, 0).astype(np.uint8)
    np.testing.assert_array_equal(images.decoded(packed(bits, mode="1")), np.repeat(bits[..., None], 3, 2))
    seen_through = np.concatenate([PICTURE, np.full((5, 7, 1), 0, np.uint8)], -1)
    np.testing.assert_array_equal(images.decoded(packed(seen_through)), PICTURE)
    palette = Image.fromarray(PICTURE).quantize(4)
    stream = io.BytesIO()
    palette.save(stream, "PNG", transparency=0)
    np.testing.assert_array_equal(images.decoded(stream.getvalue()), np.asarray(palette.convert("RGB")))


def written(width, height, bits, rows):
    """A PNG of colours, which need not be as large as it says."""
    chunks = {b"IHDR": struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0), b"IDAT": zlib.compress(rows),
              b"IEND": b""}
    parts = (struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
             for name, body in chunks.items())
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_sixteen_bits_of_colour_lose_their_lower_half():
    """One pixel, 0xABCD 0x1234 0xFF00; Pillow writes no such file."""
    file = written(1, 1, 16, b"\0\xab\xcd\x12\x34\xff\x00")
    assert images.decoded(file).tolist() == [[[0xAB, 0x12, 0xFF]]]


def test_the_first_picture_of_an_animation_counts():
    stream = io.BytesIO()
    frames = [Image.fromarray(PICTURE), Image.fromarray(255 - PICTURE)]
    frames[0].save(stream, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    np.testing.assert_array_equal(images.decoded(stream.getvalue()), PICTURE)


@pytest.mark.parametrize(("image", "said"), [
    ("none.png", "image {folder}/none.png: cannot be read: No such file"),
    (".", "cannot be read: Is a directory"),
    ("text.png", "image {folder}/text.png: is no PNG, JPEG or WEBP file"),
    ("half.png", "image {folder}/half.png: is damaged: "),
    ("wrong.png", "image {folder}/wrong.png: is damaged: "),
    ("zip://gone.png::all.zip", "image zip://gone.png::{folder}/all.zip: is not in the zip file, which holds 1 others"),
    ("zip://some/it.png::none.zip", "none.zip: cannot be read"),
    ("zip://some/it.png::text.png", "cannot be taken out of the zip file"),
    ("https://example.org/a.png", "images are not fetched from elsewhere"),
    ("data:image/png;base64,AAA", "base64 is damaged"),
    ("data:image/png", "without a comma"),
    (written(9000, 9000, 8, b""), "is too large: 9000 x 9000 pixels, expected at most 67,108,864"),
    (written(60000, 60000, 8, b""), "is too large: expected at most 67,108,864 pixels"),
    (b"", "image of 0 bytes: "),
    (None, "image of type NoneType: expected a path"),
    (3.5, "image of type float: expected a path"),
    ({}, "expected a path"),
], ids=lambda value: value[:30] if isinstance(value, str) else type(value).__name__)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_is_no_picture_is_named_with_its_record_in_one_line(folder, image, said):
    place = folder / "deep"
    (place / "text.png").write_text("no picture")
    (place / "half.png").write_bytes(packed(PICTURE)[:-40])
    (place / "wrong.png").write_bytes(packed(PICTURE).replace(b"IDAT", b"IDAT\1", 1))
    with pytest.raises(ValueError) as raised:
        images.pixels(images.located(image, place), "train.jsonl:7")
    assert str(raised.value).startswith("train.jsonl:7: image ")
    assert said.format(folder=place) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_large_files_are_not_read(folder, monkeypatch):
    monkeypatch.setattr(images, "MOST_BYTES", 100)
    uri = "data:image/png;base64," + base64.b64encode(packed(PICTURE)).decode()
    for image in ("it.png", "zip://some/it.png::all.zip", packed(PICTURE), uri):
        with pytest.raises(ValueError, match="is too large: .* bytes, expected at most 100"):
            images.pixels(images.located(image, folder / "deep"), "record")


def test_damage_never_gives_anything_but_a_picture_or_a_line():
    generator = random.Random(0)
    refused = 0
    for format in images.FORMATS:
        whole = packed(PICTURE.repeat(4, 0).repeat(4, 1), format)
        for _ in range(150):
            broken = bytearray(whole)
            for _ in range(generator.randint(1, 6)):
                broken[generator.randrange(len(broken))] = generator.randrange(256)
            try:
                assert images.pixels(bytes(broken[:generator.randint(1, len(broken) * 2)]), "r").shape[2] == 3
            except ValueError as error:
                refused += 1
                assert str(error).startswith("r: image of ") and "\n" not in str(error)
    assert refused > 100


def test_a_changed_archive_is_read_anew(folder):
    archive = folder / "deep" / "all.zip"
    image = f"zip://some/it.png::{archive}"
    images.pixels(image, "record")
    with zipfile.ZipFile(archive, "w") as written:
        written.writestr("some/it.png", packed(255 - PICTURE))
    np.testing.assert_array_equal(images.pixels(image, "record"), 255 - PICTURE)


def test_records_name_images_from_their_own_file_on(folder):
    """Of two files in two folders, and also where an edit names the field; other fields stay as they are."""
    for name, image in (("a", "it.png"), ("b", "../deep/it.png")):
        (folder / "deep" / name).mkdir()
        (folder / "deep" / name / "records.jsonl").write_text(json.dumps({"photo": f"../{image}", "text": "it.png"}))
    paths = ",".join(str(folder / "deep" / name / "records.jsonl") for name in "ab")
    for records in (sources.load(f"file:{paths}?rename=photo:image", "", ("image", "images")),
                    sources.read(f"file:{paths}?rename=photo:image", "", ("image", "images"))):
        found = list(records)
        assert [record["text"] for record in found] == ["it.png", "it.png"]
        for record in found:
            np.testing.assert_array_equal(images.pixels(record["image"], "record"), PICTURE)
    several = folder / "deep" / "several.jsonl"
    several.write_text(json.dumps({"images": ["it.png", "zip://some/it.png::all.zip"]}) + "\n" + json.dumps({"a": 1}))
    record, without = sources.read(f"file:{several}", "", ("images",))
    assert all((images.pixels(image, "record") == PICTURE).all() for image in record["images"])
    assert without == {"a": 1}


def test_images_of_a_saved_data_set_stay_packed_until_they_are_read(tmp_path):
    features = datasets.Features({"image": datasets.Image(), "images": datasets.List(datasets.Image())})
    made = datasets.Dataset.from_dict({"image": [{"bytes": packed(PICTURE), "path": None}],
                                       "images": [[{"bytes": packed(PICTURE), "path": "a.png"}]]}, features=features)
    made.save_to_disk(tmp_path / "saved")
    record = sources.load(f"hub:{tmp_path / 'saved'}")[0]
    assert record["image"]["bytes"] == packed(PICTURE)
    for image in (record["image"], *record["images"]):
        np.testing.assert_array_equal(images.pixels(image, "record"), PICTURE)


def test_the_built_in_world_s_pictures():
    record = world.records("multimodal", "train", 1)[0]
    assert images.pixels(record["image"], "record").shape == (32, 32, 3)


def test_real_pictures_in_a_zip_file():
    if not (folder := DATA / "easy_vqa" / "test").exists():
        pytest.skip("no easy_vqa: the folder shared/data is not beside the checkout")
    records = sources.load(f"file:{folder / 'questions.json.gz'}?convert=easy_vqa&limit=300", "", ("image",))
    assert records[11] == {"image": f"zip://images/1.png::{folder / 'images.zip'}",
                           "question": "what is the color of the rectangle?", "answers": ["yellow"], "kind": "colour"}
    found = list(batches.made_ahead(lambda record: images.pixels(record["image"], "record"), records, 3))
    assert len(found) == 300 and {one.shape for one in found} == {(64, 64, 3)}
    yellow = found[11].astype(int)
    assert ((yellow[..., 0] > 150) & (yellow[..., 1] > 150) & (yellow[..., 2] < 100)).sum() > 100
    np.testing.assert_array_equal(found[11], images.pixels(records[11]["image"], "record"))
