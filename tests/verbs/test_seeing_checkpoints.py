# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of LLaVA and PaliGemma with their own processors' files come in; pictures and prompts in records give
the tokens, pixels, logits and texts of transformers (make_seeing_fixtures.py)."""

import pathlib
import shutil

import numpy as np
import pytest

from t5tasks import configuration
from t5tasks.data import batches
from t5tasks.inference import Predictor
from t5tasks.trained import load

TESTS = pathlib.Path(__file__).parents[1]
FIXTURES = TESTS / "verbs" / "fixtures"
PICTURES = TESTS / "data" / "fixtures" / "images"
RECORDS = [{"image": str(PICTURES / f"{picture}.png"), "question": question, "answers": [answer]}
           for picture, question, answer in (("wide", "What is there?", "A sky."),
                                             ("tall", "which colours, left to right?", "green and red"),
                                             ("large", "How many discs are in it?", "Six discs"))]
# As the tasks's file tells them.
TEMPLATES = {"llava": "{bos}USER: {images}\n{question} ASSISTANT:",
             "paligemma": "{images}{bos}answer en {question}\n"}
NEW = 6


@pytest.fixture(scope="module", params=TEMPLATES)
def seeing(request, tmp_path_factory):
    """The model, and what the reference makes of each record."""
    folder = tmp_path_factory.mktemp("checkpoint") / request.param
    shutil.copytree(TESTS / "pretrained" / "fixtures" / request.param, folder)
    for path in (FIXTURES / request.param).glob("*.json"):
        shutil.copy(path, folder)
    config = configuration.defaults("multimodal")
    config.pretrained, config.task.template = str(folder), TEMPLATES[request.param]
    config.model.compute_dtype = "float32"
    config.batch.update(size=8, evaluation_size=8, length=24)
    config.decode.max_new_tokens = NEW
    with np.load(FIXTURES / request.param / "reference.npz") as arrays:
        reference = [{name: arrays[f"{index}/{name}"] for name in ("ids", "pixels", "logits", "written")}
                     for index in range(len(RECORDS))]
    return load(config, None), reference


def test_tokens_and_pixels_are_the_reference_processor_s(seeing):
    """Pixels to one level in 255."""
    trained, reference = seeing
    for record, expected in zip(RECORDS, reference, strict=True):
        features, tokens, _ = trained.experiment.features(record)
        assert tokens.ids.tolist() == expected["ids"].tolist()
        assert features["tokens"].tolist() == tokens.ids[:-1].tolist()
        level = 1 / 255 / np.asarray(trained.experiment.sight.prepare.std)[:, None, None]
        away = np.abs(features["images"].read(0).transpose(2, 0, 1) - expected["pixels"]) / level
        assert away.max() <= 1


def test_logits_of_a_batch_are_the_reference_s(seeing):
    """With prompt and image seen both ways by PaliGemma, and graded on the answer alone."""
    trained, reference = seeing
    run = trained.experiment
    rows = [run.features(record)[0] for record in RECORDS]
    batch = batches.padded(rows, run.evaluation_shape)
    logits = np.asarray(run.model.apply(trained.parameters, {name: array[:] for name, array in batch.items()}))
    nll = graded = 0.0
    for row, features, expected in zip(logits[:len(rows)], rows, reference, strict=True):
        length = len(features["tokens"])
        np.testing.assert_allclose(row[:length], expected["logits"][:length], rtol=0, atol=1e-4)
        told = expected["logits"][:length] - np.logaddexp.reduce(expected["logits"][:length], axis=1)[:, None]
        places = np.flatnonzero(features["weights"])
        nll -= told[places, features["targets"][places]].sum()
        graded += len(places)
    counts = Predictor(run).token_counts(trained.parameters, RECORDS)
    assert float(counts["token_loss"]) == pytest.approx(nll, rel=1e-4) and float(counts["token_count"]) == graded


def test_what_is_written_is_the_reference_s(seeing):
    """Greedily, token for token, as it is shown while it is written; and at once it is the same text."""
    trained, reference = seeing
    predictor = Predictor(trained.experiment)
    conversation = predictor.conversation(trained.parameters)
    for record, expected in zip(RECORDS, reference, strict=True):
        streamed = predictor.stream(conversation, record)
        for _ in streamed.tokens:
            pass
        assert streamed.tokens.ids[0] == expected["written"].tolist()
    shown = ["".join(predictor.stream(conversation, record).texts) for record in RECORDS]
    assert list(predictor.answers(trained.parameters, RECORDS)) == shown
