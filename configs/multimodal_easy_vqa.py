# SPDX-License-Identifier: Apache-2.0
"""Chapter 12 on easy-VQA: questions on drawn shapes, by an encoder of images and a decoder, from scratch.

    python -m t5tasks.train --config=configs/multimodal_easy_vqa.py --workdir=DIR
    python -m t5tasks.evaluate --workdir=DIR
"""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("multimodal")
    folder, read = "file:../shared/data/easy_vqa", "questions.json.gz?convert=easy_vqa"
    config.data.train = f"{folder}/train/{read}&limit=37609"  # of the first 3,900 images
    config.data.validation = f"{folder}/train/{read}&skip=37609"  # of the other 100
    config.data.test = f"{folder}/test/{read}"
    config.tokenizer.size = 400  # a piece a word
    sizes = {"width": 96, "heads": 4, "kv_heads": 4, "head_size": 24, "feed_forward": 256}
    config.model.update(sizes)
    config.model.vision.tower.update(sizes)
    # 36 tokens an image. Larger patches, which hold half a shape each, are learnt by heart.
    config.model.vision.tower.patches.update(image_size=48, patch_size=8)
    config.batch.update(size=64, length=52, evaluation_size=256)
    config.train.update(epochs=3, validation_records=512)
    config.optimizer.update(name="muon", learning_rate=2e-3, weight_decay=0.1)
    config.decode.max_new_tokens = 4
    return config
