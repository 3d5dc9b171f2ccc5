# SPDX-License-Identifier: Apache-2.0
"""Chapter 1 on the built-in world: a decoder completes short stories, with recall and arithmetic."""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("text_generation")
    config.data.train = "builtin:train?size=11000"
    config.data.validation = "builtin:validation?size=300"
    config.data.test = "builtin:test?size=400"
    config.model.decoder_layers = 3
    config.batch.update(size=32, length=40)
    config.train.epochs = 1
    config.decode.max_new_tokens = 12
    config.optimizer.update(name="muon", learning_rate=2e-3)
    return config
