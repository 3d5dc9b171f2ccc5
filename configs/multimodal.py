# SPDX-License-Identifier: Apache-2.0
"""Chapter 12 on the built-in world: answers to questions about drawn shapes, by an encoder of images and a decoder."""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("multimodal")
    config.data.train = "builtin:train?size=28000"
    config.data.validation = "builtin:validation?size=300"
    config.data.test = "builtin:test?size=400"
    config.tokenizer.size = 400
    config.batch.update(size=32, length=48)
    config.train.epochs = 1
    config.decode.max_new_tokens = 8
    config.optimizer.update(name="muon", learning_rate=2e-3)
    return config
