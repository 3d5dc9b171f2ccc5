# SPDX-License-Identifier: Apache-2.0
"""The guide's sixth chapter: subwords, what is graded, entities in the user's words, windows."""

import numpy as np
import pytest

from t5tasks import tasks
from t5tasks.data import tokenizer as tokenizers
from t5tasks.data.features import windows
from t5tasks.tasks.ner import word_probabilities
from t5tasks.tasks.task import Window

TASK = tasks.get("ner")
FORM = TASK.form("encoder")
LABELS = ("O", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-PER", "I-PER")
OPTIONS = {**TASK.options, "labels": LABELS}
WORDS = ["Tim", "Cook", "visited", "Cupertino", "for", "Apple", "."]
TAGS = ["B-PER", "I-PER", "O", "B-LOC", "O", "B-ORG", "O"]
RECORD = {"tokens": WORDS, "tags": TAGS}


@pytest.fixture(scope="module")
def guides(tmp_path_factory):
    """A WordPiece vocabulary without Cupertino, but with its parts."""
    path = tmp_path_factory.mktemp("guide") / "vocab.txt"
    known = [word for word in WORDS if word != "Cupertino"]
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *known, "Cuper", "##tino"]) + "\n")
    return tokenizers.load(path)


def _windows(record, tokenizer, options=OPTIONS, length=99):
    return windows(FORM.preprocess(record, options), tokenizer, FORM.loss_mask, length)


def _answer(tags, found, probability=1.0):
    """What a model says that is right about every token of the word with that tag."""
    rest = (1 - probability) / (len(LABELS) - 1)
    table = np.full((len(LABELS), len(LABELS)), rest) + np.eye(len(LABELS)) * (probability - rest)
    classes = [0, *(LABELS.index(tag) for tag in tags), 0]
    return [Window(tokens, table[[classes[piece] for piece in tokens.pieces]]) for _, tokens, _ in found]


def test_the_first_subword_is_graded(guides):
    (arrays, tokens, _), = _windows(RECORD, guides)
    pieces = [guides.piece(int(id)) for id in tokens.ids]
    assert pieces == ["[CLS]", "Tim", "Cook", "visited", "Cuper", "##tino", "for", "Apple", ".", "[SEP]"]
    assert arrays["weights"].tolist() == [0, 1, 1, 1, 1, 0, 1, 1, 1, 0]
    assert [LABELS[index] for index, weight in zip(arrays["targets"], arrays["weights"], strict=True)
            if weight] == TAGS
    (arrays, _, _), = _windows(RECORD, guides, {**OPTIONS, "label_all": True})
    assert arrays["weights"].tolist() == [0, 1, 1, 1, 1, 1, 1, 1, 1, 0]
    assert LABELS[arrays["targets"][5]] == "B-LOC"


@pytest.mark.parametrize(("words", "tags", "entities"), [
    ("Barack Obama was born in Hawaii .", "B-PER I-PER O O O B-LOC O", [("PER", "Barack Obama"), ("LOC", "Hawaii")]),
    ("Tim Cook , CEO of Apple", "B-PER I-PER O O O B-ORG", [("PER", "Tim Cook"), ("ORG", "Apple")]),
])
def test_the_guides_sentences(words, tags, entities, letters):
    record = {"tokens": words.split(), "tags": tags.split()}
    found = TASK.postprocess(record, _answer(record["tags"], _windows(record, letters)), OPTIONS)
    assert [(each["type"], each["text"]) for each in found["entities"]] == entities
    assert all(words[each["start"]:each["end"]] == each["text"] for each in found["entities"])


def test_entities_come_back_in_the_users_words(guides):
    found = TASK.postprocess(RECORD, _answer(TAGS, _windows(RECORD, guides)), OPTIONS)
    assert found == {"entities": [
        {"type": "PER", "text": "Tim Cook", "start": 0, "end": 8, "score": 1.0},
        {"type": "LOC", "text": "Cupertino", "start": 17, "end": 26, "score": 1.0},
        {"type": "ORG", "text": "Apple", "start": 31, "end": 36, "score": 1.0}]}
    text = " ".join(WORDS)
    assert all(text[entity["start"]:entity["end"]] == entity["text"] for entity in found["entities"])


def test_a_later_subword_says_nothing_unless_all_are_labelled(guides):
    (window,) = _answer(["O"] * len(WORDS), _windows(RECORD, guides))
    values = window.values.copy()
    values[4, :2], values[5, :2] = (0.6, 0.4), (0.1, 0.9)  # Cuper O, ##tino B-LOC
    assert TASK.postprocess(RECORD, [Window(window.tokens, values)], OPTIONS) == {"entities": []}
    options = {**OPTIONS, "label_all": True}
    (_, tokens, _), = _windows(RECORD, guides, options)
    (entity,) = TASK.postprocess(RECORD, [Window(tokens, values)], options)["entities"]
    assert (entity["type"], entity["text"]) == ("LOC", "Cupertino") and entity["score"] == pytest.approx(0.65)


