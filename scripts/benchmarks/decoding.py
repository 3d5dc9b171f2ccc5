# SPDX-License-Identifier: Apache-2.0
"""Random weights in; a table out: our decoding beside transformers' `generate` and CTranslate2, on a CPU.

    python scripts/benchmarks/decoding.py --peer=PYTHON [--shape=t5,decoder] [--methods=greedy,nucleus,beam]
        [--batch=1,16] [--threads=1,2] [--rounds=5] [--weights=full,int8]

PYTHON is an interpreter with torch, transformers and ctranslate2 (`decoding_peer.py`); without one, ours
runs alone. All run the same weights in f32: T5-small's shape (6 + 6 layers, 512 wide, vocabulary 32,128) and
a decoder of 30 million parameters; 256 prompt tokens, 128 new ones, EOS off, nucleus 0.9, 4 beams.

Each contestant is a process of its own that lives through all rounds, pinned to as many cores as it has
threads; they take turns, one call at a time, so that what else the machine does falls on all of them.
A call begins with the prompts' ids and ends with the new ones: encoding and prefill are in it. Compiling and
loading from the persistent cache are outside, and told apart, as is our peak of memory above what Python and JAX take.
"""

import argparse
import contextlib
import ctypes
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

PROMPT, NEW, BEAMS, NUCLEUS = 256, 128, 4, 0.9
OURS, TRANSFORMERS, CTRANSLATE2 = "ours", "transformers", "ctranslate2"
CACHES = ("dynamic", "static")


class Worker:
    """A process that runs one request at a time and says how long it took."""

    def __init__(self, command: list[str], threads: int, environment: dict[str, str] | None = None) -> None:
        available = sorted(os.sched_getaffinity(0))
        cores = set(available[-threads:])  # the first core answers interrupts
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)} | (environment or {}),
            preexec_fn=lambda: os.sched_setaffinity(0, cores))
        self._answer()

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to a request."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args[:3]} ended without an answer")  # type: ignore[index]
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def serve(folder: pathlib.Path) -> None:
    """Our side: answers requests from stdin, in this process."""
    import jax
    import jax.monitoring
    import jax.numpy as jnp
    import numpy as np

    from t5tasks import decode, pretrained
    from t5tasks.models.model import Model

    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    programs: list[float] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: programs.append(seconds) if "backend_compile" in event else None)
    jax.devices()
    own = resident("VmRSS")
    held: dict[tuple[int, str], Any] = {}
    model = Model(pretrained.read_config(folder / "transformers"))
    encodes = model.config.architecture == "encoder_decoder"
    start = jax.jit(model.start, static_argnums=(1, 2))
    eos = np.zeros(0, np.int32)

    def prepare(rows: int, weights: str) -> Any:
        if (rows, weights) not in held:
            held.clear()
            loaded = pretrained.load(folder / "transformers")
            held[rows, weights] = jax.block_until_ready(model.prepared(loaded.parameters, rows, weights, consume=True))
        return held[rows, weights]

    def run(parameters: Any, prompts: list[list[int]], method: str, new_tokens: int) -> np.ndarray:
        rows, ids = len(prompts), np.asarray(prompts, np.int32)
        tokens = np.zeros((rows, 1), np.int32) if encodes else ids
        cache = start(parameters, rows, tokens.shape[1] + new_tokens, {"source_tokens": ids} if encodes else None)
        lengths = np.full(rows, tokens.shape[1], np.int32)
        arguments = (model.step, parameters, jnp.asarray(tokens), jnp.asarray(lengths), cache)
        if method == "beam":
            found = decode.search(*arguments, beams=BEAMS, max_new_tokens=new_tokens, length_penalty=1.0,
                                  early_stopping=False, eos=eos, pad=0)
            return np.asarray(found.tokens)[:, 0]
        settings = decode.settings(rows, **({"temperature": 1.0, "top_p": NUCLEUS} if method == "nucleus" else {}))
        return np.asarray(decode.generate(*arguments, settings, decode.keys(range(rows)), max_new_tokens=new_tokens,
                                          eos=eos, pad=0).tokens)

    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        rows = len(request["prompts"])
        parameters = prepare(rows * BEAMS if request["method"] == "beam" else rows, request.pop("weights"))
        programs.clear()
        ctypes.CDLL(None).malloc_trim(0)  # what malloc keeps of compiling and loading is not decoding's
        pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        begun = time.perf_counter()
        tokens = run(parameters, **request)
        seconds = time.perf_counter() - begun
        assert tokens.shape[1] == request["new_tokens"]
        print(json.dumps({"seconds": seconds, "programs": len(programs), "peak": resident("VmHWM") - own,
                          "weights": sum(leaf.nbytes for leaf in jax.tree.leaves(parameters)) / 1e6}), flush=True)


