# SPDX-License-Identifier: Apache-2.0
"""An encoder's place in, a function from texts to vectors out: what dense retrieval compares texts by."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from t5tasks import experiment, pretrained, sharding, trained
from t5tasks.data import batches
from t5tasks.data import features as feature_functions
from t5tasks.data import tokenizer as tokenizers
from t5tasks.data.tokenizer import Tokenizer
from t5tasks.models.model import Model, Parameters
from t5tasks.pretrained import sentence_encoder
from t5tasks.training import partition

TOKENS_AT_ONCE = {"cpu": 1024}  # on each device, rows x length of a batch: what its cache holds; elsewhere:
USUAL_TOKENS_AT_ONCE = 16384
USUAL_LENGTH = 256  # tokens of a text where nobody says how many


@dataclasses.dataclass(frozen=True)
class Settings:
    """How texts become vectors.

    Attributes:
      pooling: mean of a text's tokens, or first: its [CLS].
      length: tokens of a text that are read, special ones included.
      unit: whether vectors are scaled to length 1, so that products are cosines.
      question_prefix, passage_prefix: what stands before each, as some encoders were trained ("query: ").
    """

    pooling: str = "mean"
    length: int = USUAL_LENGTH
    unit: bool = True
    question_prefix: str = ""
    passage_prefix: str = ""


class Embedder:
    """An encoder of the project as `retrieval.dense.Embedder` wants it."""

    def __init__(self, model: Model, parameters: Parameters, tokenizer: Tokenizer, mesh: Mesh, settings: Settings
                 ) -> None:
        """Args:
          model: with any head, which is left out.

        Raises:
          ValueError: no encoder of text, or settings that it cannot follow.
        """
        config = model.config
        if config.architecture != "encoder" or config.patches is not None:
            raise ValueError(f"a model of architecture {config.architecture} cannot embed texts; expected an "
                             "encoder of text")
        if settings.pooling not in ("mean", "first"):
            raise ValueError(f"pooling is {settings.pooling!r}; expected mean or first")
        if not 3 <= settings.length <= config.max_length and config.positions in ("learned", "sinusoidal"):
            raise ValueError(f"length is {settings.length}; the encoder reads 3 to {config.max_length} tokens")
        self.settings, self.tokenizer = settings, tokenizer
        self.dimension = config.width
        self._mesh = mesh
        self._model = Model(dataclasses.replace(config, head="pooled", pooling=settings.pooling, pooler="none",
                                                projection=0, head_transform=False, dropout=0.0))
        self._parameters = {name: part for name, part in parameters.items() if name != "head"}
        self.fingerprint = self._fingerprint()
        self._around = [feature_functions.special_id(tokenizer, name) for name in ("cls", "sep")]
        self._embed = jax.jit(self._vectors, out_shardings=sharding.replicated(mesh))

    def _fingerprint(self) -> str:
        """Sixteen hexadecimal digits of all that the vectors depend on."""
        told = {"weights": partition.identity(self._model, self._parameters), "tokenizer": self.tokenizer.fingerprint,
                **dataclasses.asdict(self.settings)}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]

    def _vectors(self, parameters: Parameters, inputs: dict[str, jax.Array]) -> jax.Array:
        """f32[B, D]."""
        pooled = self._model.apply(parameters, inputs).astype(jnp.float32)
        if not self.settings.unit:
            return pooled
        return pooled / jnp.maximum(jnp.linalg.norm(pooled, axis=-1, keepdims=True), 1e-12)

    def questions(self, texts: Sequence[str]) -> np.ndarray:
        """f32[Q, D]."""
        return self._embedded([self.settings.question_prefix + text for text in texts])

    def passages(self, texts: Sequence[str]) -> np.ndarray:
        """f32[P, D]; what is longer than `length` tokens is cut."""
        return self._embedded([self.settings.passage_prefix + text for text in texts])

    def _embedded(self, texts: Sequence[str]) -> np.ndarray:
        cls, sep = self._around
        rows = [np.asarray([cls, *self.tokenizer.encode(text).ids[:self.settings.length - 2], sep], np.int32)
                for text in texts]
        for row in rows:
            experiment.check_ids(row, self._model.config.vocabulary, "tokens")
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        waiting = []
        for chosen, batch in self._batches(rows):
            waiting.append((chosen, self._embed(self._parameters, sharding.global_batch(batch, self._mesh))))
        for chosen, found in waiting:
            vectors[chosen] = np.asarray(found)[:len(chosen)]
        return vectors

    def _batches(self, rows: Sequence[np.ndarray]) -> Any:
        """Yields (indices of rows, batch): rows of like length, in one of few shapes."""
        longest, least = self.settings.length, self._mesh.shape["data"] * self._mesh.shape["fsdp"]
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]), reverse=True)
        tokens = TOKENS_AT_ONCE.get(jax.default_backend(), USUAL_TOKENS_AT_ONCE)
        while order:
            length = batches.rung(len(rows[order[0]]), longest)
            chosen = order[:_power(max(tokens // length, 1), up=False) * least]
            order = order[len(chosen):]
            shape = batches.Shape(_power(-(-len(chosen) // least), up=True) * least, longest,
                                  pad=self.tokenizer.special.get("pad", 0))
            yield chosen, batches.padded([{"tokens": rows[index]} for index in chosen], shape)


def _power(number: int, up: bool) -> int:
    """The power of two at or next to a positive number."""
    return 1 << ((number - 1).bit_length() if up else number.bit_length() - 1)


def load(place: str, mesh: Mesh | None = None, changes: Mapping[str, Any] | None = None) -> Embedder:
    """Puts an embedder together.

    Args:
      place: a Hugging Face folder of an encoder, `package:NAME/FOLDER` in an installed package, or the workdir of a
        run of ours with an encoder.
      changes: of the Settings that a sentence-transformers folder names, or of the usual ones.

    Raises:
      ValueError: nothing to load there, or settings that do not fit.
    """
    mesh = sharding.make_mesh() if mesh is None else mesh
    folder = experiment.installed_folder(place, "the encoder")
    if (folder / "checkpoints").exists():
        run = trained.load(None, folder)
        model, parameters, options = run.experiment.model, run.parameters, run.experiment.options
        told = {name: options[name] for name in ("length", "question_prefix", "passage_prefix") if name in options}
        tokenizer, mesh, settings = run.experiment.tokenizer, run.experiment.mesh, Settings(
            **{"pooling": model.config.pooling, "length": run.experiment.config.batch.length, **told})
    else:
        loaded = pretrained.load(folder, head="none", mesh=mesh)
        model, parameters, tokenizer = loaded.model, loaded.parameters, tokenizers.load(loaded.tokenizer_folder)
        told = dataclasses.asdict(sentence_encoder.read(folder))
        settings = Settings(**{name: value for name, value in told.items() if value is not None})
    return Embedder(model, parameters, tokenizer, mesh, dataclasses.replace(settings, **(changes or {})))
