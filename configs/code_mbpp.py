# SPDX-License-Identifier: Apache-2.0
r"""Chapter 9 on MBPP: programs from a description and their asserts, by a small decoder from scratch.

    python -m t5tasks.train --config=configs/code_mbpp.py --workdir=DIR
    python -m t5tasks.evaluate --workdir=DIR

Of MBPP's own splits, 374 tasks train, the first 16 of the 90 for validation validate and the first 100 of the 400
at hand for testing are tested, with ten samples a task at temperature 0.8. The prompt holds the asserts, as in Austin
et al. 2021 (arxiv.org/abs/2108.07732): without them nobody knows the function's name. pass@1 and pass@10 are 0, as
they are for no code at all: 374 programs teach a model of this size how Python looks, not how to program. Perplexity
of the programs 62.9 (172.6 is the least without any context). Validation loss at step 30, 60, 90, 119 (metrics.jsonl):
4.448, 4.166, 4.187, 4.206; with pass@1 0 throughout, the last is tested.

One core of a shared AMD EPYC, seed 0, 2026-11-23: 119 steps in 3 min 38 s of processor time, evaluation 1 min 47 s
and what the sandbox takes. The references themselves, all of both files: 874 of 874 and 373 of 373 pass:

    rename='rename=text:instruction,test_list:tests,test_setup_code:setup'
    python -m t5tasks.evaluate --config=configs/code_mbpp.py --answers=gold \
        --config.data.test="file:../shared/data/mbpp/mbpp.jsonl?$rename"
    rename='rename=prompt:instruction,test_list:tests,test_imports:setup'
    python -m t5tasks.evaluate --config=configs/code_mbpp.py --answers=gold \
        --config.data.test="file:../shared/data/mbpp/sanitized-mbpp.json?$rename"
"""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("code")
    source = "file:../shared/data/mbpp/mbpp.jsonl?rename=text:instruction,test_list:tests,test_setup_code:setup"
    config.data.train = f"{source}&skip=500&limit=374"
    config.data.validation = f"{source}&skip=410&limit=90"
    config.data.test = f"{source}&skip=10&limit=100"
    config.task.update(wording='"""\n{instruction}\n{tests}\n"""\n', run_tests=True, k=(1, 10))
    config.tokenizer.size = 2000
    config.model.update(width=192, heads=3, kv_heads=3, head_size=64, feed_forward=768, decoder_layers=3)
    config.batch.update(size=8, length=384, packing=True, evaluation_size=32)
    config.train.epochs = 6
    config.train.validation_records = 16
    config.optimizer.update(name="muon", learning_rate=2e-3, schedule="cosine", warmup=0.05, weight_decay=0.1)
    config.decode.update(method="sample", samples=10, temperature=0.8, top_p=0.95, max_new_tokens=192)
    return config
