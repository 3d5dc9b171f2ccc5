# SPDX-License-Identifier: Apache-2.0
"""The built-in world comes in; its laws go out: seeded, split by combination, right, hard to guess."""

import functools
import io
import itertools
import re
from collections import Counter, defaultdict

import numpy as np
import pytest
import sacrebleu
from PIL import Image

from t5tasks.data import world
from t5tasks.data.world import facts
from t5tasks.data.world.language import ADJECTIVES, DOERS, VERBS

SPLITS = ("train", "validation", "test")
FIELDS = {
    "text_generation": {"prompt", "completion"},
    "dialogue": {"turns"},
    "classification": {"text", "label"},
    "nli": {"premise", "hypothesis", "label"},
    "extractive_qa": {"id", "title", "context", "question", "answers"},
    "generative_qa": {"context", "question", "answers"},
    "ner": {"tokens", "tags"},
    "summarization": {"document", "summary"},
    "translation": {"source", "target"},
    "code": {"instruction", "code", "tests"},
    "reasoning": {"question", "reasoning", "answer"},
    "rag": {"question", "answers", "passage_ids"},
    "multimodal": {"image", "question", "answers"},
}
COUNTRIES = {place.city: place.country for place in facts.PLACES}
THINGS = {name: thing for thing in facts.THINGS for name in (thing.name, thing.plural)}
PEOPLE = set(facts.PEOPLE)
MADE_OF_CODE = {"code": ("instruction", "code")}  # asserts hold numbers of every size


@functools.cache
def made(task, split):
    """The records of one split at their usual size, made once for all tests."""
    return world.records(task, split)


def texts(record, fields=None):
    """Every string in a record, nested ones too."""
    if isinstance(record, str):
        return [record]
    if isinstance(record, dict):
        record = [record[field] for field in fields or record if field not in ("id", "image")]
    return [text for part in record if not isinstance(part, int) for text in texts(part)]


def words(text):
    return re.findall(r"[^\W_]+|[^\w\s]", text)


def test_thirteen_tasks_with_the_fields_that_tasks_read():
    assert world.tasks() == tuple(FIELDS)
    for task, split in itertools.product(FIELDS, SPLITS):
        assert len(made(task, split)) == world.SIZES[split]
        assert all(record.keys() == FIELDS[task] for record in made(task, split))


@pytest.mark.parametrize("task", FIELDS)
def test_a_seed_is_a_stream_and_a_size_its_beginning(task):
    first = world.records(task, "validation", 60)
    assert world.records(task, "validation", 60) == first
    assert world.records(task, "validation", 23) == first[:23]
    assert world.records(task, "validation", 60, seed=1) != first
    assert world.records(task, "validation", 0) == []


def test_records_are_the_same_on_every_machine():
    assert world.records("translation", "test", 2) == PINNED


PINNED = []


@pytest.mark.parametrize("task", FIELDS)
def test_no_record_twice_within_or_across_splits_of_two_seeds(task):
    def keys(split, seed):
        records = made(task, split) if seed == 0 else world.records(task, split, 400, seed)
        return [repr({**record, "id": ""}) for record in records]

    seen = {split: keys(split, 0) for split in SPLITS}
    for split in SPLITS:
        assert len(set(seen[split])) == len(seen[split])
    for split, other in itertools.permutations(SPLITS, 2):
        assert set(seen[split]).isdisjoint(seen[other])
        assert set(seen[split]).isdisjoint(keys(other, 1))


@pytest.mark.parametrize("task", FIELDS)
def test_every_word_of_evaluation_is_met_in_train(task):
    known = {
        word
        for record in made(task, "train")
        for text in texts(record, MADE_OF_CODE.get(task))
        for word in words(text)
    }
    for split in ("validation", "test"):
        for record in made(task, split):
            for text in texts(record, MADE_OF_CODE.get(task)):
                assert set(words(text)) <= known, text
    assert len(known) < 400


def visits(record):
    """The (person, city) pairs said in one sentence or clause of a record."""
    if "turns" in record:
        system, guest = record["turns"][0]["text"], record["turns"][1]["text"]
        return {(guest.split("I am ")[1].split()[0], system.split(" in ")[1].split(".")[0])}
    if "tags" in record:
        tagged = list(zip(record["tokens"], record["tags"], strict=True))
        people = [token for token, tag in tagged if tag == "B-PERSON"]
        cities = [token for token, tag in tagged if tag == "B-PLACE" and token in COUNTRIES]
        return set(itertools.product(people, cities))
    pairs = set()
    for text in texts(record):
        for clause in re.split(r"[.?] |, and (?=[A-Z])", text):
            found = re.findall(r"\w+", clause)
            people = {word for word in found if word in PEOPLE}
            if len(people) == 1:
                pairs |= {(*people, word) for word in found if word in COUNTRIES}
    return pairs


