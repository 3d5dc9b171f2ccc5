# SPDX-License-Identifier: Apache-2.0
"""A file or folder of documents comes in; each one's id, title and text come out.

    notes/a.md       {"id": "a.md", "title": "its first heading", "text": the file as it is}
    notes/b/c.html   {"id": "b/c.html", "title": its <title>, "text": what a reader sees}
    notes/d.txt      {"id": "d.txt", "title": "d", "text": the file as it is}
    notes/e.jsonl    a document a line, {"text": ..., "title": ..., "id": ...}

What has no id of its own goes by its content, so that the same text twice is one document.
"""

import pathlib
import re
from collections.abc import Iterable, Iterator

import lxml.etree
import lxml.html

from t5tasks.data import conversions, edits, formats, sources
from t5tasks.data.formats import Located, Record

LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
TEXT, MARKDOWN, HTML = (".txt", ".text"), (".md", ".markdown"), (".html", ".htm", ".xhtml")
SUFFIXES = (*LINES, *TEXT, *MARKDOWN, *HTML)

# What a page holds beside its text, and what begins and ends a line of it.
UNSEEN = frozenset(("head", "script", "style", "noscript", "template", "svg", "math", "iframe", "object", "nav",
                    "button", "select", "textarea"))
PARAGRAPHS = frozenset(("p", "h1", "h2", "h3", "h4", "h5", "h6", "pre", "blockquote", "table", "ul", "ol", "dl",
                        "section", "article", "figure", "hr"))
LINES_OF_THEIR_OWN = frozenset((
    "br", "div", "li", "tr", "dt", "dd", "main", "header", "footer", "aside", "address", "form", "fieldset",
    "figcaption", "caption", "details", "summary", "body"))
CELLS = frozenset(("td", "th"))
BLANKS = " \t\r\n\f\xa0"
AS_IT_IS, LINE, PARAGRAPH = "\0\1\2"  # signs among a page's text: around <pre>, and where a line or paragraph ends


def is_source(place: str) -> bool:
    """Whether the place is a source's line (`sources`) and not a path."""
    return place.partition(":")[0] in edits.OPTIONS


def listed(place: str) -> list[pathlib.Path]:
    """The files that `read` reads: the one itself, or all of a folder that have one of SUFFIXES, in order.

    Raises:
      ValueError: nothing there that can be read.
    """
    root = pathlib.Path(place).expanduser()
    if root.is_dir():
        found = [path for path in sorted(root.rglob("*")) if path.is_file() and _suffix(path)
                 and not any(part.startswith(".") for part in path.relative_to(root).parts)]
    elif root.is_file() and not _suffix(root):
        raise ValueError(f"{root} is no {', '.join(SUFFIXES)}; other formats are read as sources (file:{root}?…)")
    else:
        found = [root] if root.is_file() else []
    if not found:
        raise ValueError(f"there are no documents in {root}: expected a folder with, or a file of, "
                         f"{', '.join(SUFFIXES)}")
    return found


def count(place: str) -> int:
    """How many documents there are; 0 where only reading all of them would tell."""
    if is_source(place):
        return 0
    return sum(sum(1 for _ in formats.read([path], "jsonl")) if _suffix(path) in LINES else 1
               for path in listed(place))


def read(place: str) -> Iterator[Record]:
    """Yields {"id", "title", "text"}, all of them texts, of every document, one after the other.

    Args:
      place: a file, a folder, or the line of a source whose records have a "text" (`sources`).

    Raises:
      ValueError: what cannot be read, with its file and line; two documents of one id.
    """
    if is_source(place):
        records = (_record(f"{place} record {number}", record)
                   for number, record in enumerate(sources.read(place), 1))
        return _once(records)
    root = pathlib.Path(place).expanduser()
    return _once(located for path in listed(place)
                 for located in _of_file(path, path.relative_to(root).as_posix() if root.is_dir() else path.name))


def _suffix(path: pathlib.Path) -> str:
    return next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), "")


