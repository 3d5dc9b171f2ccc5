# SPDX-License-Identifier: Apache-2.0
"""Chapter 1 on 1,100 instructions: a trained 260-thousand-parameter Llama (stories260K) learns to answer.

    python scripts/convert_llama2c.py --model=../shared/weights/stories260K/stories260K.bin \
        --tokenizer=../shared/weights/stories260K/tok512.bin --output=runs/stories260K
    python -m t5tasks.evaluate --config=configs/text_generation_instructions.py     (before)
    python -m t5tasks.train --config=configs/text_generation_instructions.py --workdir=DIR
    python -m t5tasks.evaluate --workdir=DIR

The first 935 records train, 55 validate, 110 test. Perplexity of the test completions: 129.4 before, 11.1
after; no completion matches exactly, which is no surprise at this size. One core of an AMD EPYC, seed 0,
2026-11-23: 293 steps in 1 min 42 s.
References scored as answers, all 110: exact match 1.
"""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("text_generation")
    source = "file:../shared/data/instruction_data_1100/instruction-data.json?rename=output:completion"
    config.data.train = f"{source}&limit=935"
    config.data.validation = f"{source}&skip=1045"
    config.data.test = f"{source}&skip=935&limit=110"
    config.task.template = "{instruction}\n{input}\n"
    config.pretrained = "runs/stories260K"
    config.batch.update(size=16, length=256)
    config.train.epochs = 5
    config.optimizer.update(learning_rate=2e-3, warmup=0.05)
    return config