def test_an_entitys_score_is_that_of_its_least_certain_word(guides):
    (window,) = _answer(TAGS, _windows(RECORD, guides), 0.9)
    window.values[2] = 0.05
    window.values[2, LABELS.index("I-PER")] = 0.7
    scores = [entity["score"] for entity in TASK.postprocess(RECORD, [window], OPTIONS)["entities"]]
    assert scores == pytest.approx([0.7, 0.9, 0.9])


@pytest.mark.parametrize(("repair", "texts"), [("lenient", ["Tim", "Cook", "Apple ."]), ("strict", ["Cook"])])
def test_ill_formed_tags_are_repaired(repair, texts, letters):
    tags = ["I-PER", "B-PER", "O", "O", "O", "I-ORG", "I-ORG"]
    options = {**OPTIONS, "repair": repair}
    found = TASK.postprocess(RECORD, _answer(tags, _windows(RECORD, letters)), options)
    assert [entity["text"] for entity in found["entities"]] == texts


@pytest.mark.parametrize("length", [12, 16, 23, 64])
def test_a_sentence_longer_than_the_window_is_read_whole(length, letters):
    """Also words that are longer than a window: each word is graded, and read, at its first token."""
    words = ["Tim", "Cook", "visited", "x" * 40, "for", "Apple", "Park"] * 3
    tags = ["B-PER", "I-PER", "O", "B-LOC", "O", "B-ORG", "I-ORG"] * 3
    record = {"tokens": words, "tags": tags}
    made = _windows(record, letters, length=length)
    assert len(made) > 1 and all(len(tokens.ids) <= length for _, tokens, _ in made)
    graded = {int(piece) for arrays, tokens, _ in made for piece in tokens.pieces[arrays["weights"] == 1]}
    assert graded == set(range(1, len(words) + 1))
    assert all(tokens.pieces[0] == 0 and tokens.pieces[-1] == len(words) + 1 and not tokens.lost
               for _, tokens, _ in made)
    found = TASK.postprocess(record, _answer(tags, made), OPTIONS)
    gold = TASK.postprocess(record, _answer(tags, _windows(record, letters, length=999)), OPTIONS)
    assert found == gold and len(gold["entities"]) == 9


def test_a_word_is_read_where_it_stands_farthest_from_an_edge(letters):
    record = {"tokens": list("abcdefghijkl")}
    made = _windows(record, letters, {**OPTIONS, "overlap": 6}, length=14)
    assert len(made) > 1
    answers = [Window(tokens, np.eye(len(LABELS))[np.full(len(tokens.ids), number + 1)])
               for number, (_, tokens, _) in enumerate(made)]
    chosen = word_probabilities(answers, 12, LABELS).argmax(axis=1) - 1
    for word, window in enumerate(chosen):
        margins = {}
        for number, (_, tokens, _) in enumerate(made):
            places = np.flatnonzero((tokens.pieces == word + 1) & (np.asarray(tokens.roles) == "word"))
            if len(places):
                margins[number] = min(places[0] - 1, len(tokens.ids) - 2 - places[-1])
        assert margins[int(window)] == max(margins.values())


def test_a_word_without_tokens_is_outside(letters):
    record = {"tokens": ["Tim", "", "Cook"], "tags": ["B-PER", "O", "B-PER"]}
    found = TASK.postprocess(record, _answer(record["tags"], _windows(record, letters)), OPTIONS)
    assert [(entity["text"], entity["start"]) for entity in found["entities"]] == [("Tim", 0), ("Cook", 5)]


def test_labels_have_both_tags_of_every_type():
    records = [{"tokens": ["a", "b"], "tags": ["B-X", "O"]}, {"tokens": ["c"], "tags": ["B-A"]}]
    assert TASK.resolve(TASK.options, lambda: records)["labels"] == ("O", "B-A", "I-A", "B-X", "I-X")
    with pytest.raises(ValueError, match="have no tag but O"):
        TASK.resolve(TASK.options, lambda: [{"tokens": ["a"], "tags": ["O"]}])
    with pytest.raises(ValueError, match="config.task.repair is 'loose', expected lenient or strict"):
        TASK.resolve({**TASK.options, "repair": "loose"}, lambda: records)


@pytest.mark.parametrize(("record", "message"), [
    ({"tokens": ["Tim"], "tags": ["B-CAR"]}, "unknown tag 'B-CAR' of tokens 'Tim'; valid tags are O, B-LOC"),
    ({"tokens": ["Tim", "Cook"], "tags": ["O"]}, "tokens 'Tim Cook' has 2 tokens and 1 tags; expected texts, and a"),
    ({"tokens": [7], "tags": ["O"]}, "tokens '7' has 1 tokens and 1 tags; expected texts")])
def test_a_record_that_does_not_fit_is_named(record, message):
    with pytest.raises(ValueError, match=message):
        FORM.preprocess(record, OPTIONS)
