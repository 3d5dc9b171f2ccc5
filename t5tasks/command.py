# SPDX-License-Identifier: Apache-2.0
"""A verb's main function in, a process out: flags parsed, mistakes told in one clear line."""

import dataclasses
import functools
import os
import pathlib
import sys
from collections.abc import Callable
from logging import LogRecord
from typing import Any

import jax
import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from t5tasks import configuration


class ConfigFile(flags.ArgumentParser):
    """A config file's path in, its settings out; names of overrides are checked on the way."""

    def parse(self, path: str) -> ml_collections.ConfigDict:
        try:
            config = configuration.read(path)
            configuration.check_overrides(config, sys.argv[1:])
        except ValueError as error:  # a ValueError would be told as one of the flag's own text
            raise flags.Error(str(error)) from error
        return config

    def flag_type(self) -> str:
        return "config file"


def config_flag() -> None:
    """Defines --config=FILE, with --config.NAME=VALUE for every setting in it."""
    config_flags.DEFINE_config_file(
        "config", None, "Python file whose get_config() returns the settings, or a run's config.json; any of "
        "them can be overridden, as in --config.optimizer.learning_rate=1e-3", lock_config=True)
    flags.FLAGS["config"].parser = ConfigFile()  # the library's own reader tells mistakes by tracebacks


def prepare() -> None:
    """What every process of a verb begins with: no telemetry, only warnings, and the cache of compiled programs."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    logging.set_verbosity(logging.WARNING)
    # What orbax cannot write or read is raised too, and told in one line.
    logging.get_absl_logger().addFilter(_is_not_orbax)
    if not isinstance(sys.unraisablehook, Unraisable):
        sys.unraisablehook = Unraisable(sys.unraisablehook)
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):  # a program compiled once is there for the next run
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(cache / "t5tasks" / "jax"))


def _is_not_orbax(record: LogRecord) -> bool:
    return "/orbax/" not in record.pathname


@dataclasses.dataclass(frozen=True)
class Unraisable:
    """A hook for errors that nobody can catch, less those of writing threads that come home to a failed save."""

    hook: Callable[[Any], Any]

    def __call__(self, error: Any) -> None:
        if str(error.exc_value) != "Event loop is closed":
            self.hook(error)


def run(main: Callable[[list[str]], Any], arguments: int = 0) -> None:
    """Runs main under absl. A user's mistake (ValueError, a missing file) is one line on standard
    error and exit status 1; set T5TASKS_TRACEBACK=1 to see where it came from. Ctrl-C exits with 130."""
    prepare()
    try:
        app.run(main, flags_parser=functools.partial(_parse, most=arguments))
    except (KeyboardInterrupt, Exception) as error:
        if (status := told(error)) is None:
            raise
        sys.exit(status)


def told(error: BaseException) -> int | None:
    """Tells a user's mistake or Ctrl-C in one line, and returns the exit status; None for any other error."""
    if isinstance(error, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return 130
    if os.environ.get("T5TASKS_TRACEBACK") or not _is_mistake(error):
        return None
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    print("error: " + " ".join(str(message).split()), file=sys.stderr)
    return 1


def _parse(arguments: list[str], most: int) -> list[str]:
    """Sets the flags; ValueError for one that is unknown or wrong, and for more than `most` that are no flags."""
    try:
        rest = flags.FLAGS(arguments)
    except flags.UnrecognizedFlagError as error:
        hint = "--help lists the flags"
        if error.flagname.startswith("config."):
            hint = "settings need a --config=FILE before them; a run's own is its WORKDIR/config.json"
        raise ValueError(f"{error} ({hint})") from error
    except flags.Error as error:
        raise ValueError(str(error)) from error
    if len(rest) > 1 + most:
        raise ValueError(f"unexpected argument {rest[1 + most]!r}; all are flags, --NAME=VALUE (--help lists them)")
    return rest


def _is_mistake(error: BaseException) -> bool:
    """Whether the error is about what the user gave, not about our own code."""
    if isinstance(error, ValueError | OSError):
        return True
    if not isinstance(error, KeyError | AttributeError | TypeError):
        return False
    # ml_collections reports an unknown setting as KeyError or AttributeError, a wrong type as TypeError.
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and "ml_collections" in trace.tb_frame.f_code.co_filename
