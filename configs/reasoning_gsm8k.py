# SPDX-License-Identifier: Apache-2.0
"""Chapter 10 on GSM8K: a small decoder from scratch learns to write steps and an answer."""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("reasoning")
    folder = "../shared/data/gsm8k"
    config.data.train = f"file:{folder}/train.jsonl.gz?convert=gsm8k&limit=3000"
    config.data.validation = f"file:{folder}/train.jsonl.gz?convert=gsm8k&skip=7273&limit=100"
    config.data.test = f"file:{folder}/test.jsonl?convert=gsm8k&limit=200"
    config.tokenizer.size = 2000
    config.model.update(width=128, heads=2, kv_heads=2, head_size=64, feed_forward=512, decoder_layers=3)
    config.batch.update(size=8, length=320, packing=True, evaluation_size=32)
    config.train.update(epochs=1, validation_records=32)
    config.optimizer.update(name="muon", learning_rate=2e-3, schedule="cosine", warmup=0.05, weight_decay=0.1)
    config.decode.max_new_tokens = 192
    return config
