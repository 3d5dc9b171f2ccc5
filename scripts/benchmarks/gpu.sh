#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Trains Multi30k English to German to the end on an accelerator and scores test_2016_flickr with
# beam 4. Needs a JAX that sees the accelerator and ../shared/data; the argument is the workdir.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
workdir=${1:-runs/multi30k_full}

python -c 'import jax; print("devices:", jax.devices())'
started=$SECONDS
python -m t5tasks.train --config=configs/translation_multi30k_full.py --workdir="$workdir"
echo "trained in $((SECONDS - started)) s"
python -m t5tasks.evaluate --config=configs/translation_multi30k_full.py --workdir="$workdir" \
  --config.decode.method=beam --output="$workdir/test.json"
