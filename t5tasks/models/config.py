# SPDX-License-Identifier: Apache-2.0
"""The shape of a model: plain numbers and switches in, one frozen, checked `ModelConfig` out.

The alphabet of axes, used by every einsum and every shape in this project:

    B batch             T target (query) length     S source (key) length
    D width             N query heads               K key/value heads
    H head size         F feed-forward width        V vocabulary
    C classes           L layers                    E size of a pooled text or image
    M images            I images of a row           P patches of an image
"""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

ARCHITECTURES = ("encoder", "decoder", "encoder_decoder")
HEADS = ("lm", "cls", "token", "span", "pooled", "match", "none")

# Every switch is there because a named checkpoint family needs the value beside it.
CHOICES: dict[str, tuple[str, ...]] = {
    "architecture": ARCHITECTURES,
    "head": HEADS,
    "norm": ("layernorm", "rmsnorm"),  # BERT, GPT-2; Llama, T5
    "norm_placement": ("pre", "post", "sandwich", "output"),  # GPT-2, Llama, T5; BERT; Gemma 2; OLMo 2
    "query_key_norm": ("none", "head", "width"),  # most; Qwen3, Gemma 3; OLMo 2
    "positions": ("learned", "sinusoidal", "rotary", "relative", "grid"),  # BERT, GPT-2; Marian; Llama; T5; ViT
    "rotary_scaling": ("none", "linear", "llama3", "yarn"),  # Llama 2; Gemma 3; Llama 3.1; Qwen2.5
    "activation": ("gelu", "gelu_tanh", "quick_gelu", "relu", "silu"),  # BERT; GPT-2, Gemma; CLIP; T5; Llama
    # BERT's [CLS]; sentence-transformers; SigLIP's text; CLIP's text, as published and since; CLIP's image
    # classifier; DINOv2's; SigLIP's image
    "pooling": ("first", "mean", "last", "largest", "end", "patches", "first_and_patches", "attention"),
    "pooler": ("none", "tanh", "relu"),  # ModernBERT; BERT, RoBERTa; DistilBERT
    "layer_loop": ("auto", "scan", "unroll"),
    "rematerialise": ("none", "full", "dots"),
    "compute_dtype": ("auto", "float32", "bfloat16"),
}


@dataclasses.dataclass(frozen=True)
class Patches:
    """How an encoder reads an image: as square patches, left to right and top to bottom.

    Attributes:
      image_size: pixels a side that the table of positions is made for; it is resized to others.
      patch_size: pixels of a patch's side.
      channels: of a pixel.
      class_token: a learned token stands before the patches (all but SigLIP).
      biases: the patches' linear map carries a bias (all but CLIP).
    """

    image_size: int = 224
    patch_size: int = 16
    channels: int = 3
    class_token: bool = True
    biases: bool = True

    def __post_init__(self) -> None:
        if self.patch_size < 1 or self.channels < 1 or self.image_size < self.patch_size:
            raise ValueError(f"patches of {self.patch_size} pixels in an image of {self.image_size}, {self.channels} "
                             "channels: an image must hold a patch, and a pixel a channel")

    @property
    def side(self) -> int:
        """Patches of a row, and rows, of the table of positions."""
        return self.image_size // self.patch_size


