# SPDX-License-Identifier: Apache-2.0
"""Chapter 5a: the best of all valid spans against the argmax of start and of end, one trained model read twice.

    python -m t5tasks.sweep --config=configs/ablations/extractive_qa_search.py --workdir=DIR

One core of a shared Intel Xeon, 2026-11-24, 400 test records, three seeds: F1, mean and 95 % interval over seeds

    exhaustive     0.577 (0.471 to 0.682)
    independent    0.572 (0.479 to 0.667)    -0.004 (-0.009 to 0 over records, p = 0.14)

Never answering gives 0.288. The two differ where the best start lies after the best end, on few records.
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
