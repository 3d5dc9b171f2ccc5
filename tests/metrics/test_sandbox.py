# SPDX-License-Identifier: Apache-2.0
"""Right programs pass, wrong ones do not, and what crosses between a program and its tests arrives as it was."""

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from t5tasks.metrics import sandbox
from t5tasks.metrics.sandbox import FAILED, MEMORY, PASSED, REFUSED, TIMEOUT, Limits, Program

QUICK = Limits(seconds=1, wall_seconds=3.0, memory=128 << 20, processes=16, disk=1 << 20)


@pytest.fixture
def box():
    """Skips where no program can be run, with the reason."""
    if reason := sandbox.problem():
        pytest.skip(reason)


def judged(*cases, limits=QUICK):
    """The statuses of (source, tests, names)."""
    return sandbox.run([Program(source, tuple(tests.split("\n\n")), names) for source, tests, names in cases], limits)


# Tests that one program passes and that fail as soon as a value changes on its way.
CARRIED = """
import collections, dataclasses, decimal, fractions
def same(value): return value
def kind(value): return type(value).__name__
def counter(text): return collections.Counter(text)
def default(): return collections.defaultdict(int, a=1)
def keys(): return {"a": 1}.keys()
def words(): return (word for word in ["a", "b"])
def push(items): items.append(4); items[0].append(9)
def apply(function, *items, **named): return [function(item, **named) for item in items]
def total(items): return sum(items)
def fail(text): raise KeyError(text, 3)
def power(): return 3 ** 9000
class Node:
    def __init__(self, value): self.value, self.next = value, None
    def __len__(self): return 7
    def last(self): return self if self.next is None else self.next.last()
class Bad(ValueError): pass
def bad(): raise Bad("no")
Pair = collections.namedtuple("Pair", "left right")
@dataclasses.dataclass
class Point:
    x: int
    y: "int" = 2
class Stack(list):
    def push(self, item): self.append(item)
"""
CARRIED_TESTS = r"""
for value in (None, True, 0, -3, 2**60, -2**4000, 1.5, 1e308, float("inf"), "é\ud800\n\0", b"\x00\xff", (), [],
              {}, set(), [1, (2, {"a": {3}}), [None]], {1: "a", (2, 3): [4]}, frozenset([1]), 1 + 2j, range(2, 9, 3),
              bytearray(b"a")):
    assert same(value) == value and type(same(value)) is type(value) and kind(value) == type(value).__name__

assert same(float("nan")) != same(float("nan"))

import collections, datetime, decimal, fractions
for value in (collections.OrderedDict([(2, 1), (1, 2)]), collections.deque([1], 3), decimal.Decimal("1.10"),
              fractions.Fraction(1, 3), datetime.date(2020, 2, 3), datetime.timedelta(1, 2, 3),
              collections.Counter("aab")):
    assert repr(same(value)) == repr(value)

assert counter("aab") == {"a": 2, "b": 1} and type(counter("a")) is collections.Counter

assert default() == {"a": 1} and keys() == {"a"} and power() == 3 ** 9000

assert list(words()) == ["a", "b"] and next(words()) == "a" and [*map(str.upper, words())] == ["A", "B"]

inner = [1]
items = [inner, 2]
push(items)
assert items == [[1, 9], 2, 4] and inner == [1, 9]

assert apply(lambda item: item * 2, 1, "a") == [2, "aa"] and apply(len, "ab") == [2] and apply(int, "12", base=3) == [5]

assert total(item for item in (1, 2)) == 3 and total(iter([4])) == 4 and total(map(int, "12")) == 3

try:
    fail("x")
    raise RuntimeError
except KeyError as error:
    assert error.args == ("x", 3)

try:
    bad()
    raise RuntimeError
except Bad as error:
    assert isinstance(error, ValueError) and error.args == ("no",)

root = Node(1)
root.next = Node(2)
assert root.next.value == 2 and root.last().value == 2 and root.last() is root.next and len(root) == 7
assert root.next.next is None
assert root != Node(1) and root == root and isinstance(root, Node) and not isinstance(3, Node)

assert Pair(1, 2) == (1, 2) and (1, 2) == Pair(1, 2) and Pair(1, 2) != (1, 3) and {Pair(1, 2)} == {(1, 2)}

assert Pair(1, 2).left == 1

assert Point(1).y == 2 and str(Point(1)) == "Point(x=1, y=2)" and repr([Point(1)]) == "[Point(x=1, y=2)]"

stack = Stack()
stack.push(3)
assert stack == [3] and stack[0] == 3 and 3 in stack and bool(stack) and not Stack() and sorted(stack) == [3]
"""


