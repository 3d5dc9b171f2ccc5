# SPDX-License-Identifier: Apache-2.0
"""A model that sees images, from records to answers: what is trained on, answered, refused and explained."""

import io
import json
import pathlib

import jax
import numpy as np
import pytest
from rich.console import Console

from t5tasks import chat as talk_screen
from t5tasks import configuration, experiment, explain, explanation, predict, talk, train
from t5tasks.data import batches, images, world
from t5tasks.inference import Predictor
from t5tasks.trained import Trained, load
from t5tasks.training.step import loss_sums

CHECKOUT = pathlib.Path(__file__).parents[2]
RECORDS = world.records("multimodal", "train", 24)
TOKENS = 4  # of an image: a square of 2 x 2 patches
SETTINGS = {"label_smoothing": 0.0, "z_loss": 0.0, "chunk_tokens": 0}


def config(**vision):
    """A small model, two images and a question of which find room."""
    made = configuration.read(str(CHECKOUT / "configs" / "multimodal.py"))
    made.data.update(train="builtin:train?size=64", validation="builtin:validation?size=8",
                     test="builtin:test?size=8")
    made.tokenizer.size = 330
    made.batch.update(size=8, length=40, evaluation_size=8)
    made.train.steps = 2
    made.decode.max_new_tokens = 3
    made.model.update(width=16, heads=2, kv_heads=2, head_size=8, feed_forward=32, decoder_layers=2)
    made.model.vision.tower.update(width=24, heads=2, kv_heads=2, head_size=12, feed_forward=32, encoder_layers=1)
    made.model.vision.tower.patches.update(image_size=8, patch_size=4)
    made.model.vision.update(vision)
    return made


def mixed():
    """A record with two images, one with one, and one with none."""
    one, two, three = RECORDS[:3]
    several = {name: value for name, value in one.items() if name != "image"} | {"images": [one["image"], two["image"]]}
    return [several, two, {name: value for name, value in three.items() if name != "image"}]


@pytest.fixture(scope="module", params=[False, True], ids=["causal", "prefix"])
def run(request):
    return experiment.build(config(prefix=request.param), None)


@pytest.fixture(scope="module")
def parameters(run):
    return run.model.init(jax.random.key(0))


@pytest.fixture(scope="module")
def graded(run, parameters, quick_jit):
    """Of rows, the sum of the losses of their graded tokens, and their number."""
    program = quick_jit(lambda batch: loss_sums(run.model, parameters, batch, SETTINGS))

    def of(rows):
        batch = batches.padded(rows, run.evaluation_shape)
        sums = program({name: array[:] for name, array in batch.items()})  # images are read by slices
        return float(sums["nll"]), float(sums["weight"])

    return of


def test_images_stand_where_their_tokens_do_and_only_answers_are_graded(run):
    token = run.tokenizer.control["<image>"]
    assert run.model.config.vision.image_token == token
    for record, count in zip(mixed(), (2, 1, 0), strict=True):
        arrays, tokens, _ = run.features(record)
        assert arrays["tokens"][1:1 + count * TOKENS].tolist() == [token] * count * TOKENS
        assert (arrays["tokens"] == token).sum() == count * TOKENS
        assert not arrays["weights"][arrays["targets"] == token].any()
        answer = arrays["targets"][arrays["weights"] > 0].tolist()
        assert run.tokenizer.decode(answer).strip() == record["answers"][0] and answer[-1] == 1
        assert ("images" in arrays) == (count > 0)
        if count:
            wanted = [run.sight.prepare(images.pixels(image, "")) for image in
                      record.get("images", [record.get("image")])]
            read = [arrays["images"].read(number) for number in range(count)]
            np.testing.assert_array_equal(read, wanted)
        if run.sight.vision.prefix:
            np.testing.assert_array_equal(arrays["prefix"], [role != "target" for role in tokens.roles[:-1]])


def test_a_record_s_loss_does_not_depend_on_what_stands_beside_it(run, graded):
    """Alone and among records with more images or none; rows without images read black ones that no token takes."""
    rows = [run.features(record)[0] for record in mixed()]
    alone = [graded([row]) for row in rows]
    assert graded(rows) == pytest.approx(tuple(map(sum, zip(*alone, strict=True))), rel=1e-5)


def test_the_answer_depends_on_the_image_and_on_the_order_of_images(run, graded):
    several, _, _ = mixed()
    swapped = several | {"images": several["images"][::-1]}
    assert several["images"][0] != several["images"][1]
    found = [graded([run.features(record)[0]])[0] for record in (several, swapped)]
    assert abs(found[0] - found[1]) > 1e-5


def test_answers_are_those_of_the_whole_sequence_read_anew_for_each_token(run, parameters, quick_jit):
    """Cached = uncached: of records with two images, one and none in one batch, greedily."""
    predictor, records, width = Predictor(run), mixed(), 40
    rows = [predictor._prompts.features(record) for record in records]
    seen = {"images": batches.padded(rows, run.evaluation_shape, len(rows))["images"][:]}
    starts = np.asarray([len(row["tokens"]) for row in rows])
    if run.sight.vision.prefix:
        seen["prefix"] = np.arange(width) < starts[:, None]
    tokens = np.zeros((len(rows), width), np.int32)
    for index, row in enumerate(rows):
        tokens[index, :starts[index]] = row["tokens"]
    apply = quick_jit(run.model.apply)
    for step in range(run.config.decode.max_new_tokens):
        logits = np.asarray(apply(parameters, {"tokens": tokens, **seen}))
        for index, start in enumerate(starts):
            tokens[index, start + step] = np.argmax(logits[index, start + step - 1])
    for row, start, answer in zip(tokens, starts, predictor.answers(parameters, records), strict=True):
        written = row[start:start + run.config.decode.max_new_tokens].tolist()
        written = written[:written.index(1)] if 1 in written else written
        opening = run.tokenizer.decode(row[:start].tolist())
        assert answer == run.tokenizer.decode(row[:start].tolist() + written)[len(opening):]


