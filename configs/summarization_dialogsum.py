# SPDX-License-Identifier: Apache-2.0
"""Chapter 7 on DialogSum: a sentence or two for a conversation, by a small encoder-decoder from scratch."""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("summarization")
    folder = "../shared/data/dialogsum"
    config.data.train = f"file:{folder}/dialogsum.dev.jsonl.gz?convert=dialogsum&limit=450"
    config.data.validation = f"file:{folder}/dialogsum.dev.jsonl.gz?convert=dialogsum&skip=450"
    config.data.test = f"file:{folder}/dialogsum.test.jsonl.gz?convert=dialogsum&limit=200"
    config.tokenizer.size = 2000
    config.model.update(width=128, heads=2, kv_heads=2, head_size=64, feed_forward=256, encoder_layers=2,
                        decoder_layers=2)
    config.batch.update(size=8, length=64, source_length=320, packing=True)
    config.train.update(epochs=7, validation_records=32)
    config.optimizer.update(learning_rate=2e-3, schedule="cosine", warmup=0.06, weight_decay=0.1)
    config.decode.update(max_new_tokens=64, no_repeat_ngram=3)
    return config