def test_values_arrive_as_they_were(box):
    names = ("same", "kind", "counter", "default", "keys", "words", "push", "apply", "total", "fail", "bad", "power",
             "Node", "Bad", "Pair", "Point", "Stack")
    cases = [(CARRIED, test, names) for test in CARRIED_TESTS.strip().split("\n\n")]
    together = judged((CARRIED, CARRIED_TESTS.strip(), names))
    assert together[0].status == PASSED, together
    # Every single assertion can fail: negated, none of them passes.
    wrong = [(source, test.replace("assert ", "assert not (", 1).replace("\n", ")\n", 1) if "\n" in test else
              f"assert not ({test.removeprefix('assert ')})", names) for source, test, names in cases
             if test.startswith("assert") and "\n" not in test]
    assert len(wrong) >= 6 and {verdict.status for verdict in judged(*wrong)} == {FAILED}


def test_a_verdict_says_what_went_wrong(box):
    add = "def add(a, b):\n    return a + b"
    said = judged(
        (add, "assert add(1, 2) == 3\n\nassert add(1, 2) == 4", ("add",)),
        (add, "assert add(1, 'a') == 3", ("add",)),
        ("def add(a, b)\n", "assert add(1, 2) == 3", ("add",)),
        ("1 / 0", "assert add(1, 2) == 3", ("add",)),
        ("x = 1", "assert add(1, 2) == 3", ("add",)),
        ("def f(x): return x", "class Own: pass\nf(Own())", ("f",)),
    )
    assert [verdict.status for verdict in said] == [FAILED] * 5 + [REFUSED]
    wanted = ("test 2 (assert add(1, 2) == 4): AssertionError", "TypeError", "SyntaxError",
              "the program: ZeroDivisionError", "the program has no add", "passes a Own to the program")
    for verdict, words in zip(said, wanted, strict=True):
        assert words in verdict.reason and "\n" not in verdict.reason


LIMITED = [
    ("def f(): \n    while True: pass", TIMEOUT),
    ("import time\ndef f(): time.sleep(60)", TIMEOUT),
    ("while True: pass", TIMEOUT),
    ("import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\ndef f():\n    while True: pass", TIMEOUT),
    ("def f(): return bytearray(1 << 30)", MEMORY),
    ("def f():\n    kept = []\n    while True: kept.append('x' * 1000000 + str(len(kept)))", MEMORY),
]


def test_limits_end_a_program(box):
    patient = dataclasses.replace(QUICK, wall_seconds=30.0)  # on a busy machine memory fills slowly
    for status, limits in ((TIMEOUT, QUICK), (MEMORY, patient)):
        sources = [source for source, ends in LIMITED if ends == status]
        said = judged(*((source, "assert list(f()) == 1", ("f",)) for source in sources), limits=limits)
        assert [verdict.status for verdict in said] == [status] * len(sources), said
        assert max(verdict.seconds for verdict in said) < 45  # none of them would end in a minute
    (endless,) = judged(("def f():\n    while True: yield 1", "assert list(f()) == 1", ("f",)))
    assert endless.status in (TIMEOUT, FAILED)  # whose time ends first, the program's or its tests'


def test_processes_and_files_are_limited(box):
    forks = """
import os, time
def f():
    made = 0
    try:
        while made < 500:
            if os.fork() == 0:
                time.sleep(60)
            made += 1
    except OSError:
        pass
    return made"""
    disk = """
def f():
    written = 0
    try:
        with open("/work/a", "wb") as first, open("/work/b", "wb") as second:
            while written < 99:
                first.write(bytes(1 << 18)), first.flush(), second.write(bytes(1 << 18)), second.flush()
                written += 1
    except OSError:
        pass
    return written"""
    assert [v.status for v in judged((forks, "assert 0 < f() < 30", ("f",)), (disk, "assert 0 < f() < 5", ("f",)))] == [
        PASSED, PASSED]


def test_nothing_is_left_behind(box):
    before = set(_processes())
    groups = sandbox._cgroup_folders()
    fork = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(600)\ndef f(): return 1"
    assert judged((fork, "assert f() == 1", ("f",)))[0].status == PASSED
    left = [name for number, name in _processes().items() if number not in before and "bwrap" in name]
    assert not left
    for folder in groups[1] if groups else ():
        assert not [entry for entry in folder.iterdir() if entry.name.startswith(f"t5tasks-{os.getpid()}-")]


def _processes():
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                status = (entry / "status").read_text()
                if f"\nPPid:\t{os.getpid()}\n" in status:
                    found[int(entry.name)] = (entry / "cmdline").read_text()
            except OSError:
                continue
    return found


def test_many_programs_keep_their_order(box):
    cases = [(f"def f(): return {number}", f"assert f() == {number - number % 3 % 2}", ("f",)) for number in range(12)]
    assert [verdict.status == PASSED for verdict in judged(*cases)] == [number % 3 != 1 for number in range(12)]