@dataclasses.dataclass(frozen=True)
class Vision:
    """The images that a text model sees beside its tokens.

    Attributes:
      tower: the encoder that reads them; how it runs (loops, dtypes) is the text model's to say.
      projector: what leads from its width to the text's: a linear map (PaliGemma), two with an
        activation between them (LLaVA), or none, where images and texts are only compared (CLIP).
      activation, biases: of the projector.
      class_feature: the class token's feature is shown too (LLaVA's strategy "full").
      image_token: the id whose embeddings give way to an image's features; it may lie past the
        vocabulary.
      prefix: image and prompt see each other both ways, what follows looks back (PaliGemma).
    """

    tower: "ModelConfig"
    projector: str = "none"
    activation: str = "gelu"
    biases: bool = True
    class_feature: bool = False
    image_token: int = 0
    prefix: bool = False

    def __post_init__(self) -> None:
        choices = ("none", "linear", "mlp")
        if self.projector not in choices:
            raise ValueError(f"vision.projector is {self.projector!r}; expected one of {', '.join(choices)}")
        if self.activation not in CHOICES["activation"]:
            raise ValueError(f"vision.activation is {self.activation!r}; expected one of "
                             f"{', '.join(CHOICES['activation'])}")
        if self.tower.patches is None:
            raise ValueError("vision.tower has no patches: it reads no images")

    def features(self, height: int, width: int) -> int:
        """How many image tokens one image of this size, in pixels, takes."""
        patches = self.tower.patches
        assert patches is not None  # as __post_init__ has found
        return ((height // patches.patch_size) * (width // patches.patch_size)
                + (patches.class_token and self.class_feature))


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Everything that decides a model's parameters and its arithmetic.

    Attributes:
      vocabulary: V, rows of the embedding table.
      start_token: the id that a decoder beside an encoder begins with (T5: padding, BART: EOS); -1 is
        the tokenizer's to say.
      max_length: longest sequence with positions (learned: rows of the table after the offset).
      width, heads, kv_heads, head_size, feed_forward: D, N, K, H, F.
      encoder_layers, decoder_layers: depth of either stack; 0 where the architecture has none.
      token_types: rows of BERT's segment table, 0 for none.
      scaled_embedding: token embeddings are multiplied by sqrt(D) (Gemma, Marian).
      embedding_norm: normalise embeddings before the first layer (BERT).
      first_norm: normalise before the first layer's attention (all but ModernBERT).
      final_norm: normalise after the last layer (every pre-norm family).
      norm_placement: pre: before a sublayer; post: after its residual sum; sandwich: before it, and
        its output; output: its output alone.
      unit_offset: norms multiply by 1 + scale (Gemma).
      parallel: attention and feed-forward read the same input (GPT-NeoX).
      layer_scale: what a sublayer adds is multiplied by a learned vector (DINOv2).
      biases: linear maps and norms carry biases (BERT, GPT-2).
      qkv_biases: the query, key and value maps do, whatever `biases` says (Qwen2).
      gated: feed-forward is act(x W_gate) * (x W_up) (Llama, T5 v1.1).
      scaled_attention: scores are divided by sqrt(H) (all but T5), or of query_scale where not 0
        (Gemma's query_pre_attn_scalar).
      query_key_norm: queries and keys are normalised, each head or all heads together.
      attention_cap, logit_cap: x becomes cap * tanh(x / cap), 0 for never (Gemma 2).
      window: where a layer slides, a token sees keys less than this many places away; 0 for all.
      sliding_layers: numbers of the layers that slide (Mistral: all, Gemma 2: even ones).
      position_offset: rows of the learned table before position 0 (RoBERTa, BART).
      relative_buckets, relative_distance: T5's table of relative positions.
      relative_per_layer: each layer has a table of its own (UMT5).
      rotary_base: base of RoPE's wavelengths; local_rotary_base of sliding layers, 0 for the same.
      rotary_fraction: share of each head that is turned (GPT-NeoX).
      rotary_scaling: how RoPE is stretched, outside sliding layers with a base of their own, by
        rotary_factor from rotary_original_length; see models.positions.frequencies.
      tied_head: the language-model head is the embedding table.
      scaled_head: T5 v1.0 multiplies by D ** -0.5 before its tied head.
      head_transform: linear map, activation and norm before the head (BERT's masked-language
        head, every head of ModernBERT); head_bias: a bias on the vocabulary after it (also BART),
        or on the projection and on how texts and images match (SigLIP).
      pooling: what of the sequence the heads cls, pooled and match read; end_token: the id whose first
        place is meant by `end`.
      projection: E, where the heads pooled and match map what was pooled to another size; 0 for never.
      pooler: activation of the linear map before the classification head, or none.
      classes: C of the cls and token heads.
      dropout: rate on embeddings, sublayer outputs and the head's input; attention_dropout: on the weights of
        attention, which are then written out.
      patches: set where an encoder reads images in place of tokens (ViT, DINOv2, CLIP, SigLIP).
      vision: set where a text model sees images too (LLaVA, PaliGemma; CLIP and SigLIP whole).
    """

    architecture: str = "decoder"
    head: str = "lm"
    vocabulary: int = 512
    start_token: int = -1
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
    unit_offset: bool = False
    scaled_embedding: bool = False
    embedding_norm: bool = False
    first_norm: bool = True
    final_norm: bool = True
    parallel: bool = False
    layer_scale: bool = False
    biases: bool = False
    qkv_biases: bool = False
    positions: str = "rotary"
    position_offset: int = 0
    token_types: int = 0
    rotary_base: float = 10_000.0
    local_rotary_base: float = 0.0
    rotary_fraction: float = 1.0
    rotary_scaling: str = "none"
    rotary_factor: float = 1.0
    rotary_original_length: int = 0
    rotary_low_frequency: float = 1.0
    rotary_high_frequency: float = 4.0
    rotary_fast: float = 32.0
    rotary_slow: float = 1.0
    rotary_amplitude: float = 1.0
    relative_buckets: int = 32
    relative_distance: int = 128
    relative_per_layer: bool = False
    scaled_attention: bool = True
    query_scale: float = 0.0
    query_key_norm: str = "none"
    attention_cap: float = 0.0
    window: int = 0
    sliding_layers: tuple[int, ...] = ()
    activation: str = "silu"
    gated: bool = True
    tied_head: bool = True
    scaled_head: bool = False
    head_transform: bool = False
    head_bias: bool = False
    logit_cap: float = 0.0
    pooling: str = "first"
    end_token: int = 0
    projection: int = 0
    pooler: str = "none"
    classes: int = 2
    dropout: float = 0.0
    attention_dropout: float = 0.0
    initializer_range: float = 0.02
    layer_loop: str = "auto"
    rematerialise: str = "none"
    compute_dtype: str = "auto"
    patches: Patches | None = None
    vision: Vision | None = None

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
        for field in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, field) < 1:
                raise ValueError(f"model.{field} is {getattr(self, field)}; it must be in [0, 1)")
        self._check_rotary()
        self._check_relative()
        self._check_layers()
        self._check_images()
        encoder, decoder = (a in self.architecture for a in ("encoder", "decoder"))
        if encoder != (self.encoder_layers > 0) or decoder != (self.decoder_layers > 0):
            raise ValueError(
                f"model.architecture is {self.architecture} but encoder_layers is "
                f"{self.encoder_layers} and decoder_layers is {self.decoder_layers}: a stack that "
                "the architecture has needs layers, one that it lacks must have 0")

    @property
    def drops(self) -> bool:
        """Whether training draws what to drop."""
        return self.dropout > 0 or self.attention_dropout > 0

    @property
    def rotary_size(self) -> int:
        """How many of each head's H numbers RoPE turns."""
        return int(self.head_size * self.rotary_fraction)

    def slides(self, layer: int) -> bool:
        """Whether the layer's attention ends at the window."""
        return bool(self.window) and layer in self.sliding_layers

    def _check_rotary(self) -> None:
        if self.positions != "rotary":
            return
        if not 0 < self.rotary_fraction <= 1:
            raise ValueError(f"model.rotary_fraction is {self.rotary_fraction}; it must be in (0, 1]")
        if self.rotary_size % 2 or not self.rotary_size:
            raise ValueError(f"model.head_size is {self.head_size}; rotary positions need it even"
                             f"{'' if self.rotary_fraction == 1 else f' times rotary_fraction {self.rotary_fraction}'}")
        if self.rotary_scaling in ("llama3", "yarn") and self.rotary_original_length < 1:
            raise ValueError(f"model.rotary_scaling is {self.rotary_scaling}; it needs rotary_original_length, "
                             "the length that the model was trained on before")
        if self.rotary_factor < 1:
            raise ValueError(f"model.rotary_factor is {self.rotary_factor}; it must be at least 1")

    def _check_layers(self) -> None:
        if self.sliding_layers and self.window < 1:
            raise ValueError(f"model.window is {self.window}, but layers {self.sliding_layers} slide; set it")
        if self.layer_loop == "scan" and not self.first_norm:
            raise ValueError("model.layer_loop is 'scan', but without first_norm the first layer differs from the "
                             "others; use 'unroll'")
        if self.parallel and (self.norm_placement != "pre" or self.architecture == "encoder_decoder"):
            raise ValueError("model.parallel needs norm_placement 'pre' and one stack")

    def _check_images(self) -> None:
        if (self.patches is None) != (self.positions != "grid"):
            raise ValueError(f"model.positions is {self.positions!r} and model.patches is {self.patches}: an encoder "
                             "of images has patches and positions 'grid', any other model neither")
        if self.patches is not None and (self.architecture != "encoder" or self.vision is not None):
            raise ValueError(f"model.patches belong to an encoder alone; the architecture is {self.architecture}"
                             f"{'' if self.vision is None else ', and vision is set'}")
        if (self.vision is None and self.head == "match") or (
                self.vision is not None and (self.vision.projector == "none") != (self.head == "match")):
            raise ValueError(f"model.head is {self.head!r} and model.vision is {self.vision}: the head 'match' "
                             "compares texts with images, which are not projected; under other heads they are")
        if self.vision is not None and self.head != "match" and self.architecture != "decoder":
            raise ValueError(f"model.architecture is {self.architecture}; images stand among a decoder's tokens only")

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
    """Builds a checked config from plain values; an unknown name raises, naming the nearest.

    `patches`, `vision` and its `tower` may be given as plain values too.
    """
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    if _is_plain(values.get("patches")):
        values["patches"] = Patches(**_known(Patches, values["patches"]))
    if _is_plain(values.get("vision")):
        vision = dict(_known(Vision, values["vision"]))
        if _is_plain(vision.get("tower")):
            vision["tower"] = from_mapping(vision["tower"])
        values["vision"] = Vision(**vision)
    return ModelConfig(**_known(ModelConfig, values))


def _is_plain(value: Any) -> bool:
    return hasattr(value, "items")  # a dict, or the config files' own kind of one


def _known(kind: type[Any], values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values; raises ValueError where one is no field of the kind."""
    known = {field.name for field in dataclasses.fields(kind)}
    for name in values:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise ValueError(f"unknown model setting {name!r}{hint}")
    return dict(values.items())
