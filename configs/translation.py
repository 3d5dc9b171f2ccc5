# SPDX-License-Identifier: Apache-2.0
"""Chapter 8 on the built-in world: English to its invented language, by an encoder-decoder.

BLEU of 400 test sentences, seed 0, 2026-11-23: greedy 95.8, beam 4 96.3 with length penalty 1.0 and 96.2 with 0.6. For
half a point the beam's time is not spent: --config.decode.method=beam does.
"""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("translation")
    config.data.train = "builtin:train?size=8000"
    config.data.validation = "builtin:validation?size=300"
    config.data.test = "builtin:test?size=400"
    config.batch.update(size=32, length=32, source_length=32)
    config.train.epochs = 1
    config.decode.max_new_tokens = 32
    config.optimizer.update(name="muon", learning_rate=2e-3)
    return config
