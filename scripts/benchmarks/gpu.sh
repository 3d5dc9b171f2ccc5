#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What is to be measured on an accelerator: decoding of a Llama of a billion parameters against the
# card's copy bandwidth; then Multi30k English to German, trained to the end and scored on
# test_2016_flickr with beam 4. Needs a JAX that sees the accelerator and ../shared/data; the
# argument is the workdir.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
workdir=${1:-runs/multi30k_full}

python -c 'import jax; print("devices:", jax.devices())'
python scripts/benchmarks/decoding_gpu.py
started=$SECONDS
python -m t5tasks.train --config=configs/translation_multi30k_full.py --workdir="$workdir"
echo "trained in $((SECONDS - started)) s"
python -m t5tasks.evaluate --workdir="$workdir" --output="$workdir/test.json"
