# SPDX-License-Identifier: Apache-2.0
"""A record's passages in, each with its number, id, title and text out."""

from collections.abc import Mapping
from typing import Any

from t5tasks.tasks.task import Record


def numbered(record: Record, count: int | None = None) -> list[dict[str, Any]]:
    """{"number" from 1, "id", "title", "text"} of the first `count` passages, or of all.

    A passage without an id has its number for one.

    Raises:
      ValueError: a passage that is no object with a text.
    """
    found = []
    for number, passage in enumerate(record["passages"][:count], 1):
        if not isinstance(passage, Mapping) or not isinstance(passage.get("text"), str):
            raise ValueError(f"passage {number} of question {record['question']!r:.60} is {passage!r:.60}, expected an "
                             "object with a \"text\" and perhaps an \"id\" and a \"title\"")
        id = passage.get("id")
        found.append({"number": number, "id": str(number if id is None else id), "title": passage.get("title") or "",
                      "text": passage["text"]})
    return found
