# SPDX-License-Identifier: Apache-2.0
"""Chapter 7 on SciTLDR: one sentence for a paper's abstract, by a small encoder-decoder from scratch.

    python -m t5tasks.train --config=configs/summarization_scitldr.py --workdir=DIR
    python -m t5tasks.evaluate --workdir=DIR

SciTLDR's own splits (abstracts alone): 1,992 records train, the first 100 of dev validate, the first 200 of test are
tested, against the best of several summaries each. The encoder reads an abstract's first 128 tokens. ROUGE-1, 2, L,
Lsum 28.4, 7.1, 23.0, 23.1; ROUGE-L of the first sentence 24.2, which is better, of the first three 21.9, of the whole
abstract 16.0. Perplexity 109.7 (513.8 is the least without any context). At step 187, 374, 561, 745 (metrics.jsonl;
32 records) loss 5.693, 4.959, 4.750, 4.712, ROUGE-L 20.2, 19.8, 21.8, 22.0. It has learnt how such sentences go ("We
propose a new method to learn adversarial examples for adversarial examples ..."), and a little of what they are about.

One core of a shared AMD EPYC, seed 0, 2026-11-23: 745 steps in 3 min 44 s of processor time, evaluation 30 s.
References scored as answers, all 303: ROUGE 100.
"""


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
