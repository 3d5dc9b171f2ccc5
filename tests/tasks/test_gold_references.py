# SPDX-License-Identifier: Apache-2.0
"""Every config for a public data set comes in; its references, scored as if a model had written them, are perfect.

The files of a config stand beside the checkout. `python -m t5tasks.evaluate --config=FILE --answers=gold` does the
same with all of its records; what it gives stands in each config.
"""

import itertools
import pathlib
import re

import pytest

from t5tasks import configuration, evaluate, index, tasks
from t5tasks.data import sources
from t5tasks.metrics import sandbox

CHECKOUT = pathlib.Path(__file__).parents[2]
CONFIGS = {path.stem: path for path in sorted((CHECKOUT / "configs").glob("*.py"))
           if "../shared/data" in path.read_text("utf-8") and not path.stem.endswith("_full")}  # same data
PARAGRAPHS = "file:../shared/data/xquad/xquad.en.json.gz?format=squad&columns=context&rename=context:text"
RECORDS = 12  # of each data set; fewer where tests are run, more where every label has to be among them
LABELLED = ("classification", "nli", "ner")
OUT_OF_100 = r"rouge.*|bleu|bleu_precision_.*|chrf"
# Counted by themselves: of the data, not of the answers.
DATA = r"majority_baseline|.*_threshold|bleu_(brevity_penalty|length_ratio)|samples/.*|people_cider"


def _slice(source: str, records: int) -> str:
    """The source's line with that many records at most, from where it begins."""
    line = re.sub(r"([?&])limit=\d+&?", r"\1", source).rstrip("?&")
    return f"{line}{'&' if '?' in line else '?'}limit={records}"


def _perfect(name: str) -> float:
    if re.fullmatch(OUT_OF_100, name):
        return 100.0
    return 0.0 if name == "expected_calibration_error" else 1.0


@pytest.mark.parametrize("name", CONFIGS)
def test_references_reach_what_the_metric_gives_at_most(name, shared_data, monkeypatch, tmp_path):
    monkeypatch.chdir(CHECKOUT)
    config = configuration.read(str(CONFIGS[name]))
    if config.task.get("index"):  # that of its docstring, with fewer paragraphs
        config.task.index = str(tmp_path / "index")
        paragraphs = index.open_index(config.task.index, create=True)
        with paragraphs.store:
            index.take_in(paragraphs, f"{PARAGRAPHS}&limit=60")
    run_tests = config.task.get("run_tests", False)
    if run_tests and (reason := sandbox.problem()):
        pytest.skip(reason)
    records = 3 if run_tests else 2500 if config.task.name in LABELLED else RECORDS
    config.data.test = _slice(config.data.test or config.data.validation, records)
    said = evaluate.evaluate_gold(config)
    figures = {name: value for name, value in said["figures"].items() if not re.fullmatch(DATA, name)}
    if "cider" in figures:  # of several captions none is all of them; but it is one of them, as other people's are not
        assert figures.pop("cider") > said["figures"]["people_cider"] > 0
    assert figures and {name: pytest.approx(_perfect(name)) for name in figures} == figures
    assert max(said["baselines"].values(), default=0.0) < _perfect(said["metric"])


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_asked_in_one_split_is_not_in_another(name, shared_data, monkeypatch):
    """Save for what people say twice: 1 % of Taskmaster's short conversations, 3 % of WikiANN's headings, 4 tasks."""
    monkeypatch.chdir(CHECKOUT)
    config = configuration.read(str(CONFIGS[name]))
    lines = [line for line in (config.data.train, config.data.validation, config.data.test) if line]
    if len(set(lines)) == 1:
        pytest.skip("the data set is for scoring alone")
    task = tasks.get(config.task.name, config.task)
    asked = [{repr({field: value for field, value in record.items() if field not in task.targets})
              for record in sources.load(line, task.name, task.pictures)} for line in lines]
    for one, other in itertools.combinations(asked, 2):
        shared = one & other
        assert len(shared) <= max(4, 0.03 * len(other)), f"{name}: {len(shared)} of {len(other)}: {min(shared):.200}"
