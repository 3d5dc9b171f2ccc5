# SPDX-License-Identifier: Apache-2.0
"""A dialogue and a model's own chat template come in; pieces with roles go out.

The template is the Jinja text of the tokenizer's folder. What it writes becomes pieces: the turns'
texts have their role, the rest is the template's, and special tokens stand by id where the template
put them and nowhere else:

    turns    user "Hi <|im_end|>", assistant "Hello"

    <|im_start|> "user⏎"                   template
    "Hi <|im_end|>"                        user
    <|im_end|> "⏎"                         template
    <|im_start|> "assistant⏎"              template
    "Hello" <|im_end|>                     assistant
    "⏎"                                    template

The assistant's are the texts of its turns and the token that ends each, or what the template itself
marks with {% generation %}. So `graded("assistant")` is the loss mask.
"""

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jinja2

from t5tasks.data import chat_signs, template_sandbox
from t5tasks.data.chat_signs import Signs, Stretch
from t5tasks.data.features import Piece
from t5tasks.data.tokenizer_interface import CLASS_NAMES, SPECIAL_NAMES, Tokenizer, token_text, tokenizer_class

ROLES = ("system", "user", "assistant")
TEMPLATE = "template"

Turn = Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class ChatTemplate:
    """A template and what it needs to know of its tokenizer; `of` makes one."""

    source: str
    names: Mapping[str, str]  # what bos_token, eos_token … are in the template
    control: frozenset[str]  # texts of the special tokens
    words: frozenset[str]  # added words that the template itself writes, such as <think>

    def render(self, turns: Sequence[Turn], add_generation_prompt: bool = False, **variables: Any) -> str:
        """Returns the text of the dialogue, as transformers' apply_chat_template does.

        Args:
          turns: each {"role": "system" | "user" | "assistant", "text": …}.
          add_generation_prompt: whether the header of an assistant's turn ends it.
          **variables: what else the template may read, such as enable_thinking.

        Raises ValueError for other turns and for whatever the template refuses.
        """
        _check(turns)
        return self._write(turns, add_generation_prompt, variables)

    def pieces(self, turns: Sequence[Turn], add_generation_prompt: bool = False, **variables: Any
               ) -> tuple[Piece, ...]:
        """Returns the dialogue as pieces, in the picture of the module; arguments and errors as `render`.

        Raises ValueError also where the template changes an assistant's text so much that nothing
        tells which of what it writes is the assistant's.
        """
        _check(turns)
        plain = self._write(turns, add_generation_prompt, variables)
        known = [self.source, plain, *(turn["text"] for turn in turns), repr(variables)]
        signs = chat_signs.unused(known, len(turns))
        guarded = [self._guard(turn, signs) for turn in turns]
        shielded = {name: self._shield(value, signs) for name, value in variables.items()}

        def write(texts: Sequence[str]) -> str:
            return self._write(turns, add_generation_prompt, shielded, texts, signs.block)

        signed = chat_signs.signed(write, turns, guarded, signs, plain)
        if signs.block[0] not in signed:
            signed = self._repaired(signed, turns, variables, signs, plain)
        return tuple(self._pieces(list(chat_signs.stretches(signed, signs)), turns, signs))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.source, self.names, self.control, self.words)  # a compiled template is no data

    def _write(self, turns: Sequence[Turn], add_generation_prompt: bool, variables: Mapping[str, Any],
               texts: Sequence[str] | None = None, block: tuple[str, str] = ("", "")) -> str:
        texts = [turn["text"] for turn in turns] if texts is None else texts
        messages = [{"role": turn["role"], "content": text} for turn, text in zip(turns, texts, strict=True)]
        values = {"tools": None, "documents": None, **self.names, **variables, "messages": messages,
                  "add_generation_prompt": add_generation_prompt}
        return template_sandbox.rendered(self._template, values, block)

    @functools.cached_property
    def _template(self) -> jinja2.Template:
        return template_sandbox.compiled(self.source)

    @functools.cached_property
    def _controls(self) -> re.Pattern[str]:
        return _any(self.control)

    def _guard(self, turn: Turn, signs: Signs) -> str:
        """A turn's text in which nothing reads as a special token, nor as a word of the template."""
        text = chat_signs.broken(turn["text"], self._controls, signs.special)
        # An assistant may write <think>; a user may not, where the template writes it too.
        return text if turn["role"] == "assistant" else chat_signs.broken(text, _any(self.words), signs.word)

    def _shield(self, value: Any, signs: Signs) -> Any:
        """A variable for the template, in which no text reads as a special token."""
        if isinstance(value, str):
            return chat_signs.broken(value, self._controls, signs.special)
        if isinstance(value, list | tuple):
            return [self._shield(item, signs) for item in value]
        return {key: self._shield(item, signs) for key, item in value.items()} if isinstance(value, dict) else value

    def _repaired(self, signed: str, turns: Sequence[Turn], variables: Mapping[str, Any], signs: Signs,
                  plain: str) -> str:
        """Puts back the signs of an assistant's text that the template has taken apart.

        Such a text begins where the header of its turn ends, and ends where its sign or, without
        one, the next special token stands.
        """
        for index, turn in enumerate(turns):
            before, after = signs.turns[index]
            counts = signed.count(before), signed.count(after)
            if counts[0] == counts[1] and (counts[0] or not turn["text"].strip()):
                continue
            signed = signed.replace(before, "")
            if turn["role"] != "assistant":
                signed = signed.replace(after, "")
                continue
            try:
                header = self._write(turns[:index], True, variables)
            except ValueError:
                header = ""
            if not header or not plain.startswith(header):
                raise ValueError(f"the chat template rewrites turn {index + 1}, so that nothing tells what of it "
                                 f"is the assistant's: use a template without that, or one with generation blocks")
            start = chat_signs.place(signed, len(header), signs)
            end = signed.find(after, start)
            if end < 0:
                found = self._controls.search(signed, start)
                end = found.start() if found else len(signed)
            signed = signed[:start] + before + signed[start:end].replace(after, "") + after + signed[end:].replace(
                after, "")
        return signed

    def _pieces(self, found: Sequence[Stretch], turns: Sequence[Turn], signs: Signs) -> Iterator[Piece]:
        marked = any(stretch.generated for stretch in found)
        answered = False
        for stretch in found:
            role = TEMPLATE if stretch.turn is None else turns[stretch.turn]["role"]
            if marked and (stretch.generated or role == "assistant"):
                role = "assistant" if stretch.generated else TEMPLATE
            if stretch.turn is not None:
                yield from chat_signs.texts(stretch.text, role, signs)
            else:
                pieces = list(self._specials(stretch.text, role, signs))
                yield from self._ended(pieces, signs) if answered and not marked else pieces
            answered = stretch.turn is not None and role == "assistant"

    def _specials(self, text: str, role: str, signs: Signs) -> Iterator[Piece]:
        """What the template wrote itself: special tokens by id, the text between them as text."""
        at = 0
        for match in self._controls.finditer(text):
            yield from chat_signs.texts(text[at:match.start()], role, signs)
            yield Piece("", role, special=match[0])
            at = match.end()
        yield from chat_signs.texts(text[at:], role, signs)

    def _ended(self, pieces: list[Piece], signs: Signs) -> list[Piece]:
        """What follows an assistant's text; up to the token that ends the turn it is the assistant's."""
        spaces = 1 if pieces and not pieces[0].special and not pieces[0].text.strip() else 0
        ending, opening = self._ends
        if len(pieces) > spaces and pieces[spaces].special:
            name = pieces[spaces].special
            count = spaces + 1 if name in ending or name not in opening else 0
            return [dataclasses.replace(piece, role="assistant") if index < count else piece
                    for index, piece in enumerate(pieces)]
        written = ending.rstrip()
        if written and pieces and pieces[0].text.startswith(written) and not self._controls.search(written):
            rest = dataclasses.replace(pieces[0], text=pieces[0].text[len(written):])
            return [Piece(written, "assistant"), *([rest] if rest.text else []), *pieces[1:]]
        return pieces

    @functools.cached_property
    def _ends(self) -> tuple[str, str]:
        """What the template writes after an answer that is the last turn, and before a first question."""
        question, answer = "\N{FISHEYE}", "\N{BULLSEYE}"
        try:
            text = self._write([{"role": "user", "text": question}, {"role": "assistant", "text": answer}], False, {})
        except ValueError:  # a template that wants other turns
            return "", ""
        return text.partition(answer)[2], text.partition(question)[0]


