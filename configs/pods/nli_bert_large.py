# SPDX-License-Identifier: Apache-2.0
"""Chapter 4 at the size of BERT-large (arxiv.org/abs/1810.04805), on 16 chips of v5e.

    python -m t5tasks.train --config=configs/pods/nli_bert_large.py --dry_run=v5e:4x4
    python -m t5tasks.train --config=configs/pods/nli_bert_large.py --workdir=DIR --config.pretrained=FOLDER \
        --config.data.train=hub:NAME --config.data.validation=hub:NAME      (FOLDER: of bert-large-uncased)

Compiled on two cores of a shared Intel Xeon, 2026-11-24, never run on a TPU: 13.4 of 15.8 GiB a chip, 1.21e14
operations a step, of which 0.038 s are arithmetic, 0.060 s memory and 0.014 s links (1.2 GiB sent): MFU 64 % if all
of it overlaps, 34 % if nothing does. It compiles in 37 s alone; 1,024 rows do not fit.
"""


def get_config():
    from t5tasks.configuration import defaults
    config = defaults("nli")
    config.tokenizer.update(size=30522, kind="wordpiece")
    config.model.update(
        width=1024, heads=16, kv_heads=16, head_size=64, feed_forward=4096, encoder_layers=24, norm="layernorm",
        norm_placement="post", norm_epsilon=1e-12, embedding_norm=True, final_norm=False, biases=True,
        positions="learned", token_types=2, activation="gelu", gated=False, pooler="tanh", dropout=0.1,
        attention_dropout=0.1, initializer_range=0.02, layer_loop="scan")
    config.batch.update(size=512, evaluation_size=512, length=128)
    config.train.epochs = 3
    config.optimizer.update(learning_rate=5e-5, warmup=0.1, weight_decay=0.01)
    return config
