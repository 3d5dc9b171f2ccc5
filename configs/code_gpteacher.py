# SPDX-License-Identifier: Apache-2.0
"""Chapter 9 on GPTeacher's 4,535 code instructions, by a small decoder from scratch.

    python -m t5tasks.train --config=configs/code_gpteacher.py --workdir=DIR
    python -m t5tasks.evaluate --workdir=DIR

The first 3,935 records train, 200 validate, 400 test. They are in many languages and have no tests, so what is told
is perplexity and exact match.
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
