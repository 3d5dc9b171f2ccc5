# SPDX-License-Identifier: Apache-2.0
"""An experiment's config.decode in; what guesses the tokens of its texts, or None, out.

    draft = "FOLDER"     a smaller model: a pretrained folder, or a workdir's best checkpoint
    prompt_lookup = 3    copies of what followed the last 3, 2 or 1 tokens before; for an
                         encoder-decoder also of what followed them in its source
"""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from t5tasks import decode, experiment, pretrained
from t5tasks.data import tokenizer as tokenizers
from t5tasks.data.tokenizer import Tokenizer
from t5tasks.experiment import Experiment
from t5tasks.models.model import Model
from t5tasks.trained import load


@dataclasses.dataclass(frozen=True)
class Drafting:
    """How the texts of an experiment are guessed ahead."""

    tokens: int             # a turn
    longest: int            # n-gram to look up, where there is no model
    model: Model | None
    parameters: Any

    def begin(self, inputs: dict[str, jax.Array], capacity: int) -> tuple[decode.Draft, Any]:
        """The draft for one batch of the model's inputs, and its memory."""
        if self.model is not None:
            cache = _start(self.model, self.parameters, inputs["tokens"].shape[0], capacity, inputs)
            return decode.ModelDraft(self.model.step, self.parameters), cache
        source = inputs.get("source_tokens")
        if source is not None:
            source = jnp.where(inputs["source_segments"] > 0, source, -1)
        return decode.PromptLookup(self.longest), source


def find(run: Experiment) -> Drafting | None:
    """What config.decode asks for.

    Raises:
      ValueError: settings that exclude each other or are out of range, a draft that cannot be read,
        or one of another architecture or vocabulary.
    """
    settings = run.config.decode
    asked = [name for name in ("draft", "prompt_lookup") if settings[name]]
    if not asked:
        return None
    if len(asked) > 1:
        raise ValueError(f"config.decode.draft is {settings.draft!r} and prompt_lookup {settings.prompt_lookup}, "
                         "of which one at most can guess; leave one out")
    if settings.method == "beam":
        raise ValueError(f"config.decode.{asked[0]} is {settings[asked[0]]!r}, which beam search does not know; "
                         "use greedy or sample, or leave it out")
    if settings.slots:
        raise ValueError(f"config.decode.{asked[0]} is {settings[asked[0]]!r} and slots {settings.slots}, but texts in "
                         "slots are not guessed; set slots to 0, or leave the draft out")
    for name, smallest in (("draft_tokens", 1), ("prompt_lookup", 0)):
        if settings[name] < smallest:
            raise ValueError(f"config.decode.{name} is {settings[name]}, expected at least {smallest}")
    if not settings.draft:
        return Drafting(settings.draft_tokens, settings.prompt_lookup, None, None)
    model, parameters, tokenizer = _read(run)
    wanted = run.form.architecture
    if (model.config.architecture, model.config.head) != (wanted, "lm"):
        raise ValueError(f"config.decode.draft is {settings.draft}, an {model.config.architecture} with head "
                         f"{model.config.head}; expected a model of architecture {wanted} with head lm")
    if difference := _other_pieces(run.tokenizer, tokenizer):
        raise ValueError(f"config.decode.draft is {settings.draft}, which has another vocabulary ({difference}); "
                         "a draft must have the tokens of the model that it guesses for")
    return Drafting(settings.draft_tokens, 0, model, parameters)


@dataclasses.dataclass
class Tally:
    """How well the guesses were, over all texts so far."""

    passes: int = 0
    drafted: int = 0
    accepted: int = 0
    tokens: int = 0  # without each text's first, which the pass over its prompt gives

    def add(self, acceptance: decode.Acceptance, lengths: np.ndarray) -> None:
        """Counts the texts of some rows, int[B] each."""
        for name in ("passes", "drafted", "accepted"):
            setattr(self, name, getattr(self, name) + int(np.sum(getattr(acceptance, name))))
        self.tokens += int(np.sum(np.maximum(lengths - 1, 0)))

    def __str__(self) -> str:
        return (f"{self.accepted:,} of {self.drafted:,} guessed tokens accepted, "
                f"{self.tokens / max(self.passes, 1):.2f} tokens a pass of the model")


def _read(run: Experiment) -> tuple[Model, Any, Tokenizer]:
    config = run.config.copy_and_resolve_references()
    folder = pathlib.Path(config.decode.draft)
    if (folder / "checkpoints").exists():
        saved = experiment.given_or_saved(None, folder)
        saved.mesh.update(config.mesh)
        trained = load(saved, folder)
        return trained.experiment.model, trained.parameters, trained.experiment.tokenizer
    config.pretrained = config.decode.draft
    try:
        folder = experiment.pretrained_folder(config)
        loaded = pretrained.load(folder, mesh=run.mesh, overrides=experiment.running_settings(config))
        return loaded.model, loaded.parameters, tokenizers.load(folder)
    except ValueError as error:
        raise ValueError(f"config.decode.draft: {error}") from error


def _other_pieces(own: Tokenizer, other: Tokenizer) -> str:
    """The first token in which two vocabularies differ; empty where none does."""
    if own.vocabulary_size != other.vocabulary_size:
        return f"{other.vocabulary_size} tokens, expected {own.vocabulary_size}"
    for id in range(own.vocabulary_size):
        if own.piece(id) != other.piece(id):
            return f"its token {id} is {other.piece(id)!r}, expected {own.piece(id)!r}"
    return ""


_start = jax.jit(Model.start, static_argnums=(0, 2, 3))
