# SPDX-License-Identifier: Apache-2.0
"""A user's turns in from the terminal, a model's replies out as they are written.

    python -m t5tasks.chat --workdir=DIR [--transcript=FILE]
    python -m t5tasks.chat --config=FILE [--config.pretrained=FOLDER] [--config.decode.method=sample ...]
    python -m t5tasks.chat --pretrained=FOLDER

A line is a turn; /help lists what else there is. Ctrl-C stops a reply, Ctrl-D ends the chat. The
model reads what is new alone (t5tasks/talk.py). A conversation longer than config.batch.length, the
length the model is known to read, loses its oldest turns, by the rule of tasks/dialogue.py: they
stay in what is saved, and a line says so. --pretrained stands for a config of the defaults with the
folder's own chat template, and a length that fills the model's positions.

Where input or output is no terminal, each line is still a turn. Then standard output has the
replies alone, and what else is to be said goes to standard error; the exit status is 1 where a turn
was refused.
"""

import contextlib
import dataclasses
import importlib
import pathlib
import sys
import unicodedata
from collections.abc import Callable

import jax
import ml_collections
from absl import flags
from rich.console import Console
from rich.text import Text

from t5tasks import command, configuration, experiment, explain, explanation, pretrained, talk
from t5tasks.data.text_files import nearest
from t5tasks.talk import Talk
from t5tasks.trained import load

LONGEST_REPLY = 512  # tokens, with --pretrained
HELP = (("/system TEXT", "sets the system prompt; without TEXT there is none"),
        ("/image PATH", "shows the model one image more; without PATH there is none"),
        ("/reset", "forgets the conversation, the system prompt aside, and images"),
        ("/history", "shows the conversation"),
        ("/mask", "shows what of it would be graded in training"),
        ("/save FILE", "writes it for predict and --transcript"),
        ("/help", "shows this"),
        ("/quit", "ends the chat, as Ctrl-D does; Ctrl-C stops a reply"),
        ("//TEXT", "says /TEXT"))


@dataclasses.dataclass(frozen=True)
class Screen:
    """Where things are shown: what was asked for, and what is said besides."""

    console: Console
    notes: Console
    interactive: bool

    def note(self, text: str, style: str = "dim") -> None:
        """One line besides the replies."""
        self.notes.print(Text(f"({text})", style), soft_wrap=True)

    def refuse(self, error: Exception) -> None:
        """One line on what cannot be done."""
        self.notes.print(Text(self.shown("error: " + " ".join(str(error).split())), "red"), soft_wrap=True)

    def write(self, text: str) -> None:
        """A part of a reply, at once."""
        self.console.file.write(self.shown(text))
        self.console.file.flush()

    def shown(self, text: str) -> str:
        """The text; in a terminal, without signs that it would obey."""
        if not self.interactive:
            return text
        return "".join(f"<{ord(sign):04X}>" if sign not in "\n\t" and unicodedata.category(sign) == "Cc" else sign
                       for sign in text)


class Chat:
    """A dialogue on a screen."""

    def __init__(self, dialogue: Talk, screen: Screen) -> None:
        self._talk, self._screen = dialogue, screen
        self._left_out = 0
        self.refused = 0  # lines that could not be obeyed

    def hold(self, read: Callable[[], str]) -> None:
        """Obeys each line that `read` gives until it raises EOFError, or one says /quit."""
        while True:
            try:
                line = read()
            except EOFError:
                if self._screen.interactive:
                    self._screen.write("\n")
                return
            except KeyboardInterrupt:
                if not self._screen.interactive:
                    raise
                self._screen.write("\n")
                self._screen.note("/quit or Ctrl-D ends the chat")
                continue
            if line.strip() == "/quit":
                return
            self.obey(line)

    def obey(self, line: str) -> None:
        """Says a line, or does what it commands."""
        try:
            if line.startswith("/") and not line.startswith("//"):
                name, _, argument = line.strip().partition(" ")
                self._command(name, argument.strip())
            elif line.strip():
                self._say(line.removeprefix("/") if line.startswith("//") else line)
        except ValueError as error:
            self.refused += 1
            self._screen.refuse(error)

    def _command(self, name: str, argument: str) -> None:
        screen, dialogue = self._screen, self._talk
        if name == "/system":
            dialogue.system(argument)
            screen.note("the system prompt is set" if argument else "there is no system prompt")
        elif name == "/image":
            dialogue.show(argument)
            screen.note("the model sees the image" if argument else "the model sees no image")
        elif name == "/reset":
            dialogue.reset()
            self._left_out = 0
            screen.note("the conversation is forgotten")
        elif name == "/history":
            for turn in dialogue.turns:
                screen.console.print(Text.assemble((f"{turn['role']}: ", "bold"), screen.shown(turn["text"])),
                                     soft_wrap=True)
        elif name == "/mask":
            self._mask()
        elif name == "/save":
            if not argument:
                raise ValueError("/save needs the name of a file, /save FILE")
            if dialogue.task != talk.TASK:
                raise ValueError(f"/save writes a {talk.TASK}, and the model is of the task {dialogue.task}")
            path = pathlib.Path(argument).expanduser()
            talk.save(path, dialogue.record)
            screen.note(f"{path}: {len(dialogue.turns)} turns")
        elif name == "/help":
            for usage, meaning in HELP:
                screen.console.print(Text.assemble((f"{usage:<14}", "bold"), meaning), soft_wrap=True)
        else:
            known = [usage.split()[0] for usage, _ in HELP[:-1]]
            raise ValueError(f"no command {name}; {nearest(name, known)} (//TEXT says /TEXT)")

    def _say(self, text: str) -> None:
        screen, reply = self._screen, self._talk.say(text)
        begun = stopped = False
        try:
            for part in reply:
                if not begun and screen.interactive:
                    screen.console.print(Text("model> ", "bold cyan"), end="")
                begun = True
                screen.write(part)
        except KeyboardInterrupt:
            if not screen.interactive:
                raise
            stopped = True
            reply.close()
        finally:
            if begun:
                screen.write("\n")
        self._report(begun, stopped)

    def _report(self, begun: bool, stopped: bool) -> None:
        """What is to be known of the last reply."""
        screen, figures = self._screen, self._talk.figures
        if stopped:
            screen.note("stopped; the reply counts as far as it is shown" if begun
                        else "stopped before there was a reply; your turn is taken back")
        elif not begun:
            screen.write("\n")  # a line a turn, for scripts
            screen.note("the reply is empty")
        if figures is None:
            return
        if figures.left_out > self._left_out:
            length = self._talk.run.config.batch.length
            screen.note(f"the conversation is longer than {length} tokens: the model was not shown its oldest "
                        f"{figures.left_out} turns", "yellow")
        self._left_out = figures.left_out
        if screen.interactive:
            rate = (figures.tokens - 1) / (figures.seconds - figures.first) if figures.seconds > figures.first else 0
            screen.note(f"{figures.tokens} token{'s' * (figures.tokens != 1)}, the first after {figures.first:.2f} s"
                        f"{f', then {rate:,.0f} a second' if rate else ''}; {figures.read} read, "
                        f"{figures.reused} reused")

    def _mask(self) -> None:
        view = explain.record_view(self._talk.run, self._talk.record, "the conversation")
        explanation.show_legend(self._screen.console)
        explanation.show_view(view, self._screen.console, table=False)


