# SPDX-License-Identifier: Apache-2.0
"""Batches and a loss in, better parameters and checkpoints out."""
