# SPDX-License-Identifier: Apache-2.0
"""Chapter 4 on the built-in world: an encoder's [CLS] over premise and hypothesis, or a decoder's label tokens."""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("nli")
    config.data.train = "builtin:train?size=12000"
    config.data.validation = "builtin:validation?size=300"
    config.data.test = "builtin:test?size=400"
    config.model.token_types = 2
    config.batch.update(size=32, length=128)
    config.train.epochs = 1
    config.task.update(template="{premise} {hypothesis}{cue}", cue=" This is")  # brief, for the decoder's sake
    config.optimizer.update(name="muon", learning_rate=3e-3)
    return config
