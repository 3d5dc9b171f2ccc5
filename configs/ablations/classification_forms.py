# SPDX-License-Identifier: Apache-2.0
"""Chapters 3a and 3b side by side: an encoder's [CLS] against a decoder that scores the labels, same data and sizes.

    python -m t5tasks.sweep --config=configs/ablations/classification_forms.py --workdir=DIR

4,000 records, one epoch (125 steps), accuracy on 400 test records, seeds 0, 1 and 2, 2026-11-23, a shared CPU core:

    encoder, [CLS]           0.788 0.760 0.730   602,244 parameters   2.71e11 training FLOPs
    decoder, labels scored   0.663 0.693 0.623   601,728 parameters   3.71e11 training FLOPs

So few records leave both unfinished; with 8,000 both reach 0.99 and more (README).
"""

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
