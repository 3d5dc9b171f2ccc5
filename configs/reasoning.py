# SPDX-License-Identifier: Apache-2.0
"""Chapter 10 on the built-in world: sums in steps, by a decoder."""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("reasoning")
    config.data.train = "builtin:train?size=10000"
    config.data.validation = "builtin:validation?size=300"
    config.data.test = "builtin:test?size=400"
    config.batch.update(size=32, length=128)
    config.train.epochs = 1
    config.decode.max_new_tokens = 96
    config.optimizer.update(name="muon", learning_rate=2e-3)
    return config
