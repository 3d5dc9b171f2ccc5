# SPDX-License-Identifier: Apache-2.0
"""Every Python file of the checkout is read, and each line of DESIGN.md that it crosses comes out.

Each rule is a function from one file to what it breaks; `test_each_rule_sees_what_it_forbids` shows
every rule a file that breaks it, so that a rule which has gone blind fails.
"""

from __future__ import annotations

import ast
import configparser
import dataclasses
import functools
import importlib.metadata
import pathlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping

import pytest

CHECKOUT = pathlib.Path(__file__).parents[1]
PACKAGE = "t5tasks"
LONGEST_FILE = 450  # lines
VAGUE_NAMES = {"util", "utils", "common", "helper", "helpers", "misc"}

# An import only points down. A floor higher up in this list may import every floor below it;
# between rooms of one floor there is no arrow, inside a room there is.
FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"verbs"}),
    frozenset({"tasks", "decode", "pretrained", "training"}),
    frozenset({"data", "metrics", "retrieval"}),
    frozenset({"models", "sharding"}),
)
ROOMS = frozenset().union(*FLOORS)

# What a room does without even where its floor would allow it. Every room but models/ does
# without Flax, and all do without the frameworks that JAX replaces.
FORBIDDEN = {
    "tasks": {"jax", "jaxlib", "optax", f"{PACKAGE}.models", f"{PACKAGE}.sharding"},
    "data": {f"{PACKAGE}.models"},
    "metrics": {"jax", "jaxlib"},
}
FRAMEWORKS = {"torch", "torchvision", "tensorflow", "keras", "seqio", "t5x", "clu"}


@dataclasses.dataclass(frozen=True)
class File:
    """One Python file: its path from the checkout, its text and its syntax tree."""

    path: pathlib.PurePosixPath
    text: str
    tree: ast.Module

    @property
    def in_package(self) -> bool:
        return self.path.parts[0] == PACKAGE

    @property
    def room(self) -> str | None:
        """The room a file of the package is in; None for t5tasks/__init__.py and outside."""
        if not self.in_package or self.path == pathlib.PurePosixPath(PACKAGE, "__init__.py"):
            return None
        return _room_of(self.path.with_suffix("").parts[1:])


def _room_of(parts: tuple[str, ...]) -> str:
    """Returns the room of a module path inside the package: ('tasks', 'nli') → 'tasks'.

    A module that stands directly in the package is a verb, but for sharding.py.
    """
    return parts[0] if parts[0] in ROOMS or len(parts) > 1 else "verbs"


def _parse(path: str, text: str) -> File:
    return File(pathlib.PurePosixPath(path), text, ast.parse(text, path))


def _files(*folders: str) -> list[File]:
    """Returns the Python files of the folders that exist."""
    return [
        _parse(path.relative_to(CHECKOUT).as_posix(), path.read_text("utf-8"))
        for folder in folders
        for path in sorted((CHECKOUT / folder).rglob("*.py"))
    ]


def _imports(file: File, nodes: Iterable[ast.AST] | None = None) -> Iterator[tuple[int, str]]:
    """Yields (line, full module name) of every import in `nodes`, those in functions included.

    `from t5tasks.data import batches` yields t5tasks.data.batches: whether the last part is a
    module or a function changes neither its room nor its package.
    """
    for node in ast.walk(file.tree) if nodes is None else nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = file.path.parts[: -node.level]
                base = ".".join([*above, *([base] if base else [])])
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def _is_within(module: str, names: set[str]) -> bool:
    return any(module == name or module.startswith(name + ".") for name in names)


def arrows_point_down(file: File) -> Iterator[str]:
    floors = {room: height for height, floor in enumerate(FLOORS) for room in floor}
    for line, module in _imports(file):
        parts = tuple(module.split("."))
        if not file.in_package or parts[0] != PACKAGE or len(parts) < 2:
            continue
        if file.room is None:
            yield f"{line}: {PACKAGE}/__init__.py imports {module}, so every import would"
            continue
        if parts[1].startswith("__"):  # t5tasks.__version__
            continue
        # `from t5tasks import tasks` names a room, `from t5tasks import train` a verb.
        there = _room_of(parts[1:] if parts[1] in ROOMS else parts[1:2])
        if there != file.room and floors[there] <= floors.get(file.room, -1):
            yield f"{line}: {file.room} imports {module}, which is not on a floor below it"


def rooms_are_known(file: File) -> Iterator[str]:
    if file.room is not None and file.room not in ROOMS:
        yield f"1: the room {file.room}/ stands on no floor of DESIGN.md"


