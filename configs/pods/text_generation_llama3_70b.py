# SPDX-License-Identifier: Apache-2.0
"""Chapter 1 at the size of Llama 3 70B (arxiv.org/abs/2407.21783, table 3), on 128 chips of v5p.

    python -m t5tasks.train --config=configs/pods/text_generation_llama3_70b.py --dry_run=v5p:4x4x8
    python -m t5tasks.train --config=configs/pods/text_generation_llama3_70b.py --workdir=DIR \
        --config.pretrained=FOLDER --config.data.train=file:TRAIN --config.data.validation=file:VALIDATION

Compiled on two cores of a shared Intel Xeon, 2026-11-24, never run on a TPU: 23.0 of 95.7 GiB a chip, 2.36e17
operations a step (3.14e17 with what is computed twice), of which 5.35 s are arithmetic, 2.10 s memory and 4.93 s
links (827 GiB sent): MFU 75 % if all of it overlaps, 32 % if nothing does. It compiled in 249 s beside other work.
"""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("text_generation")
    config.architecture = "decoder"
    config.tokenizer.size = 128256
    config.model.update(
        width=8192, heads=64, kv_heads=8, head_size=128, feed_forward=28672, decoder_layers=80, max_length=8192,
        norm_epsilon=1e-5, rotary_base=500_000.0, tied_head=False, initializer_range=0.02, layer_loop="scan",
        rematerialise="full")
    config.batch.update(size=128, evaluation_size=128, length=4096, packing=True)
    config.train.epochs = 1
    config.optimizer.update(learning_rate=1e-5, schedule="cosine", warmup=0.03, weight_decay=0.1, beta2=0.95)
    config.mesh.update(data=1, fsdp=-1, tensor=1)
    return config
