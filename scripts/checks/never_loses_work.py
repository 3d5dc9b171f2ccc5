# SPDX-License-Identifier: Apache-2.0
"""Runs that are killed and stopped come in; a line for each promise of "never loses work", kept or not, goes out.

    python scripts/checks/never_loses_work.py [--kills=20] [--folder=DIR]

A tiny decoder with dropout, packing and accumulation, as one process with eight simulated devices and as two with
four each. `python` must see the package. Exit status 1 where a promise is not kept.

Recorded: not yet run to its end; on 2026-11-23, two cores that many processes shared, it was begun and given up after
its undisturbed run. What was seen otherwise, in tests/verbs and by hand: one process stopped by SIGTERM and by Ctrl-C
(once within an evaluation) and finished is bit-identical to an undisturbed run, and loses no step; two processes, one
of which was sent SIGTERM while step 4 was logged, both ended with 75 and step 5 saved; of two processes, without
a model, of which one was killed, the other's next all-gather failed at once, and without one it was ended after 20.2 s
by missing heartbeats. Killing at random moments, and two processes to the bit, are open.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

CONFIG = '''
def get_config():
    from t5tasks.configuration import defaults
    config = defaults("text_generation")
    config.architecture = "decoder"
    config.data.update(train="builtin:train?size=96", validation="builtin:validation?size=21")
    config.tokenizer.path = {tokenizer!r}
    config.model.update(width=16, heads=2, kv_heads=2, head_size=8, feed_forward=32, decoder_layers=1, dropout=0.1)
    config.batch.update(size=16, length=24, evaluation_size=8, packing=True, micro_batches=2)
    config.train.update(steps={steps}, log_every=1, evaluate_every={every}, checkpoint_every={every})
    config.optimizer.learning_rate = 1e-2
    config.decode.max_new_tokens = 4
    return config
'''
# Every step takes a moment, so that there is one to be killed in; and both processes say when they begin to train.
SLOW = """
import os, sys, time
from t5tasks import command, train
from t5tasks.training import loop

class Slow(loop.Interval):
    def count(self, *arguments):
        super().count(*arguments)
        print("step", file=sys.stderr, flush=True)
        time.sleep(0.1)

