# SPDX-License-Identifier: Apache-2.0
"""Chapter 5b on FeTaQA: a sentence that answers a question about a table, by a small encoder-decoder from scratch."""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("generative_qa")
    config.architecture = "encoder_decoder"
    folder = "../shared/data/fetaqa"
    config.data.train = f"file:{folder}/fetaQA-v1_dev.jsonl.gz?convert=fetaqa&limit=901"
    config.data.validation = f"file:{folder}/fetaQA-v1_dev.jsonl.gz?convert=fetaqa&skip=901"
    config.data.test = f"file:{folder}/fetaQA-v1_test.jsonl.gz?convert=fetaqa&limit=200"
    config.tokenizer.size = 2000
    config.model.update(width=128, heads=2, kv_heads=2, head_size=64, feed_forward=384, encoder_layers=2,
                        decoder_layers=2)
    config.batch.update(size=8, length=64, source_length=128, packing=True, evaluation_size=32)
    config.train.update(epochs=4, validation_records=32)
    config.optimizer.update(name="muon", learning_rate=2e-3, schedule="cosine", warmup=0.06, weight_decay=0.1)
    config.decode.update(max_new_tokens=64, no_repeat_ngram=3)
    return config
