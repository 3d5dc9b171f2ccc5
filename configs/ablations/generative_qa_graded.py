# SPDX-License-Identifier: Apache-2.0
"""Chapter 5b by a decoder: the loss on the answer alone against the loss on everything, context and question too.

    python -m t5tasks.sweep --config=configs/ablations/generative_qa_graded.py --workdir=DIR

It has not been run whole yet.
"""

import pathlib


def get_config():
    from t5tasks import configuration
    config = configuration.read(str(pathlib.Path(__file__).parents[1] / "generative_qa.py"))
    config.architecture = "decoder"
    config.data.train = "builtin:train?size=6000"
    return config


def sweep():
    from t5tasks.cells import named, product, seeds
    return product(named({"answer": {"loss.graded": "answer"}, "everything": {"loss.graded": "all"}}), seeds(3))
