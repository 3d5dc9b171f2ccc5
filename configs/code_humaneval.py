# SPDX-License-Identifier: Apache-2.0
"""Chapter 9 on HumanEval: functions completed, pass@k from their tests, by any pretrained decoder.

    python -m t5tasks.evaluate --config=configs/code_humaneval.py --config.pretrained=FOLDER
    python -m t5tasks.evaluate --config=configs/code_humaneval.py --answers=gold       (the references: 164 of 164 pass)

HumanEval is made for scoring alone. Greedy, one answer a problem; for pass@10 add --config.decode.method=sample
--config.decode.temperature=0.8 --config.decode.top_p=0.95 --config.decode.samples=20 '--config.task.k=(1,10)'.
"""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("code")
    source = "file:../shared/data/humaneval/HumanEval.jsonl.gz"
    config.data.train = config.data.validation = (
        f"{source}?rename=prompt:instruction,canonical_solution:code,test:tests")
    config.task.update(template="completion", run_tests=True)
    config.tokenizer.size = 2000
    config.batch.update(size=16, length=1024, evaluation_size=16)
    config.decode.max_new_tokens = 384
    return config