loop.Interval = Slow
train.define_flags()
command.run(train.main)
"""
failed = []


def told(promise: str, kept: bool, detail: str = "") -> None:
    """Prints one line of the result."""
    print(f"{'kept  ' if kept else 'BROKEN'} {promise}{f' ({detail})' if detail else ''}", flush=True)
    if not kept:
        failed.append(promise)


def start(folder: pathlib.Path, name: str, processes: int) -> list[subprocess.Popen]:
    """The processes of a run in folder/name."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port = found.getsockname()[1]
    line = [sys.executable, "-c", SLOW, f"--config={folder / 'config.py'}", f"--workdir={folder / name}"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(8 // processes)}
    several = [[], *([f"--coordinator=localhost:{port}", f"--processes={processes}", f"--process={number}"]
                     for number in range(processes))]
    return [subprocess.Popen([*line, *given], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                             text=True)
            for given in (several[1:] if processes > 1 else several[:1])]


def ended(run: list[subprocess.Popen], timeout: float = 600) -> tuple[list[int], list[str]]:
    """Exit statuses and standard errors, once all have ended."""
    said = [process.communicate(timeout=timeout)[1] for process in run]
    return [process.returncode for process in run], said


def until_step(process: subprocess.Popen, steps: int) -> None:
    """Reads what a process says until it has begun so many steps, or ended."""
    assert process.stderr is not None
    while steps and (line := process.stderr.readline()):
        steps -= line == "step\n"


def losses(workdir: pathlib.Path) -> list[tuple]:
    """Step, loss and gradient norm of every line of training: of bit-identical runs the same."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").open()]
    return [(line["step"], line["loss"], line["gradient_norm"]) for line in lines if line["kind"] == "train"]


def bits(workdir: pathlib.Path) -> bytes:
    """All parameters of the latest step."""
    script = ("import sys, pathlib, hashlib, jax, numpy as np\nfrom t5tasks.trained import load\n"
              "tree = load(None, pathlib.Path(sys.argv[1]), 'latest')\n"
              "print(tree.step, hashlib.sha256(b''.join(np.asarray(leaf).tobytes() "
              "for leaf in jax.tree.leaves(tree.parameters))).hexdigest())")
    return subprocess.run([sys.executable, "-c", script, str(workdir)], check=True, capture_output=True,
                          env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8"}).stdout


def straight(folder: pathlib.Path, processes: int) -> tuple[list, bytes]:
    """What an undisturbed run leaves."""
    name = f"straight_{processes}"
    statuses, said = ended(start(folder, name, processes))
    assert statuses == [0] * processes, said
    return losses(folder / name), bits(folder / name)


def stopped(folder: pathlib.Path, processes: int, expected: tuple[list, bytes]) -> None:
    """SIGTERM to one process, to be finished by the same command."""
    name = f"stopped_{processes}"
    run = start(folder, name, processes)
    until_step(run[0], 7)
    asked = time.monotonic()
    run[-1].send_signal(signal.SIGTERM)
    statuses, _ = ended(run)
    took = time.monotonic() - asked
    told(f"SIGTERM, processes: {processes}: exit status 75 within 30 s", statuses == [75] * processes and took < 30,
         f"{took:.1f} s, {statuses}")
    done = max(int(path.name) for path in (folder / name / "checkpoints").iterdir() if path.name.isdigit())
    logged = losses(folder / name)[-1][0]
    told(f"SIGTERM, processes: {processes}: no step is lost", done == logged, f"saved {done}, logged {logged}")
    statuses, _ = ended(start(folder, name, processes))
    told(f"SIGTERM, processes: {processes}: finished, it is bit-identical to an undisturbed run",
         statuses == [0] * processes and (losses(folder / name), bits(folder / name)) == expected)


def killed(folder: pathlib.Path, processes: int, kills: int, expected: tuple[list, bytes]) -> None:
    """SIGKILL at random moments, each time rerun."""
    name, chance, slowest = f"killed_{processes}", random.Random(processes), 0.0
    for _ in range(kills):
        run = start(folder, name, processes)
        until_step(run[0], chance.randint(0, 9))
        time.sleep(chance.random() * 0.3)
        run[-1].kill()
        gone = time.monotonic()
        ended(run)
        slowest = max(slowest, time.monotonic() - gone)
    if processes > 1:
        told("one of two processes is killed: the other ends within 30 s", slowest < 30, f"at most {slowest:.1f} s")
    statuses, _ = ended(start(folder, name, processes))
    told(f"killed {kills} times, processes: {processes}: bit-identical to an undisturbed run",
         statuses == [0] * processes and (losses(folder / name), bits(folder / name)) == expected,
         f"damaged: {len(list((folder / name / 'checkpoints').glob('damaged*')))}")


def refused(folder: pathlib.Path) -> None:
    """A second writer beside a running one."""
    first = start(folder, "written", 1)
    until_step(first[0], 1)
    statuses, said = ended(start(folder, "written", 1))
    told("a second writer on one workdir is refused", statuses == [1] and "is being written by process" in said[0])
    first[0].kill()
    ended(first)
    told("a killed writer leaves no lock", ended(start(folder, "written", 1))[0] == [0])


def main() -> None:
    """All checks, in a new folder that is removed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="of the run of one process; that of two has a quarter")
    parser.add_argument("--folder", type=pathlib.Path, help="where to work; made if missing, kept empty")
    parser.add_argument("--steps", type=int, default=12)
    given = parser.parse_args()
    if given.folder:
        given.folder.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(dir=given.folder))
    try:
        tokenizer = folder / "tokenizer"
        (folder / "config.py").write_text(CONFIG.format(tokenizer="", steps=given.steps, every=3))
        subprocess.run([sys.executable, "-m", "t5tasks.vocabulary", f"--config={folder / 'config.py'}", "--size=330",
                        f"--output={tokenizer}"], check=True, stdout=subprocess.DEVNULL)
        (folder / "config.py").write_text(CONFIG.format(tokenizer=str(tokenizer), steps=given.steps, every=3))
        for processes, kills in ((1, given.kills), (2, given.kills // 4)):
            expected = straight(folder, processes)
            stopped(folder, processes, expected)
            killed(folder, processes, kills, expected)
        refused(folder)
    finally:
        shutil.rmtree(folder)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
