# SPDX-License-Identifier: Apache-2.0
"""Chapter 9 on GPTeacher's 4,535 code instructions, by a small decoder from scratch.

    python -m t5tasks.train --config=configs/code_gpteacher.py --workdir=DIR
    python -m t5tasks.evaluate --workdir=DIR

There is no official split: in the file's order the first 3,935 records train, one epoch, 200 validate and the next 200
are tested. They are in many languages and have no tests, so what is told is perplexity and exact match. Perplexity of
the code 20.9 (270.4 is the least without any context); no program is matched exactly (the most frequent one is right
for 0.010, what is given or nothing for 0). Validation loss at step 64, 128, 192, 255 (metrics.jsonl; 32 records):
3.966, 3.209, 2.858, 2.774.

One core of a shared AMD EPYC, seed 0, 2026-11-23: 255 steps in 2 min 2 s of processor time, evaluation 53 s.
References scored as answers, all 4,535 (19 of them between ``` fences): exact match 1.
"""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("code")
    source = "file:../shared/data/gpteacher_codegen/codegen-instruct.json.gz?rename=response:code"
    config.data.train = f"{source}&limit=3935"
    config.data.validation = f"{source}&skip=3935&limit=200"
    config.data.test = f"{source}&skip=4135&limit=200"
    config.task.wording = "{instruction}\n{input}\n"
    config.tokenizer.size = 2000
    config.model.update(width=128, heads=2, kv_heads=2, head_size=64, feed_forward=512, decoder_layers=3)
    config.batch.update(size=8, length=256, packing=True, evaluation_size=32)
    config.train.update(epochs=1, validation_records=32)
    config.optimizer.update(learning_rate=3e-3, schedule="cosine", warmup=0.05, weight_decay=0.1)
    config.decode.max_new_tokens = 128
    return config
