# SPDX-License-Identifier: Apache-2.0
"""With real vocabularies: what an automaton writes matches its pattern or satisfies its schema."""

import datetime
import importlib.util
import json
import pathlib
import re
import sys

import jax
import numpy as np
import pytest

from t5tasks import decode, pretrained
from t5tasks.data import tokenizer as data_tokenizer
from t5tasks.decode import patterns

CONVERT = pathlib.Path(__file__).parents[2] / "scripts" / "convert_llama2c.py"
PATTERNS = ("yes|no", "[0-9]+([.][0-9]+)?", "^[a-zé😀 ]{1,20}$", "(naïve|café) (🦓|€[0-9])+", ".{1,40}",
            " ?[A-Z][a-z]+(, [a-z]+)*")
SCHEMA = {"type": "object", "required": ["name", "kind"], "properties": {
    "name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"},
    "kind": {"enum": ["cat", 'd"g', "zèbre", 3]},
    "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]+$"}, "maxItems": 3},
    "born": {"type": "string", "format": "date"}, "share": {"type": ["number", "null"]}}}


pytestmark = pytest.mark.usefixtures("quick_to_compile")


@pytest.fixture(scope="module")
def vocabularies(shared_weights, tmp_path_factory):
    """{name: (tokenizer, how it spells, EOS)} of GPT-2, T5 and llama2.c's stories."""
    spec = importlib.util.spec_from_file_location("convert_llama2c", CONVERT)
    convert = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(convert)
    folder, stories = tmp_path_factory.mktemp("stories") / "folder", shared_weights / "stories260K"
    convert.convert(stories / "stories260K.bin", stories / "tok512.bin", folder)
    made = {"gpt2": data_tokenizer.load(shared_weights / "gpt2-bpe"), "stories": data_tokenizer.load(folder),
            "t5": data_tokenizer.load(shared_weights / "t5-sentencepiece")}
    return {"folder": folder} | {name: (one, decode.spellings(one), one.special["eos"]) for name, one in made.items()}


def walk(automaton, random, limit, opening):
    """Tokens at random, by columns, so that rare ones come up too."""
    state, tokens = automaton.opening if opening else automaton.start, []
    while True:
        places = automaton.base[state] + np.arange(automaton.columns)
        fits = automaton.remaining[automaton.targets[places]] < limit - len(tokens)
        fits &= automaton.owners[places] == state
        if automaton.remaining[state] == 0 and (not fits.any() or random.rand() < 0.15):
            return tokens
        column = random.choice(np.flatnonzero(fits))
        tokens.append(int(random.choice(np.flatnonzero(automaton.classes == column))))
        state = automaton.after(state, tokens[-1])


def shown(tokenizer, tokens, opening):
    """The text that an answer of these tokens is, at the beginning of a text or after a prompt."""
    prompt = [] if opening else tokenizer.encode("Hello there").ids
    return tokenizer.decode(prompt + tokens)[len(tokenizer.decode(prompt)):]


@pytest.mark.parametrize("name", ["gpt2", "stories", "t5"])
def test_random_walks_match(vocabularies, name):
    tokenizer, spelled, eos = vocabularies[name]
    random, texts = np.random.RandomState(0), set()
    for pattern in PATTERNS:
        if name == "t5" and "🦓" in pattern:
            with pytest.raises(ValueError, match="no tokens of the vocabulary spell a text that it allows"):
                decode.regex("🦓+", spelled, [eos])
            continue
        automaton = decode.regex(pattern, spelled, [eos])
        assert automaton is decode.regex(pattern, spelled, [eos])  # remembered
        for opening in (False, True):
            for _ in range(30):
                text = shown(tokenizer, walk(automaton, random, 30, opening), opening)
                assert re.fullmatch(pattern, text), (pattern, text)
                texts.add(text)
    assert len(texts) > 150