def test_without_bubblewrap_nothing_is_run(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    sandbox.problem.cache_clear()
    try:
        assert "Debian: apt-get install bubblewrap" in sandbox.problem() and "\n" not in sandbox.problem()
        with pytest.raises(ValueError, match="bubblewrap is not installed"):
            sandbox.run([Program("x = 1", (), ())])
    finally:
        sandbox.problem.cache_clear()


def test_a_bubblewrap_that_does_not_work_is_no_sandbox(monkeypatch, tmp_path):
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho bwrap: No permissions to create new namespace >&2\nexit 1\n")
    fake.chmod(0o755)
    tmp_path.chmod(0o755)
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: str(fake) if name == "bwrap" else which(name))
    monkeypatch.setattr(sandbox, "_entry", lambda folders: [])
    for cached in (sandbox.problem, sandbox._box):
        cached.cache_clear()
    try:
        assert "bubblewrap does not work here (bwrap: No permissions to create new namespace)" in sandbox.problem()
    finally:
        for cached in (sandbox.problem, sandbox._box):
            cached.cache_clear()


def test_someone_who_is_not_root_has_the_same_sandbox(box):
    if os.geteuid() != 0:
        pytest.skip("this is not root: every other test shows it")
    if not all(folder.stat().st_mode & 0o001 for folder in pathlib.Path(sandbox.__file__).parents):
        pytest.skip("this checkout is not readable by another user")
    code = ("import importlib.util, sys; found = importlib.util.spec_from_file_location('sandbox', sys.argv[1]); "
            "module = importlib.util.module_from_spec(found); sys.modules['sandbox'] = module; "
            "found.loader.exec_module(module); print(repr(module.problem()), module.describe())")
    python = sandbox._python()
    if subprocess.run([python, "-c", "import sys; sys.exit(sys.version_info < (3, 10))"]).returncode:
        pytest.skip(f"{python} is older than what this project runs on")
    said = subprocess.run([python, "-B", "-c", code, sandbox.__file__], user=65534, group=65534, extra_groups=[], env={
        "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=60)
    assert said.stdout == "'' rlimits of each process only\n", said


def test_groups_of_the_second_version(tmp_path):
    """The files of cgroup v2, whose groups this machine may not have, in a folder that plays them."""
    root, membership = tmp_path / "cgroup", tmp_path / "membership"
    (root / "user" / "session").mkdir(parents=True)
    membership.write_text("0::/user/session\n")
    find = sandbox._cgroup_folders.__wrapped__
    assert find(root, membership) is None  # nothing hands memory.max down
    assert find(root, tmp_path / "absent") is None and list((root / "user" / "session").iterdir()) == []

    real = pathlib.Path.mkdir

    def mkdir(self, *arguments, **named):
        real(self, *arguments, **named)
        if self.parent == root / "user":
            for name in ("memory.max", "memory.swap.max", "pids.max", "cgroup.procs"):
                (self / name).write_text("")

    def rmdir(self):
        shutil.rmtree(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pathlib.Path, "mkdir", mkdir)
        patch.setattr(pathlib.Path, "rmdir", rmdir)
        found = find(root, membership)
        assert found == ("v2", (root / "user",))
        with sandbox._group(QUICK, found) as group:
            folder = group.folders[0]
            assert [(folder / name).read_text() for name in ("memory.max", "memory.swap.max", "pids.max")] == [
                str(128 << 20), "0", "16"]
            assert not group.out_of_memory()
            (folder / "memory.events").write_text("low 0\noom 2\noom_kill 1\n")
            assert group.out_of_memory()
        assert not folder.exists()


def test_without_groups_limits_of_each_process_hold(box, monkeypatch):
    monkeypatch.setattr(sandbox, "_cgroup_folders", lambda: None)
    assert sandbox.describe() == "rlimits of each process only"
    big = "def f():\n    kept = []\n    while True: kept.append('x' * 1000000 + str(len(kept)))"
    said = judged(("def f(): return 1", "assert f() == 1", ("f",)), (big, "assert f() == 1", ("f",)))
    assert [verdict.status for verdict in said] == [PASSED, MEMORY]


def test_limits_are_what_is_asked_for(box):
    source = "import resource\ndef f(): return {n: resource.getrlimit(getattr(resource, 'RLIMIT_' + n)) for n in NAMES}"
    limits = dataclasses.replace(QUICK, seconds=3)
    names = ("CPU", "FSIZE", "NOFILE", "NPROC", "CORE")
    wanted = {"CPU": (3, 4), "FSIZE": (1 << 20,) * 2, "NOFILE": (64,) * 2, "NPROC": (16,) * 2, "CORE": (0, 0)}
    case = (f"NAMES = {names}\n{source}", f"assert f() == {wanted}", ("f",))
    assert judged(case, limits=limits)[0].status == PASSED


if sys.platform != "linux":
    pytest.skip("the sandbox needs Linux", allow_module_level=True)
