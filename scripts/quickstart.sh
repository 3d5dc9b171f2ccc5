#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From a fresh clone to a table of results: makes the environment, then trains and evaluates the
# tasks on the built-in world and writes a report folder. Arguments go to
# python -m t5tasks.quickstart (--help lists them).

set -euo pipefail
# shellcheck source=scripts/environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$checkout"

exec python -m t5tasks.quickstart "$@"
