# SPDX-License-Identifier: Apache-2.0
"""Chapter 2 on Taskmaster-4: a trained 260-thousand-parameter Llama (stories260K) learns to take orders of coffee."""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("dialogue")
    folder = "../shared/data/taskmaster4"
    config.data.train = f"file:{folder}/data_00.json.gz?convert=taskmaster"
    config.data.validation = f"file:{folder}/data_01.json.gz?convert=taskmaster&limit=100"
    config.data.test = f"file:{folder}/data_01.json.gz?convert=taskmaster&skip=100"
    config.pretrained = "runs/stories260K"
    config.batch.update(size=16, length=256, packing=True)
    config.train.epochs = 6
    config.optimizer.update(learning_rate=3e-3, schedule="cosine", warmup=0.05, weight_decay=0.1)
    config.decode.max_new_tokens = 64
    return config
