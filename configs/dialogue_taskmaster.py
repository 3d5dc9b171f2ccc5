# SPDX-License-Identifier: Apache-2.0
r"""Chapter 2 on Taskmaster-4: a trained 260-thousand-parameter Llama (stories260K) learns to take coffee orders.

    python scripts/convert_llama2c.py --model=../shared/weights/stories260K/stories260K.bin \
        --tokenizer=../shared/weights/stories260K/tok512.bin --output=runs/stories260K
    python -m t5tasks.train --config=configs/dialogue_taskmaster.py --workdir=DIR
    python -m t5tasks.evaluate --workdir=DIR
    python -m t5tasks.chat --workdir=DIR

The 500 conversations of part 0 train, of part 1 the first 100 validate and the other 400 are tested: the data set
has no official split, and 5 of the 400 short ones stand in part 0 too. Perplexity of the assistant's tokens in the
test 2.57 (84.3 is the least without any context); no last reply is matched exactly. Validation loss at step 24, 48,
72, 96 (metrics.jsonl): 1.223, 1.059, 0.989, 0.980. "Hi. Could I get a decaf Cortado with Caramel?" ... "That looks
right." is answered "Okay, your order will be ready shortly."

One core of a shared AMD EPYC, seed 0, 2026-11-23: 96 steps in 1 min 51 s of processor time, evaluation 1 min 4 s.
References scored as answers: every last reply of all 1,000 is right.
"""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("dialogue")
    folder = "../shared/data/taskmaster4"
    config.data.train = f"file:{folder}/data_00.json.gz?convert=taskmaster"
    config.data.validation = f"file:{folder}/data_01.json.gz?convert=taskmaster&limit=100"
    config.data.test = f"file:{folder}/data_01.json.gz?convert=taskmaster&skip=100"
    config.pretrained = "runs/stories260K"
    config.batch.update(size=16, length=256, packing=True)
    config.train.epochs = 6
    config.optimizer.update(learning_rate=3e-3, schedule="cosine", warmup=0.05, weight_decay=0.1)
    config.decode.max_new_tokens = 64
    return config
