# SPDX-License-Identifier: Apache-2.0
"""From prompts and a step function to tokens, beams or label probabilities, on the device."""

from t5tasks.decode.automaton import Automaton, trie
from t5tasks.decode.beam import Beams, check_beams, search
from t5tasks.decode.constraint import Constraint, constrain
from t5tasks.decode.continuous import Prompt, Slots, generate_all
from t5tasks.decode.contract import Cache, Score, Start, Step, Verify, capacity
from t5tasks.decode.conversation import Conversation
from t5tasks.decode.drafts import Draft, ModelDraft, PromptLookup
from t5tasks.decode.labels import log_probabilities, normalise
from t5tasks.decode.patterns import json_schema, regex
from t5tasks.decode.prefill import prefill
from t5tasks.decode.process import process
from t5tasks.decode.prompts import from_padded, padded, widths
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
from t5tasks.decode.speculate import Acceptance, speculate
from t5tasks.decode.spelling import Spellings, spellings, token_bytes
from t5tasks.decode.stops import Pieces, cut, pieces
from t5tasks.decode.stream import News, Stream, stream, texts
from t5tasks.decode.text_stream import TextStream, continuation
from t5tasks.decode.warp import warp

__all__ = ["AT_EOS", "AT_LIMIT", "AT_STOP", "FORBIDDEN", "Acceptance", "Automaton", "Beams", "Cache", "Constraint",
           "Conversation", "Draft", "Generated", "ModelDraft", "News", "Pieces", "Prompt", "PromptLookup", "Score",
           "Settings", "Slots", "Spellings", "Start", "Step", "Stream", "TextStream", "Verify", "capacity",
           "check_beams", "constrain", "continuation", "cut", "from_padded", "generate", "generate_all", "json_schema",
           "keys", "log_probabilities", "normalise", "padded", "pieces", "prefill", "process", "regex", "search",
           "settings", "speculate", "spellings", "stream", "texts", "token_bytes", "trie", "warp", "widths"]
