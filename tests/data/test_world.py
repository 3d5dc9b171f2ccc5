# SPDX-License-Identifier: Apache-2.0
"""The built-in world comes in; its laws go out: seeded, split by combination, hard to guess."""

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
from t5tasks.data.world.language import DOERS, VERBS

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
    "rag": {"question", "answers", "passage_ids", "passages"},
    "dense_retriever": {"question", "answers", "passage_ids", "passages"},
    "multimodal": {"image", "question", "answers"},
}
COUNTRIES = {place.city: place.country for place in facts.PLACES}
THINGS = {name: thing for thing in facts.THINGS for name in (thing.name, thing.plural)}
PEOPLE = set(facts.PEOPLE)
MADE_OF_CODE = {"code": ("instruction", "code")}  # asserts hold numbers of every size


@functools.cache
def made(task, split):
    """The records of one split, made once for all tests: the usual size, of pictures fewer."""
    pictures = task == "multimodal" and split == "train"
    return world.records(task, split, 800 if pictures else None)


def texts(record, fields=None):
    """Every string in a record, nested ones too."""
    if isinstance(record, str):
        return [record]
    if isinstance(record, dict):
        record = [record[field] for field in fields or record if field not in ("id", "image")]
    return [text for part in record if not isinstance(part, int) for text in texts(part)]


def words(text):
    return re.findall(r"[^\W_]+|[^\w\s]", text)


def test_every_task_has_the_fields_that_it_reads():
    assert world.tasks() == tuple(FIELDS)
    for task, split in itertools.product(FIELDS, SPLITS):
        assert len(made(task, split)) == world.SIZES[split] or task == "multimodal"
        assert all(record.keys() == FIELDS[task] for record in made(task, split))


@pytest.mark.parametrize("task", FIELDS)
def test_a_seed_is_a_stream_and_a_size_its_beginning(task):
    first = world.records(task, "validation", 60)
    assert world.records(task, "validation", 60) == first
    assert world.records(task, "validation", 23) == first[:23]
    assert world.records(task, "validation", 60, seed=1) != first
    assert world.records(task, "validation", 0) == []


def test_records_are_the_same_on_every_machine():
    assert world.records("translation", "test", 2) == [
        {
            "source": "On Friday the farmers do not see a pear.",
            "target": "venri velkoi mo pergan nel ovilker.",
        },
        {
            "source": "On Saturday the blue doctors will clean the new apple.",
            "target": "sabo yarnoi bliui malun nivon vaforvur.",
        },
    ]


@pytest.mark.parametrize("task", FIELDS)
def test_no_record_twice_within_or_across_splits_of_two_seeds(task):
    def keys(split, seed):
        records = made(task, split) if seed == 0 else world.records(task, split, 150, seed)
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
        return {(guest.split("I am ")[1].split()[0], re.search(r"shop in (\w+)", system)[1])}
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


def paints(record):
    """(thing, colour of the premise, colour of the hypothesis), where either names the thing and not its kind."""
    found = re.findall(r"the (\w+)(?: in \w+)? were (\w+)\.", f"{record['premise']} {record['hypothesis']}")
    (noun, said), (other, colour) = found
    return {(name, said, colour) for name in (noun, other) if name in THINGS}


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


HELD_OUT = {
    "text_generation": visits,
    "dialogue": visits,
    "classification": visits,
    "nli": visits,
    "extractive_qa": visits,
    "generative_qa": visits,
    "ner": visits,
    "summarization": visits,
    "reasoning": visits,
    "rag": visits,
    "dense_retriever": visits,
    "translation": deeds,
    "code": operations,
    "multimodal": figures,
}
# Where only some records must hold one: sums are one kind of story, claims may be about a whole kind.
SHARES = {("text_generation", amounts): 0.3, ("nli", paints): 0.6}


@pytest.mark.parametrize(
    ("task", "combinations"),
    [
        *HELD_OUT.items(),
        ("text_generation", amounts),
        ("reasoning", amounts),
        ("classification", opinions),
        ("nli", paints),
    ],
)
def test_combinations_of_evaluation_never_occur_in_train(task, combinations):
    assert HELD_OUT.keys() == set(world.tasks())
    seen = {}
    for split in SPLITS:
        found = [combinations(record) for record in made(task, split)]
        assert np.mean([bool(each) for each in found]) >= SHARES.get((task, combinations), 1.0)
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


def test_ner_labels_are_the_tags_that_occur():
    assert world.labels("ner")[0] == "O"
    tags = {tag for record in made("ner", "train") for tag in record["tags"]}
    assert tags == set(world.labels("ner"))


@pytest.mark.parametrize("split", SPLITS)
def test_ner_tags_are_well_formed(split):
    for record in made("ner", split):
        assert len(record["tokens"]) == len(record["tags"])
        for before, tag in itertools.pairwise(["O", *record["tags"]]):
            assert not tag.startswith("I-") or before[2:] == tag[2:]


def counts_of(texts, vocabulary):
    """How often each word occurs in each text: float[N, words]."""
    counts = np.zeros((len(texts), len(vocabulary)))
    for row, text in enumerate(texts):
        for word in words(text):
            if word in vocabulary:
                counts[row, vocabulary[word]] += 1
    return counts


