# SPDX-License-Identifier: Apache-2.0
"""Chapter 12 at the size of LLaVA 1.5 7B (arxiv.org/abs/2310.03744), on 32 chips of v5p.

    python -m t5tasks.train --config=configs/pods/multimodal_llava_7b.py --dry_run=v5p:2x4x4
    python -m t5tasks.train --config=configs/pods/multimodal_llava_7b.py --workdir=DIR --config.pretrained=FOLDER \
        --config.data.train=file:TRAIN --config.data.validation=file:VALIDATION

The encoder of images is frozen, as in LLaVA's second stage.

Compiled on two cores of a shared Intel Xeon, 2026-11-24, never run on a TPU: 6.7 of 95.7 GiB a chip, 5.60e15
operations a step (7.47e15 with what is computed twice; the frozen encoder's backward pass is counted, though none
runs), of which 0.51 s are arithmetic, 0.56 s memory and 0.41 s links (68 GiB sent): MFU 68 % if all of it overlaps,
26 % if nothing does. It compiled in 141 s beside other work.
"""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("multimodal")
    config.tokenizer.size = 32064
    config.model.update(
        width=4096, heads=32, kv_heads=32, head_size=128, feed_forward=11008, decoder_layers=32, max_length=4096,
        norm_epsilon=1e-5, tied_head=False, initializer_range=0.02, layer_loop="scan", rematerialise="full")
    config.model.vision.tower.update(
        width=1024, heads=16, kv_heads=16, head_size=64, feed_forward=4096, encoder_layers=23)
    config.model.vision.tower.patches.update(image_size=336, patch_size=14)
    config.batch.update(size=128, evaluation_size=128, length=1024)
    config.train.update(epochs=1, frozen=("^vision/",))
    config.optimizer.update(learning_rate=2e-5, schedule="cosine", warmup=0.03)
    config.mesh.update(data=1, fsdp=-1, tensor=1)
    return config
