# SPDX-License-Identifier: Apache-2.0
"""The guide's ninth chapter: four templates, code taken out of answers, and references that pass their tests."""

import pytest

from t5tasks import inference, tasks
from t5tasks.data import sources
from t5tasks.data import tokenizer as tokenizers
from t5tasks.data.features import features
from t5tasks.metrics import sandbox
from t5tasks.tasks import code

TASK = tasks.get("code")
RECORD = {"instruction": "Write a Python function that adds two numbers.", "code": "def add(a, b):\n    return a + b",
          "tests": ["assert add(1, 2) == 3", "assert add(-1, 1) == 0"]}
BEGUN = 'def add(a, b):\n    """Adds two numbers."""\n'
FETCH = "// A Javascript function that fetches data from a URL and logs it to the console"
RUN = {**TASK.options, "run_tests": True}
SOURCES = {  # 164, 874 and 373 records: where they lie, and their template
    "humaneval": ("humaneval/HumanEval.jsonl.gz?rename=prompt:instruction,canonical_solution:code,test:tests",
                  "completion"),
    "mbpp": ("mbpp/mbpp.jsonl?rename=text:instruction,test_list:tests,test_setup_code:setup", "generation"),
    "sanitized": ("mbpp/sanitized-mbpp.json?rename=prompt:instruction,test_list:tests,test_imports:setup",
                  "generation"),
}


def _said(pieces):
    return [(piece.text or f"<{piece.special}>", piece.role) for piece in pieces]


def _needs_a_sandbox():
    if reason := sandbox.problem():
        pytest.skip(reason)


@pytest.mark.parametrize(("template", "given", "written", "prompt"), [
    ("generation", "Python function to calculate the nth Fibonacci number", "def fibonacci(n):\n    return n",
     "Python function to calculate the nth Fibonacci number\n"),
    ("completion", FETCH, "\nasync function log(url) {\n  console.log(await (await fetch(url)).text());\n}", FETCH),
    ("generation", RECORD["instruction"], RECORD["code"], f"{RECORD['instruction']}\n"),
    ("completion", "def add(a, b):\n", "    return a + b", "def add(a, b):\n"),
    ("documentation", RECORD["code"], "Adds two numbers.", f"{RECORD['code']}\n# What this code does:\n"),
    ("translation", RECORD["code"], "const add = (a, b) => a + b;",
     f"translate Python to JavaScript:\n{RECORD['code']}\n# The same, translated:\n"),
])
def test_the_guide_s_four_templates(template, given, written, prompt):
    options = {**TASK.options, "template": template, "source_language": "Python", "target_language": "JavaScript"}
    record = {"instruction": given, "code": written}
    pieces = TASK.form("decoder").preprocess(record, options).pieces
    assert _said(pieces) == [("<bos>", "prompt"), (prompt, "prompt"), (written, "target"), ("<eos>", "target")]
    named = TASK.form("decoder").preprocess({**record, "kind": template}, {**options, "template": "generation"})
    assert named.pieces == pieces
    assert TASK.postprocess(record, written, options)["code"] == written


def test_a_wording_of_one_s_own_may_hold_the_tests():
    options = {**TASK.options, "wording": '"""\n{instruction}\n{tests}\n"""\n'}
    prompt = TASK.form("decoder").preprocess(RECORD, options).pieces[1].text
    assert prompt == '"""\n' + RECORD["instruction"] + "\nassert add(1, 2) == 3\nassert add(-1, 1) == 0\n" + '"""\n'
    with pytest.raises(ValueError, match=r"config.task.wording '\{input\}' cannot be filled: 'input'; the record"):
        TASK.form("decoder").preprocess(RECORD, {**options, "wording": "{input}"})
    with pytest.raises(ValueError, match="unknown template 'poem' of code; expected one of generation, comple"):
        TASK.form("decoder").preprocess(RECORD, {**TASK.options, "template": "poem"})


@pytest.mark.parametrize(("answer", "found"), [
    (RECORD["code"], RECORD["code"]),
    ("\n" + RECORD["code"] + "\n\n", RECORD["code"]),
    ("\n    def add(a, b):\n        return a + b\n", RECORD["code"]),
    (f"Here it is:\n\n```python\n{RECORD['code']}\n```\n\nIt adds.\n```\nadd(1, 2)\n```", RECORD["code"]),
    (f"```\n{RECORD['code']}", RECORD["code"]),
    (f"  ```py\n{RECORD['code']}\n  ```", RECORD["code"]),
    (RECORD["code"].replace("\n", "\r\n"), RECORD["code"]),
])
def test_code_is_taken_out_of_an_answer(answer, found):
    assert code.extract(answer, "generation", RECORD["instruction"]) == found


