# SPDX-License-Identifier: Apache-2.0
"""Chapter 5b on PubMedQA: the conclusion of an abstract, asked for by a question, by a small decoder from scratch."""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("generative_qa")
    source = "file:../shared/data/pubmedqa/ori_pqal.json.gz?convert=pubmedqa"
    official = "id:@../shared/data/pubmedqa/test_ground_truth.json"
    config.data.train = f"{source}&unless={official}&limit=350"
    config.data.validation = f"{source}&unless={official}&skip=350"
    config.data.test = f"{source}&where={official}&limit=200"
    config.pretrained = "runs/stories260K"
    config.batch.update(size=16, length=256, packing=True, evaluation_size=32)
    config.train.update(epochs=4, validation_records=32)
    config.optimizer.update(learning_rate=3e-3, schedule="cosine", warmup=0.05, weight_decay=0.1)
    config.decode.update(max_new_tokens=96, no_repeat_ngram=3)
    return config
