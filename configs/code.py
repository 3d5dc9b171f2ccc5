# SPDX-License-Identifier: Apache-2.0
"""Chapter 9 on the built-in world: a decoder writes the one-line function that an instruction asks for.

    python -m t5tasks.train --config=configs/code.py --workdir=DIR
    python -m t5tasks.evaluate --workdir=DIR

What it writes is run against each record's three asserts (pass@1) where the sandbox works on this machine. 400 test
records, seed 0, 2026-11-23: pass@1 85.0, exact match 83.5 (the most frequent program: 1.0). Training took 2 min of
processor time.
"""


def get_config():
    from t5tasks.configuration import defaults
    from t5tasks.metrics import sandbox
    config = defaults("code")
    config.data.train = "builtin:train?size=10000"
    config.data.validation = "builtin:validation?size=100"
    config.data.test = "builtin:test?size=400"
    config.task.run_tests = not sandbox.problem()
    config.tokenizer.size = 450  # numbers stay apart from the brackets beside them
    config.batch.update(size=32, length=56)
    config.train.epochs = 1
    config.decode.max_new_tokens = 28
    config.optimizer.update(name="muon", learning_rate=2e-3)
    return config
