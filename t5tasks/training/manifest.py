# SPDX-License-Identifier: Apache-2.0
"""The files of a checkpoint's step in, their SHA-256 out as its manifest; a step and its manifest in, the damage out.

    7/manifest.json = {"parameters/ocdbt.process_0/d/3f0c…": {"size": 4096, "sha256": "9b74…"}, …}

The storage library notices no flipped bit, and takes a step for whole that was copied by half. Each process hashes what
it has written itself, while that is still in memory, in the thread that wrote it; process 0 the rest, and joins the
parts before the step gets its name, so that a step which has a name has a manifest.
"""

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from etils import epath

NAME = "manifest.json"
REWRITTEN = {NAME, "_CHECKPOINT_METADATA", "commit_success.txt"}  # by the storage library, after the manifest was made
UNFINISHED = r"\.orbax-checkpoint-tmp[^/]*"  # ends the name of an item's folder until all processes have written it
PIECE = 1 << 22  # bytes
MOST_THREADS = 8

Entries = dict[str, dict[str, Any]]  # path from the step's folder on → size (bytes), sha256 (hexadecimal)


def write_part(folder: epath.Path, process: int) -> None:
    """Hashes what a process has written into the folder of a step, for `seal`."""
    _write(folder / f"manifest.{process}.json", _entries(folder, process))


def seal(folder: epath.Path, processes: int) -> None:
    """Writes the manifest of a step: what process 0 wrote, and the parts of the others (made here, where missing)."""
    entries = _entries(folder, 0)
    parts = {process: folder / f"manifest.{process}.json" for process in range(1, processes)}
    for process, part in parts.items():
        entries |= json.loads(part.read_text()) if part.exists() else _entries(folder, process)
    _write(folder / NAME, entries)
    for part in parts.values():
        part.unlink(missing_ok=True)


def damage(folder: epath.Path, items: Collection[str] = (), process: int = 0, processes: int = 1) -> str:
    """What is wrong with a step; empty where nothing is.

    Args:
      items: names of the parts of the step to look at; all by default.
      process, processes: which share of the files to look at.
    """
    try:
        entries: Entries = json.loads((folder / NAME).read_text())
        wanted = sorted(path for path in entries if not items or path.split("/")[0] in items)
        if missing := {*items} - {path.split("/")[0] for path in wanted} - {"metrics"}:
            return f"it has no {sorted(missing)[0]}"
        mine = {path: entries[path] for path in wanted[process::processes]}
        for path, entry in mine.items():
            size = (folder / path).stat().length
            if size != entry["size"]:
                return f"{path} has {size:,} bytes instead of {entry['size']:,}"
        digests = _hashed(folder, mine)
    except FileNotFoundError as error:
        return f"{os.path.relpath(error.filename or NAME, folder)} is missing"
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return f"it cannot be read ({error})"
    changed = [path for path, entry in mine.items() if digests[path] != entry["sha256"]]
    return f"{changed[0]} has other bytes than were written" if changed else ""


def _entries(folder: epath.Path, process: int) -> Entries:
    """Of the files that this process has written; whatever is no process's own, process 0 has."""
    found = {}
    for path in _files(folder):
        name = os.path.relpath(path, folder)
        owner = re.search(r"ocdbt\.process_(\d+)/", name)
        if (int(owner[1]) if owner else 0) == process and not re.fullmatch(r"manifest\.\d+\.json", name):
            found[name] = path.stat().length
    found = {name: size for name, size in found.items() if name not in REWRITTEN}
    digests = _hashed(folder, found)
    return {re.sub(UNFINISHED, "", name): {"size": size, "sha256": digests[name]} for name, size in found.items()}


def _files(folder: epath.Path) -> Iterable[epath.Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _files(path)
        else:
            yield path


def _hashed(folder: epath.Path, names: Iterable[str]) -> Mapping[str, str]:
    def digest(name: str) -> str:
        found = hashlib.sha256()
        with (folder / name).open("rb") as file:
            while piece := file.read(PIECE):
                found.update(piece)  # other threads run meanwhile
        return found.hexdigest()

    names = list(names)
    with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
        return dict(zip(names, pool.map(digest, names), strict=True))


def _write(path: epath.Path, entries: Entries) -> None:
    path.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n")
