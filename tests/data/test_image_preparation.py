# SPDX-License-Identifier: Apache-2.0
"""What a model reads of a picture is what transformers' own processor makes of it, for every family's file."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from t5tasks.data import image_preparation
from t5tasks.data.image_preparation import HALVES, Preparation, from_foreign

FOLDER = pathlib.Path(__file__).parent / "fixtures" / "images"
STRIDE = 13  # what make_image_fixtures.py kept of large ones


@pytest.fixture(scope="module")
def reference():
    with np.load(FOLDER / "reference.npz") as arrays:
        return dict(arrays)


def drawn(name):
    return np.asarray(Image.open(FOLDER / f"{name}.png"))


@pytest.mark.parametrize("name", sorted(path.parent.name for path in FOLDER.glob("*/preprocessor_config.json")))
def test_pictures_are_prepared_as_the_reference_does(name, reference):
    """To one level in 255, which another version of Pillow may round otherwise; here to less than a hundredth."""
    prepare = image_preparation.read(FOLDER / name)
    names = [key.split("/")[1] for key in reference if key.startswith(f"{name}/") and key.count("/") == 1]
    assert len(names) >= 3
    for picture in names:
        found = prepare(drawn(picture))
        channels, *size = reference[f"{name}/{picture}/shape"].tolist()
        assert found.dtype == np.float32 and found.shape == (*size, channels)
        assert prepare.shape in (None, found.shape[:2])
        stride = STRIDE if max(size) > 150 else 1
        level = prepare.scale / np.asarray(prepare.std)
        away = np.abs(found[::stride, ::stride] - reference[f"{name}/{picture}"].transpose(1, 2, 0)) / level
        assert away.max() <= 1 and np.mean(away) < 0.01


def test_the_families_own_files_say_all_and_defaults_say_the_same():
    """A file of a processor's name alone means what the reference writes out in full."""
    for name in ("vit", "clip", "siglip"):
        said = json.loads((FOLDER / name / "preprocessor_config.json").read_text())
        bare = {"image_processor_type": said["image_processor_type"]}
        assert from_foreign(bare) == from_foreign(said) == image_preparation.read(FOLDER / name)
    assert from_foreign({"image_processor_type": "ViTImageProcessor"}) == Preparation()


def test_old_files_mean_the_same():
    said = json.loads((FOLDER / "clip" / "preprocessor_config.json").read_text())
    del said["image_processor_type"]
    old = {**said, "feature_extractor_type": "CLIPFeatureExtractor", "size": 224, "crop_size": 224}
    assert from_foreign(old) == image_preparation.read(FOLDER / "clip")
    old = {"feature_extractor_type": "ViTFeatureExtractor", "size": 30, "image_mean": 0.5, "image_std": list(HALVES)}
    assert from_foreign(old) == Preparation(size=(30, 30))
    assert from_foreign({**old, "size": [30, 40]}).size == (30, 40)
    fast = {"image_processor_type": "SiglipImageProcessorFast", "size": {"height": 30, "width": 40}, "device": None}
    assert from_foreign(fast).shape == (30, 40)


def test_transformers_5_keeps_it_within_the_processor_s_file(tmp_path):
    said = json.loads((FOLDER / "llava" / "preprocessor_config.json").read_text())
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": said, "patch_size": 14}))
    assert image_preparation.read(tmp_path) == image_preparation.read(FOLDER / "llava")


def test_a_square_has_the_mean_s_colour_around_it():
    """The picture lies in the middle, and stays as it is."""
    picture = drawn("wide")
    prepare = Preparation(size=None, square=True, mean=(0.2, 0.4, 0.6), std=(1.0, 1.0, 1.0))
    found = np.rint((prepare(picture) + np.float32([0.2, 0.4, 0.6])) * 255)
    assert found.shape == (61, 61, 3)
    np.testing.assert_array_equal(found[10:50], picture)
    assert {tuple(pixel) for pixel in found[:10].reshape(-1, 3)} == {(51, 102, 153)}


@pytest.mark.parametrize(("field", "value", "said"), [
    ("image_processor_type", "DetrImageProcessor", "the processor DetrImageProcessor is not known"),
    ("size", {"max_height": 3, "max_width": 4}, "size is .*; expected height and width, or shortest_edge"),
    ("size", {"shortest_edge": -3}, "size is"),
    ("crop_size", {"shortest_edge": 3}, "crop_size is .*; expected height and width, in pixels"),
    ("resample", 9, "resample is 9; expected 0 to 5"),
    ("image_mean", [0.5], "image_mean is .0.5.; expected three numbers"),
    ("image_std", "half", "image_std is 'half'; expected three numbers"),
    ("do_pad", True, "do_pad is True, which only LLaVA's processor honours"),
    ("do_flip_channel_order", True, "do_flip_channel_order is True, which is not honoured"),
])
def test_a_field_that_is_not_honoured_is_refused_by_name(tmp_path, field, value, said):
    known = json.loads((FOLDER / "clip" / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(known | {field: value}))
    with pytest.raises(ValueError, match=said) as raised:
        image_preparation.read(tmp_path)
    assert str(tmp_path / "preprocessor_config.json") in str(raised.value)


def test_a_folder_that_does_not_say_it_is_refused(tmp_path):
    with pytest.raises(ValueError, match="does not say how its images are prepared"):
        image_preparation.read(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(ValueError, match="preprocessor_config.json is not JSON"):
        image_preparation.read(tmp_path)
