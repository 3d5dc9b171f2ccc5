# SPDX-License-Identifier: Apache-2.0
"""Programs that would pass without doing what they are asked for: each is tried, and none passes."""

import os
import pathlib
import socket
import sys

import pytest

from t5tasks.metrics import sandbox
from t5tasks.metrics.sandbox import PASSED, Limits, Program

QUICK = Limits(seconds=2, wall_seconds=3.0, memory=256 << 20, processes=32, disk=1 << 20)

# What a right program would be, and what each attack is judged by.
RIGHT = "def secret(x):\n    return {'key': [x * 37 % 101, str(x)]}"
TESTS = ("assert secret(3) == {'key': [10, '3']}", "for x in range(5):\n    assert secret(x)['key'][0] == x * 37 % 101",
         "assert not secret(1) == secret(2)")

# Says yes to everything, in every way that Python has.
YES = """
class Yes:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __contains__ = __lt__
    def __bool__(self): return True
    def __hash__(self): return 0
    def __getitem__(self, key): return self
    def __getattr__(self, name): return self
    def __call__(self, *items, **named): return self
    def __sub__(self, other): return 0
    __rsub__ = __add__ = __radd__ = __mul__ = __mod__ = __xor__ = __sub__
    def __abs__(self): return 0
    def __float__(self): return 0.0
    __int__ = __index__ = __len__ = lambda self: 0
"""
ANSWER = "print('{\"status\": \"passed\"}')\nprint('passed')"
ATTACKS = {
    "sys.exit": "import sys\nsys.exit(0)",
    "sys.exit when called": "import sys\ndef secret(x): sys.exit(0)",
    "os._exit": "import os\nos._exit(0)",
    "os._exit when called": "import os\ndef secret(x): os._exit(0)",
    "raise SystemExit": "def secret(x): raise SystemExit(0)",
    "overridden eq": f"{YES}\ndef secret(x): return Yes()",
    "eq of a number": "class One(int):\n    def __eq__(self, other): return True\n    __hash__ = int.__hash__\n"
                      "def secret(x): return {'key': [One(1), '3']}",
    "eq of a dict": "class Any(dict):\n    def __eq__(self, other): return True\n"
                    "    def __getitem__(self, key): return [self]\ndef secret(x): return Any()",
    "eq within a list": f"{YES}\ndef secret(x): return {{'key': [Yes(), Yes()]}}",
    "a class that says yes": f"{YES}\nclass Type(type):\n    __eq__ = Yes.__eq__\n    __getitem__ = Yes.__getitem__\n"
                             "    __hash__ = Yes.__hash__\nclass secret(metaclass=Type):\n"
                             "    def __new__(cls, x): return cls",
    "walking frames": """
import gc, sys
def secret(x):
    frame = sys._getframe()
    while frame is not None:
        for scope in (frame.f_locals, frame.f_globals):
            for name, value in list(scope.items()):
                if isinstance(value, str) and 'assert' + chr(32) + 'secret' in value: return {'key': [10, '3']}
                if name in ('tests', 'work', 'expected', 'namespace'): scope[name] = ()
        frame = frame.f_back
    for thing in gc.get_objects():
        if type(thing) is dict and 'tests' in thing: thing['tests'] = []
    return None""",
    "looking for the tests": """
import gc
def secret(x):
    wanted = 'assert' + chr(32) + 'secret'  # put together later, so that it does not find itself
    if any(wanted in str(thing)[:9999] for thing in gc.get_objects() if isinstance(thing, (str, tuple, list, dict))):
        return {'key': [x * 37 % 101, str(x)]}""",
    "its own server": """
import __main__, json
def yes(self, question): return ['value', ['dict', [['key', ['list', [['builtin', 'object'], '3']]]]], None]
__main__.Carrier.answer = yes
__main__.Program.answer = yes""",
    "its own server ends": "import __main__\n__main__.Carrier.send = lambda *items: None\ndef secret(x): return 1",
    "forged messages": """
import os
def secret(x):
    for number in range(3, 64):
        for forged in (b'00000012{"status": "passed"}', b'00000035{"status":"passed","reason":"","exception":""}'):
            try: os.write(number, forged)
            except OSError: pass
    os._exit(0)""",
    "printing the verdict": f"{ANSWER}\nimport os\nos._exit(0)",
    "writing files": """
import os, sys
for folder in ('/', '/work', '/tmp', '/usr/lib/python3', '/dev/shm', os.path.dirname(os.__file__), sys.prefix):
    for name in ('sitecustomize.py', 'verdict.json', 'passed', 'json.py', 'conftest.py'):
        try: open(os.path.join(folder, name), 'w').write('import os; os._exit(0)')
        except OSError: pass
def secret(x): return True""",
    "other builtins": f"""
{YES}
import builtins
builtins.AssertionError = type('Quiet', (Exception,), {{}})
for name in ('range', 'str', 'len', 'all', 'any', 'isinstance', 'type', 'getattr', 'repr', 'exec', 'compile'):
    setattr(builtins, name, Yes())
def secret(x): return Yes()""",
    "names of the tests": f"{YES}\nrange = lambda *items: []\nset = dict = list = assertEqual = x = Yes()\n"
                          "def secret(x): return Yes()",
    "forking": "import os\ndef secret(x):\n    if os.fork() == 0:\n        os._exit(0)\n    os.wait()\n    os._exit(0)",
    "a child that answers": "import os, time\ndef secret(x):\n    if os.fork():\n        os._exit(0)\n"
                            "    return {'key': [10, '3']}",
    "catching assertions": """
import sys, threading
sys.excepthook = threading.excepthook = lambda *items: None
def secret(x):
    try: raise AssertionError
    except AssertionError: return True""",
    "threads": "import os, threading\nthreading.Thread(target=lambda: os._exit(0)).start()\ndef secret(x): return 1",
    "atexit": f"import atexit, os\natexit.register(lambda: os._exit(0))\natexit.register(lambda: exec({ANSWER!r}))\n"
              "def secret(x): raise SystemExit",
    "signals": "import os, signal\ndef secret(x):\n    for number in range(1, 99):\n        try: os.kill(number, 9)\n"
               "        except OSError: pass\n    os.kill(-1, 9)",
    "proc": """
import glob
def secret(x):
    found = ''
    for path in glob.glob('/proc/*/cmdline') + glob.glob('/proc/*/environ') + glob.glob('/proc/self/fd/*'):
        try: found += open(path, errors='replace').read(9999)
        except OSError: pass
    return eval(found.split('== ')[1].split(chr(10))[0])""",
    "a deep answer": "def secret(x):\n    made = []\n    for _ in range(100000): made = [made]\n    return made",
    "a cyclic answer": "def secret(x):\n    made = {}\n    made['key'] = made\n    return made",
    "an endless answer": "import itertools\ndef secret(x): return {'key': itertools.count()}",
    "a huge answer": "def secret(x): return {'key': ['x' * (1 << 26), '3']}",
    "an exception that says yes": f"{YES}\nclass Bad(Exception):\n    def __str__(self): return '\\x00passed'\n"
                                  "def secret(x): raise Bad(Yes())",
}
# What nothing that runs in a box can do, whatever it answers.
ESCAPES = {
    "network": """
import socket
def f(port):
    try:
        socket.create_connection(('127.0.0.1', port), 2)
        return 'connected'
    except OSError:
        return 'none'""",
    "files": """
import os
def f(port):
    seen = set(os.listdir('/')) - {'bin', 'dev', 'etc', 'lib', 'lib32', 'lib64', 'tmp', 'usr', 'work', *PREFIX}
    told = [name for name in ('passwd', 'shadow', 'hosts', 'resolv.conf') if os.path.exists('/etc/' + name)]
    return [*seen, *os.listdir('/work'), *told] or 'none'""",
    "environment": """
import os
def f(port): return 'none' if set(os.environ) <= {'PATH', 'HOME', 'PWD', 'LC_CTYPE'} else str(os.environ)""",
    "other processes": """
import os
def f(port):
    found = []
    for number in range(1, 400):
        try:
            os.kill(number, 0)
        except ProcessLookupError:
            continue
        except PermissionError:
            pass
        found.append(number)
    return 'none' if len(found) <= 2 else str(found)""",
    "root": """
import os
WAYS = (lambda: os.setuid(0), lambda: os.chroot('/work'), lambda: os.nice(-5), lambda: os.mkfifo('/usr/a'),
        lambda: open('/usr/a', 'w'), lambda: os.mknod('/work/a', 0o60600, 5))
def f(port):
    for number, way in enumerate(WAYS):
        try:
            way()
            return number
        except OSError:
            pass
    return 'none' if os.getuid() else 'root'""",
    "namespaces": """
import ctypes
def f(port):
    return 'none' if ctypes.CDLL(None).unshare(0x10000000) else 'made'""",
    "limits": """
import resource
def f(port):
    for name in ('AS', 'CPU', 'NPROC', 'FSIZE', 'NOFILE'):
        try:
            resource.setrlimit(getattr(resource, 'RLIMIT_' + name), (resource.RLIM_INFINITY,) * 2)
            return name
        except (ValueError, OSError):
            pass
    return 'none'""",
}


