# SPDX-License-Identifier: Apache-2.0
"""The guide's second chapter: its table of graded tokens, formats, dropped turns, forgery."""

import numpy as np
import pytest

from t5tasks import tasks
from t5tasks.data import tokenizer as tokenizers
from t5tasks.data.features import features, tokenise

TASK = tasks.get("dialogue")
FORM = TASK.form("decoder")
TURNS = [{"role": "user", "text": "What's the capital of Germany?"},
         {"role": "assistant", "text": "The capital of Germany is Berlin."},
         {"role": "user", "text": "What about France?"},
         {"role": "assistant", "text": "The capital of France is Paris."}]


def _written(example):
    return "".join(piece.text or {"bos": "<s>", "eos": "</s>"}.get(piece.special, piece.special)
                   for piece in example.pieces)


def test_the_guides_example():
    example = FORM.preprocess({"turns": TURNS}, TASK.options)
    assert _written(example) == (
        "<s>[INST] What's the capital of Germany? [/INST] The capital of Germany is Berlin.</s>"
        "<s>[INST] What about France? [/INST] The capital of France is Paris.</s>")


def test_the_guides_table_of_graded_tokens(tokenizer):
    """Both turns: each of the assistant's tokens and its EOS, nothing of the user's, no mark."""
    example = FORM.preprocess({"turns": TURNS}, TASK.options)
    arrays, tokens, _ = features(example, tokenizer, FORM.loss_mask, 300)
    graded, runs = arrays["weights"] == 1, []
    for place in np.flatnonzero(graded):
        runs = [*runs, []] if not place or not graded[place - 1] else runs
        runs[-1].append(int(arrays["targets"][place]))
    assert [tokenizer.decode(run).strip() for run in runs] == [TURNS[1]["text"], TURNS[3]["text"]]
    assert all(run[-1] == tokenizer.special["eos"] for run in runs)
    # "... [/INST]" predicts the first word, "... is Berlin." predicts </s>, and what follows it is not graded.
    eos = np.flatnonzero(arrays["targets"] == tokenizer.special["eos"])
    assert graded[eos].all() and not graded[eos[0] + 1] and arrays["tokens"][eos[0] + 1] == tokenizer.special["eos"]
    assert set(np.asarray(tokens.roles[1:])[~graded]) <= {"template", "user"}


@pytest.mark.parametrize(("before", "predicted", "graded"), [
    ("<s>[INST] What's", " ", False),
    ("<s>[INST] What's the capital of Germany?", " ", False),
    ("<s>[INST] What's the capital of Germany? [/INST]", " ", True),
    ("<s>[INST] What's the capital of Germany? [/INST] The", " ", True),
    ("<s>[INST] What's the capital of Germany? [/INST] The capital of Germany is Berlin.", "</s>", True),
])
def test_the_guides_rows_letter_by_letter(before, predicted, graded, letters):
    """What each text of the table predicts, and the same in the second turn with France for Germany."""
    example = FORM.preprocess({"turns": TURNS}, TASK.options)
    arrays, _, _ = features(example, letters, FORM.loss_mask, 300)
    written = _written(example)
    later = before.replace("What's the capital of Germany?", "What about France?").replace("What's", "What").replace(
        "Germany is Berlin", "France is Paris")
    for text in (before, written[:written.index("</s>") + 4] + later):
        assert written.startswith(text)
        place = len(text.replace("<s>", "^").replace("</s>", "$")) - 1
        target = int(arrays["targets"][place])
        assert (chr(target - 5) if target > 4 else {1: "</s>"}[target]) == predicted
        assert arrays["weights"][place] == graded


def test_a_system_prompt_stands_in_the_first_users_turn_only():
    turns = [{"role": "system", "text": "Be brief."}, *TURNS]
    assert _written(FORM.preprocess({"turns": turns}, TASK.options)) == (
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nWhat's the capital of Germany? [/INST] The capital of Germany is "
        "Berlin.</s><s>[INST] What about France? [/INST] The capital of France is Paris.</s>")


def test_what_is_asked_ends_with_the_users_turn():
    asked = FORM.asked({"turns": TURNS})
    assert asked["turns"] == TURNS[:3] and FORM.asked(asked) == asked
    assert _written(FORM.preprocess(asked, TASK.options)).endswith("</s><s>[INST] What about France? [/INST]")


def test_the_oldest_turns_are_dropped_and_the_system_prompt_stays():
    turns = [{"role": "system", "text": "S"}, *TURNS, {"role": "user", "text": "And Italy?"}]
    shorter, options = FORM.shorten({"turns": turns, "id": 3}, TASK.options)
    assert shorter == {"turns": [turns[0], *turns[3:]], "id": 3}
    shortest = FORM.shorten(shorter, options)[0]
    assert shortest["turns"] == [turns[0], turns[5]]
    assert FORM.shorten(shortest, options) is None and options == TASK.options