def _of_file(path: pathlib.Path, id: str) -> Iterator[Located]:
    suffix = _suffix(path)
    if suffix in LINES:
        for place, record in formats.read([path], "jsonl"):
            yield _record(place, record)
        return
    try:
        content = path.read_bytes()
        title, text = page(content) if suffix in HTML else _plain(content, suffix, path.name)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start + 1} (0x{content[error.start]:02x}) is not UTF-8; convert the "
                         "file") from error
    except (OSError, lxml.etree.LxmlError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    yield str(path), {"id": id, "title": title, "text": text}


def _once(documents: Iterable[Located]) -> Iterator[Record]:
    """Leaves out what stood before; raises ValueError where it is another document of the same id."""
    seen: dict[str, tuple[str, int]] = {}
    for place, document in documents:
        content = hash((document["title"], document["text"]))
        first, known = seen.setdefault(document["id"], (place, content))
        if known != content:
            raise ValueError(f"{place}: there is another document with the id {document['id']!r} at {first}")
        if first == place:
            yield document


def _record(place: str, record: Record) -> Located:
    text, title, id = record.get("text"), record.get("title") or "", record.get("id")
    if not isinstance(text, str) or not isinstance(title, str):
        raise ValueError(f"{place}: expected a document with a \"text\" and perhaps a \"title\", both strings; it has "
                         f"{', '.join(f'{name} ({type(value).__name__})' for name, value in record.items())}")
    return place, {"id": conversions.content_id(title, text) if id is None else str(id), "title": title, "text": text}


def _plain(content: bytes, suffix: str, name: str) -> tuple[str, str]:
    """Title and text of a file that is read as it stands."""
    text = content.decode("utf-8-sig").replace("\r\n", "\n")
    heading = re.search(r"^ {0,3}#\s+(.+?)\s*#*\s*$|^(\S.*)\n={2,}\s*$", text, re.MULTILINE) \
        if suffix in MARKDOWN else None
    stem = name[:-len(suffix)]
    return (heading[1] or heading[2]).strip() if heading else re.sub(r"[-_]+", " ", stem), text


def page(content: bytes) -> tuple[str, str]:
    """Title and text of an HTML page, as a reader sees it: paragraphs with an empty line between them, what is in
    <pre> as it stands, cells of a row with a bar between them; no scripts, styles, menus or forms' fields.

    Raises lxml.etree.LxmlError where there is no page in it.
    """
    try:
        content.decode("utf-8")
        encoding = "utf-8"
    except UnicodeDecodeError:
        encoding = None  # then the page says which, or a browser's guess is as good as any
    parser = lxml.html.HTMLParser(encoding=encoding, remove_comments=True, remove_pis=True, huge_tree=True)
    root = lxml.html.document_fromstring(content, parser=parser)
    for error in parser.error_log:  # of which all but fatal ones are everyday
        if error.level >= lxml.etree.ErrorLevels.FATAL:
            raise lxml.etree.ParserError(f"line {error.line}: {error.message}")
    title = " ".join((root.findtext(".//title") or root.findtext(".//h1") or "").split())
    return title, _laid_out(_seen(root))


def _seen(root: lxml.html.HtmlElement) -> Iterator[str]:
    """The page's text in pieces, with the signs below where they belong; blanks as one.

    Without recursion: a page may be as deep as it likes.
    """
    preformatted = 0
    walker = lxml.etree.iterwalk(root, events=("start", "end"))
    for event, element in walker:
        tag = element.tag if isinstance(element.tag, str) else ""
        begins, hidden = event == "start", tag in UNSEEN
        if hidden and begins:
            walker.skip_subtree()
        elif not hidden:
            preformatted += (tag == "pre") * (1 if begins else -1)
            yield _sign(tag, begins)
        text = (element.text if begins and not hidden else element.tail if not begins else None) or ""
        text = text.translate(dict.fromkeys(map(ord, (AS_IT_IS, LINE, PARAGRAPH))))
        yield AS_IT_IS + text + AS_IT_IS if preformatted else re.sub(f"[{BLANKS}]+", " ", text)


def _sign(tag: str, begins: bool) -> str:
    """What stands for a tag."""
    if tag in CELLS:
        return "" if begins else " | "
    sign = PARAGRAPH if tag in PARAGRAPHS else LINE if tag in LINES_OF_THEIR_OWN else ""
    return sign + "- " if tag == "li" and begins else sign


def _laid_out(pieces: Iterable[str]) -> str:
    """The text with its signs carried out: one line's end for several, or a paragraph's where there is one."""
    parts = "".join(pieces).replace(AS_IT_IS * 2, "").split(AS_IT_IS)
    for number in range(0, len(parts), 2):
        part = re.sub(rf"(?: *\| *)+(?=[{LINE}{PARAGRAPH}]|$)", "", parts[number])
        part = re.sub(rf" *[{LINE}{PARAGRAPH}][ {LINE}{PARAGRAPH}]*",
                      lambda found: "\n\n" if PARAGRAPH in found[0] else "\n", part)
        parts[number] = re.sub(" +", " ", part)
    return "".join(parts).strip()
