# SPDX-License-Identifier: Apache-2.0
"""A record as a public data set words it comes in; the record that a task reads goes out.

A source's line names one with `convert=NAME`; it acts on every record before any other edit.

    {"Body": "Each pack costs 76 dollars", "Question": "What do 2 cost?", "Equation": "( 2.0 * 76.0 )",
     "Answer": 152.0}
    svamp  →  {"question": "Each pack costs 76 dollars. What do 2 cost?", "reasoning": "2 * 76 = 152",
               "answer": "152"}

Where the data sets come from is told in third_party/README.md.
"""

import hashlib
import re
from collections.abc import Callable
from typing import Any

Record = dict[str, Any]

# GSM8K marks what a calculator would answer: 48/2 = <<48/2=24>>24.
CALCULATION = re.compile(r"<<[^<>]*>>")
EASY_SHAPES = ("circle", "rectangle", "triangle")


def gsm8k(record: Record) -> Record:
    """GSM8K (arxiv.org/abs/2110.14168): the steps, without calculator marks, and what stands after ####."""
    steps, mark, answer = record["answer"].rpartition("####")
    if not mark:
        raise ValueError("the answer has no ####, which GSM8K's answers end with")
    return {"question": record["question"], "reasoning": CALCULATION.sub("", steps).strip(), "answer": answer.strip()}


def svamp(record: Record) -> Record:
    """SVAMP (arxiv.org/abs/2103.07191): body and question as one, the equation as the reasoning."""
    body = record["Body"].strip()
    joined = f"{body}{'' if body.endswith(('.', '?', '!', ',')) else '.'} {record['Question'].strip()}"
    answer = _number(record["Answer"])
    equation = re.sub(r"\d+\.\d+", lambda match: _number(match[0]), record["Equation"]).strip()
    equation = re.sub(r"^\( (.*) \)$", r"\1", equation) if equation.count("(") == 1 else equation
    return {"question": joined, "reasoning": f"{equation} = {answer}", "answer": answer}


def taskmaster(record: Record) -> Record:
    """Taskmaster (arxiv.org/abs/1909.05358): utterances of one speaker in a row are one turn."""
    said = [(one["speaker"].lower(), one["text"]) for one in record["utterances"]]
    return {"turns": _turns(said, {"user": "user", "assistant": "assistant"})}


def schema_guided(record: Record) -> Record:
    """Schema-Guided Dialogue (arxiv.org/abs/1909.05855)."""
    said = [(one["speaker"], one["utterance"]) for one in record["turns"]]
    return {"turns": _turns(said, {"USER": "user", "SYSTEM": "assistant"})}


def topical_chat(record: Record) -> Record:
    """Topical-Chat (arxiv.org/abs/2308.11995): whoever begins is the user."""
    said = [(one["agent"], one["message"]) for one in record["content"]]
    first = said[0][0] if said else ""
    return {"turns": _turns(said, {agent: "user" if agent == first else "assistant" for agent, _ in said})}


def dialogsum(record: Record) -> Record:
    """DialogSum (arxiv.org/abs/2105.06762); the test file has three summaries, the first is trained on."""
    names = [name for name in ("summary", "summary1", "summary2", "summary3") if name in record]
    summaries = [record[name] for name in names]
    return {"document": record["dialogue"], "summary": summaries[0], "summaries": summaries}


def scitldr(record: Record) -> Record:
    """SciTLDR (arxiv.org/abs/2004.15011): sentences of an abstract, one summary or several."""
    summaries = [text.strip() for text in record["target"] if text.strip()]
    if not summaries:
        raise ValueError("target holds no summary")
    return {"document": " ".join(record["source"]), "summary": summaries[0], "summaries": summaries}


def pubmedqa(record: Record) -> Record:
    """PubMedQA (arxiv.org/abs/1909.06146): the abstract answers at length; its verdict is `decision`.

    The PubMed id, where the file has it, stays as `id`: the official splits are lists of them.
    """
    identity = {"id": record["id"]} if "id" in record else {}
    return {**identity, "question": record["QUESTION"], "context": " ".join(record["CONTEXTS"]),
            "answers": [record["LONG_ANSWER"]], "decision": record["final_decision"]}