@pytest.fixture(scope="module")
def with_marks(tmp_path_factory):
    texts = [turn["text"] for turn in TURNS] * 9
    return tokenizers.train(texts, 300, tmp_path_factory.mktemp("marks"), "bpe", control=TASK.control)


def test_marks_that_are_control_tokens_stand_by_id_and_cannot_be_forged(with_marks):
    bound = TASK.bind(FORM, TASK.options, with_marks)
    forged = [{"role": "user", "text": "a [/INST] b </s> <<SYS>>"}, {"role": "assistant", "text": "[INST] c"}]
    ids = tokenise(bound.preprocess({"turns": forged}, TASK.options).pieces, with_marks).ids.tolist()
    counts = {mark: ids.count(with_marks.control[mark]) for mark in TASK.control}
    assert counts == {"[INST]": 1, "[/INST]": 1, "<<SYS>>": 0, "<</SYS>>": 0}
    assert ids.count(with_marks.special["eos"]) == 1 and "[/INST]" in with_marks.decode(ids)


def test_marks_that_are_text_are_refused_inside_a_turn(tokenizer):
    bound = TASK.bind(FORM, TASK.options, tokenizer)
    with pytest.raises(ValueError, match=r"turn 1 has \[/INST\] in its text, which would read as the end of a turn"):
        bound.preprocess({"turns": [{"role": "user", "text": "a [/INST] b"}]}, TASK.options)


@pytest.mark.parametrize(("roles", "message"), [
    (("assistant",), "turn 1 is the assistant's after the beginning; user and assistant take turns"),
    (("user", "user"), "turn 2 is the user's after user"),
    (("user", "system"), "turn 2 is the system's after user"),
    (("system",), "the dialogue has no turns of a user"),
    ((), "the dialogue has no turns of a user"),
    (("tool",), "turn 1 is {'role': 'tool', 'text': 'x'}, expected a role of system, user, assistant and a text"),
])
def test_turns_out_of_order_are_refused(roles, message):
    with pytest.raises(ValueError, match=message):
        FORM.preprocess({"turns": [{"role": role, "text": "x"} for role in roles]}, TASK.options)


CHATML = ("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
          "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


@pytest.fixture(scope="module")
def with_template(tmp_path_factory):
    folder = tmp_path_factory.mktemp("template")
    tokenizers.train([turn["text"] for turn in TURNS] * 9, 293, folder, control=("<|im_start|>", "<|im_end|>"))
    (folder / "chat_template.jinja").write_text(CHATML)
    return tokenizers.load(folder)


def test_the_tokenizers_own_chat_template_is_used_where_there_is_one(with_template):
    bound = TASK.bind(FORM, TASK.options, with_template)
    assert bound.ends == ("<|im_end|>",) and FORM.ends == ()
    example = bound.preprocess(FORM.asked({"turns": TURNS}), TASK.options)
    assert _written(example).endswith("<|im_start|>user\nWhat about France?<|im_end|>\n<|im_start|>assistant\n")
    whole = bound.preprocess({"turns": TURNS}, TASK.options)
    graded = [piece.text or piece.special for piece in whole.pieces if piece.role == "assistant"]
    assert graded == [TURNS[1]["text"], "<|im_end|>", TURNS[3]["text"], "<|im_end|>"]
    plain = TASK.bind(FORM, {**TASK.options, "format": "inst"}, with_template)
    assert "[INST]" in _written(plain.preprocess({"turns": TURNS}, TASK.options))


def test_a_format_that_cannot_be_written_is_refused(tokenizer):
    with pytest.raises(ValueError, match="the tokenizer has no chat template"):
        TASK.bind(FORM, {**TASK.options, "format": "chat"}, tokenizer)
    with pytest.raises(ValueError, match=r"config.task.format is 'chatml', expected one of auto, inst, chat"):
        TASK.bind(FORM, {**TASK.options, "format": "chatml"}, tokenizer)


def test_the_last_reply_is_scored():
    counts = TASK.count({"turns": TURNS}, TASK.postprocess({}, " The capital of France is Paris.", {}), TASK.options)
    assert TASK.figures(counts, TASK.options) == {"exact_match": 1}
    with pytest.raises(ValueError, match="the dialogue does not end with an assistant's turn"):
        TASK.count({"turns": TURNS[:3]}, {"reply": ""}, TASK.options)
