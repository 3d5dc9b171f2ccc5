# SPDX-License-Identifier: Apache-2.0
"""Chapter 5a on the built-in world: where in a context of one to three sentences the answer stands, or nowhere."""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("extractive_qa")
    config.data.train = "builtin:train?size=22000"
    config.data.validation = "builtin:validation?size=300"
    config.data.test = "builtin:test?size=400"
    config.model.token_types = 2
    config.batch.update(size=32, length=96)
    config.train.epochs = 1
    config.optimizer.update(name="muon", learning_rate=2e-3)
    return config
