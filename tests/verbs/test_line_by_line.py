# SPDX-License-Identifier: Apache-2.0
"""Files of plain text come in; as many lines come out of predict, in their order, whole or not at all."""

from __future__ import annotations

import gzip
import io
import itertools
import pathlib
import sys
from collections.abc import Callable, Iterator

import pytest

from t5tasks import inference, line_by_line, predict, tasks
from t5tasks.data import sources

TRANSLATION = ("translation", "encoder_decoder")


@pytest.fixture(scope="module")
def sentences() -> list[str]:
    return [record["source"] for record in sources.read("builtin:test?size=20", "translation")]


@pytest.fixture
def translations(sentences: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """A line for each of the sentences, as a translator who reads eight at a time reverses their words."""

    def reverse(sentence: str) -> str:
        return " ".join(sentence.split()[::-1])

    def predictions(self: inference.Predictor, parameters: object, records: Iterator[dict], skip: int = 0
                    ) -> Iterator[tuple]:
        numbered = enumerate(records)
        while group := list(itertools.islice(numbered, 8)):
            for _, record in group[max(skip - group[0][0], 0):]:
                yield record, {"translation": reverse(record["source"])}

    monkeypatch.setattr(inference.Predictor, "predictions", predictions)
    return tuple(map(reverse, sentences))


def test_as_many_lines_as_there_are(runs: Callable, verb: Callable, sentences: list[str],
                                    translations: tuple[str, ...], tmp_path: pathlib.Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    source.write_text("".join(f"{line}\n" for line in sentences), "utf-8")
    told = verb(predict, f"--workdir={runs(*TRANSLATION).workdir}", f"--input=text:{source}", f"--output={output}")
    assert told.output == f"{output}: 20 predictions\n"
    assert "predict translation 20/20 " in told.errors and told.errors.rstrip().endswith("a second, 0:00 left")
    assert tuple(output.read_text("utf-8").removesuffix("\n").split("\n")) == translations


@pytest.mark.parametrize("packed", [False, True])
def test_line_n_answers_line_n(runs: Callable, verb: Callable, sentences: list[str], translations: tuple[str, ...],
                               tmp_path: pathlib.Path, packed: bool) -> None:
    """Empty lines stay, whatever ends a line; a mark that opens the file and a last line without an end are no more."""
    places = [0, 5, None, None, 3, None, 9, None]
    text = "\ufeff\r\n" + "".join(f"{sentences[place]}\r\n" if place is not None else " \t\n" for place in places)
    source, output = tmp_path / ("in.gz" if packed else "in"), tmp_path / "new" / "out"
    content = (text + sentences[7]).encode()
    source.write_bytes(gzip.compress(content) if packed else content)
    assert verb(predict, f"--workdir={runs(*TRANSLATION).workdir}", f"--input=text:{source}",
                f"--output={output}").status == 0
    wanted = ["", *("" if place is None else translations[place] for place in places), translations[7]]
    assert output.read_bytes().decode() == "".join(f"{line}\n" for line in wanted)


def test_nothing_ends_a_line_within_an_answer() -> None:
    assert line_by_line.one_line("\n a\n\n b\r\nc\u2028d\x0be \x85f\t g\x1c") == "a b c d e f\t g"


def test_an_answer_of_several_lines_is_one(runs: Callable, verb: Callable, sentences: list[str],
                                           translations: tuple[str, ...], tmp_path: pathlib.Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    original = inference.Predictor.predictions

    def broken(*arguments: object) -> Iterator[tuple]:
        for record, prediction in original(*arguments):
            yield record, {"translation": f"\n{prediction['translation']}\n\u2029and more\r\n"}

    monkeypatch.setattr(inference.Predictor, "predictions", broken)
    source, output = tmp_path / "in", tmp_path / "out"
    source.write_text(f"{sentences[0]}\n{sentences[1]}\n", "utf-8")
    assert verb(predict, f"--workdir={runs(*TRANSLATION).workdir}", f"--input=text:{source}",
                f"--output={output}").status == 0
    wanted = [f"{text} and more" for text in translations[:2]]
    assert output.read_text("utf-8").split("\n") == [*wanted, ""]


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Lets predict fail after so many lines, as often as it is called; the list has how many each attempt began at."""
    original = line_by_line.answers

    def stop(after: int) -> list[int]:
        begun: list[int] = []

        def answers(trained: object, predictor: object, text: object, skip: int = 0) -> Iterator[str]:
            begun.append(skip)
            yield from itertools.islice(original(trained, predictor, text, skip), after or None)
            if after:
                raise ValueError("the power went out")

        monkeypatch.setattr(line_by_line, "answers", answers)
        return begun

    return stop


def test_a_file_that_is_there_is_whole(runs: Callable, verb: Callable, sentences: list[str],
                                       translations: tuple[str, ...], tmp_path: pathlib.Path, stopping: Callable
                                       ) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    line = (f"--workdir={runs(*TRANSLATION).workdir}", f"--input=text:{source}", f"--output={output}")
    source.write_text("".join(f"\n{sentence}\n" for sentence in sentences), "utf-8")
    whole = "".join(f"\n{text}\n" for text in translations)
    begun = stopping(11)
    assert "the power went out" in verb(predict, *line).mistake and not output.exists()
    aside = tmp_path / ".out.partial"
    assert aside.read_text("utf-8") == "\n".join(whole.split("\n")[:11]) + "\n"
    aside.write_bytes(aside.read_bytes() + translations[5][:4].encode())  # as a kill within a line leaves it
    assert "the power went out" in verb(predict, *line).mistake and begun == [0, 11]
    begun = stopping(0)
    assert verb(predict, *line).output == f"{output}: 40 predictions\n"
    assert begun == [22] and not aside.exists() and output.read_text("utf-8") == whole
    before = output.read_bytes()
    assert verb(predict, *line).output == f"{output}: 40 predictions\n" and begun == [22]  # there is nothing to do
    source.write_text(f"{sentences[0]}\n", "utf-8")
    assert f"{output} exists and comes from another command (its content differs)" in verb(predict, *line).mistake
    assert output.read_bytes() == before


def test_what_was_begun_for_another_text_is_not_gone_on_with(
        runs: Callable, verb: Callable, sentences: list[str], translations: tuple[str, ...], tmp_path: pathlib.Path,
        stopping: Callable) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    line = (f"--workdir={runs(*TRANSLATION).workdir}", f"--input=text:{source}", f"--output={output}")
    source.write_text("".join(f"{sentence}\n" for sentence in sentences[:12]), "utf-8")
    stopping(9)
    assert verb(predict, *line).status == 1
    source.write_text("".join(f"{sentence}\n" for sentence in sentences[5:]), "utf-8")
    begun = stopping(0)
    assert verb(predict, *line).status == 0 and begun == [0]
    assert tuple(output.read_text("utf-8").split("\n")[:-1]) == translations[5:]


def test_pipes(runs: Callable, verb: Callable, sentences: list[str], translations: tuple[str, ...],
               tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def piped() -> None:
        text = f"{sentences[0]}\n\n{sentences[1]}\n".encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text), encoding="ascii"))

    workdir, output = f"--workdir={runs(*TRANSLATION).workdir}", tmp_path / "out"
    wanted = f"{translations[0]}\n\n{translations[1]}\n"
    piped()
    assert verb(predict, workdir, "--input=text:-", "--output=-").output == wanted
    piped()
    assert verb(predict, workdir, "--input=text:-", f"--output={output}").status == 0
    assert output.read_text("utf-8") == wanted
    piped()  # nobody knows whether it is the same text
    assert f"{output} exists and comes from" in verb(predict, workdir, "--input=text:-", f"--output={output}").mistake
    assert not pathlib.Path("-").exists()


@pytest.mark.parametrize(("content", "option", "said"), [
    (b"a\n\nb\xff c\nd\n", "", "{}:3: byte 2 of it (0xff) is not utf-8: add encoding=, such as latin-1, or mend the"),
    (None, "", "no file {}"),
    (b"a\n", "?encoding=utf-9", "unknown encoding 'utf-9'"),
    (b"a\n", "?encodin=utf-8", "unknown option 'encodin' of text:{}?encodin=utf-8: did you mean encoding?"),
])
def test_a_text_that_cannot_be_read_leaves_nothing(
        runs: Callable, verb: Callable, tmp_path: pathlib.Path, content: bytes | None, option: str, said: str) -> None:
    source = tmp_path / "in"
    if content is not None:
        source.write_bytes(content)
    told = verb(predict, f"--workdir={runs(*TRANSLATION).workdir}", f"--input=text:{source}{option}",
                f"--output={tmp_path / 'out'}").mistake
    assert said.format(source) in told
    assert [path.name for path in tmp_path.iterdir()] == ([] if content is None else ["in"])


def test_other_encodings_and_an_empty_file(runs: Callable, verb: Callable, sentences: list[str],
                                           translations: tuple[str, ...], tmp_path: pathlib.Path) -> None:
    (tmp_path / "wide").write_text(f"{sentences[0]}\r\n\n", "utf-16")
    (tmp_path / "empty").touch()
    for name, wanted in (("wide?encoding=utf-16", f"{translations[0]}\n\n"), ("empty", "")):
        output = tmp_path / f"{name[:4]}.out"
        assert verb(predict, f"--workdir={runs(*TRANSLATION).workdir}", f"--input=text:{tmp_path / name}",
                    f"--output={output}").status == 0
        assert output.read_text("utf-8") == wanted


@pytest.mark.parametrize(("task", "architecture", "field", "answer"), [
    ("text_generation", "decoder", "prompt", "completion"), ("classification", "encoder", "text", "label")])
def test_other_tasks(runs: Callable, verb: Callable, tmp_path: pathlib.Path, task: str, architecture: str, field: str,
                     answer: str) -> None:
    run, output = runs(task, architecture), tmp_path / "out"
    source = tmp_path / "in"
    source.write_text("".join(f"{record[field]}\n" for record in sources.read(f"file:{run.records}")), "utf-8")
    assert verb(predict, f"--workdir={run.workdir}", f"--input=text:{source}", f"--output={output}").status == 0
    wanted = [line_by_line.one_line(each[answer]) for each in run.lines]
    assert output.read_text("utf-8").split("\n")[:-1] == wanted and len(set(wanted)) > 1
    records = verb(predict, f"--workdir={run.workdir}", f"--input={run.records}", "--output=-")
    assert records.output == run.predictions.read_text("utf-8")


def test_a_task_of_more_than_a_text_says_so(runs: Callable, verb: Callable, tmp_path: pathlib.Path) -> None:
    run = runs("ner", "encoder")
    (tmp_path / "in").write_text("a\n")
    said = verb(predict, f"--workdir={run.workdir}", f"--input=text:{tmp_path / 'in'}",
                f"--output={tmp_path / 'out'}").mistake
    assert "ner does not go line by line: a record of it is more than one text" in said
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_which_tasks_go_line_by_line() -> None:
    """A line makes a record that is enough to be predicted, and is in it."""
    found = {}
    for name in tasks.names():
        if (lines := tasks.get(name).lines) is not None:
            record = lines.record("Say it.", tasks.get(name).options)
            found_for_it = {"passages": []} if "index" in tasks.get(name).options else {}
            tasks.get(name).check({**record, **found_for_it}, "line 1", targets=False)
            assert "Say it." in str(record)
            found[name] = lines.answer
    assert found.items() >= {"translation": "translation", "summarization": "summary", "text_generation": "completion",
                             "generative_qa": "answer", "reasoning": "answer", "dialogue": "reply",
                             "classification": "label"}.items()
    assert not {"ner", "nli", "extractive_qa", "code"} & found.keys()
    assert tasks.get("classification", {"multi_label": True}).lines is None
