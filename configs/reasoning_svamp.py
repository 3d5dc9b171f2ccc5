# SPDX-License-Identifier: Apache-2.0
r"""Chapter 10 on SVAMP: a trained 260-thousand-parameter Llama (stories260K) learns to write equations.

    python scripts/convert_llama2c.py --model=../shared/weights/stories260K/stories260K.bin \
        --tokenizer=../shared/weights/stories260K/tok512.bin --output=runs/stories260K
    python -m t5tasks.train --config=configs/reasoning_svamp.py --workdir=DIR
    python -m t5tasks.evaluate --workdir=DIR

SVAMP is made for testing alone, so the split is ours: 534 records train, 50 validate, 200 are tested, in the file's
order, which keeps the variants of a problem together. Accuracy of the answer 0.040 (the most frequent answer 0.065,
the last number of the question 0.020); 92 % of the texts have an answer. Perplexity 2.21 (17.0 is the least without
any context): it has learnt how an equation and its answer are written, not which of the numbers to take, nor to
calculate. At step 19, 38, 57, 73 (metrics.jsonl; 32 records) loss 1.033, 0.889, 0.797, 0.791, accuracy 0, 0.062,
0.062, 0.062.

One core of a shared AMD EPYC, seed 0, 2026-11-23: 73 steps in 1 min 31 s of processor time, evaluation 39 s.
References scored as answers, all 784: every one is read and right.
"""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("reasoning")
    source = "file:../shared/data/svamp/SVAMP.json?convert=svamp"
    config.data.train = f"{source}&limit=534"
    config.data.validation = f"{source}&skip=534&limit=50"
    config.data.test = f"{source}&skip=584"
    config.pretrained = "runs/stories260K"
    config.batch.update(size=16, length=256, packing=True, evaluation_size=32)
    config.train.update(epochs=4, validation_records=32)
    config.optimizer.update(learning_rate=3e-3, schedule="cosine", warmup=0.05, weight_decay=0.1)
    config.decode.max_new_tokens = 48
    return config