@pytest.mark.parametrize("name", ["gpt2", "stories", "t5"])
def test_the_tokens_of_a_match_are_allowed(vocabularies, name):
    """As the tokenizer itself spells them: at a text's beginning, and after other text."""
    tokenizer, spelled, eos = vocabularies[name]
    matches = {"[0-9]+([.][0-9]+)?": ["7", "12.5", "2024.001"], ".{1,40}": ["a b  c", "naïve café", "x\ty"],
               "(naïve|café) (🦓|€[0-9])+": ["café 🦓€5🦓", "naïve €3"], "yes|no": ["yes", "no"]}
    for pattern, texts in matches.items():
        if name == "t5" and "🦓" in pattern:
            continue
        automaton = decode.regex(pattern, spelled, [eos])
        for text in texts:
            ids = tokenizer.encode(text).ids
            if shown(tokenizer, ids, True) != text:
                continue  # T5 writes one space for two
            state = automaton.opening
            for id in ids:
                state = automaton.after(state, id)
                assert state >= 0, (pattern, text, id)
            assert automaton.remaining[state] == 0


def check(value, schema):
    """Raises where a value does not satisfy SCHEMA or its like."""
    assert isinstance(value, dict) and set(schema["required"]) <= value.keys()
    assert len(value["name"]) <= 12 and value["kind"] in schema["properties"]["kind"]["enum"]
    assert type(value.get("age", 0)) is int and isinstance(value.get("share", 0.5) or 0.0, int | float)
    assert len(tags := value.get("tags", [])) <= 3 and all(re.fullmatch("[a-z]+", tag) for tag in tags)
    assert datetime.date.fromisoformat(value.get("born", "2000-02-28"))
    assert not value.keys() - schema["properties"].keys() and [*value] == [
        name for name in schema["properties"] if name in value]


@pytest.mark.parametrize("name", ["gpt2", "stories"])
def test_random_walks_satisfy_their_schema(vocabularies, name):
    tokenizer, spelled, eos = vocabularies[name]
    automaton, random = decode.json_schema(SCHEMA, spelled, [eos]), np.random.RandomState(1)
    keys = set()
    for limit in (int(automaton.remaining[automaton.start]), 40, 90):
        for _ in range(40):
            value = json.loads(shown(tokenizer, walk(automaton, random, limit, False), False))
            check(value, SCHEMA)
            keys |= value.keys()
    assert keys == SCHEMA["properties"].keys()


def test_a_model_writes_json(vocabularies):
    """The stories model, sampling hot, greedy and in beams, from a prompt that has nothing to do with it."""
    tokenizer, spelled, eos = vocabularies["stories"]
    loaded = pretrained.load(vocabularies["folder"], overrides={"compute_dtype": "float32"})
    automaton, rows = decode.json_schema(json.dumps(SCHEMA), spelled, [eos]), 16
    prompt = np.array([tokenizer.encode("Once upon a time").ids] * rows, np.int32)
    limits = [int(automaton.remaining[automaton.start]), *[60] * (rows - 1)]
    made = decode.constrain([automaton] * rows, vocabulary=loaded.model.config.vocabulary)
    width, texts = prompt.shape[1], set()
    request = (loaded.model.step, loaded.parameters, prompt, np.full(rows, width))

    def cache():
        return loaded.model.start(loaded.parameters, rows, width + 60)

    ends = {"max_new_tokens": 60, "eos": [eos], "pad": 0, "constraint": made}
    for seed in range(8):
        settings = decode.settings(rows, temperature=[0.0, 0.0] + [1.0, 3.0] * 7, max_new=limits)
        out = jax.device_get(decode.generate(
            *request, cache(), settings, decode.keys(np.arange(rows) + rows * seed), **ends))
        for tokens, length in zip(out.tokens.tolist(), out.lengths, strict=True):
            texts.add(tokenizer.decode([*prompt[0], *tokens[:length]])[len("Once upon a time"):])
    found = jax.device_get(decode.search(
        *request, cache(), beams=3, num_return=3, length_penalty=1.0, early_stopping=True,
        settings=decode.settings(rows, max_new=limits), **ends))
    for tokens, length in zip(found.tokens.reshape(-1, 60).tolist(), found.lengths.reshape(-1), strict=True):
        if length:
            texts.add(tokenizer.decode([*prompt[0], *tokens[:length]])[len("Once upon a time"):])
    assert len(texts) > 90
    for text in texts:
        check(json.loads(text), SCHEMA)