def resident(what: str) -> float:
    """Megabytes of this process: VmRSS now, VmHWM at their peak."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


def our_worker(folder: pathlib.Path, threads: int) -> Worker:
    return Worker([sys.executable, __file__, "--serve", str(folder)], threads,
                  {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(folder / f"jax-{threads}")})


def peer_workers(peer: str, names: list[str], folder: pathlib.Path, threads: int) -> dict[str, Worker]:
    script = str(pathlib.Path(__file__).with_name("decoding_peer.py"))
    return {name: Worker([peer, script, "serve", name, str(folder), str(threads)], threads) for name in names}


@contextlib.contextmanager
def stopping(workers: dict[str, Worker]) -> Iterator[dict[str, Worker]]:
    try:
        yield workers
    finally:
        for worker in workers.values():
            worker.stop()


def prompts(rows: int, vocabulary: int) -> list[list[int]]:
    import numpy as np

    return np.random.default_rng(1).integers(3, vocabulary, size=(rows, PROMPT)).tolist()


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):5.2f} ({min(values):.2f} to {max(values):.2f})"


def compare(folder: pathlib.Path, shape: str, threads: int, weights: str, arguments: argparse.Namespace) -> None:
    """Prints the lines of one shape and thread count."""
    peers = [name for name in arguments.peers if arguments.peer and (shape == "t5" or name == TRANSFORMERS)]
    if weights == "int8":  # transformers has none for a CPU
        peers = [f"{name}-int8" for name in peers if name == CTRANSLATE2]
    cases = list(itertools.product(arguments.batch, arguments.methods))
    vocabulary = json.loads((folder / "transformers" / "config.json").read_text())["vocab_size"]

    def request(rows: int, method: str, **more: str) -> dict[str, Any]:
        return {"prompts": prompts(rows, vocabulary), "method": method, "new_tokens": NEW, **more}

    compiled = {}
    with stopping({OURS: our_worker(folder, threads)}) as cold:  # fills the persistent cache
        for case in cases:
            compiled[case] = cold[OURS].ask(**request(*case, weights=weights))
    with stopping({OURS: our_worker(folder, threads)}
                  | peer_workers(arguments.peer, peers, folder, threads)) as workers:
        for rows, method in cases:
            asked = {name: request(rows, method, **({"weights": weights} if name == OURS else {"cache": CACHES[0]}))
                     for name in workers}
            first = workers[OURS].ask(**asked[OURS])
            if TRANSFORMERS in workers:  # the best of its caches
                tries = {cache: [workers[TRANSFORMERS].ask(**request(rows, method, cache=cache))["seconds"]
                                 for _ in range(1 + (rows == 1))] for cache in CACHES}
                asked[TRANSFORMERS]["cache"] = min(tries, key=lambda cache: min(tries[cache]))
            for name in peers:
                if name != TRANSFORMERS:
                    workers[name].ask(**asked[name])
            rounds = [{name: workers[name].ask(**asked[name]) for name in workers} for _ in range(arguments.rounds)]
            seconds = {name: [answers[name]["seconds"] for answers in rounds] for name in workers}
            line = f"{shape:8} {weights:5} {threads} {rows:3} {method:8}"
            for name in (OURS, *peers):
                line += f" {rows * NEW / statistics.median(seconds[name]):7.0f}"
            for name in peers:
                line += "   " + spread([each[name]["seconds"] / each[OURS]["seconds"] for each in rounds])
            steady = statistics.median(seconds[OURS])
            again = sum(answers[OURS]["programs"] for answers in rounds)
            print(f"{line}   compile {compiled[rows, method]['seconds'] - steady:.1f} s, cached "
                  f"{first['seconds'] - steady:.2f} s, recompiled {again}, "
                  f"peak {rounds[-1][OURS]['peak']:.0f} MB, of it weights {first['weights']:.0f} MB"
                  + (f"   {asked[TRANSFORMERS]['cache']}" if TRANSFORMERS in peers else ""), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words = lambda text: text.split(",")  # noqa: E731
    numbers = lambda text: [int(part) for part in text.split(",")]  # noqa: E731
    parser.add_argument("--peer", help="an interpreter with torch, transformers and ctranslate2")
    parser.add_argument("--peers", type=words, default=[TRANSFORMERS, CTRANSLATE2])
    parser.add_argument("--shape", type=words, default=["t5", "decoder"])
    parser.add_argument("--methods", type=words, default=["greedy", "nucleus", "beam"])
    parser.add_argument("--batch", type=numbers, default=[1, 16])
    parser.add_argument("--threads", type=numbers, default=[1, 2])
    parser.add_argument("--weights", type=words, default=["full"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=pathlib.Path, help="where the models lie or are made; else a temporary one")
    parser.add_argument("--serve", type=pathlib.Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
        return
    print("tokens a second of all rows; their time over ours as median (minimum to maximum) of the rounds")
    with tempfile.TemporaryDirectory() as temporary:
        for shape in arguments.shape:
            folder = (arguments.folder or pathlib.Path(temporary)) / shape
            if not (folder / "transformers").exists():
                script = str(pathlib.Path(__file__).with_name("decoding_peer.py"))
                subprocess.run([arguments.peer, script, "make", shape, str(folder)], check=True, stdout=sys.stderr)
            for threads, weights in itertools.product(arguments.threads, arguments.weights):
                compare(folder, shape, threads, weights, arguments)


if __name__ == "__main__":
    main()
