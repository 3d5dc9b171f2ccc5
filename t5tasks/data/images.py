# SPDX-License-Identifier: Apache-2.0
r"""A record's image, wherever it lies, comes in; its pixels uint8[height, width, 3], upright, go out.

    "photos/cat.jpg"                         a path, from the folder of the record's own file
    "zip://images/0.png::train/images.zip"   a member of a zip file, as fsspec writes it
    "data:image/png;base64,iVBORw0KGgo="     a data URI
    b"\x89PNG\r\n..."                        the file itself
    {"bytes": b"...", "path": "cat.jpg"}     either of them, as `datasets` keeps images

PNG, JPEG and WebP are read; of an animation, the first picture. What a camera notes of its position
(EXIF) turns the picture. Grey becomes three equal channels, a palette its colours, 16 bits their
upper 8; what a pixel hides under its transparency is shown, as the reference processors do.
"""

import base64
import binascii
import functools
import io
import os
import pathlib
import re
import urllib.parse
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("PNG", "JPEG", "WEBP")
# Beyond these an image is refused before it is unpacked: a small file may claim to be a huge picture.
MOST_BYTES = 2**27
MOST_PIXELS = 2**26
MEMBER = re.compile(r"zip://(?P<member>.+?)::(?P<archive>.+)", re.DOTALL)
SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://")


def pixels(image: Any, place: str) -> np.ndarray:
    """uint8[height, width, 3] of a record's image.

    Args:
      image: see the module's first lines.
      place: of the record, for errors.

    Raises:
      ValueError: there is no such file, it is no image, damaged or too large; in one line, with record and file.
    """
    name = named(image)
    try:
        return decoded(content(image))
    except ValueError as error:
        raise ValueError(f"{place}: image {name}: {error}") from error


def located(image: Any, folder: pathlib.Path) -> Any:
    """The image, or a list of them, with paths from `folder` on; what is no path stays as it is."""
    if isinstance(image, list | tuple):
        return [located(one, folder) for one in image]
    if isinstance(image, Mapping):
        return {**image, "path": located(image["path"], folder)} if image.get("path") else image
    if not isinstance(image, str) or image.startswith("data:"):
        return image
    if found := MEMBER.fullmatch(image):
        return f"zip://{found['member']}::{folder / pathlib.Path(found['archive']).expanduser()}"
    return image if SCHEME.match(image) else str(folder / pathlib.Path(image).expanduser())


def named(image: Any) -> str:
    """What an error calls the image: its path, or what it is where it has none."""
    if isinstance(image, Mapping):
        return named(image.get("path") or image.get("bytes"))
    if isinstance(image, str):
        return f"{image[:40]}..." if image.startswith("data:") and len(image) > 40 else image
    return f"of {len(image)} bytes" if isinstance(image, bytes) else f"of type {type(image).__name__}"


def content(image: Any) -> bytes:
    """The file's bytes; ValueError where there is none, or it is too large."""
    if isinstance(image, Mapping):
        image = image.get("bytes") or image.get("path")
    if isinstance(image, bytes):
        _check_size(len(image))
        return image
    if not isinstance(image, str) or not image:
        raise ValueError("expected a path, a data URI, zip://MEMBER::ARCHIVE or the file's bytes")
    if image.startswith("data:"):
        return _of_uri(image)
    if found := MEMBER.fullmatch(image):
        return _of_archive(pathlib.Path(found["archive"]), found["member"])
    if SCHEME.match(image):
        raise ValueError("images are not fetched from elsewhere; save it to a file and name that")
    path = pathlib.Path(image)
    try:
        _check_size(path.stat().st_size)
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error


def decoded(file: bytes) -> np.ndarray:
    """uint8[height, width, 3] of a PNG, JPEG or WebP file; ValueError where it is none, damaged or too large."""
    try:
        with Image.open(io.BytesIO(file), formats=FORMATS) as opened:
            width, height = opened.size
            if width * height <= MOST_PIXELS:
                return _rgb(ImageOps.exif_transpose(opened))
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"is no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"is too large: expected at most {MOST_PIXELS:,} pixels") from error
    except Exception as error:  # a damaged file may go wrong anywhere in a decoder
        reason = f"{error}".partition("\n")[0] or type(error).__name__
        raise ValueError(f"is damaged: {reason}") from error
    raise ValueError(f"is too large: {width} x {height} pixels, expected at most {MOST_PIXELS:,} in all")


def _rgb(image: Image.Image) -> np.ndarray:
    """Three channels of 8 bits. Pillow itself would cut 16 bits of grey off at 255; of colours it keeps the upper 8."""
    if image.mode.startswith("I"):
        grey = (np.clip(np.asarray(image), 0, 0xFFFF).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.array(image.convert("RGB"))


def _check_size(size: int) -> None:
    if size > MOST_BYTES:
        raise ValueError(f"is too large: {size:,} bytes, expected at most {MOST_BYTES:,}")


def _of_uri(uri: str) -> bytes:
    """What a data URI holds (rfc-editor.org/rfc/rfc2397)."""
    head, comma, body = uri.partition(",")
    _check_size(len(body) * 3 // 4)
    if not comma:
        raise ValueError("is a data URI without a comma; expected data:image/png;base64,...")
    if not head.endswith(";base64"):
        return urllib.parse.unquote_to_bytes(body)
    try:
        return base64.b64decode(urllib.parse.unquote(body), validate=True)
    except binascii.Error as error:
        raise ValueError(f"is a data URI whose base64 is damaged: {error}") from error


def _of_archive(path: pathlib.Path, member: str) -> bytes:
    try:
        status = path.stat()
        archive = _archive(path, status.st_mtime_ns, status.st_size, os.getpid())
        _check_size(archive.getinfo(member).file_size)
        return archive.read(member)
    except KeyError as error:
        raise ValueError(f"is not in the zip file, which holds {len(archive.namelist())} others") from error
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from error
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"cannot be taken out of the zip file: {error}") from error


@functools.lru_cache(maxsize=8)
def _archive(path: pathlib.Path, changed: int, size: int, process: int) -> zipfile.ZipFile:
    """An open zip file, whose table of contents is read once; one handle serves the threads of one process."""
    return zipfile.ZipFile(path)
