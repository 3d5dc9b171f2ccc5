# SPDX-License-Identifier: Apache-2.0
"""From prompts and a step function to tokens, beams or label probabilities, on the device."""

from t5tasks.decode.beam import Beams, search
from t5tasks.decode.continuous import Prompt, Slots, generate_all
from t5tasks.decode.contract import Cache, Score, Start, Step, Verify, capacity
from t5tasks.decode.conversation import Conversation
from t5tasks.decode.drafts import Draft, ModelDraft, PromptLookup
from t5tasks.decode.labels import log_probabilities, normalise
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
from t5tasks.decode.spelling import token_bytes
from t5tasks.decode.stops import Pieces, cut, pieces
from t5tasks.decode.stream import News, Stream, stream, texts
from t5tasks.decode.text_stream import TextStream, continuation
from t5tasks.decode.warp import warp

__all__ = ["AT_EOS", "AT_LIMIT", "AT_STOP", "FORBIDDEN", "Acceptance", "Beams", "Cache", "Conversation", "Draft",
           "Generated", "ModelDraft", "News", "Pieces", "Prompt", "PromptLookup", "Score", "Settings", "Slots", "Start",
           "Step", "Stream", "TextStream", "Verify", "capacity", "continuation", "cut", "from_padded", "generate",
           "generate_all", "keys", "log_probabilities", "normalise", "padded", "pieces", "prefill", "process", "search",
           "settings", "speculate", "stream", "texts", "token_bytes", "warp", "widths"]
