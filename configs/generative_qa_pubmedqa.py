# SPDX-License-Identifier: Apache-2.0
r"""Chapter 5b on PubMedQA: the conclusion of an abstract, asked for by a question, from stories260K, a small Llama.

    python scripts/convert_llama2c.py --model=../shared/weights/stories260K/stories260K.bin \
        --tokenizer=../shared/weights/stories260K/tok512.bin --output=runs/stories260K
    python -m t5tasks.train --config=configs/generative_qa_pubmedqa.py --workdir=DIR
    python -m t5tasks.evaluate --workdir=DIR

The labelled 798 records at hand in PubMedQA's official split: of those that its list of test ids leaves, 350 train
and 50 validate; the first 200 on the list are tested. The model reads 256 tokens, so an abstract's end is cut off.
F1 0.102, ROUGE-1, 2, L 13.2, 1.1, 10.7; F1 of the most frequent answer 0.130, of the question itself 0.231, of the
abstract 0.194, of its first sentence 0.240: all better. Perplexity of the answers' pieces, of which there are 512,
10.5 (87.4 is the least without any context). At step 22, 44, 66, 88 (metrics.jsonl; 32 records) loss 2.628, 2.384,
2.284, 2.285, F1 0.046, 0.092, 0.100, 0.094: the third is tested. From scratch, 350 answers teach next to nothing.

One core of a shared AMD EPYC, seed 0, 2026-11-23: 88 steps in 1 min 51 s of processor time, evaluation 30 s.
References scored as answers, all 798: F1 and exact match 1, ROUGE 100.
"""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("generative_qa")
    source = "file:../shared/data/pubmedqa/ori_pqal.json.gz?convert=pubmedqa"
    official = "id:@../shared/data/pubmedqa/test_ground_truth.json"
    config.data.train = f"{source}&unless={official}&limit=350"
    config.data.validation = f"{source}&unless={official}&skip=350"
    config.data.test = f"{source}&where={official}&limit=200"
    config.pretrained = "runs/stories260K"
    config.batch.update(size=16, length=256, packing=True, evaluation_size=32)
    config.train.update(epochs=4, validation_records=32)
    config.optimizer.update(learning_rate=3e-3, schedule="cosine", warmup=0.05, weight_decay=0.1)
    config.decode.update(max_new_tokens=96, no_repeat_ngram=3)
    return config
