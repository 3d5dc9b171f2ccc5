# SPDX-License-Identifier: Apache-2.0
"""Chapter 2, dialogue: the turns of a conversation in, the assistant's next reply out.

The guide's example:

    <s>[INST] What's the capital of Germany? [/INST] The capital of Germany is Berlin.</s>
    <s>[INST] What about France? [/INST] The capital of France is Paris.</s>

    decoder   every assistant's turn and its </s> are graded, nothing of the user's

`format` says how turns are written: `inst` as above (a system prompt stands in the first turn between <<SYS>>
and <</SYS>>, as in Llama 2), `chat` by the tokenizer's own chat template, `auto` by that where there is one.
A conversation that does not fit loses its oldest turns, a user's and what follows it at a time; the system
prompt and the last user's turn stay.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from t5tasks.data import chat_template
from t5tasks.data.features import Example, Piece, graded, special
from t5tasks.data.tokenizer import Tokenizer
from t5tasks.metrics import text as text_metrics
from t5tasks.metrics.counts import Counts
from t5tasks.tasks.task import GENERATION, Answer, Form, Lines, Options, Prediction, Record, Task

FORMATS = ("auto", "inst", "chat")
INST, END_INST, SYSTEM, END_SYSTEM = MARKS = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")

Turn = Mapping[str, Any]


def inst_example(record: Record, options: Options, control: frozenset[str] = frozenset()) -> Example:
    """The turns between [INST] marks, as text or, where the tokenizer has them as control tokens, by id.

    A mark of the second kind needs no space around it.

    Raises:
      ValueError: turns out of order, or a text with a mark in it that the tokenizer would read as the mark.
    """
    turns = _checked(record["turns"])
    for number, turn in enumerate(turns, 1):
        for mark in MARKS:
            if mark not in control and mark in turn["text"]:
                raise ValueError(f"turn {number} has {mark} in its text, which would read as the end of a turn; take "
                                 "it out, or use a tokenizer that has it as a control token")

    def marked(mark: str, before: str = "", after: str = "") -> list[Piece]:
        return [special(mark, "template") if mark in control else Piece(f"{before}{mark}{after}", "template")]

    space = "" if END_INST in control else " "
    pieces: list[Piece] = []
    system = ""
    for turn in turns:
        if turn["role"] == "system":
            system = turn["text"]
        elif turn["role"] == "user":
            pieces += [special("bos", "template"), *marked(INST, after=" ")]
            if system:
                pieces += [*marked(SYSTEM, after="\n"), Piece(system, "system"), *marked(END_SYSTEM, "\n", "\n\n")]
                system = ""
            pieces += [Piece(turn["text"], "user"), *marked(END_INST, before=" ")]
        else:
            pieces += [Piece(f"{space}{turn['text']}", "assistant"), special("eos", "assistant")]
    return Example(tuple(pieces))


def chat_example(record: Record, options: Options, template: chat_template.ChatTemplate) -> Example:
    """The turns as the tokenizer's chat template writes them; what it refuses is a ValueError."""
    turns = record["turns"]
    return Example(template.pieces(turns, add_generation_prompt=bool(turns) and turns[-1]["role"] != "assistant"))


def bind(form: Form, options: Options, tokenizer: Tokenizer) -> Form:
    """The form that writes turns as this tokenizer's model knows them."""
    wanted = options["format"]
    if wanted not in FORMATS:
        raise ValueError(f"config.task.format is {wanted!r}, expected one of {', '.join(FORMATS)}")
    if wanted == "chat" or (wanted == "auto" and tokenizer.settings.get("chat_template")):
        written = functools.partial(chat_example, template=chat_template.of(tokenizer, options["template"]))
        return dataclasses.replace(form, preprocess=written, ends=_ends(written, options))
    return dataclasses.replace(form, preprocess=functools.partial(inst_example, control=frozenset(tokenizer.control)))


def _ends(written: Callable[[Record, Options], Example], options: Options) -> tuple[str, ...]:
    """The special tokens that a template ends an assistant's turn with; none where it wants other turns."""
    try:
        example = written({"turns": [{"role": "user", "text": "Hi"}, {"role": "assistant", "text": "Hello"}]}, options)
    except ValueError:
        return ()
    return tuple(piece.special for piece in example.pieces if piece.special and piece.role == "assistant")


def _checked(turns: Sequence[Turn]) -> Sequence[Turn]:
    """Raises ValueError unless a system prompt, if any, begins, and user and assistant take turns, the user first."""
    before = "the beginning"
    for number, turn in enumerate(turns, 1):
        role, text = turn.get("role"), turn.get("text")
        follows = {"system": ("the beginning",), "user": ("the beginning", "system", "assistant"),
                   "assistant": ("user",)}
        if role not in follows or not isinstance(text, str):
            raise ValueError(f"turn {number} is {dict(turn)!r:.80}, expected a role of {', '.join(follows)} and a text")
        if before not in follows[role]:
            raise ValueError(f"turn {number} is the {role}'s after {before}; user and assistant take turns, the user "
                             "first, and only a system prompt stands before them")
        before = role
    if before not in ("user", "assistant"):
        raise ValueError("the dialogue has no turns of a user")
    return turns


def asked(record: Record) -> Record:
    """The dialogue up to its last user's turn."""
    turns = list(record["turns"])
    while turns and turns[-1]["role"] == "assistant":
        turns.pop()
    return {**record, "turns": turns}


def reply(record: Record) -> str:
    """The last assistant's turn that ends the dialogue; ValueError where it ends with another's."""
    turns = record["turns"]
    if not turns or turns[-1]["role"] != "assistant":
        raise ValueError("the dialogue does not end with an assistant's turn, which is what is scored")
    return str(turns[-1]["text"])


def shorten(record: Record, options: Options) -> tuple[Record, Options] | None:
    """The dialogue without its oldest user's turn and what follows up to the next user's; None with one left."""
    turns = list(record["turns"])
    users = [index for index, turn in enumerate(turns) if turn["role"] == "user"]
    if len(users) < 2:
        return None
    return {**record, "turns": turns[:users[0]] + turns[users[1]:]}, options


def postprocess(record: Record, answer: Answer, options: Options) -> Prediction:
    """{"reply"}."""
    return {"reply": str(answer).strip()}


def count(record: Record, prediction: Prediction, options: Options) -> Counts:
    """Whether the reply is the dialogue's last turn, edge spaces apart."""
    return text_metrics.exact_match_counts([prediction["reply"]], [[reply(record)]])


def figures(counts: Counts, options: Options) -> dict[str, float]:
    """Exact match of last replies; the perplexity of all replies is added where tokens are counted."""
    return text_metrics.exact_match_figures(counts)


def baselines(records: Sequence[Record], options: Options) -> dict[str, float]:
    """None without a model: `evaluate` adds the perplexity of the best model without context."""
    return {}


TASK = Task(
    name="dialogue", chapter="2", fields={"turns": list}, targets={},
    options={"format": "auto", "template": ""},
    forms={"decoder": Form("decoder", "lm", GENERATION, inst_example, graded("assistant"), asked=asked,
                           shorten=shorten)},
    postprocess=postprocess, count=count, figures=figures, metric="perplexity", baselines=baselines, bind=bind,
    control=MARKS, lines=Lines(lambda text, options: {"turns": [{"role": "user", "text": text}]}, "reply"))