def test_images_that_find_no_room_are_no_silent_loss(run, parameters):
    record = {"images": [RECORDS[0]["image"]] * 12, "question": "Which?", "answers": ["This"]}
    with pytest.raises(ValueError, match="record with question 'Which.': 12 images take 48 tokens, of which .* find "
                                         "no room; raise config.batch.length"):
        run.features(record)
    with pytest.raises(ValueError, match="12 images take 48 tokens"):
        list(Predictor(run).answers(parameters, [record]))


def test_what_cannot_be_seen_is_said(run, parameters):
    record = {"image": "none.png", "question": "Which?", "answers": ["This"]}
    with pytest.raises(ValueError, match="record with question 'Which.': image none.png: cannot be read"):
        Predictor(run).token_counts(parameters, [RECORDS[0], record])
    blind = config()
    blind.model.vision = None
    with pytest.raises(ValueError, match="a record has images, but the model sees none; set config.model.vision"):
        experiment.build(blind, None).features(RECORDS[0])
    blind.task.blind = True
    assert "images" not in experiment.build(blind, None).features(RECORDS[0])[0]
    packed = config()
    packed.batch.packing = True
    with pytest.raises(ValueError, match="images are told apart by row"):
        experiment.build(packed, None)


def test_from_records_to_predictions_of_files(tmp_path, quick_to_compile):
    """Trained, read again from its workdir alone, and asked about files beside the questions; explained."""
    made = config()
    figures = train.train(made, tmp_path / "run")
    assert 0 <= figures["vqa_accuracy"] <= 1 and np.isfinite(figures["loss"])
    trained = load(None, tmp_path / "run")
    assert trained.experiment.sight == experiment.build(made, None).sight
    (tmp_path / "seen").mkdir()
    (tmp_path / "seen" / "one.png").write_bytes(RECORDS[0]["image"])
    asked = [{"image": "seen/one.png", "question": RECORDS[0]["question"]}, {"question": "Is there a circle?"},
             {"images": ["seen/one.png"] * 2, "question": "Which shape is at the top left?"}]
    (tmp_path / "asked.jsonl").write_text("\n".join(map(json.dumps, asked)))
    assert predict.predict(trained, str(tmp_path / "asked.jsonl"), tmp_path / "told.jsonl") == 3
    told = [json.loads(line) for line in (tmp_path / "told.jsonl").read_text().splitlines()]
    same = [{**asked[0], "image": RECORDS[0]["image"]}, asked[1], {**asked[2], "images": [RECORDS[0]["image"]] * 2}]
    predictor = Predictor(trained.experiment)
    assert told == [prediction for _, prediction in predictor.predictions(trained.parameters, same)]
    made = explain.explain(None, tmp_path / "run")
    page = explanation.page(made)
    assert f"◆&lt;image&gt;×{TOKENS}</span>" in page and "image, weight 0" in page
    assert page.count("◆&lt;image&gt;</span>") == 2 * TOKENS  # in the table, each read and each a target
    assert [note for view in made.views for note in view.notes] == [
        f"image of {len(RECORDS[0]['image'])} bytes: positions 1 to {TOKENS}, 8 x 8 pixels"]


class Screen(talk_screen.Screen):
    """A screen that is read back."""

    def __init__(self):
        self.said, self.noted = io.StringIO(), io.StringIO()
        super().__init__(*(Console(file=file, highlight=False, width=500) for file in (self.said, self.noted)), False)


def test_a_chat_shows_images_and_answers_as_predict_does(run, parameters, tmp_path, quick_to_compile):
    """Each question for itself, with the images that are shown then; streamed = at once, also where images and prompt
    see each other."""
    for name, record in zip(("one.png", "two.png"), RECORDS, strict=False):
        (tmp_path / name).write_bytes(record["image"])
    one, two = (str(tmp_path / name) for name in ("one.png", "two.png"))
    question, screen = RECORDS[0]["question"], Screen()
    dialogue = talk.begin(Trained(run, parameters, 0))
    chat = talk_screen.Chat(dialogue, screen)
    for line in (question, f"/image {one}", question, f"/image {two}", question, "/image", "/save x", "/system x",
                 f"/image {tmp_path}/three.png"):
        chat.obey(line)
    asked = [{"images": shown, "question": question} for shown in ([], [one], [one, two])]
    predicted = [prediction["answer"] for _, prediction in Predictor(run).predictions(parameters, asked)]
    assert [turn["text"] for turn in dialogue.turns] == [text for answer in predicted for text in (question, answer)]
    assert screen.said.getvalue() == "".join(f"{answer}\n" for answer in predicted)
    assert chat.refused == 3 and "/save writes a dialogue" in screen.noted.getvalue()
    assert f"error: /image: image {tmp_path}/three.png: cannot be read" in screen.noted.getvalue()
    assert dialogue.record == {"images": [], "question": question, "answers": [predicted[-1]]}
    chat.obey("/mask")
    assert "⟧" in screen.said.getvalue()
    chat.obey("/reset")
    assert not dialogue.turns
