# SPDX-License-Identifier: Apache-2.0
"""Plain numbers in, pure functions of parameters out: every transformer of the project."""