def language(schema):
    """Whether a text is one of the schema's, by the automaton over bytes."""
    automaton = patterns._byte_automaton(patterns.schemas.pattern(schema, patterns._holds_json_string))

    def holds(text):
        state = 0
        for byte in text.encode():
            state = int(automaton.step[state, byte])
            if state < 0:
                return False
        return bool(automaton.accepting[state])

    return holds


OPTIONAL = {"type": "object", "properties": {name: {"type": "null"} for name in "abcd"}, "required": ["c"]}


@pytest.mark.parametrize(("schema", "valid", "wrong"), [
    ({"type": "string"}, ['""', '"é🦓 \\n\\""', '"a/b"'], ['"', '"a"b"', '"a\nb"', '"\\x"', "''"]),
    ({"type": "string", "minLength": 2, "maxLength": 3}, ['"ab"', '"é🦓\\n"'], ['"a"', '"abcd"']),
    ({"type": "integer"}, ["0", "-12", "9" * 18], ["01", "-", "+1", "1.0", "9" * 19]),
    ({"type": "number"}, ["0.50", "-1e9", "2E-07", "3"], [".5", "1.", "1e", "00.1"]),
    ({"type": ["boolean", "null"]}, ["true", "false", "null"], ["True", ""]),
    ({"enum": ['a"b', "t\t.*", 1.5, None, [1, "x"], {"k": []}]},
     ['"a\\"b"', '"t\\t.*"', "1.5", "null", '[1, "x"]', '[1,"x"]', '{"k": []}'], ['"t\\txx"', "1x5", '[1,  "x"]']),
    ({"type": "integer", "enum": [1, "1", True]}, ["1"], ['"1"', "true"]),
    ({"const": "(a|b)"}, ['"(a|b)"'], ['"a"']),
    ({"type": "array", "items": {"type": "null"}}, ["[]", "[null]", "[null,null, null]"], ["[null,]", "[", "[ ]"]),
    ({"type": "array", "items": {"type": "null"}, "minItems": 2, "maxItems": 3},
     ["[null, null]", "[null,null,null]"], ["[]", "[null]", "[null,null,null,null]"]),
    ({"type": "array", "items": {"type": "null"}, "minItems": 1, "maxItems": 1}, ["[null]"], ["[]", "[null,null]"]),
    ({"type": "array", "items": {"type": "null"}, "maxItems": 0}, ["[]"], ["[null]"]),
    (OPTIONAL, ['{"c":null}', '{"a": null, "c": null, "d": null}', '{"b":null,"c":null}', '{"c":null,"d":null}'],
     ["{}", '{"a":null}', '{"c":null,"a":null}', '{,"c":null}', '{"c":null,}', '{"a":null "c":null}']),
    ({**OPTIONAL, "required": []}, ["{}", '{"d":null}', '{"a":null,"d":null}', '{"a":null,"b":null,"c":null,"d":null}'],
     ["{,}", '{"d":null,"a":null}', '{"d":null,}']),
    ({"type": "object", "properties": {}}, ["{}"], ['{"a":1}']),
    ({"type": "object", "properties": {'q"': {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/n"}]}}, "required": ['q"'],
      "$defs": {"n": {"type": "integer"}}}, ['{"q\\"":null}', '{"q\\"": 12}'], ['{"q"":null}', '{"q\\"": null12}']),
    ({"type": "object", "additionalProperties": {"type": "integer"}}, ["{}", '{"a":1, "é": 2}'], ['{"a":""}', '{a:1}']),
    ({"type": "object", "additionalProperties": False}, ["{}"], ['{"a":1}']),
    ({"type": "string", "pattern": "^[a-c]+|x$"}, ['"abc"', '"x"'], ['"abcx"', "abc", '"d"']),
    ({"type": "string", "format": "date"}, ['"2024-02-28"', '"1999-12-31"'],
     ['"2023-02-30"', '"2023-04-31"', '"٢٠٢٣-01-01"']),
    ({"type": "string", "format": "date-time"}, ['"2024-02-28T23:59:59.5+01:00"'],
     ['"2024-02-28"', '"2024-02-28T24:00:00Z"']),
    ({"type": "string", "format": "uuid"}, ['"123e4567-e89b-12d3-a456-426614174000"'], ['"123e4567"']),
])
def test_a_schema_is_its_language(schema, valid, wrong):
    holds = language(schema)
    for text in valid:
        json.loads(text)
        assert holds(text), text
    for text in wrong:
        assert not holds(text), text


@pytest.mark.parametrize(("schema", "said"), [
    ("{", "the JSON schema is no JSON"),
    (True, "True says nothing"),
    ({}, "its type is None, expected one of string, array, object"),
    ({"type": "strin"}, "its type is 'strin'"),
    ({"type": "integer", "minimum": 3}, "'minimum' cannot be kept here"),
    ({"type": "array", "items": {"type": "null"}, "uniqueItems": True}, "'uniqueItems' cannot be kept here"),
    ({"type": "array"}, "#/items: None says nothing"),
    ({"oneOf": [{"type": "null"}], "type": "null"}, "'oneOf' cannot be kept here; say anyOf"),
    ({"allOf": [{"type": "null"}], "type": "null"}, "'allOf' cannot be kept here"),
    ({"anyOf": []}, "anyOf is [], expected a list that is not empty"),
    ({"type": "object"}, "an object of any keys cannot be kept"),
    ({"type": "object", "properties": {}, "required": ["a"]}, "'a' is required and not among its properties"),
    ({"type": "string", "pattern": "a.*"}, "pattern 'a.*' allows a quote"),
    ({"type": "string", "pattern": "a", "maxLength": 2}, "pattern and a length cannot be kept together"),
    ({"type": "string", "pattern": "(a"}, "regex '(a' cannot be compiled"),
    ({"type": "string", "format": "email"}, "format 'email' cannot be kept, expected one of date, time"),
    ({"type": "string", "minLength": 3, "maxLength": 2}, "maxLength 2 is below minLength 3"),
    ({"type": "array", "items": {"type": "null"}, "minItems": -1}, "minItems is -1"),
    ({"enum": ["a"], "type": "integer"}, "none of its values is of type integer"),
    ({"$ref": "#/$defs/x"}, "$ref '#/$defs/x' names nothing in the schema"),
    ({"$ref": "#/$defs/x", "$defs": {"x": {"type": "array", "items": {"$ref": "#/$defs/x"}}}}, "leads back to itself"),
])
def test_what_a_schema_may_not_say(schema, said):
    with pytest.raises(ValueError) as error:
        language(schema)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("pattern", ["[", "(?=a)a", r"(a)\1", r"a\b", "a$|b", "a^b", "x$y"])
def test_what_is_no_regular_expression(pattern):
    with pytest.raises(ValueError, match="cannot be compiled") as error:
        patterns._byte_automaton(patterns._bare(pattern))
    assert "\n" not in str(error.value)


def test_without_the_library_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "outlines_core", None)
    spelled = decode.Spellings((b"a",), (b"a",), False, "one")
    with pytest.raises(ValueError, match=r"need outlines-core; pip install 't5tasks\[constraints\]'"):
        decode.regex("aa", spelled)
