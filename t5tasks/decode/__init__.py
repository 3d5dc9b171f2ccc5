# SPDX-License-Identifier: Apache-2.0
"""From prompts and a step function to tokens, beams or label probabilities, on the device."""

from t5tasks.decode.automaton import Automaton, trie
from t5tasks.decode.beam import Beams, search
from t5tasks.decode.constraint import Constraint, constrain
from t5tasks.decode.continuous import Prompt, Slots, generate_all
from t5tasks.decode.contract import Cache, Score, Start, Step
from t5tasks.decode.labels import log_probabilities, normalise
from t5tasks.decode.patterns import json_schema, regex
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
from t5tasks.decode.spelling import Spellings, spellings, token_bytes
from t5tasks.decode.stops import Pieces, cut, pieces
from t5tasks.decode.warp import warp

__all__ = ["AT_EOS", "AT_LIMIT", "AT_STOP", "FORBIDDEN", "Automaton", "Beams", "Cache", "Constraint",
           "Generated", "Pieces", "Prompt", "Score", "Settings", "Slots", "Spellings", "Start", "Step",
           "constrain", "cut", "from_padded", "generate", "generate_all", "json_schema", "keys",
           "log_probabilities", "normalise", "pieces", "process", "regex", "search", "settings",
           "spellings", "token_bytes", "trie", "warp"]