def bag_of_words_accuracy(task, read):
    """Validation accuracy of a softmax regression on word counts, trained on the train split."""
    train, validation = made(task, "train"), made(task, "validation")
    names = world.labels(task)
    vocabulary = {word: i for i, word in enumerate({w for r in train for w in words(read(r))})}
    inputs = counts_of([read(record) for record in train], vocabulary)
    targets = np.eye(len(names))[[names.index(record["label"]) for record in train]]
    weights = np.zeros((len(vocabulary), len(names)))
    for _ in range(300):
        scores = np.exp(inputs @ weights)
        weights -= 0.5 * inputs.T @ (scores / scores.sum(1, keepdims=True) - targets) / len(train)
    guesses = (counts_of([read(r) for r in validation], vocabulary) @ weights).argmax(1)
    return np.mean([names[i] == r["label"] for i, r in zip(guesses, validation, strict=True)])


def test_a_bag_of_words_does_not_tell_the_sentiment():
    assert bag_of_words_accuracy("classification", lambda record: record["text"]) < 0.65


def test_a_hypothesis_or_a_premise_alone_says_little_about_its_label():
    assert bag_of_words_accuracy("nli", lambda record: record["hypothesis"]) < 0.42
    assert bag_of_words_accuracy("nli", lambda record: record["premise"]) < 0.55
    assert bag_of_words_accuracy("nli", lambda record: f"{record['premise']} {record['hypothesis']}") < 0.6


ANSWERS = {
    "text_generation": (lambda r: r["prompt"].split(". ")[-1], lambda r: r["completion"]),
    "extractive_qa": (lambda r: r["question"], lambda r: str(r["answers"]["text"])),
    "generative_qa": (lambda r: r["question"], lambda r: r["answers"][1]),
    "reasoning": (lambda r: r["question"].split(". ")[-1], lambda r: r["answer"]),
    "rag": (lambda r: r["question"], lambda r: str(r["answers"][1:])),
    "multimodal": (lambda r: r["question"], lambda r: r["answers"][0]),
    "dialogue": (lambda r: r["turns"][-2]["text"], lambda r: r["turns"][-1]["text"]),
}


@pytest.mark.parametrize("task", ANSWERS)
def test_the_commonest_answer_and_the_commonest_to_a_question_are_rarely_right(task):
    """A guess without the context: by the question alone, names and numbers aside."""
    read, answer = ANSWERS[task]

    def shape(record):
        return " ".join(
            "_" if word in PEOPLE | COUNTRIES.keys() | THINGS.keys() or word.isdigit() else word
            for word in words(read(record))
        )

    overall = Counter(answer(record) for record in made(task, "train"))
    by_shape = defaultdict(Counter)
    for record in made(task, "train"):
        by_shape[shape(record)][answer(record)] += 1
    validation = made(task, "validation")
    best = overall.most_common(1)[0][0]
    assert np.mean([answer(record) == best for record in validation]) < 0.34
    hits = [by_shape.get(shape(record), overall).most_common(1)[0][0] == answer(record) for record in validation]
    assert np.mean(hits) < 0.4


def test_a_dictionary_of_tags_gets_few_sentences_right():
    tags = defaultdict(Counter)
    for record in made("ner", "train"):
        for token, tag in zip(record["tokens"], record["tags"], strict=True):
            tags[token][tag] += 1
    right = [
        [tags[token].most_common(1)[0][0] for token in record["tokens"]] == record["tags"]
        for record in made("ner", "validation")
    ]
    assert np.mean(right) < 0.35


def test_a_copy_of_the_source_scores_nothing():
    sources, targets = zip(*(record.values() for record in made("translation", "validation")), strict=True)
    assert sacrebleu.corpus_bleu(list(sources), [list(targets)]).score < 1
    assert sacrebleu.corpus_chrf(list(sources), [list(targets)]).score < 20
    for record in made("summarization", "validation"):
        assert record["summary"] not in record["document"]
    leads = [record["document"].split(". ")[0] for record in made("summarization", "validation")]
    summaries = [record["summary"] for record in made("summarization", "validation")]
    assert sacrebleu.corpus_bleu(leads, [summaries]).score < 10


def test_a_name_the_world_does_not_know_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="no task 'translate'. Did you mean 'translation'"):
        world.records("translate", "train")
    with pytest.raises(ValueError, match="no split 'valid'.*Expected one of train, validation, test"):
        world.records("nli", "valid")
    with pytest.raises(ValueError, match="size is -1"):
        world.records("nli", "train", -1)
    with pytest.raises(ValueError, match="no labels for 'code'.*classification, nli, ner"):
        world.labels("code")


def test_no_more_records_are_made_than_differ(monkeypatch):
    five = world.Recipe(("a",), lambda draw, split, kind: {"number": draw.randrange(5)})
    monkeypatch.setattr(world, "_recipes", lambda seed: {"numbers": five})
    assert {record["number"] for record in world.records("numbers", "test", 5)} == {*range(5)}
    with pytest.raises(ValueError, match="numbers test: 6 records.* about 5 different ones. Ask for fewer"):
        world.records("numbers", "test", 6)
