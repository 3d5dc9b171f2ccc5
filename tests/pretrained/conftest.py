# SPDX-License-Identifier: Apache-2.0
"""Nothing comes in; products of full f32 precision go out, which GPUs and TPUs do not take unasked."""

import jax
import pytest


@pytest.fixture(autouse=True)
def full_precision():
    with jax.default_matmul_precision("highest"):
        yield
