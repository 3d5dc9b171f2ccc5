# SPDX-License-Identifier: Apache-2.0
"""Predictions and references come in, counts that add up over examples and figures go out."""
