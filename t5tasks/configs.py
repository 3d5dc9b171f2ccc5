# SPDX-License-Identifier: Apache-2.0
"""Nothing in, every config file with its purpose out; or the name of one in, its resolved settings out.

    python -m t5tasks.configs
    python -m t5tasks.configs NAME      a file's path, or what the list calls it: nli, ablations/ner_subwords
"""

import ast
import json
import pathlib

from rich.console import Console
from rich.table import Table

from t5tasks import cells, command, configuration
from t5tasks.data.text_files import nearest

FOLDER = pathlib.Path(__file__).parents[1] / "configs"


def files() -> dict[str, pathlib.Path]:
    """Every config file by its name, its path in the folder without the ending; those of ablations last.

    Raises ValueError where there is no folder of them.
    """
    found = sorted(FOLDER.rglob("*.py"), key=lambda path: (len(path.relative_to(FOLDER).parts), path))
    if not found:
        raise ValueError(f"no config files in {FOLDER}: run from a checkout")
    return {path.relative_to(FOLDER).with_suffix("").as_posix(): path for path in found}


def purpose(path: pathlib.Path) -> str:
    """The first line of a file's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").partition("\n")[0]


def find(name: str) -> pathlib.Path:
    """The file of a name or path; ValueError with names like it."""
    known = files()
    if name in known:
        return known[name]
    if not pathlib.Path(name).is_file():
        raise ValueError(f"no config {name!r}; {nearest(name, known)} (python -m t5tasks.configs lists them)")
    return pathlib.Path(name)


def resolved(path: pathlib.Path) -> str:
    """The purpose, every setting, and the cells of a sweep, as JSON after comments."""
    settings = configuration.plain(configuration.read(str(path)))
    lines = [f"# {path.name}: {purpose(path)}", json.dumps(settings, indent=2)]
    if "def sweep" in path.read_text("utf-8"):
        made = cells.read(str(path))
        told = [f"#   {cell.id}  {cell.label}" for cell in made] if isinstance(made, list) else [f"#   {made}"]
        lines += ["# its sweep:", *told]
    return "\n".join(lines)


def define_flags() -> None:
    """The verb has none."""


def main(arguments: list[str]) -> None:
    """The verb."""
    if len(arguments) > 1:
        print(resolved(find(arguments[1])))
        return
    table = Table("config", "purpose")
    for name, path in files().items():
        table.add_row(name, purpose(path))
    Console().print(table)


if __name__ == "__main__":
    define_flags()
    command.run(main, arguments=1)
