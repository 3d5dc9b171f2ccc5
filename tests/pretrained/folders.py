# SPDX-License-Identifier: Apache-2.0
"""Where the fixtures lie, and a folder in, the one-line error that loading it must give out."""

import pathlib

import pytest

from t5tasks import pretrained

FIXTURES = pathlib.Path(__file__).parent / "fixtures"


def refused(folder, *parts, **arguments):
    with pytest.raises(ValueError) as error:
        pretrained.load(folder, **arguments)
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message
