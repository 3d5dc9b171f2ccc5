# SPDX-License-Identifier: Apache-2.0
"""Chapter 2 on the built-in world: the replies of a shop's assistant, by a decoder."""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("dialogue")
    config.data.train = "builtin:train?size=8000"
    config.data.validation = "builtin:validation?size=300"
    config.data.test = "builtin:test?size=400"
    config.batch.update(size=32, length=144, packing=True)
    config.train.epochs = 1
    config.decode.max_new_tokens = 32
    config.optimizer.update(name="muon", learning_rate=2e-3)
    return config