def fetaqa(record: Record) -> Record:
    """FeTaQA (arxiv.org/abs/2104.00369): the table's rows as lines under its titles.

    Rows with highlighted cells come first, so that a context cut at its end keeps them.
    """
    rows = record["table_array"]
    marked = {row for row, _ in record["highlighted_cell_ids"]} - {0}
    order = [0, *sorted(marked), *(row for row in range(1, len(rows)) if row not in marked)]
    lines = [f"{record['table_page_title']}, {record['table_section_title']}",
             *(" | ".join(map(str, rows[row])) for row in order)]
    return {"question": record["question"], "context": "\n".join(lines), "answers": [record["answer"]]}


def squad(record: Record) -> Record:
    """SQuAD's questions (format=squad) for retrieval: the paragraph as the passage to find, known by its content.

    An index of `file:FILE?format=squad&columns=context&rename=context:text` knows it by the same id.
    """
    text = record["context"]
    passage = {"id": content_id("", text), "title": "", "text": text}
    return {"title": record["title"], "question": record["question"],
            "answers": list(dict.fromkeys(record["answers"]["text"])), "passages": [passage],
            "passage_ids": [passage["id"]]}


def content_id(title: str, text: str) -> str:
    """What a document without an id of its own is known by: sixteen hexadecimal digits of title and text."""
    return hashlib.blake2b(f"{title}\n{text}".encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def easy_vqa(record: Record) -> Record:
    """easy-VQA (github.com/vzhou842/easy-VQA): lists [question, answer, image], with the images in images.zip.

    What a question asks for is its `kind`: yes/no, shape or colour.
    """
    question, answer, image = record["0"], record["1"], record["2"]
    kind = {"yes": "yes/no", "no": "yes/no"}.get(answer, "shape" if answer in EASY_SHAPES else "colour")
    return {"image": f"zip://images/{image}.png::images.zip", "question": question, "answers": [answer], "kind": kind}


def instruction(record: Record) -> Record:
    """Alpaca's fields (instruction, input, output) as a prompt and its completion."""
    prompt = "\n".join(text for text in (record["instruction"], record.get("input", "")) if text)
    return {"prompt": prompt, "completion": record["output"]}


CONVERSIONS: dict[str, Callable[[Record], Record]] = {
    made.__name__: made for made in (dialogsum, easy_vqa, fetaqa, gsm8k, instruction, pubmedqa, schema_guided, scitldr,
                                     squad, svamp, taskmaster, topical_chat)}


def convert(name: str, record: Record, place: str) -> Record:
    """The record as its task reads it.

    Raises:
      ValueError: the record is not of that data set; with its place and the field.
    """
    try:
        return CONVERSIONS[name](record)
    except KeyError as error:
        raise ValueError(f"{place}: convert={name} needs a field {error.args[0]!r}, which is not there; the record "
                         f"has {', '.join(record) or 'none'}") from error
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{place}: convert={name} cannot read this record: {error}") from error


def _turns(said: list[tuple[str, str]], roles: dict[str, str]) -> list[dict[str, str]]:
    """Turns of alternating roles: what one speaker says in a row is joined by spaces.

    What the user says last, without a reply, is left out: nothing of it is trained on or scored.
    """
    turns: list[dict[str, str]] = []
    for speaker, text in said:
        role = roles[speaker]
        if turns and turns[-1]["role"] == role:
            turns[-1]["text"] = f"{turns[-1]['text']} {text.strip()}"
        elif text.strip():
            turns.append({"role": role, "text": text.strip()})
    return turns[:-1] if turns and turns[-1]["role"] == "user" else turns


def _number(value: Any) -> str:
    """152.0 as 152, 0.5 as 0.5."""
    number = float(value)
    return str(int(number)) if number.is_integer() else str(number)
