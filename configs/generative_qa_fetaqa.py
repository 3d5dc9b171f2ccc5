# SPDX-License-Identifier: Apache-2.0
"""Chapter 5b on FeTaQA: a sentence that answers a question about a table, by a small encoder-decoder from scratch.

    python -m t5tasks.train --config=configs/generative_qa_fetaqa.py --workdir=DIR
    python -m t5tasks.evaluate --workdir=DIR

FeTaQA's own train file was not to be had, so the first 901 records of its dev file train and the last 100 validate;
the first 200 of its test file are tested. The encoder reads 128 tokens, highlighted rows first. F1 0.161, ROUGE-1,
2, L 20.8, 4.2, 18.0; F1 of the most frequent answer 0.068, of the table 0.207, of its first sentence 0.238, of the
question itself 0.365, which a model that has not learnt to copy does not reach. Perplexity 180.0 (458.6 is the least
without any context). At step 112, 224, 336, 446 (metrics.jsonl; 32 records) loss 5.911, 5.377, 5.261, 5.282, F1
0.106, 0.152, 0.182, 0.166: the third is tested. Its answers have the shape of those that are asked for ("In the 2009
film Ka the film, ..."), not their content.

One core of a shared AMD EPYC, seed 0, 2026-11-23: 446 steps in 2 min 39 s of processor time, evaluation 26 s.
References scored as answers, all 1,585: F1 and exact match 1, ROUGE 100.
"""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("generative_qa")
    config.architecture = "encoder_decoder"
    folder = "../shared/data/fetaqa"
    config.data.train = f"file:{folder}/fetaQA-v1_dev.jsonl.gz?convert=fetaqa&limit=901"
    config.data.validation = f"file:{folder}/fetaQA-v1_dev.jsonl.gz?convert=fetaqa&skip=901"
    config.data.test = f"file:{folder}/fetaQA-v1_test.jsonl.gz?convert=fetaqa&limit=200"
    config.tokenizer.size = 2000
    config.model.update(width=128, heads=2, kv_heads=2, head_size=64, feed_forward=384, encoder_layers=2,
                        decoder_layers=2)
    config.batch.update(size=8, length=64, source_length=128, packing=True, evaluation_size=32)
    config.train.update(epochs=4, validation_records=32)
    config.optimizer.update(name="muon", learning_rate=2e-3, schedule="cosine", warmup=0.06, weight_decay=0.1)
    config.decode.update(max_new_tokens=64, no_repeat_ngram=3)
    return config