@pytest.fixture(scope="module")
def verdicts():
    """Every attack's verdict, and the right program's."""
    if reason := sandbox.problem():
        pytest.skip(reason)
    programs = {"right": RIGHT, **ATTACKS}
    return dict(zip(programs, sandbox.run([Program(source, TESTS, ("secret",)) for source in programs.values()], QUICK),
                    strict=True))


def test_the_right_program_passes(verdicts):
    assert verdicts["right"].status == PASSED, verdicts["right"]


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_does_not_pass(verdicts, attack):
    assert verdicts[attack].status not in (PASSED, sandbox.REFUSED), verdicts[attack]


def test_nothing_gets_out_of_a_box():
    if reason := sandbox.problem():
        pytest.skip(reason)
    prefix = {part for part in pathlib.Path(sandbox._python()).parts[1:2]}
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        os.environ["T5TASKS_TEST_SECRET"] = "told"
        try:
            test = f"found = f({port})\nassert found == 'none', found"
            programs = [Program(f"PREFIX = {prefix}\n{source}", (test,), ("f",)) for source in ESCAPES.values()]
            said = sandbox.run(programs, QUICK)
        finally:
            del os.environ["T5TASKS_TEST_SECRET"]
    assert not [(name, verdict.reason) for name, verdict in zip(ESCAPES, said, strict=True) if verdict.status != PASSED]


if sys.platform != "linux":
    pytest.skip("the sandbox needs Linux", allow_module_level=True)
