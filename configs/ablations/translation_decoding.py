# SPDX-License-Identifier: Apache-2.0
"""Chapter 8: one trained model of each seed, its translations made greedily, by beams and by sampling.

    python -m t5tasks.sweep --config=configs/ablations/translation_decoding.py --workdir=DIR

It has not been run whole yet.
"""

import pathlib


def get_config():
    from t5tasks import configuration
    config = configuration.read(str(pathlib.Path(__file__).parents[1] / "translation.py"))
    config.data.train = "builtin:train?size=5000"  # unfinished, so that there is something to choose
    return config


def sweep():
    from t5tasks.cells import named, product, seeds
    return product(named({
        "greedy": {"decode.method": "greedy"},
        "beam 2": {"decode.method": "beam", "decode.beams": 2},
        "beam 4": {"decode.method": "beam", "decode.beams": 4},
        "beam 8": {"decode.method": "beam", "decode.beams": 8},
        "top-k 5": {"decode.method": "sample", "decode.top_k": 5},
        "nucleus 0.9": {"decode.method": "sample", "decode.top_p": 0.9},
        "all of the distribution": {"decode.method": "sample"},
    }), seeds(3))
