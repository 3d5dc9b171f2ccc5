#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The whole check: environment, lint, types, then all tests, offline on eight simulated CPU
# devices. Arguments go to pytest (./scripts/test.sh tests/metrics -k bleu). The devices and the
# offline caches are set by tests/conftest.py, so that a plain `pytest` is the same run.

set -euo pipefail
# shellcheck source=scripts/environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$checkout"

# The tests of model-written code run it in bubblewrap; where it cannot be had, they are skipped.
if ! command -v bwrap >/dev/null && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  say "installing bubblewrap, for the tests that run programs"
  install_bubblewrap() { DEBIAN_FRONTEND=noninteractive apt-get install -y -qq bubblewrap >/dev/null 2>&1; }
  install_bubblewrap || { apt-get update -qq >/dev/null 2>&1 && install_bubblewrap; } \
    || say "could not install it: the tests that need it will be skipped"
fi

# The compiler for TPUs, which needs none to compile. It lies apart from .venv, as where it is installed JAX looks for a
# TPU whenever it starts; where it cannot be had, its tests are skipped.
if [ ! -d .cache/libtpu/libtpu ]; then
  say "fetching libtpu, the compiler for TPUs (700 MB)"
  wanted='import importlib.metadata as m; print(next(r.split(";")[0] for r in m.requires("jax") if "libtpu" in r))'
  install --no-deps --target .cache/libtpu "$(python -c "$wanted")" \
    || say "could not fetch it: the tests that need it will be skipped"
fi

say "lint (ruff)"
ruff check .
say "types (mypy)"
mypy
say "tests (pytest)"
# A process a core, four at most: each compiles its own programs, in some 3 GiB. A file's tests stay together,
# for what they share is made once a process.
exec python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile "$@"
