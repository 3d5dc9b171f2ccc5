# SPDX-License-Identifier: Apache-2.0
"""Chapter 6 on the built-in world: a tag for every word, where no dictionary could tell a person from a city."""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("ner")
    config.data.train = "builtin:train?size=4000"
    config.data.validation = "builtin:validation?size=300"
    config.data.test = "builtin:test?size=400"
    config.batch.update(size=32, length=40)
    config.train.epochs = 1
    config.optimizer.update(name="muon", learning_rate=2e-3)
    return config
