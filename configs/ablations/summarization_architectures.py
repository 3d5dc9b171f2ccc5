# SPDX-License-Identifier: Apache-2.0
"""Chapter 7: an encoder-decoder against a decoder alone, same data and sizes (the decoder's layers are both's).

    python -m t5tasks.sweep --config=configs/ablations/summarization_architectures.py --workdir=DIR

It has not been run whole yet.
"""

import pathlib


def get_config():
    from t5tasks import configuration
    config = configuration.read(str(pathlib.Path(__file__).parents[1] / "summarization.py"))
    config.data.train = "builtin:train?size=4000"
    return config


def sweep():
    from t5tasks.cells import named, product, seeds
    return product(named({"encoder-decoder, 2 + 2 layers": {"architecture": "encoder_decoder"},
                          "decoder, 4 layers": {"architecture": "decoder", "model.decoder_layers": 4}}), seeds(3))
