# SPDX-License-Identifier: Apache-2.0
"""The shape of a model: plain numbers and switches in, one frozen, checked `ModelConfig` out.

The alphabet of axes, used by every einsum and every shape in this project:

    B batch             T target (query) length     S source (key) length
    D width             N query heads               K key/value heads
    H head size         F feed-forward width        V vocabulary
    C classes           L layers
"""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

ARCHITECTURES = ("encoder", "decoder", "encoder_decoder")
HEADS = ("lm", "cls", "token", "span", "none")

# Every switch is there because a named checkpoint family needs the value beside it.
CHOICES: dict[str, tuple[str, ...]] = {
    "architecture": ARCHITECTURES,
    "head": HEADS,
    "norm": ("layernorm", "rmsnorm"),  # BERT, GPT-2; Llama, T5
    "norm_placement": ("pre", "post"),  # GPT-2, Llama, T5; BERT
    "positions": ("learned", "rotary", "relative"),  # BERT, GPT-2; Llama; T5
    "activation": ("gelu", "gelu_tanh", "relu", "silu"),  # BERT; GPT-2, T5 v1.1; T5; Llama
    "pooling": ("first", "mean"),  # BERT's [CLS]; sentence-transformers
    "layer_loop": ("auto", "scan", "unroll"),
    "rematerialise": ("none", "full", "dots"),
    "compute_dtype": ("auto", "float32", "bfloat16"),
}


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Everything that decides a model's parameters and its arithmetic.

    Attributes:
      vocabulary: V, rows of the embedding table.
      max_length: longest sequence with positions (learned: rows of the table).
      width, heads, kv_heads, head_size, feed_forward: D, N, K, H, F.
      encoder_layers, decoder_layers: depth of either stack; 0 where the architecture has none.
      token_types: rows of BERT's segment table, 0 for none.
      embedding_norm: normalise embeddings before the first layer (BERT).
      final_norm: normalise after the last layer (every pre-norm family).
      biases: linear maps and norms carry biases (BERT, GPT-2).
      gated: feed-forward is act(x W_gate) * (x W_up) (Llama, T5 v1.1).
      scaled_attention: scores are divided by sqrt(H) (all but T5).
      relative_buckets, relative_distance: T5's table of relative positions.
      rotary_base: base of RoPE's wavelengths.
      tied_head: the language-model head is the embedding table.
      scaled_head: T5 v1.0 multiplies by D ** -0.5 before its tied head.
      pooling: what of the sequence the classification head reads.
      pooler: BERT's tanh layer before the classification head.
      classes: C of the cls and token heads.
      dropout: rate on embeddings, sublayer outputs and the head's input.
    """

    architecture: str = "decoder"
    head: str = "lm"
    vocabulary: int = 512
    max_length: int = 512
    width: int = 128
    heads: int = 4
    kv_heads: int = 4
    head_size: int = 32
    feed_forward: int = 512
    encoder_layers: int = 0
    decoder_layers: int = 2
    norm: str = "rmsnorm"
    norm_placement: str = "pre"
    norm_epsilon: float = 1e-6
    embedding_norm: bool = False
    final_norm: bool = True
    biases: bool = False
    positions: str = "rotary"
    token_types: int = 0
    rotary_base: float = 10_000.0
    relative_buckets: int = 32
    relative_distance: int = 128
    scaled_attention: bool = True
    activation: str = "silu"
    gated: bool = True
    tied_head: bool = True
    scaled_head: bool = False
    pooling: str = "first"
    pooler: bool = False
    classes: int = 2
    dropout: float = 0.0
    initializer_range: float = 0.02
    layer_loop: str = "auto"
    rematerialise: str = "none"
    compute_dtype: str = "auto"

    def __post_init__(self) -> None:
        for field, choices in CHOICES.items():
            value = getattr(self, field)
            if value not in choices:
                raise ValueError(f"model.{field} is {value!r}; expected one of {', '.join(choices)}")
        for field in ("vocabulary", "max_length", "width", "heads", "kv_heads", "head_size",
                      "feed_forward", "classes"):
            if getattr(self, field) < 1:
                raise ValueError(f"model.{field} is {getattr(self, field)}; it must be positive")
        if self.heads % self.kv_heads:
            raise ValueError(
                f"model.heads is {self.heads}, not a multiple of model.kv_heads {self.kv_heads}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"model.dropout is {self.dropout}; it must be in [0, 1)")
        if self.positions == "rotary" and self.head_size % 2:
            raise ValueError(f"model.head_size is {self.head_size}; rotary positions need it even")
        self._check_relative()
        encoder, decoder = (a in self.architecture for a in ("encoder", "decoder"))
        if encoder != (self.encoder_layers > 0) or decoder != (self.decoder_layers > 0):
            raise ValueError(
                f"model.architecture is {self.architecture} but encoder_layers is "
                f"{self.encoder_layers} and decoder_layers is {self.decoder_layers}: a stack that "
                "the architecture has needs layers, one that it lacks must have 0")

    def _check_relative(self) -> None:
        """Half of a direction's buckets are single distances; the others need distances to share."""
        if self.positions != "relative":
            return
        least = 2 if self.architecture == "decoder" else 4
        if self.relative_buckets < least:
            raise ValueError(f"model.relative_buckets is {self.relative_buckets}; it must be at least {least}")
        single = max(self.relative_buckets // 2 if self.decoder_layers else 0, self.relative_buckets // 4)
        if self.relative_distance <= single:
            raise ValueError(f"model.relative_distance is {self.relative_distance}; it must be more than the "
                             f"{single} distances with a bucket of their own")


def from_mapping(values: Mapping[str, Any]) -> ModelConfig:
    """Builds a checked config from plain values; an unknown name raises, naming the nearest."""
    known = {field.name for field in dataclasses.fields(ModelConfig)}
    for name in values:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise ValueError(f"unknown model setting {name!r}{hint}")
    return ModelConfig(**values)
