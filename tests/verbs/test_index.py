# SPDX-License-Identifier: Apache-2.0
"""Folders of documents come in; an index that follows their changes, and passages found in it, come out."""

from __future__ import annotations

import json

import pytest

from t5tasks import index, trained
from t5tasks.data import world
from t5tasks.reranking import pair_scores
from t5tasks.retrieval.fusion import Reranked

SHOPS = world.passages(0)[:40]
QUERY = "--query=On which day is the shop of Anna in Lima open?"


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "shops.jsonl").write_text("".join(json.dumps(shop) + "\n" for shop in SHOPS))
    (folder / "rules.md").write_text("# The rules\n\nNobody sells before six.\n")
    return folder


def test_an_index_follows_its_documents(verb, folder, tmp_path):
    at = f"--index={tmp_path / 'index'}"
    made = verb(index, f"--input={folder}", at, QUERY, "--top=2")
    assert made.status == 0 and "41 documents new or changed, 0 as before, 0 removed; now 41 documents, 41 passages, " \
        "0 vectors" in made.output
    assert "left" in made.errors
    lines = made.output.splitlines()
    assert lines[1].startswith("[1] anna-lima (characters 0 to ")
    assert lines[2] == f"    {next(shop['text'] for shop in SHOPS if shop['id'] == 'anna-lima')}"
    (folder / "rules.md").write_text("# The rules\n\nNobody sells before seven.\n")
    (folder / "page.html").write_text("<title>Hours</title><p>Closed on Sunday.")
    assert "2 documents new or changed, 40 as before, 0 removed; now 42 " in verb(index, f"--input={folder}", at).output
    (folder / "page.html").unlink()
    assert "0 documents new or changed, 41 as before, 1 removed; now 41 " in verb(
        index, f"--input={folder}", at, "--mirror").output
    assert "1 of 2 documents removed" in verb(index, at, "--delete=anna-lima", "--delete=nobody").output
    assert "anna-lima" not in verb(index, at, QUERY).output
    found = verb(index, at, "--query=nobody sells before seven", "--top=1").output
    assert found.startswith("[1] rules.md The rules") and "    Nobody sells before seven." in found
    assert verb(index, at, "--query=xylophone").output == "nothing found\n"


def test_an_encoder_is_remembered_and_another_refused(verb, folder, tmp_path, tiny_encoder):
    at, dense = f"--index={tmp_path / 'index'}", f"--encoder={tiny_encoder}"
    verb(index, f"--input={folder}", at)  # without vectors, cut by words
    assert "has no vectors, which dense search needs" in verb(index, at, QUERY, "--retriever=dense").mistake
    assert "0 documents new or changed, 41 as before, 0 removed; now 41 documents, 41 passages, 41 vectors" in verb(
        index, f"--input={folder}", at, dense).output
    (folder / "more.txt").write_text("Nothing else.")
    assert "now 42 documents, 42 passages, 42 vectors" in verb(index, f"--input={folder}", at).output
    own = "--query=The rules\n# The rules\n\nNobody sells before six."  # what was embedded
    for kind in ("dense", "hybrid", "auto"):
        assert verb(index, at, own, f"--retriever={kind}", "--top=1").output.startswith("[1] rules.md ")
    refused = verb(index, f"--input={folder}", at, dense, "--pooling=first").mistake
    assert "has vectors of another encoder (fingerprint " in refused
    assert "42 vectors" in verb(index, f"--input={folder}", at).output  # as it was


def test_passages_are_cut_by_the_encoders_tokens(folder, tmp_path, tiny_encoder):
    made = index.open_index(str(tmp_path / "index"), str(tiny_encoder), size=12, overlap=2, create=True)
    with made.store:
        index.take_in(made, str(folder))
        tokens = [len(made.embedder.tokenizer.encode(passage.text).ids)
                  for passage in made.store.passages(made.store.numbers("passages")).values()]
        assert max(tokens) <= 12 and len(tokens) > 200  # letters are this tokenizer's tokens
    again = index.open_index(str(tmp_path / "index"))
    with again.store:
        assert again.cutter.described == made.cutter.described


def test_a_run_of_pairs_reranks(runs, folder, tmp_path):
    run = trained.load(None, runs("nli", "encoder").workdir)
    scores = pair_scores(run, "entailment")
    found = index.open_index(str(tmp_path / "index"), create=True)
    with found.store:
        index.take_in(found, str(folder))
        query = "rules of Anna, Mia or Leo"
        plain = found.retriever().search([query], 6)
        reranked = Reranked(found.retriever(), found.store, scores, depth=6).search([query], 6)
        assert sorted(plain.numbers[0]) == sorted(reranked.numbers[0])
        passages = found.store.passages(reranked.numbers[0])
        alone = [scores([(query, passages[number].searched)])[0] for number, _ in reranked.row(0)]
        assert [score for _, score in reranked.row(0)] == pytest.approx(alone, rel=1e-5)
        assert alone == sorted(alone, reverse=True) and len({*alone}) > 1
    with pytest.raises(ValueError, match="a run of nli with the labels .* cannot score pairs by 'yes'"):
        pair_scores(run, "yes")


@pytest.mark.parametrize(("flags", "message"), [
    ([], "index needs --index=DIR and"),
    (["--index=DIR"], "index needs --index=DIR and"),
    (["--index=DIR", "--query=x"], "there is no index in DIR"),
    (["--index=DIR", "--input=nowhere"], "there are no documents in nowhere"),
    (["--index=DIR", "--input=DOCUMENTS", "--pooling=mean"], "--pooling is of an encoder"),
    (["--index=DIR", "--input=DOCUMENTS", "--size=4"], "passages of 4 tokens that share 40"),
    (["--index=DIR", "--input=DOCUMENTS", "--encoder=nowhere"], "nowhere"),
])
def test_mistakes_are_told_in_one_line_and_leave_nothing(verb, folder, tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    assert message in verb(index, *(flag.replace("DOCUMENTS", str(folder)) for flag in flags)).mistake
    if "--input=nowhere" not in flags:
        assert not (tmp_path / "DIR").exists()
