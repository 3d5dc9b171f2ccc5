# SPDX-License-Identifier: Apache-2.0
r"""Lines of plain text in, what a model answers to each as a line of plain text out.

    text:FILE                       FILE, gzipped or not, or - for standard input
    text:FILE?encoding=latin-1      the encoding, where it is not UTF-8

    "A dog runs.\r\n" "\n" "A cat sleeps.\n"   →   "Ein Hund rennt." "" "Eine Katze schläft."

Line n of the answers belongs to line n of the file: an empty line is answered with an empty one, without the model,
and whatever would end a line within an answer becomes a space. Only a newline ends a line of the file.
"""

import collections
import dataclasses
import hashlib
import itertools
import pathlib
import urllib.parse
from collections.abc import Iterator

from t5tasks import augmentation
from t5tasks.data import text_files
from t5tasks.inference import Predictor
from t5tasks.tasks.task import Lines, Record, Task
from t5tasks.trained import Trained

SCHEME = "text:"


@dataclasses.dataclass(frozen=True)
class PlainText:
    """A file of plain text, which is read anew by each who asks for its lines, but for standard input."""

    path: pathlib.Path
    encoding: str

    @property
    def piped(self) -> bool:
        """Whether it can be read but once, and nobody knows how much there is."""
        return self.path == text_files.STANDARD_INPUT

    def lines(self) -> Iterator[str]:
        """Each line without its ending; ValueError for bytes that are no text, with the file and the line."""
        return (line.rstrip("\r\n") for _, line in text_files.lines(self.path, self.encoding))

    def measure(self) -> tuple[int, str]:
        """How many lines there are, and what tells them from others; ValueError as in `lines`."""
        digest, total = hashlib.sha256(), 0
        for _, line in text_files.lines(self.path, self.encoding):
            digest.update(line.encode("utf-8", "surrogatepass"))
            total += 1
        return total, digest.hexdigest()


def parse(source: str) -> PlainText:
    """The plain text that a source's line names; ValueError where there is none or an option is unknown."""
    place, _, query = source.removeprefix(SCHEME).partition("?")
    options = dict(part.partition("=")[::2] for part in query.split("&") if part)
    if unknown := sorted(options.keys() - {"encoding"}):
        raise ValueError(f"unknown option {unknown[0]!r} of {source}: {text_files.nearest(unknown[0], ['encoding'])}")
    if not place:
        raise ValueError(f"{source} does not say where: expected {SCHEME}FILE, or {SCHEME}- for standard input")
    text = PlainText(pathlib.Path(urllib.parse.unquote(place)).expanduser(), options.get("encoding", "utf-8"))
    text_files.require(text.path, text.encoding)
    return text


def shape(task: Task) -> Lines:
    """How the task goes line by line; ValueError where it does not."""
    if task.lines is None:
        raise ValueError(f"{task.name} does not go line by line: a record of it is more than one text, or its answer "
                         "more than a line; give --input=FILE.jsonl")
    return task.lines


def one_line(text: str) -> str:
    """The text with a space wherever some program would begin a new line, and none around."""
    return " ".join(filter(None, map(str.strip, text.splitlines())))


def answers(trained: Trained, predictor: Predictor, text: PlainText, skip: int = 0) -> Iterator[str]:
    """The answer to each line but the first `skip`, in their order, each of one line; ValueError as in `shape`."""
    run, asked = trained.experiment, shape(trained.experiment.task)
    empty: collections.deque[bool] = collections.deque()  # of the lines that were read and not yet answered

    def records() -> Iterator[Record]:
        for number, line in enumerate(text.lines()):
            blank = not line.strip()
            if number >= skip:
                empty.append(blank)
            if not blank:
                yield asked.record(line, run.options)

    before = sum(1 for line in itertools.islice(text.lines(), skip) if line.strip()) if skip else 0
    found = augmentation.augmented(records(), run.options) if run.options.get("index") else records()
    for _, prediction in predictor.predictions(trained.parameters, found, before):
        while empty.popleft():
            yield ""
        yield one_line(str(prediction[asked.answer]))
    yield from ("" for _ in empty)