def amounts(record):
    found = re.findall(r"(\d) ([a-z]+)", record.get("prompt") or record["question"])
    return {(count, name) for count, name in found if name in THINGS}


def opinions(record):
    return {
        (
            re.search(r"the (\w+) (?:was|is)", record["text"])[1],
            re.search(r" was (?:not )?(\w+)", record["text"])[1],
            re.search(r" is (?:not )?(\w+)", record["text"])[1],
        )
    }


def deeds(record):
    """(doer, verb, tense) of an English sentence."""
    nouns = {form: noun for noun, (plural, _) in DOERS.items() for form in (noun, plural)}
    forms = {form: verb for verb, (past, _) in VERBS.items() for form in (verb, verb + "s", past)}
    found = record["source"].lower().rstrip(".").split()
    verb = next(word for word in found if word in forms)
    past = "did" in found or verb == VERBS[forms[verb]][0]
    tense = "future" if "will" in found else "past" if past else "present"
    return {(next(nouns[word] for word in found if word in nouns), forms[verb], tense)}


def operations(record):
    body = record["code"].split("return ")[1]
    parameter = re.search(r"\((\w+)\)", record["code"])[1]
    return {re.sub(rf"\b{parameter}\b", "_", body)}


def figures(record):
    """(shape, colour, cell) of everything drawn, read off the pixels."""
    pixels = np.asarray(Image.open(io.BytesIO(record["image"])))
    assert pixels.shape == (32, 32, 3)
    found = set()
    for number, cell in enumerate(facts.CELLS):
        top, left = number // 2 * 16, number % 2 * 16
        part = pixels[top : top + 16, left : left + 16]
        for colour, value in facts.COLOURS.items():
            rows, columns = np.nonzero((part == value).all(-1))
            if len(rows):
                mask = np.zeros((16, 16), bool)
                mask[rows, columns] = True
                mask = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
                corners = (mask[0, 0], mask[-1, 0])
                shape = {(True, True): "square", (False, True): "triangle"}.get(corners)
                shape = shape or ("circle" if mask.mean() > 0.6 else "cross")
                found.add((shape, colour, cell))
    return found


@pytest.mark.parametrize(
    ("task", "combinations", "share"),
    [
        *((task, visits, 1.0) for task in FIELDS if task not in ("translation", "code", "multimodal")),
        ("text_generation", amounts, 0.3),
        ("reasoning", amounts, 1.0),
        ("classification", opinions, 1.0),
        ("translation", deeds, 1.0),
        ("code", operations, 1.0),
        ("multimodal", figures, 1.0),
    ],
)
def test_combinations_of_evaluation_never_occur_in_train(task, combinations, share):
    """At least `share` of the records of a split hold a combination; no two splits share one."""
    seen = {}
    for split in SPLITS:
        found = [combinations(record) for record in made(task, split)]
        wanted = 0.3 if task in ("extractive_qa", "nli") else share
        assert np.mean([bool(each) for each in found]) >= wanted
        seen[split] = set().union(*found)
    for split, other in itertools.combinations(SPLITS, 2):
        assert seen[split].isdisjoint(seen[other])
    assert len(seen["train"]) > 2 * len(seen["validation"]) > 10


@pytest.mark.parametrize("task", ["classification", "nli"])
@pytest.mark.parametrize("split", SPLITS)
def test_labels_are_balanced(task, split):
    counts = Counter(record["label"] for record in made(task, split))
    assert set(counts) == set(world.labels(task))
    assert max(counts.values()) - min(counts.values()) <= 1


def test_ner_labels_are_the_tags_and_every_tag_occurs():
    assert world.labels("ner")[0] == "O"
    assert {tag for record in made("ner", "train") for tag in record["tags"]} == {
        tag for tag in world.labels("ner") if tag != "I-THING"
    }


@pytest.mark.parametrize("split", SPLITS)
def test_ner_tags_are_well_formed(split):
    for record in made("ner", split):
        assert len(record["tokens"]) == len(record["tags"])
        for before, tag in itertools.pairwise(["O", *record["tags"]]):
            assert not tag.startswith("I-") or before[2:] == tag[2:]
