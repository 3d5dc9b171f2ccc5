# SPDX-License-Identifier: Apache-2.0
"""A file's opening bytes come in; an error goes out where a download left something else under its name."""

import pathlib

OPENING = 64  # bytes that tell


def refuse_leftovers(path: pathlib.Path, expected: str) -> None:
    """Raises ValueError where the file is empty, a Git LFS pointer or an HTML page, not `expected`."""
    with path.open("rb") as file:
        opening = file.read(OPENING).lstrip().lower()
    if not opening:
        raise ValueError(f"{path} is empty, expected {expected}: download it again")
    if opening.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path} is a Git LFS pointer, not {expected}: fetch it with `git lfs pull`")
    if opening.startswith((b"<!doctype", b"<html")):
        raise ValueError(f"{path} is an HTML page, not {expected}: download the raw file")
