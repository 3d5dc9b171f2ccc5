# SPDX-License-Identifier: Apache-2.0
"""A run as it began and as it is asked for now in; whether it can go on out, and where its data go on.

A run that goes on with other data, or with the same in another order, is another run, and nothing would tell:
so it is refused by the name of what differs, unless that is asked for.
"""

import json
from collections.abc import Mapping
from typing import Any

import ml_collections

from t5tasks import configuration, experiment, sharding
from t5tasks.experiment import Experiment
from t5tasks.training import agreement
from t5tasks.training.loop import Plan

# What decides which rows a batch holds, and how many there are. The rest of a run's identity is never overridden.
DATA = ("data.train", "records", "seed", "batch", "tokenizer", "data_shards", "steps")


def fingerprint(run: Experiment, plan: Plan, records: int) -> dict[str, Any]:
    """What the order and content of batches depend on; a resumed run must agree in all of it.

    data_shards: into how many parts the mesh splits the data over processes, each packed by itself. Rows that are
    not packed stand in the same order on any mesh and with any number of processes.
    """
    config = configuration.plain(run.config)
    return {"data.train": config["data"]["train"], "records": records, "seed": config["seed"],
            "batch": {name: config["batch"][name] for name in ("size", "length", "source_length", "packing",
                                                              "micro_batches", "window")},
            "task": experiment.plain_options(run.options), "tokenizer": run.tokenizer.fingerprint,
            "data_shards": sharding.batch_part(run.mesh)[1] if run.shape.packing else 1, "steps": plan.steps,
            "optimizer": config["optimizer"]}


def check_kept(saved: ml_collections.ConfigDict, now: ml_collections.ConfigDict) -> None:
    """Raises ValueError where a setting differs that a workdir keeps for good: what it holds was made with them."""

    def settings(config: ml_collections.ConfigDict) -> dict[str, Any]:
        values = configuration.plain(config)
        return {"tokenizer": values["tokenizer"], "pretrained": values["pretrained"], "lora": values["lora"],
                "train": {"frozen": values["train"]["frozen"]}}

    if differing := _differing(settings(saved), settings(now)):
        raise ValueError(f"cannot resume: {_told(*differing[0])}; set it back, or use another --workdir")


def changed(began: Mapping[str, Any], now: Mapping[str, Any], allow_data_change: bool = False) -> list[str]:
    """What of the data has changed, a line each, where that is allowed.

    Raises:
      ValueError: something differs that may not; it is named.
    """
    lines = []
    for name, before, value in _differing(began, now):
        line = _told(name, before, value)
        if not any(name == field or name.startswith(f"{field}.") for field in DATA):
            raise ValueError(f"cannot resume: {line}; set it back, or use another --workdir")
        lines.append(line)
    if lines and not allow_data_change:
        raise ValueError(f"cannot resume: {lines[0]}; set it back, use another --workdir, or go on with other data by "
                         "--allow_data_change")
    return lines


def _told(name: str, before: Any, value: Any) -> str:
    return f"{name} was {before!r} when the run began and is {value!r} now"


def _differing(began: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    found: list[tuple[str, Any, Any]] = []
    for name, value in now.items():
        before = began.get(name)
        if isinstance(before, dict) and isinstance(value, dict):
            found += _differing(before, value, f"{prefix}{name}.")
        elif before != value:
            found.append((f"{prefix}{name}", before, value))
    return found


def positions(data: Any, part: int, parts: int) -> list[Any]:
    """Where each part of the data stands: packed, each has its own place."""
    places = dict(json.loads(text) for text in agreement.gathered(json.dumps([part, data.get_state()])))
    return [places[number] for number in range(parts)]


def go_on(data: Any, saved: list[Any], part: int) -> None:
    """Takes up the data where they stood; what is not packed stands at one place, in however many parts."""
    data.set_state(saved[part if part < len(saved) else 0])
