# SPDX-License-Identifier: Apache-2.0
"""A raw llama2.c checkpoint and its tokenizer in, a Hugging Face Llama folder out.

    python scripts/convert_llama2c.py --model=stories260K.bin --tokenizer=tok512.bin --output=FOLDER

The checkpoint is a "version 0" file: seven little-endian int32 (width, feed-forward width,
layers, heads, key/value heads, vocabulary, longest context; a negative vocabulary means that the
head is not the embedding table), then f32 tensors, each [outputs, inputs], stacked over layers.
The tokenizer is an int32, the longest piece, then for each piece f32 score, int32 length, bytes.
The folder holds config.json, model.safetensors, tokenizer.model (SentencePiece, BPE),
tokenizer_config.json and generation_config.json.
"""

import dataclasses
import json
import math
import pathlib
import struct

import numpy as np
import safetensors.numpy
from absl import app, flags
from sentencepiece import sentencepiece_model_pb2

LATER_VERSIONS = b"24ka"  # how files of version 1 and 2 begin
UNKNOWN, BEGIN, END, FIRST_BYTE, FIRST_PIECE = 0, 1, 2, 3, 259
SPACE = "▁"  # SentencePiece's sign for a space


@dataclasses.dataclass(frozen=True)
class Header:
    """The seven numbers a checkpoint begins with; `tied` is the sign of the vocabulary."""

    width: int
    feed_forward: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    max_length: int
    tied: bool

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The file's tensors, in its order."""
        size, layers = self.width // self.heads, self.layers
        shapes: dict[str, tuple[int, ...]] = {
            "embedding": (self.vocabulary, self.width),
            "attention_norm": (layers, self.width),
            "q": (layers, self.heads * size, self.width),
            "k": (layers, self.kv_heads * size, self.width),
            "v": (layers, self.kv_heads * size, self.width),
            "o": (layers, self.width, self.heads * size),
            "feed_forward_norm": (layers, self.width),
            "gate": (layers, self.feed_forward, self.width),
            "down": (layers, self.width, self.feed_forward),
            "up": (layers, self.feed_forward, self.width),
            "norm": (self.width,),
            "cosines": (self.max_length, size // 2),
            "sines": (self.max_length, size // 2),
        }
        return shapes if self.tied else shapes | {"head": (self.vocabulary, self.width)}


def read_header(content: bytes, name: str) -> Header:
    """The checked header of a checkpoint's bytes; raises ValueError naming the file."""
    if content.startswith(LATER_VERSIONS):
        raise ValueError(f"{name} is a llama2.c file of version 1 or 2; export it as version 0")
    if len(content) < 28:
        raise ValueError(f"{name} has {len(content)} bytes; expected at least the header's 28")
    numbers = struct.unpack("<7i", content[:28])
    header = Header(*numbers[:5], abs(numbers[5]), numbers[6], numbers[5] > 0)
    values = dataclasses.asdict(header)
    if min(values[field] for field in values if field != "tied") < 1:
        raise ValueError(f"{name} begins with {numbers}, which is no llama2.c header: sizes are positive")
    if header.width % (2 * header.heads) or header.heads % header.kv_heads:
        raise ValueError(f"{name} has width {header.width}, {header.heads} heads and {header.kv_heads} "
                         "key/value heads; expected an even head size, and heads to share keys evenly")
    return header


def read_tensors(content: bytes, name: str) -> tuple[Header, dict[str, np.ndarray]]:
    """The header and f32 tensors of a checkpoint's bytes.

    Raises:
      ValueError: a header that cannot be, or bytes that are too few or too many for it.
    """
    header = read_header(content, name)
    shapes = header.shapes()
    counts = {key: math.prod(shape) for key, shape in shapes.items()}
    expected = 28 + 4 * sum(counts.values())
    if len(content) != expected:
        wrong = "it is truncated" if len(content) < expected else "there are bytes after its end"
        raise ValueError(f"{name} has {len(content)} bytes, but its header asks for {expected}: {wrong}")
    tensors, start = {}, 28
    for key, shape in shapes.items():
        tensors[key] = np.frombuffer(content, "<f4", counts[key], start).reshape(shape)
        start += 4 * counts[key]
    return header, tensors


def halves(weight: np.ndarray, heads: int) -> np.ndarray:
    """Reorders each head's rows [outputs, inputs] for rotations of halves.

    llama2.c turns the rows (2i, 2i + 1) of a head together, Hugging Face (i, i + H / 2):

        [0, 1, 2, 3, 4, 5]  ->  [0, 2, 4, 1, 3, 5]
    """
    pairs = weight.reshape(heads, -1, 2, weight.shape[-1])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(weight.shape)


def hugging_face_tensors(header: Header, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The checkpoint's tensors under Hugging Face's names."""
    named = {"model.embed_tokens.weight": tensors["embedding"], "model.norm.weight": tensors["norm"]}
    if not header.tied:
        named["lm_head.weight"] = tensors["head"]
    for layer in range(header.layers):
        prefix = f"model.layers.{layer}"
        named |= {
            f"{prefix}.input_layernorm.weight": tensors["attention_norm"][layer],
            f"{prefix}.self_attn.q_proj.weight": halves(tensors["q"][layer], header.heads),
            f"{prefix}.self_attn.k_proj.weight": halves(tensors["k"][layer], header.kv_heads),
            f"{prefix}.self_attn.v_proj.weight": tensors["v"][layer],
            f"{prefix}.self_attn.o_proj.weight": tensors["o"][layer],
            f"{prefix}.post_attention_layernorm.weight": tensors["feed_forward_norm"][layer],
            f"{prefix}.mlp.gate_proj.weight": tensors["gate"][layer],
            f"{prefix}.mlp.up_proj.weight": tensors["up"][layer],
            f"{prefix}.mlp.down_proj.weight": tensors["down"][layer],
        }
    return named


def hugging_face_config(header: Header) -> dict[str, object]:
    """config.json; llama2.c fixes the norm's epsilon and RoPE's base."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": header.vocabulary,
        "hidden_size": header.width,
        "intermediate_size": header.feed_forward,
        "num_hidden_layers": header.layers,
        "num_attention_heads": header.heads,
        "num_key_value_heads": header.kv_heads,
        "head_dim": header.width // header.heads,
        "max_position_embeddings": header.max_length,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": header.tied,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": BEGIN,
        "eos_token_id": END,
        "torch_dtype": "float32",
    }


def read_pieces(content: bytes, vocabulary: int, name: str) -> list[tuple[bytes, float]]:
    """The pieces and scores of a tokenizer's bytes; raises ValueError where the sizes are wrong."""
    pieces, start = [], 4
    for id in range(vocabulary):
        if len(content) < start + 8:
            raise ValueError(f"{name} is truncated: it ends before piece {id} of {vocabulary}")
        score, length = struct.unpack_from("<fi", content, start)
        start += 8
        if length < 0 or len(content) < start + length:
            raise ValueError(f"{name} is truncated or no llama2.c tokenizer: piece {id} has {length} "
                             f"bytes, of which {max(len(content) - start, 0)} are there")
        pieces.append((content[start : start + length], score))
        start += length
    if start != len(content):
        raise ValueError(f"{name} has {len(content) - start} bytes after its {vocabulary} pieces; "
                         "expected none: does it belong to this checkpoint?")
    return pieces


def sentencepiece_model(pieces: list[tuple[bytes, float]], name: str) -> bytes:
    """A SentencePiece BPE model that merges as llama2.c does: the pair of the highest score first."""
    if len(pieces) < FIRST_PIECE:
        raise ValueError(f"{name} has {len(pieces)} pieces; expected 3 special ones, 256 bytes and more")
    proto = sentencepiece_model_pb2.ModelProto()
    kinds = proto.SentencePiece
    for id, (piece, score) in enumerate(pieces):
        if id in (UNKNOWN, BEGIN, END):
            text = ("<unk>", "<s>", "</s>")[id]  # llama2.c writes line breaks around them
            kind = kinds.UNKNOWN if id == UNKNOWN else kinds.CONTROL
        elif id < FIRST_PIECE:
            text, kind = f"<0x{id - FIRST_BYTE:02X}>", kinds.BYTE
            if piece != text.encode():
                raise ValueError(f"{name}: piece {id} is {piece!r}; expected {text}")
        else:
            text, kind = _text(piece, id, name), kinds.NORMAL
        proto.pieces.add(piece=text, score=score, type=kind)
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    trainer.model_type, trainer.byte_fallback = trainer.BPE, True
    trainer.vocab_size = len(pieces)
    trainer.unk_id, trainer.bos_id, trainer.eos_id, trainer.pad_id = UNKNOWN, BEGIN, END, -1
    normalizer.name, normalizer.add_dummy_prefix = "identity", True
    normalizer.remove_extra_whitespaces, normalizer.escape_whitespaces = False, True
    return proto.SerializeToString()


def _text(piece: bytes, id: int, name: str) -> str:
    try:
        return piece.decode("utf-8").replace(" ", SPACE)
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: piece {id} is {piece!r}, which is not UTF-8") from error


def convert(model: pathlib.Path, tokenizer: pathlib.Path, output: pathlib.Path) -> None:
    """Writes the folder; raises ValueError, before anything is written, where an input is wrong."""
    header, tensors = read_tensors(_content(model), model.name)
    pieces = read_pieces(_content(tokenizer), header.vocabulary, tokenizer.name)
    proto = sentencepiece_model(pieces, tokenizer.name)
    output.mkdir(parents=True, exist_ok=True)
    weights = safetensors.numpy.save(hugging_face_tensors(header, tensors), metadata={"format": "pt"})
    (output / "model.safetensors").write_bytes(weights)
    (output / "tokenizer.model").write_bytes(proto)
    _write_json(output / "config.json", hugging_face_config(header))
    _write_json(output / "generation_config.json", {"bos_token_id": BEGIN, "eos_token_id": END})
    _write_json(output / "tokenizer_config.json", {
        "tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>",
        "unk_token": "<unk>", "add_bos_token": True, "add_eos_token": False, "legacy": False,
        "model_max_length": header.max_length})


def _content(path: pathlib.Path) -> bytes:
    if not path.is_file():
        raise ValueError(f"no file {path}")
    return path.read_bytes()


def _write_json(path: pathlib.Path, values: dict[str, object]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def main(arguments: list[str]) -> None:
    if len(arguments) > 1:
        raise app.UsageError(f"unexpected argument {arguments[1]!r}; see --help")
    given = flags.FLAGS
    try:
        convert(*(pathlib.Path(path) for path in (given.model, given.tokenizer, given.output)))
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    print(f"wrote {given.output}")


def define_flags() -> None:
    """The script's flags; not defined on import, so that its functions can be used elsewhere."""
    flags.DEFINE_string("model", None, "The checkpoint, such as stories260K.bin.", required=True)
    flags.DEFINE_string("tokenizer", None, "Its tokenizer, such as tok512.bin.", required=True)
    flags.DEFINE_string("output", None, "The folder to write; made where it does not exist.", required=True)


if __name__ == "__main__":
    define_flags()
    app.run(main)
