# SPDX-License-Identifier: Apache-2.0
"""The registry: a task's name in, its `Task` record out. The files of this folder that have a TASK are the tasks."""

import difflib
import functools
import importlib
import pathlib
import types

from t5tasks.tasks.task import Form, Options, Task

__all__ = ["Form", "Task", "get", "names"]


@functools.cache
def names() -> tuple[str, ...]:
    """The tasks' names: every module of this folder that defines TASK, sorted."""
    folder = pathlib.Path(__file__).parent
    stems = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
    return tuple(stem for stem in stems if hasattr(_module(stem), "TASK"))


def _module(name: str) -> types.ModuleType:
    return importlib.import_module(f"t5tasks.tasks.{name}")


def get(name: str, options: Options | None = None) -> Task:
    """The task of this name, as the options (config.task) make it.

    Raises:
      ValueError: no such task; the nearest names and all names are listed.
    """
    if name not in names():
        nearest = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {nearest[0]!r}? " if nearest else ""
        raise ValueError(f"unknown task {name!r}; {hint}tasks are {', '.join(names())}")
    task: Task = _module(name).TASK
    return (task.variant(options) if options else None) or task
