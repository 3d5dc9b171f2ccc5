# SPDX-License-Identifier: Apache-2.0
"""Chapter 10: the steps to an answer before it (chain of thought) against the answer alone, trained on the same sums.

    python -m t5tasks.sweep --config=configs/ablations/reasoning_direct.py --workdir=DIR

It has not been run whole yet.
"""

import pathlib


def get_config():
    from t5tasks import configuration
    config = configuration.read(str(pathlib.Path(__file__).parents[1] / "reasoning.py"))
    config.data.train = "builtin:train?size=6000"
    return config


def sweep():
    from t5tasks.cells import named, product, seeds
    return product(named({"chain of thought": {"task.direct": False}, "direct answer": {"task.direct": True}}),
                   seeds(3))
