# SPDX-License-Identifier: Apache-2.0
"""The folder of these tests comes in; tokenizer_folders.py, which they share with the fixtures' script, goes out."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
