# SPDX-License-Identifier: Apache-2.0
"""Lines of a conversation come in; each reply is `predict`'s for the same turns, and reads only what is new."""

from __future__ import annotations

import dataclasses
import io
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_collections
import numpy as np
import pytest
from rich.console import Console

from t5tasks import chat, configuration, experiment, predict, pretrained, talk, tasks, train
from t5tasks.data import sources
from t5tasks.data import tokenizer as tokenizers
from t5tasks.data.features import tokenise
from t5tasks.inference import Predictor
from t5tasks.models.config import ModelConfig
from t5tasks.models.model import Model
from t5tasks.talk import Talk
from t5tasks.trained import Trained, load

CHATML = ("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
          "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
QUESTIONS = ["Good day, I am Max and I would like 6 lemons.", "What is this country?", "What do 6 lemons cost?",
             "What did I come for?"]
POSITIONS, NEW = 240, 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A Hugging Face folder: a Llama of random weights and a tokenizer with a chat template."""
    made = tmp_path_factory.mktemp("pretrained")
    texts = [turn["text"] for record in sources.read("builtin:train?size=60", "dialogue") for turn in record["turns"]]
    tokenizer = tokenizers.train(texts, 420, made / "tokenizer", "bpe", control=("<|im_start|>", "<|im_end|>"))
    (made / "tokenizer" / "chat_template.jinja").write_text(CHATML)
    model = Model(ModelConfig(
        architecture="decoder", vocabulary=tokenizer.vocabulary_size, max_length=POSITIONS, width=16, heads=2,
        kv_heads=2, head_size=8, feed_forward=32, encoder_layers=0, decoder_layers=1, initializer_range=0.6))
    pretrained.save(made / "model", model, model.init(jax.random.key(3)), tokenizer_folder=made / "tokenizer")
    return made / "model"


def settings(folder: pathlib.Path, length: int = POSITIONS - NEW, form: str = "chat", new: int = NEW, seed: int = 0,
             **decode: object) -> ml_collections.ConfigDict:
    config = configuration.defaults("dialogue")
    config.pretrained, config.task.format = str(folder), form
    config.batch.update(length=length, size=8, evaluation_size=8)
    config.decode.update(max_new_tokens=new, **decode)
    config.seed = seed
    return config


@pytest.fixture
def begin(folder: pathlib.Path) -> Callable[..., Talk]:
    """begin(turns, **settings): a dialogue with the folder's model."""
    return lambda turns=(), **given: Talk(load(settings(folder, **given), None), turns)


def parameters_of(dialogue: Talk) -> Any:
    """The folder's, as training has them: the conversation holds them in another form."""
    return load(dialogue.run.config, None).parameters


def predicted(dialogue: Talk, turns: list[dict]) -> str:
    """What `predict` replies to these turns."""
    ((_, prediction),) = dialogue._predictor.predictions(parameters_of(dialogue), [{"turns": turns}])
    return prediction["reply"]


def asked(dialogue: Talk, text: str) -> list[str]:
    return list(dialogue.say(text))


def test_lines_in_replies_out_and_the_saved_dialogue_gives_them_again(
        folder: pathlib.Path, verb: Callable, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.py"
    path.write_text(f"""
def get_config():
    from t5tasks.configuration import defaults
    config = defaults("dialogue")
    config.pretrained = {str(folder)!r}
    config.batch.update(length={POSITIONS - NEW}, size=8, evaluation_size=8)
    config.decode.max_new_tokens = {NEW}
    return config
""")
    saved = tmp_path / "there" / "saved.jsonl"
    lines = ["/system You work in a shop.", *QUESTIONS[:2], "", "//no command", f"/save {saved}", "/quit", "unheard"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    done = verb(chat, f"--config={path}")
    assert done.status == 0, done.errors
    assert done.errors.splitlines() == ["(the system prompt is set)", f"({saved}: 7 turns)"]
    (record,) = [json.loads(line) for line in saved.read_text("utf-8").splitlines()]
    texts = [turn["text"] for turn in record["turns"]]
    assert texts[::2] == ["You work in a shop.", texts[2], texts[4], texts[6]]
    assert [texts[at] for at in (1, 3, 5)] == [*QUESTIONS[:2], "/no command"]
    assert done.output == "".join(f"{reply}\n" for reply in texts[2::2])

    source, output = tmp_path / "turns.jsonl", tmp_path / "predictions.jsonl"
    source.write_text("".join(json.dumps({"turns": record["turns"][:end]}) + "\n" for end in (3, 5, 7)), "utf-8")
    done = verb(predict, f"--config={path}", f"--input={source}", f"--output={output}")
    assert done.status == 0, done.errors
    replies = [json.loads(line)["reply"] for line in output.read_text("utf-8").splitlines()]
    assert replies == texts[2::2] and any(replies)

    # What was saved without its last reply is answered first.
    saved.write_text(json.dumps({"turns": record["turns"][:-1]}), "utf-8")
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    done = verb(chat, f"--config={path}", f"--transcript={saved}")
    assert (done.status, done.output, done.errors) == (0, texts[6] + "\n", "")


def test_a_run_of_the_dialogue_task(verb: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    config = configuration.defaults("dialogue")
    config.data.update(train="builtin:train?size=16", validation="builtin:validation?size=8")
    config.model.update(width=16, heads=2, kv_heads=2, head_size=8, feed_forward=32, decoder_layers=1)
    config.tokenizer.size = 330
    config.batch.update(size=8, length=128, evaluation_size=8)
    config.train.update(steps=1, evaluate_every=1)
    config.decode.max_new_tokens = NEW
    path, workdir = tmp_path / "config.json", tmp_path / "run"
    experiment.write_json(path, configuration.plain(config))
    assert verb(train, f"--config={path}", f"--workdir={workdir}").status == 0
    source, output = tmp_path / "one.jsonl", tmp_path / "reply.jsonl"
    source.write_text(json.dumps({"turns": [{"role": "user", "text": "Hi."}]}), "utf-8")
    assert verb(predict, f"--workdir={workdir}", f"--input={source}", f"--output={output}").status == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("Hi.\n"))
    done = verb(chat, f"--workdir={workdir}")
    assert (done.status, done.output) == (0, json.loads(output.read_text("utf-8"))["reply"] + "\n"), done.errors


@pytest.mark.parametrize("given", [{}, {"form": "inst", "repetition_penalty": 1.3, "stop": ("e", "qu")}])
def test_a_turn_reads_only_what_is_new(begin: Callable, given: dict) -> None:
    dialogue, held = begin(**given), []
    for question in QUESTIONS:
        before = dialogue.turns
        parts = asked(dialogue, question)
        turns = [*before, {"role": "user", "text": question}]
        reply = predicted(dialogue, turns)
        assert "".join(parts) == reply
        assert dialogue.turns == [*turns, {"role": "assistant", "text": reply}]
        figures = dialogue.figures
        prompt = dialogue._predictor._prompts.features({"turns": turns})["tokens"].tolist()
        same = next((at for at, pair in enumerate(zip(held, prompt, strict=False)) if pair[0] != pair[1]), len(held))
        assert (figures.reused, figures.read) == (same, len(prompt) - same)
        assert figures.left_out == 0 and 1 <= figures.tokens <= NEW
        held = dialogue._conversation.held
        assert held[:len(prompt)] == prompt
    assert figures.reused > len(prompt) // 2

    dialogue.system("You work in a shop.")
    assert dialogue.turns[0] == {"role": "system", "text": "You work in a shop."} and len(dialogue.turns) == 9
    asked(dialogue, "And now?")
    assert dialogue.turns[-1]["text"] == predicted(dialogue, dialogue.turns[:-1])
    dialogue.reset()
    assert dialogue.turns == [{"role": "system", "text": "You work in a shop."}]
    asked(dialogue, QUESTIONS[0])
    assert dialogue.turns[-1]["text"] == predicted(dialogue, dialogue.turns[:-1]) and dialogue.figures.reused > 5
    dialogue.system("")
    dialogue.reset()
    assert dialogue.turns == []


def test_a_reply_that_is_spelled_as_it_was_made_is_not_read_again(begin: Callable) -> None:
    """The whole of what the model was shown and has said begins the next prompt."""
    text = "Welcome"
    count = len(begin().run.tokenizer.encode(text).ids)
    dialogue = begin(prefix=text, new=count)
    asked(dialogue, QUESTIONS[0])
    assert dialogue.turns[-1]["text"] == text
    read = dialogue.figures.read
    asked(dialogue, QUESTIONS[1])
    assert dialogue.figures.reused == read + count - 1  # nothing has read a reply's last token


def test_a_template_s_own_end_of_turn_ends_a_reply(begin: Callable) -> None:
    dialogue = begin()
    tokenizer = dialogue.run.tokenizer
    end = tokenizer.control["<|im_end|>"]
    assert end != tokenizer.special["eos"] and dialogue.run.form.ends == ("<|im_end|>",)
    # All pieces but one have the same row: that one is the likeliest or the unlikeliest, and the sign decides.
    for sign in (1, -1):
        parameters = jax.tree_util.tree_map(np.asarray, parameters_of(dialogue))
        rows = np.broadcast_to(parameters["embedding"][:1], parameters["embedding"].shape).copy()
        rows[end] *= 1 + sign * 0.5
        one = Talk(Trained(dialogue.run, {**parameters, "embedding": rows}, 0))
        asked(one, "Hi")
        if one.figures.tokens == 1:
            break
    assert one.figures.tokens == 1 and one.turns[-1] == {"role": "assistant", "text": ""}


class Lines:
    """Reads the lines of a script; ^C and ^D are keys."""

    def __init__(self, *lines: str) -> None:
        self._lines = iter([*lines, "^D"])

    def __call__(self) -> str:
        line = next(self._lines)
        if line in ("^C", "^D"):
            raise KeyboardInterrupt if line == "^C" else EOFError
        return line


def held(dialogue: Talk, *lines: str, colours: bool = False, screen: type[chat.Screen] = chat.Screen
         ) -> tuple[chat.Chat, str]:
    """A chat in a terminal and what it printed."""
    console = Console(file=io.StringIO(), force_terminal=colours, width=200, highlight=False)
    one = chat.Chat(dialogue, screen(console, console, True))
    one.hold(Lines(*lines))
    return one, console.file.getvalue()


def test_a_conversation_in_a_terminal(begin: Callable, tmp_path: pathlib.Path) -> None:
    dialogue, mine = begin(min_new_tokens=NEW), tmp_path / "mine.txt"
    mine.write_text("my own text\n")
    one, printed = held(
        dialogue, "^C", "/mask", "/save x.jsonl", "/sytem Be kind.", "/save", f"/save {mine}", "Hi", "/help",
        f"/save {mine}", "/history", "/mask", f"/save {tmp_path / 'two.jsonl'}", f"/save {tmp_path / 'two.jsonl'}",
        "/reset", "/history")
    first, *lines = printed.splitlines()
    assert first == "" and lines[0] == "(/quit or Ctrl-D ends the chat)"
    assert lines[1:3] == ["error: nothing has been said yet"] * 2 and not pathlib.Path("x.jsonl").exists()
    assert lines[3] == "error: no command /sytem; did you mean /system? (//TEXT says /TEXT)"
    assert lines[4] == "error: /save needs the name of a file, /save FILE"
    assert one.refused == 6 and mine.read_text() == "my own text\n"
    assert f"error: {mine} exists and is no saved dialogue; name another file" in lines
    figures = next(line for line in lines if " reused)" in line)
    assert figures.startswith(f"({NEW} tokens, the first after ") and figures.endswith(
        f" a second; {dialogue.figures.read} read, 0 reused)")
    for usage, meaning in chat.HELP:
        assert f"{usage:<14}{meaning}" in lines
    assert talk.read(tmp_path / "two.jsonl")[0] == {"role": "user", "text": "Hi"}
    assert "user: Hi" in lines and lines[-2] == "(the conversation is forgotten)"
    graded = next(line for line in lines if "◆<|im_start|>" in line)
    before, answer, after = graded.partition("⟦")[0], graded.partition("⟦")[2].partition("⟧")[0], graded.count("⟦")
    assert "H" in before and answer.endswith("◆<|im_end|>") and after == 1
    assert f"{answer.count(' ') + 1} graded" in printed

    assert "\x1b[1;4;32m" in held(begin([{"role": "user", "text": "Hi"}, {"role": "assistant", "text": "Ho"}]),
                                  "/mask", colours=True)[1]


def test_control_signs_of_a_reply_do_not_reach_the_terminal() -> None:
    screen = chat.Screen(Console(file=io.StringIO()), Console(file=io.StringIO()), True)
    assert screen.shown("a\x1b[2Jb\x9b\té\n👩‍🚀") == "a<001B>[2Jb<009B>\té\n👩‍🚀"
    assert dataclasses.replace(screen, interactive=False).shown("a\x1b") == "a\x1b"


def test_ctrl_c_stops_the_reply_and_not_the_program(begin: Callable) -> None:
    class Interrupted(chat.Screen):
        stops = iter([True])

        def write(self, text: str) -> None:
            super().write(text)
            if text.strip() and next(self.stops, False):
                raise KeyboardInterrupt

    dialogue = begin(min_new_tokens=NEW)
    _, printed = held(dialogue, QUESTIONS[0], QUESTIONS[1], screen=Interrupted)
    assert "(stopped; the reply counts as far as it is shown)" in printed.splitlines()
    first, second = (turn["text"] for turn in dialogue.turns[1::2])
    assert printed.startswith(f"model> {first}\n")
    whole = predicted(dialogue, dialogue.turns[:1])
    assert whole.startswith(first) and len(first) < len(whole)
    assert second == predicted(dialogue, dialogue.turns[:3])

    dialogue._predictor.stream = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    _, printed = held(dialogue, "Never read.")
    assert printed == "(stopped before there was a reply; your turn is taken back)\n\n" and len(dialogue.turns) == 4


def test_a_conversation_too_long_loses_its_oldest_turns(begin: Callable) -> None:
    dialogue = begin(length=60)
    out: list[int] = []
    printed = ""
    for question in (*QUESTIONS, *QUESTIONS):
        printed += held(dialogue, question)[1]
        out.append(dialogue.figures.left_out)
        turns = dialogue.turns[:-1]
        assert dialogue.turns[-1]["text"] == predicted(dialogue, turns)
        left = {"turns": turns}
        for _ in range(out[-1] // 2):
            left, _ = tasks.get("dialogue").forms["decoder"].shorten(left, dialogue.run.options)
        ids = dialogue._conversation.held
        shown = tokenise(
            dialogue.run.form.preprocess(left, dialogue.run.options).pieces, dialogue.run.tokenizer).ids.tolist()
        assert ids[:len(shown)] == shown and len(shown) <= 60
    assert len(dialogue.turns) == 16 and out[0] == 0 and out == sorted(out) and out[-1] >= 8
    assert f"the model was not shown its oldest {out[-1]} turns)" in printed
    long = held(dialogue, "What is this country? " * 30)[1]
    assert long.startswith("error: the prompt has ") and "expected at most 60; shorten it" in long
    assert long.count("\n") == 2 and len(dialogue.turns) == 16


def test_what_the_form_refuses_is_told_in_a_line_and_taken_back(
        begin: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    dialogue = begin(form="inst")
    one, printed = held(dialogue, "a [/INST] b", "/system <<SYS>>", QUESTIONS[0])
    mistakes = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert len(mistakes) == one.refused == 2
    assert "turn 1 has [/INST] in its text" in mistakes[0] and "turn 1 has <<SYS>> in its text" in mistakes[1]
    assert [turn["role"] for turn in dialogue.turns] == ["user", "assistant"]
    monkeypatch.setattr(talk, "_stripped", lambda parts: iter(["so [INST] "]))
    printed = held(dialogue, QUESTIONS[1])[1]
    assert "error: the reply cannot stand in a conversation; it and your turn are taken back: turn 4 has" in printed
    assert len(dialogue.turns) == 2


def test_sampled_replies_follow_the_seed(begin: Callable) -> None:
    dialogues: list[list[str]] = []
    for seed in (1, 1, 2):
        dialogue, said = begin(method="sample", temperature=3.0, top_k=50, seed=seed), []
        for _ in range(2):
            said.append("".join(dialogue.say("Hi")))
            dialogue.reset()
        dialogues.append(said)
    assert dialogues[0] == dialogues[1] != dialogues[2]
    assert dialogues[0][0] != dialogues[0][1]  # each reply has its own key


def test_parts_joined_are_the_stripped_text() -> None:
    for parts in ([" ", " a", " ", "b ", "\n", "", "c", " \n"], [" ", ""], [], ["a b"], ["a", "\n\n", "b"]):
        assert "".join(talk._stripped(parts)) == "".join(parts).strip()
    assert list(talk._stripped(["a", " ", "b"])) == ["a", " b"]


@pytest.fixture
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("sys.stdin", io.StringIO("Hi\n"))
    yield


@pytest.mark.parametrize(("given", "said"), [
    ((), "chat needs --workdir=DIR of a dialogue (or multimodal) run, --pretrained=FOLDER, or --config=FILE"),
    (("--pretrained={folder}", "--workdir=x"), "--pretrained stands for a config of its own"),
    (("--pretrained=nowhere",), "nowhere is no folder"),
    (("--pretrained={bare}",), "error: "),
    (("--workdir=nowhere",), "no config: give --config=FILE, or --workdir of a run"),
    (("--config={config}", "--config.decode.method=beam"),
     "config.decode.method is 'beam' with 1 samples; a reply that is shown while it is written needs greedy or sample"),
    (("--config={config}", "--config.decode.method=sample", "--config.decode.top_p=7"), "top_p"),
    (("--pretrained={folder}", "--transcript=nowhere.jsonl"), "nowhere.jsonl cannot be read: No such file"),
    (("--pretrained={folder}", "--transcript={two}"), 'two.jsonl is not one JSON record, {"turns": [...]}: Extra data'),
    (("--pretrained={folder}", "--transcript={text}"), "no field 'turns'"),
    (("--pretrained={folder}", "--config.decode.method=sample"), "settings need a --config=FILE before them"),
    (("--config={other}",), "the model is of the task text_generation, expected dialogue"),
])
def test_a_wrong_flag(folder: pathlib.Path, verb: Callable, tmp_path: pathlib.Path, nothing_said: None,
                      given: tuple[str, ...], said: str) -> None:
    names = {"folder": folder, "bare": tmp_path / "bare", "config": tmp_path / "config.json",
             "other": tmp_path / "other.json", "two": tmp_path / "two.jsonl", "text": tmp_path / "text.jsonl"}
    experiment.write_json(names["config"], configuration.plain(settings(folder)))
    other = configuration.defaults("text_generation")
    other.pretrained = str(folder)
    experiment.write_json(names["other"], configuration.plain(other))
    names["two"].write_text('{"turns": []}\n{"turns": []}\n')
    names["text"].write_text('{"text": "Hi"}\n')
    names["bare"].mkdir()
    for file in folder.iterdir():
        if not file.name.startswith("chat_template"):
            (names["bare"] / file.name).write_bytes(file.read_bytes())
    mistake = verb(chat, *(flag.format(**names) for flag in given)).mistake
    assert said in mistake
    if given == ("--pretrained={bare}",):
        assert "the tokenizer has no chat template" in mistake


def test_the_short_form_reads_all_positions_and_the_folder_s_template(
        folder: pathlib.Path, verb: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    config = chat.pretrained_config(str(folder))
    assert config.task.format == "chat" and config.decode.max_new_tokens == POSITIONS // 4
    assert config.batch.length + config.decode.max_new_tokens == POSITIONS
    expected = Talk(load(config, None))
    asked(expected, "Hi")
    monkeypatch.setattr("sys.stdin", io.StringIO("Hi\n/no\n"))
    done = verb(chat, f"--pretrained={folder}")
    assert (done.status, done.output) == (1, expected.turns[-1]["text"] + "\n")  # a line was refused
    assert done.errors.startswith("error: no command /no; ")
    assert Predictor(expected.run).experiment.form.ends == ("<|im_end|>",)
