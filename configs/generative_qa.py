# SPDX-License-Identifier: Apache-2.0
"""Chapter 5b on the built-in world: answers in words to questions about a text."""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("generative_qa")
    config.data.train = "builtin:train?size=10000"
    config.data.validation = "builtin:validation?size=300"
    config.data.test = "builtin:test?size=400"
    config.batch.update(size=32, length=64, source_length=48)
    config.train.epochs = 1
    config.decode.max_new_tokens = 20
    config.optimizer.update(name="muon", learning_rate=2e-3)
    return config
