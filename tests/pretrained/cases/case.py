# SPDX-License-Identifier: Apache-2.0
"""What one fixture is made of: a class of the reference, its configuration, and how it is written."""

import dataclasses
from collections.abc import Callable
from typing import Any

VOCABULARY = 199


@dataclasses.dataclass(frozen=True)
class Case:
    """One fixture.

    Attributes:
      kind: a class of transformers; config: its configuration, of odd sizes.
      half: written in bfloat16; the reference computes from the rounded numbers in f32.
      sharded: written in several files with an index.
      adjust: changes a model after its parameters have been drawn.
      batch: the inputs in place of the usual ones, from the model, a generator and whether they
        are padded on the left.
    """

    kind: Any
    config: Any
    half: bool = False
    sharded: bool = False
    adjust: Callable[[Any], None] | None = None
    batch: Callable[[Any, Any, bool], dict[str, Any]] | None = None
