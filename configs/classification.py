# SPDX-License-Identifier: Apache-2.0
"""Chapter 3 on the built-in world: an encoder's [CLS], or a decoder's label tokens."""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("classification")
    config.data.train = "builtin:train?size=8000"
    config.data.validation = "builtin:validation?size=300"
    config.data.test = "builtin:test?size=400"
    config.batch.update(size=32, length=40)
    config.train.epochs = 1
    config.optimizer.update(name="muon", learning_rate=2e-3)
    return config