def rooms_do_without(file: File) -> Iterator[str]:
    if not file.in_package:
        return
    forbidden = FRAMEWORKS | FORBIDDEN.get(file.room or "", set())
    if file.room != "models":
        forbidden = forbidden | {"flax"}
    for line, module in _imports(file):
        if _is_within(module, forbidden):
            yield f"{line}: {file.room} imports {module}"


def configs_import_nothing_of_ours(file: File) -> Iterator[str]:
    if file.path.parts[0] != "configs":
        return
    pending: list[ast.AST] = list(file.tree.body)
    top_level: list[ast.AST] = []
    while pending:
        node = pending.pop()
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            top_level.append(node)
            pending.extend(ast.iter_child_nodes(node))
    for line, module in _imports(file, top_level):
        if _is_within(module, {PACKAGE}):
            yield f"{line}: a config imports {module} at module level"


# Runs in a box that holds nothing else, see t5tasks/metrics/sandbox.py: there, running code is what it is for.
INSIDE_THE_SANDBOX = {"t5tasks/metrics/sandbox_guest.py"}


def nothing_dangerous_is_called(file: File) -> Iterator[str]:
    for line, module in _imports(file):
        if _is_within(module, {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve"}):
            yield f"{line}: imports {module}, which can run code that a file holds"
    for node in ast.walk(file.tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func).rsplit(".", 1)[-1]
        if name in {"eval", "exec"} and str(file.path) not in INSIDE_THE_SANDBOX:
            yield f"{node.lineno}: calls {name}()"
        for keyword in node.keywords:
            is_true = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
            if is_true and keyword.arg in {"shell", "trust_remote_code", "allow_pickle"}:
                yield f"{node.lineno}: calls {name}() with {keyword.arg}=True"


def names_say_what_is_inside(file: File) -> Iterator[str]:
    vague = VAGUE_NAMES & set(file.path.with_suffix("").parts)
    if vague:
        yield f"1: {vague.pop()} is a name for anything; name what is inside"


def modules_open_with_licence_and_sentence(file: File) -> Iterator[str]:
    lines = [line for line in file.text.splitlines()[:2] if not line.startswith("#!")]
    if not lines or lines[0] != "# SPDX-License-Identifier: Apache-2.0":
        yield "1: the first line is not '# SPDX-License-Identifier: Apache-2.0'"
    if not ast.get_docstring(file.tree):
        yield "1: no docstring that says what comes in and what goes out"


def files_are_short(file: File) -> Iterator[str]:
    lines = len(file.text.splitlines())
    if file.in_package and lines > LONGEST_FILE:
        yield f"{lines}: longer than {LONGEST_FILE} lines: does it hold two rooms?"


def imports_are_declared(file: File) -> Iterator[str]:
    """An import that setup.cfg does not ask for works only by the grace of another package."""
    if not file.in_package:
        return
    providers, declared = _providers(), _declared()
    for line, module in _imports(file):
        top = module.split(".")[0]
        if top in sys.stdlib_module_names or top == PACKAGE:
            continue
        names = {_canonical(name) for name in providers.get(top, [top])}
        if not names & declared:
            yield f"{line}: imports {module}, but setup.cfg requires none of {sorted(names)}"


@functools.cache
def _providers() -> Mapping[str, list[str]]:
    """Returns which installed distributions provide each top-level module."""
    return importlib.metadata.packages_distributions()


def _canonical(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


@functools.cache
def _declared() -> set[str]:
    """Returns the distributions that setup.cfg names, extras (and jax's own jaxlib) included."""
    setup = configparser.ConfigParser()
    setup.read(CHECKOUT / "setup.cfg", encoding="utf-8")
    lines = setup["options"]["install_requires"].splitlines()
    for extra in setup["options.extras_require"].values():
        lines += extra.splitlines()
    names = (re.match(r"[\w.-]+", line.strip()) for line in lines)
    return {_canonical(name[0]) for name in names if name} | {"jaxlib"}


# rule, the folders it reads, a file that breaks it
RULES: tuple[tuple[Callable[[File], Iterator[str]], str, str, str], ...] = (
    (arrows_point_down, PACKAGE, "t5tasks/models/block.py", "from t5tasks.data import batches"),
    (arrows_point_down, PACKAGE, "t5tasks/tasks/nli.py", "from t5tasks import decode"),
    (arrows_point_down, PACKAGE, "t5tasks/decode/loop.py", "import t5tasks.tasks.nli"),
    (arrows_point_down, PACKAGE, "t5tasks/data/tokenizer.py", "from ..metrics import text"),
    (arrows_point_down, PACKAGE, "t5tasks/training/step.py", "from t5tasks import train"),
    (arrows_point_down, PACKAGE, "t5tasks/sharding.py", "from t5tasks.models import block"),
    (arrows_point_down, PACKAGE, "t5tasks/__init__.py", "from t5tasks import tasks"),
    (rooms_are_known, PACKAGE, "t5tasks/attic/box.py", "x = 1"),
    (rooms_do_without, PACKAGE, "t5tasks/training/step.py", "def f():\n    import flax.linen"),
    (rooms_do_without, PACKAGE, "t5tasks/tasks/nli.py", "from jax import numpy"),
    (rooms_do_without, PACKAGE, "t5tasks/tasks/nli.py", "import t5tasks.models.block"),
    (rooms_do_without, PACKAGE, "t5tasks/data/batches.py", "from t5tasks import models"),
    (rooms_do_without, PACKAGE, "t5tasks/decode/loop.py", "from flax import linen"),
    (rooms_do_without, PACKAGE, "t5tasks/models/block.py", "import torch.nn"),
    (rooms_do_without, PACKAGE, "t5tasks/train.py", "from tensorflow import io"),
    (configs_import_nothing_of_ours, "configs", "configs/nli.py", "from t5tasks import tasks"),
    (configs_import_nothing_of_ours, "configs", "configs/nli.py", "if 1:\n    import t5tasks.x"),
    (nothing_dangerous_is_called, "t5tasks scripts configs", "scripts/a.py", "import pickle"),
    (nothing_dangerous_is_called, "t5tasks scripts configs", "t5tasks/a.py", "eval('1')"),
    (
        nothing_dangerous_is_called,
        "t5tasks scripts configs",
        "t5tasks/a.py",
        "subprocess.run('ls', shell=True)",
    ),
    (
        nothing_dangerous_is_called,
        "t5tasks scripts configs",
        "t5tasks/a.py",
        "load('x', trust_remote_code=True)",
    ),
    (names_say_what_is_inside, "t5tasks scripts configs", "t5tasks/data/utils.py", "x = 1"),
    (names_say_what_is_inside, "t5tasks scripts configs", "t5tasks/common/text.py", "x = 1"),
    (
        modules_open_with_licence_and_sentence,
        "t5tasks scripts configs tests",
        "t5tasks/data/batches.py",
        '"""Records come in."""\n',
    ),
    (
        modules_open_with_licence_and_sentence,
        "t5tasks scripts configs tests",
        "t5tasks/data/batches.py",
        "# SPDX-License-Identifier: Apache-2.0\nx = 1\n",
    ),
    (files_are_short, PACKAGE, "t5tasks/data/batches.py", "x = 1\n" * (LONGEST_FILE + 1)),
    (imports_are_declared, PACKAGE, "t5tasks/data/batches.py", "import no_such_package"),
)
FOLDERS = {rule: folders for rule, folders, _, _ in RULES}


@pytest.mark.parametrize("rule", FOLDERS, ids=lambda rule: rule.__name__)
def test_the_house_keeps_its_rules(rule: Callable[[File], Iterator[str]]) -> None:
    files = _files(*FOLDERS[rule].split())
    broken = [f"{file.path}:{offence}" for file in files for offence in rule(file)]
    assert not broken, "\n".join(["", *broken])


@pytest.mark.parametrize(
    ("rule", "path", "text"), [(rule, path, text) for rule, _, path, text in RULES]
)
def test_each_rule_sees_what_it_forbids(
    rule: Callable[[File], Iterator[str]], path: str, text: str
) -> None:
    assert list(rule(_parse(path, text)))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("t5tasks/train.py", "from t5tasks import sharding, tasks, evaluate, __version__"),
        ("t5tasks/training/loop.py", "from t5tasks.training import step\nfrom . import state"),
        ("t5tasks/tasks/nli.py", "from t5tasks.data import tokenizer\nimport t5tasks.metrics"),
        ("t5tasks/pretrained/bert.py", "import t5tasks.models.config\nfrom .. import sharding"),
        ("t5tasks/models/block.py", "import jax\nfrom flax import linen"),
        ("configs/nli.py", "def tables():\n    from t5tasks import metrics\n    return metrics"),
        ("t5tasks/data/batches.py", "import numpy as np\nimport PIL.Image\nfrom absl import flags"),
    ],
)
def test_what_the_floors_allow_is_allowed(path: str, text: str) -> None:
    file = _parse(path, text)
    header = {modules_open_with_licence_and_sentence}
    offences = [offence for rule in FOLDERS if rule not in header for offence in rule(file)]
    assert not offences


def test_the_package_is_read_and_every_room_is_a_package() -> None:
    folders = {path.parent for path in (CHECKOUT / PACKAGE).rglob("*.py")}
    assert CHECKOUT / PACKAGE in folders
    without = [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()]
    assert not without, f"no __init__.py, so an installed t5tasks would lack: {without}"
