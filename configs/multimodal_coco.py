# SPDX-License-Identifier: Apache-2.0
"""Chapter 12 on 61 photographs of COCO: captions, learnt by heart, by an encoder of images and a decoder.

    python -m t5tasks.train --config=configs/multimodal_coco.py --workdir=DIR
    python -m t5tasks.evaluate --workdir=DIR
"""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("multimodal")
    read = "format=coco&images=images"
    config.data.train = config.data.validation = f"file:../shared/data/coco_captions_mini/captions_train.json?{read}"
    config.task.captions = True
    config.tokenizer.size = 800
    config.model.vision.tower.patches.update(image_size=64, patch_size=16)  # 16 tokens an image
    config.batch.update(size=16, length=64, evaluation_size=64)
    config.train.update(epochs=40, evaluate_every=200)
    config.optimizer.update(name="muon", learning_rate=2e-3)
    config.decode.max_new_tokens = 40
    return config
