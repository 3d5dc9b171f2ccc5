# SPDX-License-Identifier: Apache-2.0
"""From prompts and a step function to tokens, beams or label probabilities, on the device."""

from t5tasks.decode.beam import Beams, search
from t5tasks.decode.continuous import Prompt, Slots, generate_all
from t5tasks.decode.contract import Cache, Score, Start, Step
from t5tasks.decode.labels import log_probabilities, normalise
from t5tasks.decode.process import process
from t5tasks.decode.prompts import from_padded
from t5tasks.decode.sample import (
    AT_EOS,
    AT_LIMIT,
    AT_STOP,
    FORBIDDEN,
    Generated,
    generate,
    keys,
)
from t5tasks.decode.settings import Settings, settings
from t5tasks.decode.spelling import token_bytes
from t5tasks.decode.stops import Pieces, cut, pieces
from t5tasks.decode.warp import warp

__all__ = ["AT_EOS", "AT_LIMIT", "AT_STOP", "FORBIDDEN", "Beams", "Cache", "Generated", "Pieces",
           "Prompt", "Score", "Settings", "Slots", "Start", "Step", "cut", "from_padded", "generate",
           "generate_all", "keys", "log_probabilities", "normalise", "pieces", "process", "search",
           "settings", "token_bytes", "warp"]
