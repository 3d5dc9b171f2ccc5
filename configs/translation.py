# SPDX-License-Identifier: Apache-2.0
"""Chapter 8 on the built-in world: English to its invented language, by an encoder-decoder.

Answers are greedy: of a model that AdamW trained on 4,000 records, beam 4 scored 96.3 BLEU on the 400 test sentences
(96.2 with length penalty 0.6) and greedy 95.8 (seed 0, 2026-11-23). --config.decode.method=beam searches.
"""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("translation")
    config.data.train = "builtin:train?size=11000"
    config.data.validation = "builtin:validation?size=300"
    config.data.test = "builtin:test?size=400"
    config.batch.update(size=32, length=32, source_length=32)
    config.train.epochs = 1
    config.decode.max_new_tokens = 32
    config.optimizer.update(name="muon", learning_rate=2e-3)
    return config
