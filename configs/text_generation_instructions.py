# SPDX-License-Identifier: Apache-2.0
"""Chapter 1 on 1,100 instructions: a trained 260-thousand-parameter Llama (stories260K) learns to answer."""


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
