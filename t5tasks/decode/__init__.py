# SPDX-License-Identifier: Apache-2.0
"""From prompts and a step function to tokens, beams or label probabilities, on the device."""

from t5tasks.decode.beam import Beams, search
from t5tasks.decode.contract import Cache, Score, Step
from t5tasks.decode.labels import log_probabilities, normalise
from t5tasks.decode.sample import Generated, generate, keys
from t5tasks.decode.settings import Settings, settings
from t5tasks.decode.warp import warp

__all__ = ["Beams", "Cache", "Generated", "Score", "Settings", "Step", "generate", "keys",
           "log_probabilities", "normalise", "search", "settings", "warp"]
