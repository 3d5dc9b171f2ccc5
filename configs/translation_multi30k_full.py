# SPDX-License-Identifier: Apache-2.0
"""Chapter 8 on Multi30k, English to German, from scratch, trained to the end on an accelerator.

    ./scripts/benchmarks/gpu.sh        (training, then BLEU of test_2016_flickr with beam 4)

Expected: 38 BLEU or more (text-only transformers of this size in the literature reach 38 to 41).
Not measured yet: no accelerator was at hand.
"""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("translation")
    folder, read = "../shared/data/multi30k", "format=parallel&columns=source,target"
    config.data.train = f"file:{folder}/train.en.gz,{folder}/train.de.gz?{read}"
    config.data.validation = f"file:{folder}/val.en.gz,{folder}/val.de.gz?{read}"
    config.data.test = f"file:{folder}/test_2016_flickr.en.gz,{folder}/test_2016_flickr.de.gz?{read}"
    config.tokenizer.size = 8000
    config.model.update(width=256, heads=4, kv_heads=4, head_size=64, feed_forward=512,
                        encoder_layers=4, decoder_layers=4, dropout=0.3)
    config.batch.update(size=32, length=128, source_length=128, packing=True)
    config.loss.label_smoothing = 0.1
    config.train.update(epochs=60, evaluate_every=500)
    config.optimizer.update(learning_rate=2e-3, schedule="cosine", warmup=0.05, beta2=0.98, weight_decay=0.01)
    config.decode.update(method="beam", beams=4, length_penalty=1.0, max_new_tokens=64)
    return config
