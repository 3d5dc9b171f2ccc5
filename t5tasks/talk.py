# SPDX-License-Identifier: Apache-2.0
"""A dialogue's turns, or questions on images, and a model in; the next reply, part by part as it is written, out.

    turns    system, user, assistant, user                    what `predict` reads from a saved dialogue
    prompt   [s A B x y z e C D]                              written by the task's form, as in `predict`
    cache    [s A B x y z]                                    of the turns before
    read     [            e C D]

The prompt is written anew from the turns each time, and what it shares with the cache from the
first token on is not read again. So a dialogue is its turns and nothing else: a saved one goes on
as if it had never stopped. A reply that its tokenizer spells otherwise than the model did (x y z for
what encodes as x w), or that the template rewrites, is kept up to there and read again from there;
so are the turns after an oldest one that had to be left out.

Questions to a model of the task multimodal stand each for themselves, beside the images that are shown.
"""

import dataclasses
import json
import pathlib
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any

from t5tasks import tasks
from t5tasks.data import images
from t5tasks.inference import Predictor, Streamed
from t5tasks.tasks.task import Prediction, Record
from t5tasks.trained import Trained

TASK, SEEING = "dialogue", "multimodal"
Turn = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Figures:
    """What a reply has cost."""

    tokens: int  # written, with the one that ended it
    first: float  # seconds to the first of them
    seconds: float  # to the last
    read: int  # tokens of the prompt
    reused: int  # tokens of the prompt that the cache had
    left_out: int  # oldest turns that did not fit


class Talk:
    """A dialogue with a model. `figures` are the last reply's, None before there is one."""

    task = TASK

    def __init__(self, trained: Trained, turns: Sequence[Turn] = ()) -> None:
        """Begins with turns of which the last is the assistant's, or with none.

        Raises ValueError for another task's model, settings that cannot stream, or turns that the form refuses.
        """
        run = trained.experiment
        if run.task.name != self.task:
            raise ValueError(f"the model is of the task {run.task.name}, expected {TASK}, whose turns a chat needs, or "
                             f"{SEEING}")
        self.run = run
        self._predictor = Predictor(run)
        self._conversation = self._predictor.conversation(trained.parameters)
        self._turns: list[Turn] = []
        self._number = 0  # of the next reply: each is drawn with its own key
        self.figures: Figures | None = None
        if turns:
            self._accept(list(turns))

    @property
    def turns(self) -> list[Turn]:
        """The dialogue so far, with its system prompt: {"role", "text"} each."""
        return list(self._turns)

    @property
    def record(self) -> Record:
        """The dialogue as the task reads it; ValueError before the user's first turn."""
        if not any(turn["role"] == "user" for turn in self._turns):
            raise ValueError("nothing has been said yet")
        return {"turns": self.turns}

    def reset(self) -> None:
        """Forgets all turns; the system prompt stays."""
        self._turns = [turn for turn in self._turns if turn["role"] == "system"]

    def system(self, text: str) -> None:
        """Sets the system prompt from here on, "" for none; ValueError, and the old one, where the form refuses it."""
        rest = [turn for turn in self._turns if turn["role"] != "system"]
        self._accept([*([{"role": "system", "text": text}] if text else []), *rest])

    def show(self, path: str) -> None:
        """Shows an image with what is said from here on; ValueError where turns have none."""
        raise ValueError(f"the turns of a {TASK} have no images; a model of the task {SEEING} is shown some")

    def say(self, text: str) -> Generator[str, None, None]:
        """The reply to a user's turn as it is written, without spaces around it.

        Closed early, or interrupted, it stays in the dialogue as far as it was given out; with nothing of it
        given out, the user's turn is taken back. ValueError where the form refuses the turn or its reply, or
        it is too long: the dialogue is then what it was.
        """
        self.figures = None
        record = self._asked(text)
        started = time.perf_counter()
        streamed = self._predictor.stream(self._conversation, record, self._number)
        self._number += 1
        said: list[str] = []
        times: list[float] = []
        whole = False
        try:
            with streamed.tokens:
                for part in _stripped(_timed(streamed.texts, times)):
                    said.append(part)
                    yield part
            whole = True
        finally:
            self._count(streamed, record, [when - started for when in times])
            if said or whole:
                self._answered(text, self.run.task.postprocess(record, "".join(said), self.run.options))

    def _asked(self, text: str) -> Record:
        """What the model is asked by a user's turn."""
        return {"turns": [*self._turns, {"role": "user", "text": text}]}

    def _answered(self, text: str, prediction: Prediction) -> None:
        """Keeps a user's turn and its reply."""
        try:
            self._accept([*self._turns, {"role": "user", "text": text},
                          {"role": "assistant", "text": prediction["reply"]}])
        except ValueError as error:
            raise ValueError("the reply cannot stand in a conversation; it and your turn are taken back: "
                             f"{error}") from error

    def _accept(self, turns: list[Turn]) -> None:
        """Takes these turns, if a next user's turn could follow them."""
        self.run.form.preprocess({"turns": [*turns, {"role": "user", "text": "?"}]}, self.run.options)
        self._turns = turns

    def _count(self, streamed: Streamed, record: Record, times: list[float]) -> None:
        first, last = (times[0], times[-1]) if times else (0.0, 0.0)
        left_out = len(record.get("turns", ())) - len(streamed.record.get("turns", ()))
        self.figures = Figures(len(streamed.tokens.ids[0]), first, last, streamed.read, streamed.reused, left_out)


