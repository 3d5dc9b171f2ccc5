# SPDX-License-Identifier: Apache-2.0
"""Chapter 1 on the built-in world: a small decoder completes short texts."""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("text_generation")
    config.data.train = "builtin:train?size=6000"
    config.data.validation = "builtin:validation?size=300"
    config.model.width = 128
    return config
