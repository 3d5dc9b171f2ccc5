# SPDX-License-Identifier: Apache-2.0
"""Chapter 10 on GSM8K: a small decoder from scratch learns how steps and an answer are written.

    python -m t5tasks.train --config=configs/reasoning_gsm8k.py --workdir=DIR
    python -m t5tasks.evaluate --workdir=DIR

The first 3,000 problems of GSM8K's train file train, one epoch, 100 later ones validate; the first 200 of its test
file are tested. Accuracy of the answer 0 (the most frequent answer 0.040, the last number of the question 0.015), and
19 % of the texts come to an answer: a model of this size does not reason. Perplexity 141.9 (435.8 is the least without
any context). At step 47, 94, 141, 188 (metrics.jsonl; 32 records) loss 5.779, 5.293, 5.061, 5.020, accuracy 0, 0, 0,
0.031. With a pretrained decoder: --config.pretrained=FOLDER, and a majority of samples by --config.decode.method=sample
--config.decode.samples=8.

One core of a shared AMD EPYC, seed 0, 2026-11-23: 188 steps in 2 min 8 s of processor time, evaluation 51 s.
References scored as answers: every one of the 7,473 and 678 is read and right.
"""


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
