#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The whole check: environment, lint, types, then all tests, offline on eight simulated CPU
# devices. Arguments go to pytest (./scripts/test.sh tests/metrics -k bleu). The devices and the
# offline caches are set by tests/conftest.py, so that a plain `pytest` is the same run.

set -euo pipefail
# shellcheck source=scripts/environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$checkout"

say "lint (ruff)"
ruff check .
say "types (mypy)"
mypy
say "tests (pytest)"
exec python -m pytest "$@"
