# SPDX-License-Identifier: Apache-2.0
"""Chapter 7 on SciTLDR: one sentence for a paper's abstract, by a small encoder-decoder from scratch."""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("summarization")
    folder = "../shared/data/scitldr/SciTLDR-A"
    config.data.train = f"file:{folder}/train.jsonl.gz?convert=scitldr"
    config.data.validation = f"file:{folder}/dev.jsonl.gz?convert=scitldr&limit=100"
    config.data.test = f"file:{folder}/test.jsonl.gz?convert=scitldr&limit=200"
    config.tokenizer.size = 2000
    config.model.update(width=128, heads=2, kv_heads=2, head_size=64, feed_forward=384, encoder_layers=2,
                        decoder_layers=2)
    config.batch.update(size=8, length=64, source_length=128, packing=True, evaluation_size=32)
    config.train.update(epochs=3, validation_records=32)
    config.optimizer.update(name="muon", learning_rate=2e-3, schedule="cosine", warmup=0.06, weight_decay=0.1)
    config.decode.update(max_new_tokens=48, no_repeat_ngram=3)
    return config
