# SPDX-License-Identifier: Apache-2.0
"""Chapter 11 on the built-in world: an answer, with its citation, to a question on one or two of the passages shown."""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("rag")
    config.data.train = "builtin:train?size=8000"
    config.data.validation = "builtin:validation?size=300"
    config.data.test = "builtin:test?size=400"
    config.batch.update(size=16, length=128, source_length=128)
    config.train.epochs = 1
    config.decode.max_new_tokens = 32
    config.task.instruction = ""  # brief, as it reads nothing else
    config.optimizer.update(name="muon", learning_rate=2e-3)
    return config
