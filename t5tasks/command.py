# SPDX-License-Identifier: Apache-2.0
"""A verb's main function in, a process out: flags parsed, mistakes told in one clear line."""

import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import jax
from absl import app, logging
from ml_collections import config_flags


def config_flag() -> None:
    """Defines --config=FILE, with --config.NAME=VALUE for every setting in it."""
    config_flags.DEFINE_config_file(
        "config", None, "Python file whose get_config() returns the settings; any of them can be "
        "overridden, as in --config.optimizer.learning_rate=1e-3", lock_config=True)


def run(main: Callable[[list[str]], Any]) -> None:
    """Runs main under absl. A user's mistake (ValueError, a missing file) is one line on standard
    error and exit status 1; set T5TASKS_TRACEBACK=1 to see where it came from."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    logging.set_verbosity(logging.WARNING)
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):  # a program compiled once is there for the next run
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(cache / "t5tasks" / "jax"))
    try:
        app.run(main)
    except (ValueError, KeyError, AttributeError, TypeError, OSError) as error:
        if os.environ.get("T5TASKS_TRACEBACK") or not _is_mistake(error):
            raise
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        print("error: " + " ".join(str(message).split()), file=sys.stderr)
        sys.exit(1)


def _is_mistake(error: Exception) -> bool:
    """Whether the error is about what the user gave, not about our own code."""
    if isinstance(error, ValueError | OSError):
        return True
    # ml_collections reports an unknown setting as KeyError or AttributeError, a wrong type as TypeError.
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and "ml_collections" in trace.tb_frame.f_code.co_filename