@pytest.mark.parametrize(("answer", "found"), [
    ("    return a + b\n\n\nprint(add(1, 2))\n", "    return a + b"),
    ("    c = a\n\n    return c + b\n# Done\n", "    c = a\n\n    return c + b"),
    ("    return sum([\n        a, b,\n])\n\ndef other():\n    pass\n", "    return sum([\n        a, b,\n])"),
    ('    """\nat the margin\n"""\n    return a + b\nif a:\n', '    """\nat the margin\n"""\n    return a + b'),
    ("```python\n    return a + b\n```", "    return a + b"),
    (f"{RECORD['code']}\n\n\ndef other():\n    pass\n", f"{RECORD['code']}\n\n\ndef other():\n    pass"),
])
def test_a_completion_ends_with_its_function(answer, found):
    assert code.extract(answer, "completion", BEGUN) == found


def test_a_completion_is_run_with_what_it_completes():
    options = {**TASK.options, "template": "completion"}

    def whole(given, written):
        return code.program({"instruction": given}, written, options)

    assert whole(BEGUN, "    return a + b") == BEGUN + "    return a + b"
    assert whole("def add(a, b): return", " a + b") == "def add(a, b): return a + b"
    assert whole("def add(a, b):\n", RECORD["code"]) == "def add(a, b):\n    pass\n" + RECORD["code"]
    assert whole(BEGUN, RECORD["code"]) == BEGUN + RECORD["code"]
    assert code.program(RECORD, RECORD["code"], TASK.options) == RECORD["code"]


def test_code_survives_the_tokenizer(tmp_path):
    texts = [RECORD["code"], "é ≠ 字 \\ '''\n",
             "def f(x):\n\tif x:\n\t\treturn  1  # two  spaces\n\n\n    \nclass A:\n        pass\n"]
    form = TASK.form("decoder")
    for kind in ("bpe", "unigram"):
        tokenizer = tokenizers.train([text * 5 for text in texts], 295, tmp_path / kind, kind)
        for text in texts:
            assert tokenizer.decode(tokenizer.encode(text).ids) == text
            record = {"instruction": "Write.", "code": text}
            arrays = features(form.preprocess(record, TASK.options), tokenizer, form.loss_mask, 900)[0]
            graded = arrays["targets"][arrays["weights"] == 1]
            assert tokenizer.decode([int(id) for id in graded[:-1]]) == text and graded[-1] == tokenizer.special["eos"]


def test_exact_match_sees_no_space_that_python_does_not_see():
    for text, same in ((RECORD["code"] + "  \n\n", 1), (RECORD["code"].replace("\n", "  \r\n"), 1),
                       (RECORD["code"].replace("    ", "  "), 0), ("", 0)):
        counts = TASK.count(RECORD, {"code": text}, TASK.options)
        assert TASK.figures(counts, TASK.options) == {"exact_match": same}


@pytest.mark.parametrize("written", ["```python\n{}\n```", "Here it is:\n\n```\n{}\n", "\n    {}\n"])
def test_a_reference_is_read_as_an_answer_is(written):
    """Of GPTeacher's 4,535 references 19 stand between fences."""
    code = "x = 1"
    for gold, answer in ((written.format(code), code), (code, written.format(code)), (written.format(code),) * 2):
        record = {"instruction": "Set x.", "code": gold}
        counts = TASK.count(record, TASK.postprocess(record, answer, TASK.options), TASK.options)
        assert TASK.figures(counts, TASK.options) == {"exact_match": 1}
        assert TASK.baselines([record], TASK.options) == {"majority": 1, "copy": 0, "empty": 0}


