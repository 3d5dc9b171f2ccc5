# SPDX-License-Identifier: Apache-2.0
"""Chapter 6: the loss on each word's first subword alone against the loss on all of its subwords."""

import pathlib


def get_config():
    from t5tasks import configuration
    config = configuration.read(str(pathlib.Path(__file__).parents[1] / "ner.py"))
    config.data.train = "builtin:train?size=3000"
    return config


def sweep():
    from t5tasks.cells import named, product, seeds
    return product(named({"first subword": {"task.label_all": False}, "all subwords": {"task.label_all": True}}),
                   seeds(3))
