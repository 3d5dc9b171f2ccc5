# SPDX-License-Identifier: Apache-2.0
"""Explanations come in; the page and the terminal's text hold every token, and no text passes for more than text."""

from __future__ import annotations

import html
import pathlib
import re

from explain_cases import all_tokens, config_of, plain_text, written

from t5tasks import explain, explanation
from t5tasks.data import tokenizer
from t5tasks.explanation import Explanation, Token

EVIL = {"prompt": "<script>alert('x')</script> & \"a\"\nb\x1b[31m ⟦x⟧ é😀", "completion": " <b>yes</b>\t</s>"}


def test_html_escapes_and_holds_every_piece(sentence_pieces: str, tmp_path: pathlib.Path) -> None:
    config = config_of("text_generation", "decoder", sentence_pieces)
    config.data.train = written([EVIL], tmp_path)
    found = explain.explain(config, name="<i>configs/a&b.py</i>")
    page = explanation.page(found)
    shown = re.findall(r'<(?:mark|span) class="(\w+)" title="([^"]*)" dir="auto">([^<]*)</(?:mark|span)>', page)
    tokens = all_tokens(found)
    assert [html.unescape(text) for _, _, text in shown] == [token.marked for token in tokens]
    assert [kind == "graded" for kind, _, _ in shown] == [token.weight > 0 for token in tokens]
    assert "<script" not in page and "<i>" not in page and "<b>" not in page
    assert "&lt;i&gt;configs/a&amp;b.py&lt;/i&gt;" in page
    for facts in (found.facts, found.counts):
        assert all(html.escape(value) in page for value in facts.values())
    assert not re.search(r"(?:src|href)=|url\(|@import|https?:", page)
    assert "prefers-color-scheme: dark" in page and 'name="viewport"' in page


def test_a_page_from_a_piece_that_is_a_tag() -> None:
    token = Token("<script>", 7, "prompt<", False, 1.0)
    document = explanation.Document(1, 0, (token, token), predicts=True)
    page = explanation.page(Explanation("<t>", {"<a>": "<b>"}, {}, (
        explanation.View("<v>", (explanation.Sequence("<n>", (document,)),), ("<note>",)),)))
    body = page.split("</head>")[1]
    assert set(re.findall(r"<([a-z0-9]+)", body)) <= {
        "body", "h1", "h2", "h3", "dl", "dt", "dd", "ul", "li", "section", "p", "mark", "span", "details",
        "summary", "div", "table", "thead", "tbody", "tr", "th", "td"}
    assert body.count("&lt;script&gt;") == 4  # twice in the line, then as token and as target


def test_no_text_steers_a_terminal_or_passes_for_a_special_token(
        sentence_pieces: str, tmp_path: pathlib.Path) -> None:
    config = config_of("text_generation", "decoder", sentence_pieces)
    config.data.train = written([EVIL], tmp_path)
    found = explain.explain(config)
    text = plain_text(found)
    assert "\x1b" not in text and "<001B>" in text and "⏎" in text and "⇥" in text
    assert [token.marked for token in all_tokens(found) if token.special] == ["◆<s>", "◆</s>"]


def test_without_colour_the_text_says_what_is_graded(sentence_pieces: str) -> None:
    config = config_of("text_generation", "decoder", sentence_pieces)
    found = explain.explain(config)
    text = plain_text(found, width=4000)
    tokens = all_tokens(found)
    graded = " ".join(token.marked for token in tokens if token.weight)
    prompt = " ".join(token.marked for token in tokens if not token.weight)
    assert "\x1b" not in text
    assert f"{prompt} ⟦{graded}⟧\n" in text
    coloured = plain_text(found, width=4000, force_terminal=True, color_system="standard")
    assert "\x1b[1;4;32m" in coloured
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == text


def test_a_narrow_terminal_loses_nothing(sentence_pieces: str) -> None:
    found = explain.explain(config_of("text_generation", "decoder", sentence_pieces))
    narrow = plain_text(found, width=44)
    assert max(map(len, narrow.splitlines())) <= 44 and "…" not in narrow
    styles = dict.fromkeys(("graded", "special", "plain"), "")
    line = explanation.running_text(found.views[0].sequences[0].documents[0], styles).plain.split()
    words = narrow.split()
    start = words.index("graded", words.index("sequence:")) + 1
    assert len(line) > 44 and line == words[start : start + len(line)]


def test_visible_pieces_of_byte_level_and_word_piece(word_pieces: str, shared_weights: pathlib.Path) -> None:
    words = tokenizer.load(word_pieces)
    assert explain.visible(words, words.special["cls"]) == "[CLS]"
    pieces = tokenizer.load(shared_weights / "gpt2-bpe")
    shown = [explain.visible(pieces, id) for id in pieces.encode("Hello wörld\n\tthe").ids]
    assert shown == ["Hello", "·w", "ör", "ld", "⏎", "⇥", "the"]
    assert not any("�" in explain.visible(pieces, id) for id in pieces.encode("😀").ids)


def test_an_unknown_word_is_not_taken_for_a_special_token(word_pieces: str, tmp_path: pathlib.Path) -> None:
    config = config_of("classification", "encoder", word_pieces)
    config.task.labels = ("good", "bad")
    config.data.train = written([{"text": "Schnabeltier [SEP]", "label": "bad"}], tmp_path)
    marked = [token.marked for token in all_tokens(explain.explain(config))]
    assert (marked[0], marked[1], marked[-1]) == ("◆[CLS]", "[UNK]", "◆[SEP]")
    assert "◆[SEP]" not in marked[:-1]
