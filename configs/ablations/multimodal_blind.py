# SPDX-License-Identifier: Apache-2.0
"""Chapter 12: what an image adds to the question: the same model with images and without.

    python -m t5tasks.sweep --config=configs/ablations/multimodal_blind.py --workdir=DIR

It has not been run whole yet.
"""

import pathlib


def get_config():
    from t5tasks import configuration
    return configuration.read(str(pathlib.Path(__file__).parents[1] / "multimodal.py"))


def sweep():
    from t5tasks.cells import named, product, seeds
    return product(named({"image": {"task.blind": False}, "question alone": {"task.blind": True}}), seeds(3))
