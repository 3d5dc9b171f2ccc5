# SPDX-License-Identifier: Apache-2.0
"""Chapter 7 at the size of T5 1.1 XXL, 11 billion parameters (arxiv.org/abs/1910.10683), on 64 chips of v5p.

    python -m t5tasks.train --config=configs/pods/summarization_t5_xxl.py --dry_run=v5p:4x4x4
    python -m t5tasks.train --config=configs/pods/summarization_t5_xxl.py --workdir=DIR --config.pretrained=FOLDER \
        --config.data.train=file:TRAIN --config.data.validation=file:VALIDATION

Compiled on two cores of a shared Intel Xeon, 2026-11-24, never run on a TPU: 5.0 of 95.7 GiB a chip, 5.58e15
operations a step (7.44e15 with what is computed twice), of which 0.25 s are arithmetic, 0.21 s memory and 0.80 s
links (134 GiB sent): MFU 24 % if all of it overlaps, 15 % if nothing does. Two rows a chip are few for weights that
travel three times a step; a larger batch has room. It compiled in 244 s beside other work.
"""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("summarization")
    config.architecture = "encoder_decoder"
    config.tokenizer.size = 32128
    config.model.update(
        width=4096, heads=64, kv_heads=64, head_size=64, feed_forward=10240, encoder_layers=24, decoder_layers=24,
        positions="relative", scaled_attention=False, activation="gelu_tanh", gated=True, tied_head=False,
        layer_loop="scan", rematerialise="full")
    config.batch.update(size=128, evaluation_size=128, source_length=1024, length=256)
    config.train.epochs = 3
    config.optimizer.update(name="adafactor", learning_rate=1e-3, schedule="constant", warmup=0.0)
    config.mesh.update(data=1, fsdp=-1, tensor=1)
    return config