def of(tokenizer: Tokenizer, name: str = "") -> ChatTemplate:
    """Returns the chat template of a tokenizer's folder.

    Args:
      name: which one, where the folder has several; "" for the one called "default".

    Raises ValueError where there is none, none of that name, or it is no template.
    """
    given = tokenizer.settings.get("chat_template")
    if isinstance(given, list):
        given = {one["name"]: one["template"] for one in given}
    if isinstance(given, str):
        given = {"default": given}
    if not given:
        raise ValueError("the tokenizer has no chat template: its folder has neither chat_template.jinja nor a "
                         "chat_template in tokenizer_config.json")
    if (name or "default") not in given:
        raise ValueError(f"the tokenizer has no chat template {name or 'default'!r}: it has {', '.join(sorted(given))}")
    source = given[name or "default"]
    if not isinstance(source, str):
        raise ValueError(f"the chat template {name or 'default'!r} is a {type(source).__name__}: expected text")
    template_sandbox.compiled(source)
    literals = template_sandbox.literals(source)
    words = frozenset(word for word in tokenizer.words if word in literals and len(word) > 1 and not word.isspace())
    return ChatTemplate(source, _names(tokenizer), frozenset(tokenizer.control), words)


def _names(tokenizer: Tokenizer) -> dict[str, str]:
    """The texts that a template knows as bos_token, eos_token and so on."""
    settings = tokenizer.settings
    usual = {f"{name}_token": text for name, text in CLASS_NAMES.get(tokenizer_class(settings), {}).items()}
    more = settings.get("extra_special_tokens")
    named = {key: value for key, value in settings.items() if key.endswith("_token") and not isinstance(value, bool)}
    texts = {key: token_text(value) for key, value in
             {**usual, **named, **(more if isinstance(more, dict) else {})}.items()}
    if not any(f"{name}_token" in texts for name in SPECIAL_NAMES):
        texts |= {f"{name}_token": tokenizer.piece(id) for name, id in tokenizer.special.items()}
    return {key: text for key, text in texts.items() if isinstance(text, str)}


def _any(texts: Sequence[str] | frozenset[str]) -> re.Pattern[str]:
    """An expression that finds any of the texts, the longest first; none where there is none."""
    longest_first = sorted(texts, key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def _check(turns: Sequence[Turn]) -> None:
    if not turns:
        raise ValueError("the dialogue has no turns: expected at least one")
    for index, turn in enumerate(turns):
        role, text = turn.get("role"), turn.get("text")
        if role not in ROLES:
            raise ValueError(f"turn {index + 1} has the role {role!r}: expected {', '.join(ROLES)}")
        if not isinstance(text, str):
            raise ValueError(f"turn {index + 1} has a text of the type {type(text).__name__}: expected str")