class Seeing(Talk):
    """Questions to a model that sees images, each for itself: no question is read with the ones before."""

    task = SEEING

    def __init__(self, trained: Trained, turns: Sequence[Turn] = ()) -> None:
        """Begins without images; ValueError as `Talk`, or where there are turns, which are a dialogue's."""
        if turns:
            raise ValueError(f"the model is of the task {SEEING}, which begins from no saved dialogue")
        super().__init__(trained)
        self._images: list[str] = []

    @property
    def record(self) -> Record:
        """The last question, with its answer and the images that are shown; ValueError before the first."""
        if not self._turns:
            raise ValueError("nothing has been asked yet")
        return {**self._asked(self._turns[-2]["text"]), "answers": [self._turns[-1]["text"]]}

    def reset(self) -> None:
        """Forgets all questions, and takes all images away."""
        self._turns, self._images = [], []

    def system(self, text: str) -> None:
        """Raises ValueError: there is none."""
        raise ValueError(f"a question of the task {SEEING} has no system prompt")

    def show(self, path: str) -> None:
        """Shows one image more, or none any more for ""; ValueError where it cannot be read."""
        if path:
            path = str(pathlib.Path(path).expanduser())
            images.pixels(path, "/image")
        self._images = [*self._images, path] if path else []

    def _asked(self, text: str) -> Record:
        return {"images": list(self._images), "question": text}

    def _answered(self, text: str, prediction: Prediction) -> None:
        (answer,) = prediction.values()
        self._turns = [*self._turns, {"role": "user", "text": text}, {"role": "assistant", "text": answer}]


def begin(trained: Trained, turns: Sequence[Turn] = ()) -> Talk:
    """What can be held with the model: a dialogue, or questions on images; ValueError as the two."""
    return (Seeing if trained.experiment.task.name == SEEING else Talk)(trained, turns)


def _timed(parts: Iterable[str], times: list[float]) -> Iterator[str]:
    """The same parts; notes when each came."""
    for part in parts:
        times.append(time.perf_counter())
        yield part


def _stripped(parts: Iterable[str]) -> Iterator[str]:
    """Parts that joined are the joined parts without spaces around them."""
    held = begun = ""
    for part in parts:
        held = (held + part) if begun else (held + part).lstrip()
        shown = held.rstrip()
        if shown:
            begun, held = shown, held[len(shown):]
            yield shown


def save(path: pathlib.Path, record: Record) -> None:
    """Writes a dialogue as `predict` reads it, a line of JSON Lines; ValueError rather than overwrite another file."""
    if path.exists():
        try:
            read(path)
        except ValueError as error:
            raise ValueError(f"{path} exists and is no saved dialogue; name another file") from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, ensure_ascii=False) + "\n", "utf-8")
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror}") from error


def read(path: pathlib.Path) -> list[Turn]:
    """The turns of a file that holds one dialogue, {"turns": [{"role", "text"}, ...]}; ValueError for another."""
    try:
        record = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f'{path} is not one JSON record, {{"turns": [...]}}: {error}') from error
    if not isinstance(record, dict):
        raise ValueError(f'{path} holds a {type(record).__name__}, expected one record, {{"turns": [...]}}')
    tasks.get(TASK).check(record, str(path), targets=False)
    for number, turn in enumerate(record["turns"], 1):
        if not isinstance(turn, dict) or not isinstance(turn.get("text"), str):
            raise ValueError(f'{path} turn {number} is {turn!r:.60}, expected {{"role": ..., "text": ...}}')
    return [{"role": turn.get("role"), "text": turn["text"]} for turn in record["turns"]]
