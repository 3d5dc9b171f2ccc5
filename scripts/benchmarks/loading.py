# SPDX-License-Identifier: Apache-2.0
"""A synthetic 1 GB Llama folder in; how long `pretrained.load` takes beside `safetensors.numpy.load_file` out.

    python scripts/benchmarks/loading.py [--dtype=F32] [--repetitions=5] [--folder=PLACE]

Each measurement is a process of its own and begins when imports are done and the devices are awake;
the three kinds take turns, with the files in the page cache: load_file (NumPy arrays as they lie),
load on one device, and load on eight simulated CPU devices as a mesh of fsdp 2 x tensor 4. Both
loads bring every number into f32 and turn most weights over; of a BF16 folder they write 2 GB.

On two cores of an otherwise idle AMD EPYC, 2026-11-23: times load_file's, as minimum, median and
maximum of 5 repetitions (BF16: 3).

    environment              folder  one device          2x4 mesh            load_file's median
    scripts/environment.sh   F32     1.19  1.20  1.24    1.22  1.26  1.28    0.54 s
    none                     F32     1.40  1.45  1.63    1.44  1.49  1.64    0.47 s
    none                     BF16    2.50  2.64  2.80    2.60  2.71  2.98    0.52 s

Peak memory, of which 0.35 GB is Python and JAX: F32 1.35 GB (load_file 2.13 GB, the mapped file
included), BF16 2.24 GB.
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

KINDS = ("load_file", "one device", "2x4 mesh")
WIDTH, FEED_FORWARD, HEADS, KV_HEADS, HEAD_SIZE, VOCABULARY = 1536, 4096, 12, 4, 128, 32000
LAYERS = {"F32": 6, "BF16": 16}  # which make 1.0 GB each


def make(folder: pathlib.Path, dtype: str) -> None:
    """Writes config.json and model.safetensors with random weights."""
    import ml_dtypes
    import numpy as np
    import safetensors.numpy

    kind = np.dtype(np.float32) if dtype == "F32" else np.dtype(ml_dtypes.bfloat16)
    noise = np.random.default_rng(0).standard_normal(VOCABULARY * WIDTH, np.float32).astype(kind)
    queries, keys = HEADS * HEAD_SIZE, KV_HEADS * HEAD_SIZE
    shapes = {"model.embed_tokens.weight": (VOCABULARY, WIDTH), "lm_head.weight": (VOCABULARY, WIDTH),
              "model.norm.weight": (WIDTH,)}
    for layer in range(LAYERS[dtype]):
        for name, shape in {
            "self_attn.q_proj": (queries, WIDTH), "self_attn.k_proj": (keys, WIDTH), "self_attn.v_proj": (keys, WIDTH),
            "self_attn.o_proj": (WIDTH, queries), "mlp.gate_proj": (FEED_FORWARD, WIDTH),
            "mlp.up_proj": (FEED_FORWARD, WIDTH), "mlp.down_proj": (WIDTH, FEED_FORWARD),
            "input_layernorm": (WIDTH,), "post_attention_layernorm": (WIDTH,),
        }.items():
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
    safetensors.numpy.save_file({name: noise[:np.prod(shape)].reshape(shape) for name, shape in shapes.items()},
                                folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": WIDTH,
        "intermediate_size": FEED_FORWARD, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_SIZE, "num_hidden_layers": LAYERS[dtype], "vocab_size": VOCABULARY,
        "tie_word_embeddings": False}))


def measure(folder: pathlib.Path, kind: str) -> None:
    """Prints seconds and peak resident megabytes of one kind of loading, in this process."""
    import jax
    import safetensors.numpy

    from t5tasks import pretrained, sharding

    mesh = sharding.make_mesh(1, 2, 4) if kind == "2x4 mesh" else None
    jax.devices()
    start = time.perf_counter()
    if kind == "load_file":
        held = safetensors.numpy.load_file(folder / "model.safetensors")
    else:
        held = jax.block_until_ready(pretrained.load(folder, mesh=mesh).parameters)
    seconds = time.perf_counter() - start
    assert held
    scale = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, kibibytes elsewhere
    print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale]))


def run(folder: pathlib.Path, kind: str) -> list[float]:
    """What `measure` prints, from a fresh process."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8" if kind == "2x4 mesh" else "1"}
    done = subprocess.run([sys.executable, __file__, "--folder", str(folder), "--measure", kind],
                          env=environment, check=True, capture_output=True, text=True)
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found


def spread(values: list[float], unit: str) -> str:
    return f"min {min(values):.2f}{unit}, median {statistics.median(values):.2f}{unit}, max {max(values):.2f}{unit}"


def compare(folder: pathlib.Path, repetitions: int) -> None:
    """Prints the times of each kind, and their ratios to load_file's of the same repetition."""
    run(folder, "load_file")  # the page cache is warm from here on
    # Each kind comes first in turn: a system hands memory out faster that a process has just given back.
    orders = [KINDS[number % 3:] + KINDS[:number % 3] for number in range(repetitions)]
    found = [{kind: run(folder, kind) for kind in order} for order in orders]
    for kind in KINDS:
        print(f"{kind:10}  seconds: {spread([each[kind][0] for each in found], ' s')}; "
              f"peak memory: {max(each[kind][1] for each in found):.0f} MB")
    for kind in KINDS[1:]:
        print(f"{kind:10}  ratio to load_file: {spread([each[kind][0] / each[KINDS[0]][0] for each in found], 'x')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, help="where the folder lies or is made; else a temporary one")
    parser.add_argument("--dtype", choices=LAYERS, default="F32")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--measure", choices=KINDS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.folder, arguments.measure)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "config.json").exists():
            make(folder, arguments.dtype)
        compare(folder, arguments.repetitions)


if __name__ == "__main__":
    main()
