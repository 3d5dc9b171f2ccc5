# SPDX-License-Identifier: Apache-2.0
"""Chapter 11's retriever on the built-in world: which of two or three passages is about the shop that is asked for."""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("dense_retriever")
    config.data.train = "builtin:train?size=2000"
    config.data.validation = "builtin:validation?size=300"
    config.data.test = "builtin:test?size=400"
    config.task.update(passages=3, hard_negatives=1, length=48)
    config.model.pooling = "mean"
    config.batch.update(size=32, length=192)
    config.train.epochs = 1
    config.optimizer.update(name="muon", learning_rate=2e-3)
    return config