def terminal() -> tuple[Screen, Callable[[], str]]:
    """This process's screen, and what reads its next line."""
    for stream in (sys.stdin, sys.stdout):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal of few letters gets question marks
    console = Console(highlight=False)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return Screen(console, Console(highlight=False, stderr=True), False), _line
    with contextlib.suppress(ImportError):
        importlib.import_module("readline")  # lines can then be edited, and earlier ones called back
    return Screen(console, console, True), lambda: input("you> ")


def _line() -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\r\n")


def pretrained_config(folder: str) -> ml_collections.ConfigDict:
    """The defaults for a pretrained folder with a chat template, and all of its positions."""
    config = configuration.defaults(talk.TASK)
    config.pretrained, config.task.format = folder, "chat"
    positions = pretrained.read_config(experiment.pretrained_folder(config)).max_length
    config.decode.max_new_tokens = max(min(LONGEST_REPLY, positions // 4), 1)
    config.batch.length = positions - config.decode.max_new_tokens
    config.batch.size = config.batch.evaluation_size = jax.device_count()  # no batch is made; it fits any mesh
    return config


def define_flags() -> None:
    """The verb's flags; not defined on import, so that verbs can be imported together."""
    command.config_flag()
    flags.DEFINE_string("workdir", None, "folder of a run of the task dialogue or multimodal")
    flags.DEFINE_enum("checkpoint", "best", ["best", "latest"], "which step to use")
    flags.DEFINE_string("pretrained", None, "Hugging Face folder with a chat template, instead of a config")
    flags.DEFINE_string("transcript", None, 'a saved dialogue to begin from, {"turns": [...]}')


def main(_: list[str]) -> int:
    """The verb."""
    given = flags.FLAGS
    if given.pretrained and (given.config is not None or given.workdir):
        raise ValueError("--pretrained stands for a config of its own; with --config or --workdir, set "
                         "--config.pretrained instead")
    if not (given.pretrained or given.config is not None or given.workdir):
        raise ValueError("chat needs --workdir=DIR of a dialogue (or multimodal) run, --pretrained=FOLDER, or "
                         "--config=FILE")
    if jax.process_count() > 1:
        raise ValueError(f"chat is held by one process, here are {jax.process_count()}")
    turns = talk.read(pathlib.Path(given.transcript)) if given.transcript else []
    opening = turns.pop()["text"] if turns and turns[-1]["role"] == "user" else None
    config = pretrained_config(given.pretrained) if given.pretrained else given.config
    trained = load(config, pathlib.Path(given.workdir) if given.workdir else None, given.checkpoint)
    dialogue = talk.begin(trained, turns)
    screen, read = terminal()
    chat = Chat(dialogue, screen)
    if screen.interactive:
        settings = trained.experiment.config
        screen.note(f"the model reads {settings.batch.length} tokens and writes {settings.decode.max_new_tokens} at "
                    "most; /help lists the commands")
        chat.obey("/history")
    if opening is not None:
        chat.obey(opening if not opening.startswith("/") else f"/{opening}")
    chat.hold(read)
    return 1 if chat.refused and not screen.interactive else 0


if __name__ == "__main__":
    define_flags()
    command.run(main)
