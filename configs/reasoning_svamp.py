# SPDX-License-Identifier: Apache-2.0
"""Chapter 10 on SVAMP: a trained 260-thousand-parameter Llama (stories260K) learns to write equations."""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("reasoning")
    source = "file:../shared/data/svamp/SVAMP.json?convert=svamp"
    config.data.train = f"{source}&limit=534"
    config.data.validation = f"{source}&skip=534&limit=50"
    config.data.test = f"{source}&skip=584"
    config.pretrained = "runs/stories260K"
    config.batch.update(size=16, length=256, packing=True, evaluation_size=32)
    config.train.update(epochs=4, validation_records=32)
    config.optimizer.update(learning_rate=3e-3, schedule="cosine", warmup=0.05, weight_decay=0.1)
    config.decode.max_new_tokens = 48
    return config
