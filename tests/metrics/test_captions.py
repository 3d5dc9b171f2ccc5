# SPDX-License-Identifier: Apache-2.0
"""CIDEr is pycocoevalcap's, with the words that its Java tokenizer finds, also of the real photographs' captions."""

import collections
import json
import pathlib

import pytest

from t5tasks.metrics import counts as counting
from t5tasks.metrics.captions import Frequencies, cider_counts, cider_figures, cider_signature, frequencies, words

DATA = pathlib.Path(__file__).parents[2].parent / "shared" / "data"
REFERENCE = json.loads((pathlib.Path(__file__).parent / "fixtures" / "visual.json").read_text("utf-8"))["captions"]


@pytest.mark.parametrize("caption", REFERENCE["tokens"])
def test_words_are_those_of_the_java_tokenizer(caption):
    assert words(caption) == REFERENCE["tokens"][caption].split()


def made_up():
    captions = list(REFERENCE["tokens"])
    return ([captions[one] for one, _ in REFERENCE["images"]],
            [[captions[at] for at in many] for _, many in REFERENCE["images"]])


def test_every_image_s_score_and_the_mean_are_the_reference_s():
    predictions, references = made_up()
    known = frequencies(references)
    mean, each = REFERENCE["cider"]
    found = [cider_figures(cider_counts([one], [many], known))["cider"]
             for one, many in zip(predictions, references, strict=True)]
    assert found == pytest.approx(each, rel=1e-9, abs=1e-12)
    assert cider_figures(cider_counts(predictions, references, known))["cider"] == pytest.approx(mean, rel=1e-9)
    assert len({round(one, 6) for one in each}) >= 20


def test_photographs_of_coco_score_as_with_the_reference():
    """The first person's caption against the others'."""
    if not (folder := DATA / "coco_captions_mini").exists():
        pytest.skip("no coco_captions_mini: the folder shared/data is not beside the checkout")
    written = collections.defaultdict(list)
    for split in ("train", "val"):
        for one in json.loads((folder / f"captions_{split}.json").read_text())["annotations"]:
            written[one["image_id"]].append(one["caption"])
    several = [found for found in written.values() if len(found) > 1]
    references = [found[1:] for found in several]
    counts = cider_counts([found[0] for found in several], references, frequencies(references))
    assert cider_figures(counts)["cider"] == pytest.approx(REFERENCE["photographs"], rel=1e-9)


def test_frequencies_and_counts_add_up():
    predictions, references = made_up()
    known = frequencies(references)
    joined = frequencies(references[:11]) + Frequencies() + frequencies(references[11:])
    assert joined == known and known.images == len(references)
    parts = [cider_counts(predictions[some], references[some], joined) for some in (slice(7), slice(7, None))]
    whole = cider_counts(predictions, references, known)
    assert cider_figures(counting.total(parts))["cider"] == pytest.approx(cider_figures(whole)["cider"], rel=1e-12)


def test_a_caption_of_its_own_image_is_worth_10_and_of_another_nothing():
    references = [["a dog runs on the beach"], ["two small cats sleep in boxes"], ["old trains at some station"]]
    known = frequencies(references)

    def score(caption):
        return cider_figures(cider_counts([caption], references[:1], known))["cider"]

    assert score("A dog runs on the beach.") == pytest.approx(10)
    assert score("two small cats sleep in boxes") == score("") == 0
    assert 0 < score("a dog runs on") < score("a dog runs on the") < 10
    # Saying a word again makes no caption better.
    assert score("a dog runs on the beach beach beach") < score("a dog runs on the beach") - 1


def test_words_of_all_images_tell_nothing():
    references = [["a dog"], ["a cat"]]
    assert cider_figures(cider_counts(["a"], references[:1], frequencies(references)))["cider"] == 0


def test_what_cannot_be_scored_is_refused():
    known = frequencies([["a dog"]])
    for predictions, references in ((["a dog"], []), (["a dog"], [[]]), ("a dog", [["a dog"]])):
        with pytest.raises(ValueError, match="expected as many, and a reference in each"):
            cider_counts(predictions, references, known)
    with pytest.raises(ValueError, match="frequencies are of 1 images, fewer than the 2 predictions"):
        cider_counts(["a dog"] * 2, [["a dog"]] * 2, known)
    with pytest.raises(ValueError, match="no example was counted"):
        cider_figures(cider_counts([], [], known))


def test_the_signature_says_what_was_computed():
    assert cider_signature() == "cider:D|n:4|sigma:6|scale:10|df:references|tok:ptb-like,lower,no punctuation"
