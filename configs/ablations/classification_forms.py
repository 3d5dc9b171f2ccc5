# SPDX-License-Identifier: Apache-2.0
"""Chapters 3a and 3b side by side: an encoder's [CLS] against a decoder that scores the labels, same data and sizes."""

import pathlib


def get_config():
    from t5tasks import configuration
    config = configuration.read(str(pathlib.Path(__file__).parents[1] / "classification.py"))
    config.data.train = "builtin:train?size=4000"
    return config


def sweep():
    from t5tasks.cells import named, product, seeds
    return product(named({"encoder, [CLS]": {"architecture": "encoder"},
                          "decoder, labels scored": {"architecture": "decoder"}}), seeds(3))
