# SPDX-License-Identifier: Apache-2.0
r"""The path of a file of text comes in, gzipped or not; its lines go out, each with its number.

    "a.en.gz"   ->   (1, "A dog runs.\n"), (2, "\n"), ...
"""

import codecs
import contextlib
import difflib
import gzip
import io
import pathlib
import sys
import zlib
from collections.abc import Iterable, Iterator
from typing import IO, cast

STANDARD_INPUT = pathlib.Path("-")  # the path that is no file's: what a pipe brings


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of an error message: names like the given one, or all where none is."""
    names = sorted(names)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(names)}"


def require(path: pathlib.Path, encoding: str = "utf-8") -> None:
    """Raises ValueError unless the path is a file's, or STANDARD_INPUT, and Python knows the encoding."""
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise ValueError(f"unknown encoding {encoding!r}: expected utf-8, latin-1 …") from None
    if path.is_file() or path == STANDARD_INPUT:
        return
    if path.is_dir():
        raise ValueError(f"{path} is a folder: expected a file (hub: reads folders)")
    folder = path.parent
    if not folder.is_dir():
        raise ValueError(f"no file {path}: there is no folder {folder}")
    names = [entry.name for entry in folder.iterdir() if entry.is_file()]
    hint = nearest(path.name, names) if names else "that folder holds no files"
    raise ValueError(f"no file {path}: {hint}")


def lines(path: pathlib.Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Yields (number from 1, line with its ending); only a newline ends a line. See STANDARD_INPUT.

    Raises:
      ValueError: on the way, for bytes that are no text of this encoding, with the file and the line.
    """
    try:
        with _opened(path) as stream:
            if codecs.lookup(encoding).name.startswith(("utf-16", "utf-32")):
                # There a byte of value 10 need not end a line, so the text is decoded whole.
                text = io.StringIO(_decode(stream.read(), encoding, f"{path}"), newline="\n")
                yield from enumerate(text, 1)
                return
            for number, content in enumerate(stream, 1):
                line = _decode(content, encoding, f"{path}:{number}")
                if number == 1:
                    line = line.removeprefix("\ufeff")  # the mark some editors open a file with
                    if line.startswith("version https://git-lfs"):
                        raise ValueError(f"{path} is a Git LFS pointer: fetch it with git lfs pull")
                yield number, line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is a damaged gzip file: {error}") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error


def _opened(path: pathlib.Path) -> contextlib.AbstractContextManager[IO[bytes]]:
    if path == STANDARD_INPUT:
        return contextlib.nullcontext(sys.stdin.buffer)
    return cast("IO[bytes]", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _decode(content: bytes, encoding: str, place: str) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{place}: byte {error.start + 1} of it (0x{content[error.start]:02x}) is not "
            f"{encoding}: add encoding=, such as latin-1, or mend the file"
        ) from error
