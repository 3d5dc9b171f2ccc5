# SPDX-License-Identifier: Apache-2.0
"""A llama2.c checkpoint comes in; a folder that tells llama2.c's story, token for token, goes out."""

import importlib.util
import itertools
import json
import pathlib
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from t5tasks import decode, pretrained
from t5tasks.data import tokenizer
from t5tasks.models.config import ModelConfig
from t5tasks.models.model import Model

SCRIPT = pathlib.Path(__file__).parents[2] / "scripts" / "convert_llama2c.py"
TEXTS = ("Once upon a time", "Hello, Lily!  two  spaces\nline\ttab", "héllo 😀 日本", "  lead", " ",
         "<s> </s> <0x0A>", "")


@pytest.fixture(scope="module")
def convert():
    spec = importlib.util.spec_from_file_location("convert_llama2c", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def stories(shared_weights):
    return shared_weights / "stories260K"


@pytest.fixture(scope="module")
def folder(convert, stories, tmp_path_factory):
    output = tmp_path_factory.mktemp("stories") / "folder"
    convert.convert(stories / "stories260K.bin", stories / "tok512.bin", output)
    return output


@pytest.fixture(scope="module")
def expected(stories):
    return json.loads((stories / "expected_greedy.json").read_text("utf-8"))


def test_greedy_tokens_and_logits_are_llama2c_s(folder, expected):
    loaded = pretrained.load(folder, overrides={"compute_dtype": "float32"})
    model, length = loaded.model, len(expected["token_ids"]) - 1
    assert length == 256

    @jax.jit
    def tell(parameters):
        def step(state, _):
            token, cache = state
            logits, cache = model.step(parameters, token[:, None], jnp.ones(1, jnp.int32), cache)
            token = jnp.argmax(logits, axis=-1).astype(jnp.int32)
            return (token, cache), (token[0], logits[0])

        begin = jnp.ones(1, jnp.int32)
        return jax.lax.scan(step, (begin, model.start(parameters, 1, length)), None, length)[1]

    tokens, logits = tell(loaded.parameters)
    assert tokens.tolist() == expected["token_ids"][1:]
    for position in (0, 50):
        np.testing.assert_allclose(logits[position], expected[f"logits_at_position_{position}"],
                                   rtol=0, atol=1e-4)


@pytest.mark.parametrize("guesser", ["copies", "an untrained model"])
def test_guesses_do_not_change_the_story(folder, expected, guesser, quick_jit):
    loaded = pretrained.load(folder, overrides={"compute_dtype": "float32"})
    model, told = loaded.model, expected["token_ids"]
    draft, draft_cache = decode.PromptLookup(3), None
    if guesser != "copies":
        tiny = Model(ModelConfig(vocabulary=512, max_length=512, width=16, heads=2, kv_heads=1, head_size=8,
                                 feed_forward=16, decoder_layers=1))
        parameters = tiny.init(jax.random.key(0))
        draft, draft_cache = decode.ModelDraft(tiny.step, parameters), tiny.start(parameters, 1, 264)
    tell = quick_jit(lambda parameters, draft: decode.speculate(
        model.step, model.verify, parameters, np.asarray([told[:1]]), np.asarray([1]),
        model.start(parameters, 1, 264), draft, draft_cache, decode.settings(1), decode.keys([0]),
        draft_tokens=4, max_new_tokens=256, eos=[], pad=0))
    out, acceptance = tell(loaded.parameters, draft)
    assert out.tokens[0].tolist() == told[1:]
    assert int(acceptance.passes[0]) == 255 - int(acceptance.accepted[0])
    if guesser == "copies":  # a child's story repeats itself
        assert acceptance.passes[0] < 200


def test_the_whole_story_at_once_has_the_same_logits(folder, expected):
    loaded = pretrained.load(folder, overrides={"compute_dtype": "float32"})
    logits = loaded.forward(input_ids=np.array([expected["token_ids"]]))[0]
    for position in (0, 50):
        np.testing.assert_allclose(logits[position], expected[f"logits_at_position_{position}"],
                                   rtol=0, atol=1e-4)
    assert logits[:-1].argmax(-1).tolist() == expected["token_ids"][1:]


def test_the_story_decodes_as_printed(folder, expected):
    pieces = tokenizer.load(folder)
    assert pieces.special == {"unk": 0, "bos": 1, "eos": 2}
    assert pieces.decode(expected["token_ids"]) == expected["text"]


def merged(text, vocabulary):
    """The ids of llama2.c's own algorithm: the adjacent pair of the highest score, again and again."""
    ids = {piece: id for id, (piece, _) in enumerate(vocabulary)}
    tokens = [ids[b" "]] if text else []
    for character in text:
        piece = character.encode()
        tokens += [ids[piece]] if piece in ids else [byte + 3 for byte in piece]
    while True:
        joined = [vocabulary[one][0] + vocabulary[two][0] for one, two in itertools.pairwise(tokens)]
        pairs = [(vocabulary[ids[pair]][1], -place) for place, pair in enumerate(joined)
                 if pair in ids]
        if not pairs:
            return tokens
        place = -max(pairs)[1]
        tokens[place : place + 2] = [ids[joined[place]]]


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_llama2c_s_and_round_trip(text, convert, folder, stories, expected):
    vocabulary = convert.read_pieces((stories / "tok512.bin").read_bytes(), 512, "tok512.bin")
    pieces = tokenizer.load(folder)
    assert pieces.encode(text).ids == merged(text, vocabulary)
    assert pieces.decode(pieces.encode(text).ids) == text
    assert pieces.encode(expected["text"]).ids == merged(expected["text"], vocabulary)


def test_an_untied_head_is_written(convert):
    """A whole tiny checkpoint, its numbers counted up, so that every place can be told."""
    header = (4, 3, 2, 2, 1, -5, 6)  # a negative vocabulary: the head is its own
    sizes = [5 * 4, 2 * 4, 2 * 16, 2 * 8, 2 * 8, 2 * 16, 2 * 4, 2 * 12, 2 * 12, 2 * 12, 4, 6, 6, 5 * 4]
    content = struct.pack("<7i", *header) + np.arange(sum(sizes), dtype="<f4").tobytes()
    starts = np.cumsum([0, *sizes])
    named = convert.hugging_face_tensors(*convert.read_tensors(content, "tiny.bin"))
    np.testing.assert_array_equal(named["lm_head.weight"].ravel(), np.arange(starts[13], starts[14]))
    up = named["model.layers.1.mlp.up_proj.weight"]
    np.testing.assert_array_equal(up.ravel(), np.arange(starts[9] + 12, starts[10]))
    # A head of two rows is one pair, which stays as it is.
    key = named["model.layers.1.self_attn.k_proj.weight"]
    np.testing.assert_array_equal(key.ravel(), np.arange(starts[3] + 8, starts[4]))


def test_halves_is_its_picture(convert):
    rows = np.arange(12.0)[:, None]
    assert convert.halves(rows, 2).ravel().tolist() == [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]


def damaged_models(content):
    header = struct.unpack("<7i", content[:28])
    return {
        "asks for 1056540: it is truncated": content[:-1],
        "there are bytes after its end": content + b"\0",
        "at least the header's 28": content[:20],
        "version 1 or 2": b"24ka" + content[4:],
        "no llama2.c header": struct.pack("<7i", 0, *header[1:]) + content[28:],
        "5 key/value heads": struct.pack("<7i", *header[:4], 5, *header[5:]) + content[28:],
    }


def damaged_tokenizers(content):
    return {
        "truncated: it ends before piece 511": content[:-9],
        "truncated or no llama2.c tokenizer: piece 511 has 3 bytes, of which 2": content[:-1],
        "has 2 bytes after its 512 pieces": content + b"ab",
        "piece 3 is b'<0x0Z>'; expected <0x00>": content.replace(b"<0x00>", b"<0x0Z>"),
        "which is not UTF-8": content[:-1] + b"\xff",
    }


@pytest.mark.parametrize("kind", ["model", "tokenizer"])
def test_damaged_files_are_named(kind, convert, stories, tmp_path):
    paths = {"model": stories / "stories260K.bin", "tokenizer": stories / "tok512.bin"}
    damage = damaged_models if kind == "model" else damaged_tokenizers
    for number, (message, content) in enumerate(damage(paths[kind].read_bytes()).items()):
        path = tmp_path / f"damaged{number}.bin"
        path.write_bytes(content)
        with pytest.raises(ValueError) as error:
            convert.convert(**paths | {kind: path}, output=tmp_path / "output")
        assert message in str(error.value) and path.name in str(error.value)
        assert not (tmp_path / "output").exists()
    with pytest.raises(ValueError, match="no file"):
        convert.convert(**paths | {kind: tmp_path / "absent.bin"}, output=tmp_path / "output")


def test_the_folder_says_what_the_file_said(folder):
    config = pretrained.read_config(folder)
    assert (config.width, config.feed_forward, config.decoder_layers) == (64, 172, 5)
    assert (config.heads, config.kv_heads, config.head_size) == (8, 4, 8)
    assert (config.vocabulary, config.max_length, config.tied_head) == (512, 512, True)
    assert config.norm_epsilon == 1e-5 and config.rotary_base == 10000
    assert len(safetensors.numpy.load_file(folder / "model.safetensors")) == 2 + 9 * 5