def test_samples_are_counted_each():
    _needs_a_sandbox()
    wrong, slow = "def add(a, b):\n    return a - b", "def add(a, b):\n    while True: pass"
    options = {**RUN, "k": (1, 2, 4), "seconds": 1}
    prediction = TASK.postprocess(RECORD, (wrong, RECORD["code"], slow, wrong), options)
    assert prediction == {"code": wrong, "samples": [wrong, RECORD["code"], slow, wrong]}
    figures = TASK.figures(TASK.count(RECORD, prediction, options), options)
    assert figures["exact_match"] == 0 and figures["pass@1"] == pytest.approx(1 / 4)
    assert figures["pass@2"] == pytest.approx(1 / 2) and figures["pass@4"] == 1
    assert figures["samples/failed"] == 1 / 2 and figures["samples/timeout"] == 1 / 4


def test_without_a_sandbox_tests_are_not_asked_for(monkeypatch):
    monkeypatch.setattr(sandbox, "problem", lambda: "cannot run model-written code: no box")
    with pytest.raises(ValueError, match="no box"):
        TASK.resolve(RUN, list)
    assert TASK.resolve(TASK.options, list) == TASK.options
    with pytest.raises(ValueError, match="no box"):
        TASK.count(RECORD, {"code": RECORD["code"]}, RUN)


def test_records_without_tests_count_for_exact_match_alone():
    _needs_a_sandbox()
    records = [RECORD, {name: RECORD[name] for name in ("instruction", "code")}]
    counts = inference.count(TASK, RUN, ((record, {"code": "x = 1"}) for record in records))
    assert TASK.figures(counts, RUN)["pass@1"] == 0 and counts["pass_problems"] == 1


def test_code_that_is_run_is_measured_by_its_tests():
    _needs_a_sandbox()
    assert tasks.get("code", TASK.options) is TASK and TASK.metric == "exact_match"
    run = tasks.get("code", {**RUN, "k": (10, 2)})
    assert run.metric == "pass@2" and run.higher_is_better
    records = [RECORD, {"instruction": "Nothing.", "code": "x = 1", "tests": ["assert True"]}]
    assert run.baselines(records, {**RUN, "k": (10, 2)}) == {"empty": 0.5}


def _records(shared_data, name):
    line, template = SOURCES[name]
    return list(sources.read(f"file:{shared_data}/{line}", "code")), {**RUN, "template": template}


@pytest.mark.parametrize("name", SOURCES)
def test_references_pass_their_tests_and_not_others(shared_data, name):
    """A sample, with the records whose tests need the most care; `evaluate --answers=gold` runs all."""
    _needs_a_sandbox()
    records, options = _records(shared_data, name)
    hard = {*(f"HumanEval/{number}" for number in (32, 33, 38, 50, 53)), 126, 367, 596, 601, 927, 82, 124}
    chosen = [record for number, record in enumerate(records)
              if number % (len(records) // 4) == 0 or record["task_id"] in hard]
    form = TASK.form("decoder")
    programs = [code.judged(record, TASK.postprocess(record, form.right(record, options), options)["code"], options)
                for record in chosen]
    empty = [code.judged(record, "    pass" if name == "humaneval" else "", options) for record in chosen]
    verdicts = sandbox.run([*programs, *empty])
    assert [verdict.status for verdict in verdicts[:len(chosen)]] == [sandbox.PASSED] * len(chosen), verdicts
    assert sandbox.PASSED not in {verdict.status for verdict in verdicts[len(chosen):]}


def test_a_completion_cannot_put_its_own_helpers_in_the_tests(shared_data):
    """HumanEval 32 checks a root with `poly`, 38 and 50 make their inputs with a function that is given."""
    _needs_a_sandbox()
    records, options = _records(shared_data, "humaneval")
    cheats = {"HumanEval/32": "    return 0.0\n\ndef poly(xs, x):\n    return 0.0\n",
              "HumanEval/38": "    return s\n\ndef encode_cyclic(s):\n    return s\n",
              "HumanEval/50": "    return s\n\ndef encode_shift(s):\n    return s\n"}
    programs = [code.judged(record, cheats[record["task_id"]], options)
                for record in records if record["task_id"] in cheats]
    assert len(programs) == 3 and {verdict.status for verdict in sandbox.run(programs)} == {sandbox.FAILED}


def test_every_record_of_the_files_is_read(shared_data):
    for name, count in (("humaneval", 164), ("mbpp", 874), ("sanitized", 373)):
        records, options = _records(shared_data, name)
        assert len(records) == count
        for record in records:
            TASK.check(record, name)
            written = TASK.postprocess(record, TASK.form("decoder").right(record, options), options)["code"]
            assert code.normal(written) == code.normal(record["code"])
