# SPDX-License-Identifier: Apache-2.0
"""Chapter 7 on DialogSum: a sentence or two for a conversation, by a small encoder-decoder from scratch.

    python -m t5tasks.train --config=configs/summarization_dialogsum.py --workdir=DIR
    python -m t5tasks.evaluate --workdir=DIR

DialogSum's own train file was not to be had, so the first 450 conversations of its dev file train and the last 50
validate; the first 200 of its test file are tested, against the best of three summaries each. ROUGE-1, 2, L, Lsum
34.7, 6.3, 28.0, 30.5; ROUGE-L of the first sentence 21.0, of the first three 25.3, of the whole conversation 17.8.
Perplexity 125.8 (268.7 is the least without any context). 450 conversations teach which words all summaries share
("#Person1# and #Person2# ...", which is what lifts ROUGE), not yet what is said. At step 66, 132, 198, 263
(metrics.jsonl; 32 records) loss 4.973, 4.668, 4.641, 4.598, ROUGE-L 20.3, 26.2, 22.1, 22.4: the second is tested.

One core of a shared AMD EPYC, seed 0, 2026-11-23: 263 steps in 2 min 1 s of processor time, evaluation 41 s.
References scored as answers: ROUGE 100 on all 404.
"""


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
