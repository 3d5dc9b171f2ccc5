# SPDX-License-Identifier: Apache-2.0
"""Chapter 5a: the best of all valid spans against the argmax of start and of end, one trained model read twice.

    python -m t5tasks.sweep --config=configs/ablations/extractive_qa_search.py --workdir=DIR

It has not been run whole yet.
"""

import pathlib


def get_config():
    from t5tasks import configuration
    config = configuration.read(str(pathlib.Path(__file__).parents[1] / "extractive_qa.py"))
    config.data.train = "builtin:train?size=12000"
    return config


def sweep():
    from t5tasks.cells import named, product, seeds
    return product(named({"exhaustive": {"task.search": "exhaustive"}, "independent": {"task.search": "independent"}}),
                   seeds(3))
